"""The objects behind monitors: character devices, and (QEMU 11.1) monitors."""

from __future__ import annotations

from collections.abc import Callable

from memd.json_types import JSON
from memd.qom.object import QObject
from memd.qom.property import Paths, Property
from memd.qom.types import OBJECT, ObjectType

_CHARDEV = ObjectType("chardev", OBJECT, abstract=True)
_FD = ObjectType("chardev-fd", _CHARDEV, abstract=True)
_SOCKET = ObjectType(
    "chardev-socket",
    _CHARDEV,
    properties=(
        Property("connected", "bool", get=lambda chardev: chardev.connected),
        Property("addr", "SocketAddress", get=lambda chardev: chardev.addr),
    ),
)
_STDIO = ObjectType("chardev-stdio", _FD)
_NULL = ObjectType("chardev-null", _CHARDEV)

CHARDEV_TYPES = (_CHARDEV, _FD, _SOCKET, _STDIO, _NULL)
_BACKENDS = {"socket": _SOCKET, "stdio": _STDIO, "null": _NULL}


class ChardevObject(QObject):
    """A character device, `/chardevs/<id>`.

    Attributes:
        connected: whether a client is at the other end (sockets only).
        addr: where it listens or connects to, a QAPI `SocketAddress` with its
            `type` member (sockets only).
        server: whether it listens.
        used: whether something is served on it.
        ends: this end and the other of its latest TCP connection, as they are
            written, or None.
        filename: what is told of where it is, None for what its kind and address say.
        on_yank: cuts its connections, where it has any.
    """

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
        self.connected = False
        self.addr = addr
        self.server = False
        self.used = False
        self.filename: str | None = None
        self.ends: tuple[str, str] | None = None
        self.on_yank: Callable[[], None] | None = None
