"""The register of the SPICE server: it listens, and disconnects each client.

Rules and texts were observed on QEMU 10.0.13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.errors import QMPError
from memd.json_types import JSON
from memd.standin.vnc import check_time

if TYPE_CHECKING:
    from memd.standin.listeners import Listeners

Args = dict[str, Any]
_NAME = "SPICE"
_NOT_THERE = (
    *("gl", "password-secret", "sasl", "tls-channel", "tls-ciphers", "tls-port"),
    *("x509-cacert-file", "x509-cert-file", "x509-dh-key-file", "x509-dir", "x509-key-file"),
    "x509-key-password",
)


class Spice:
    """The SPICE display of a stand-in, if there is one.

    Args:
        listeners: where the server listens.

    Attributes:
        in_use: whether there is one.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._told: dict[str, JSON] = {}
        self.in_use = False

    async def open(self, options: Args) -> None:
        """`-spice`; raises `QMPError`."""
        for name in _NOT_THERE:
            if options.get(name):
                raise QMPError(f"memd has no '{name}' of a SPICE display")
        host, port = options.get("addr"), options.get("port", 0)
        if not 0 <= port <= 65535:
            raise QMPError("spice port is out of range")
        self.in_use = True
        auth = "none" if options.get("disable-ticketing") else "spice"
        self._told = {"auth": auth, "host": host or "*"}
        if port:
            self._told["port"] = port
        if options.get("unix") and host is not None:
            await self._listeners.open(_NAME, {"type": "unix", "path": host})
        elif port:
            await self._listeners.open(
                _NAME, {"type": "inet", "host": host or "", "port": str(port)}
            )

    def query(self, args: object = None) -> JSON:
        """The value of `query-spice`."""
        if not self.in_use:
            return {"enabled": False, "migrated": False, "mouse-mode": "client"}
        told: dict[str, JSON] = {"enabled": True, "migrated": False, "mouse-mode": "server"}
        return {**told, "channels": [], **self._told}

    def set_password(self, args: Args) -> None:
        """`set_password`; raises `QMPError`."""
        self._check_use()
        if self._told["auth"] == "none":
            raise QMPError("Could not set password")

    def expire_password(self, args: Args) -> None:
        """`expire_password`; raises `QMPError`."""
        check_time(args)
        self._check_use()

    def move_clients(self, args: Args) -> None:
        """`client_migrate_info`; raises `QMPError`."""
        if args["protocol"] != "spice":
            raise QMPError("Parameter 'protocol' expects 'spice'")
        self._check_use()
        if "port" not in args and "tls-port" not in args:
            raise QMPError("parameter 'port' or 'tls-port' is required")

    def _check_use(self) -> None:
        if not self.in_use:
            raise QMPError("SPICE is not in use", "DeviceNotActive")
