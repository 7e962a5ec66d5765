"""The objects behind monitors: character devices, and (QEMU 11.1) monitors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from socket import AF_VSOCK

from memd.errors import QMPError
from memd.hostmem.sockets import cut, has_hung_up
from memd.json_types import JSON
from memd.places import current_user
from memd.qapi.visit import visit_enum
from memd.qom.object import OBJECT, ObjectType, Paths, Property, QObject, attribute
from memd.qom.user_creatable import UserCreatable

_CHARDEV = ObjectType("chardev", OBJECT, abstract=True)
_FD = ObjectType("chardev-fd", _CHARDEV, abstract=True)
_SOCKET = ObjectType(
    "chardev-socket",
    _CHARDEV,
    properties=(
        Property("connected", "bool", get=lambda chardev: chardev.is_connected),
        Property("addr", "SocketAddress", get=lambda chardev: chardev.addr),
    ),
)
_STDIO = ObjectType("chardev-stdio", _FD)
_NULL = ObjectType("chardev-null", _CHARDEV)

CHARDEV_TYPES = (_CHARDEV, _FD, _SOCKET, _STDIO, _NULL)
_MOST_OF_MUX = 4

_BACKENDS = {"socket": _SOCKET, "stdio": _STDIO, "null": _NULL}


class ChardevObject(QObject):
    """A character device, `/chardevs/<id>`.

    Attributes:
        connected: whether a client is at the other end of a socket that is served.
        addr: where it listens or connects to, a QAPI `SocketAddress` with its
            `type` member (sockets only).
        server: whether it listens.
        users: how many devices, ports, monitors and muxes use it.
        opened: whether what uses it is open, which a port may be to a guest alone.
        above: the mux that shares it, if any.
        below: the device that it shares, for a mux.
        ends: this end and the other of its latest TCP connection, as they are
            written, or None.
        protocol: what is spoken on a TCP connection, as it is told.
        filename: what is told of where it is, None for what its kind and address say.
        on_yank: cuts its connections, where it has any.
    """

    connected = False
    server = False
    users = 0
    opened = True
    above: ChardevObject | None = None
    below: ChardevObject | None = None
    filename: str | None = None
    protocol = "tcp"
    ends: tuple[str, str] | None = None
    on_yank: Callable[[], None] | None = None
    _held: int | None = None

    def __init__(self, tree: Paths, backend: str, addr: JSON = None) -> None:
        """Make one; `tree.chardevs.add_child(id, chardev)` lists it.

        Args:
            backend: "socket", "stdio", "null" or another of QAPI's `ChardevBackendKind`.
            addr: see the attribute.
        """
        kind = _BACKENDS.get(backend)
        if kind is None:
            kind = _BACKENDS[backend] = ObjectType(f"chardev-{backend}", _CHARDEV)
        super().__init__(kind, tree)
        self.addr = addr

    def hold(self, connection: int, family: int) -> None:
        """It is at one end of a connection, of which nothing is read.

        Args:
            connection: the socket's descriptor, which stays open for as long as this is listed.
            family: of its addresses.
        """
        if family == AF_VSOCK:
            # To poll it waits while another process that has it copies what has come.
            self.connected = True
        else:
            self._held = connection
        self.on_yank = partial(cut, connection, family, current_user())

    @property
    def is_connected(self) -> bool:
        """Whether somebody is at the other end of its socket."""
        if self._held is None:
            return self.connected
        # A device reads, and comes to the end of what it is sent.
        return not has_hung_up(self._held, half=self.used)

    @property
    def used(self) -> bool:
        """Whether something uses it."""
        return self.users > 0

    def use(self) -> None:
        """One more uses it; raises `QMPError` where it has as many users as it takes."""
        if self.below is not None and self.users == _MOST_OF_MUX:
            raise QMPError(
                f"too many uses of multiplexed chardev '{self.name}' (maximum is {_MOST_OF_MUX})"
            )
        if self.below is None and self.used:
            raise QMPError(f"chardev '{self.name}' is already in use")
        self.users += 1

    def share(self, below: ChardevObject) -> None:
        """It is the mux of another one, which has it as a user."""
        self.below, below.above = below, self

    @property
    def is_open(self) -> bool:
        """Whether it is told to be in use."""
        return self.used and self.opened if self.above is None else self.above.used


class MonitorObject(UserCreatable):
    """A QMP monitor, `/objects/<id>`.

    Attributes:
        chardev: the id of its character device.
        pretty: whether its answers are spread over lines.
        close_action: "none" or "delete": what the end of its connection does to
            it.
        on_pretty: told when a client sets `pretty`.
    """

    close_action = "none"
    on_pretty: Callable[[bool], None] | None = None

    def __init__(self, tree: Paths, id: str, chardev: str, pretty: bool = False) -> None:
        super().__init__(_QMP, tree, id)
        self.chardev = chardev
        self.pretty = pretty

    def check_delete(self) -> None:
        """Raise `QMPError`: no monitor is deleted by its own client."""
        raise QMPError("Cannot delete the current QMP monitor")


def _set_pretty(monitor: MonitorObject, value: JSON) -> None:
    monitor.pretty = value
    if monitor.on_pretty is not None:
        monitor.on_pretty(value)


_MONITOR = ObjectType(
    "monitor",
    OBJECT,
    abstract=True,
    interfaces=("user-creatable",),
    properties=(attribute("chardev", "string"),),
)
_QMP = ObjectType(
    "monitor-qmp",
    _MONITOR,
    properties=(
        attribute("pretty", "bool", set=_set_pretty),
        attribute("close-action", "MonitorQMPCloseAction", visit_enum(("none", "delete"))),
    ),
)

MONITOR_TYPES = (_MONITOR, _QMP)
"""The types of monitors: QEMU 10.0 has none."""
