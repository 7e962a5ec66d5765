"""The register of the SPICE server: it listens, and disconnects each client.

Rules and texts were observed on QEMU 10.0.2 and 10.0.13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.standin.vnc import check_time

if TYPE_CHECKING:
    from memd.standin.listeners import Listeners

_NAME = "SPICE"
_PORTS = {"port": _NAME, "tls-port": f"{_NAME} TLS"}
"""What is listened at, each port by the option that has its number."""


class Spice:
    """The SPICE display of a stand-in, if there is one.

    Args:
        listeners: where the server listens.

    Attributes:
        in_use: whether there is one.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._told: JSONObject = {}
        self.in_use = False

    async def open(self, options: JSONObject) -> None:
        """`-spice`; raises `QMPError`."""
        if options.get("gl"):
            raise QMPError("memd has no 'gl' of a SPICE display")
        host = options.get("addr")
        ports = {option: options[option] for option in _PORTS if options.get(option)}
        for option, port in ports.items():
            if not 0 <= port <= 65535:
                raise QMPError(f"spice {option} is out of range")
        if "password-secret" in options:
            self._listeners.check_secret(options["password-secret"])
        self.in_use = True
        auth = "sasl" if options.get("sasl") else "spice"
        if options.get("disable-ticketing"):
            auth = "none"
        self._told = {"auth": auth, "host": host or "*", **ports}
        if options.get("unix") and host is not None:
            await self._listeners.open(_NAME, {"type": "unix", "path": host})
            return
        for option, port in ports.items():
            address = {"type": "inet", "host": host or "", "port": str(port)}
            await self._listeners.open(_PORTS[option], address)

    def query(self, args: object = None) -> JSON:
        """The value of `query-spice`."""
        if not self.in_use:
            return {"enabled": False, "migrated": False, "mouse-mode": "client"}
        told: JSONObject = {"enabled": True, "migrated": False, "mouse-mode": "server"}
        return {**told, "channels": [], **self._told}

    def set_password(self, args: JSONObject) -> None:
        """`set_password`; raises `QMPError`."""
        self._check_use()
        if self._told["auth"] != "spice":
            raise QMPError("Could not set password")

    def expire_password(self, args: JSONObject) -> None:
        """`expire_password`; raises `QMPError`."""
        check_time(args)
        self._check_use()

    def move_clients(self, args: JSONObject) -> None:
        """`client_migrate_info`; raises `QMPError`."""
        if args["protocol"] != "spice":
            raise QMPError("Parameter 'protocol' expects 'spice'")
        self._check_use()
        if "port" not in args and "tls-port" not in args:
            raise QMPError("parameter 'port' or 'tls-port' is required")

    def _check_use(self) -> None:
        if not self.in_use:
            raise QMPError("SPICE is not in use", "DeviceNotActive")
