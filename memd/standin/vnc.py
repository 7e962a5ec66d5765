"""The register of the VNC server: it listens, and disconnects each client.

Passwords are checked for what they are given with and kept nowhere. Rules and texts
were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.devices.parts import parts_of
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.numbers import is_integer, parse_unsigned
from memd.qom import Tree

if TYPE_CHECKING:
    from memd.devices.machine import Device
    from memd.standin.listeners import Listeners

_NAME = "VNC"
_WEBSOCKETS = "VNC websocket"
_FIRST_PORT = 5900
_FIRST_WEBSOCKET = 5700
_NOT_THERE = {"reverse", "tls-creds"}
_SECONDS = r"\+?\s*[+-]?[0-9]{1,20}"


_ADAPTER = "vga|gpu|qxl|bochs-display"


def adapters(tree: Tree) -> Iterator[Device]:
    """The display adapters, the machine's own first."""
    for each in parts_of(tree.machine):
        if re.search(_ADAPTER, each.qom_type.name, re.IGNORECASE):
            yield each


class Vnc:
    """The VNC display of a stand-in, if there is one.

    Args:
        listeners: where the server listens.
        tree: where the display adapters are.
        compat: whose texts.
    """

    def __init__(self, listeners: Listeners, tree: Tree, compat: Compat) -> None:
        self._tree = tree
        self._listeners = listeners
        self._compat = compat
        self._id: str | None = None
        self._auth = "none"

    async def open(self, options: JSONObject) -> None:
        """`-vnc`; raises `QMPError`."""
        if self._id is not None:
            raise QMPError("memd has one VNC display")
        for name in _NOT_THERE & options.keys():
            raise QMPError(f"memd has no '{name}' of a VNC display")
        where, self._id = options.get("vnc", "none"), options.get("id", "default")
        self._auth = self._auth_of(options)
        if where == "none":
            return
        kind, _, path = where.partition(":")
        to = options.get("to")
        if kind == "unix" and to is not None:
            raise QMPError("Port range not support with UNIX socket")
        if kind == "unix":
            await self._listeners.open(_NAME, {"type": "unix", "path": path})
            await self._open_websocket(options, "", 0)
            return
        host, colon, display = where.rpartition(":")
        if not colon:
            raise QMPError("no vnc port specified")
        number = parse_unsigned(display)
        if not display.isdecimal() or not is_integer(display):
            raise QMPError(f"can't convert to a number: {display}")
        if number is None or number > 65535 - _FIRST_PORT:
            raise QMPError(f"port {display} out of range")
        last = number if to is None else parse_unsigned(to) or 0
        if last < number:
            raise QMPError("Failed to create a socket")
        address = {"type": "inet", "host": host.strip("[]")}
        for port in range(number + _FIRST_PORT, min(last + _FIRST_PORT, 65535) + 1):
            try:
                await self._listeners.open(_NAME, {**address, "port": str(port)})
                break
            except QMPError as error:
                if port == last + _FIRST_PORT or os.strerror(errno.EADDRINUSE) not in error.desc:
                    raise
        await self._open_websocket(options, address["host"], number)

    def _auth_of(self, options: JSONObject) -> str:
        """How clients of a display would authenticate; raises `QMPError`."""
        secret, sasl = options.get("password-secret"), options["sasl"]
        if secret is not None:
            if options["password"]:
                raise QMPError("'password' flag is redundant with 'password-secret'")
            self._listeners.check_secret(secret)
        if "sasl-authz" in options and not sasl:
            raise QMPError("'sasl-authz' provided but SASL auth is not enabled")
        if options["password"] or secret is not None:
            return "vnc"
        return "sasl" if sasl else "none"

    async def _open_websocket(self, options: JSONObject, host: str, number: int) -> None:
        """Listen for websockets, if that is asked for; raises `QMPError`.

        Args:
            host: the display's, whose websocket is there where no other host is named.
            number: the display's, which says at which port where none is named.
        """
        where = options.get("websocket")
        if where is None:
            return
        kind, _, path = where.partition(":")
        if kind == "unix":
            await self._listeners.open(_WEBSOCKETS, {"type": "unix", "path": path})
            return
        own, _, port = where.rpartition(":")
        if port in ("", "on"):
            port = str(_FIRST_WEBSOCKET + number)
        address = {"type": "inet", "host": own.strip("[]") or host, "port": port}
        await self._listeners.open(_WEBSOCKETS, address)

    def _servers(self) -> list[JSONObject]:
        """QAPI's `VncServerInfo2` of each address."""
        found = []
        for name in (_WEBSOCKETS, _NAME):
            for each in reversed(self._listeners.addresses(name)):
                family, place = "unix", {"host": "", "service": each.get("path")}
                if each["type"] == "inet":
                    family = "ipv6" if ":" in each["host"] else "ipv4"
                    place = {"host": each["host"], "service": each["port"]}
                row = {**place, "family": family, "auth": self._auth}
                found.append({**row, "websocket": name == _WEBSOCKETS})
        return found

    def query(self, args: object = None) -> JSON:
        """The value of `query-vnc`."""
        servers = self._servers()
        if not servers:
            return {"enabled": False}
        told = {name: value for name, value in servers[-1].items() if name != "websocket"}
        return {"enabled": True, "clients": [], **told}

    def query_servers(self, args: object = None) -> list[JSON]:
        """The value of `query-vnc-servers`."""
        if self._id is None:
            return []
        row: JSONObject = {"id": self._id, "auth": self._auth, "clients": []}
        shown = next(adapters(self._tree), None)
        if shown is not None and shown.id is not None:
            row["display"] = shown.id
        return [{**row, "server": self._servers()}]

    def _is_missing(self, args: JSONObject) -> bool:
        return self._id is None or args.get("display", self._id) != self._id

    def set_password(self, args: JSONObject) -> None:
        """`set_password` and `change-vnc-password`; raises `QMPError`."""
        if args.get("connected", "keep") != "keep":
            raise QMPError("parameter 'connected' must be 'keep' when 'protocol' is 'vnc'")
        missing = self._is_missing(args)
        if missing or self._auth == "none":
            if self._compat is Compat.V10_0:
                raise QMPError("Could not set password")
            disabled = "VNC password authentication is disabled"
            raise QMPError("No VNC display is present" if missing else disabled)

    def expire_password(self, args: JSONObject) -> None:
        """`expire_password`; raises `QMPError`."""
        check_time(args)
        if self._is_missing(args):
            raise QMPError("Could not set password expire time")

    def reload(self, args: JSONObject) -> None:
        """`display-reload`; raises `QMPError`."""
        if args.get("tls-certs") and self._id is None:
            raise QMPError("Can not find vnc display")
        if args.get("tls-certs"):
            raise QMPError("vnc tls is not enabled")

    def update(self, args: JSONObject) -> None:
        """`display-update`; raises `QMPError`."""
        if self._id is None:
            raise QMPError("Can not find vnc display")
        if args.get("addresses"):
            raise QMPError("memd does not change where it listens for VNC clients")


def check_time(args: JSONObject) -> None:
    """Raise `QMPError` where the `time` of `expire_password` is none."""
    time = args["time"]
    number = time.removeprefix("+") if re.fullmatch(_SECONDS, time, re.ASCII) else None
    if time not in ("now", "never") and (number is None or abs(int(number)) >= 1 << 64):
        raise QMPError(f"Parameter 'time' doesn't take value '{time}'")
