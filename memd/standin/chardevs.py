"""The register of character devices: ids, what is behind them, who uses them.

A file is opened, a terminal and a listening socket are made, a ring of bytes is
kept. Nothing is ever said on any of them by a guest. Texts were observed on
QEMU 10.0.2.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from typing import TYPE_CHECKING, Protocol

from memd.errors import (
    NoDescriptorError,
    QMPError,
    check_length,
    prefixed,
    refusing,
    reset_meanwhile,
)
from memd.hostmem.file_systems import number, of_paths
from memd.hostmem.paths import FDSETS, Made, create_path, encode_path, new_entry, open_path
from memd.hostmem.sockets import (
    MOST_ADDRESSES,
    PATIENCE,
    connect_tcp,
    connect_udp,
    connect_unix,
    ends_of,
    listen_tcp,
    listen_unix,
    look_at,
    tcp_family,
)
from memd.json_types import JSON, JSONObject
from memd.qom import ChardevObject, Tree
from memd.work import ELSEWHERE, Job

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots
    from memd.places import Share

TakeFd = Callable[[str], "Held"]
"""Gives the descriptor of a name, which is the caller's then; raises `QMPError` for none."""


class Held(Protocol):
    """A descriptor that somebody else keeps account of."""

    fd: int

    def close(self) -> None:
        """Close it."""


class Copy(Held, Protocol):
    """A copy of a descriptor of a set."""

    def truncate(self) -> None:
        """Cut its file; may wait. Raises `NoDescriptorError`."""


class Sets(Protocol):
    """Sets of descriptors, which paths name as `/dev/fdset/N`."""

    def open(self, path: str, flags: int) -> Copy:
        """A copy of one that is open for the access of flags of open(2).

        Raises:
            NoDescriptorError: there is none.
        """


_RING = 65536
_PROTOCOLS = ("telnet", "websocket")
_SPICE_CHANNELS = ("vdagent", "smartcard", "usbredir")
_BASE64 = r"[A-Za-z0-9+/=]*"

_PPCLAIM = 0x708B
"""The ioctl that only a parallel port knows (linux/ppdev.h)."""

_ACCESS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Registered(ChardevObject):
    """A character device that a client has added.

    Attributes:
        given: the socket that was handed over, or None.
        ring: what was written to it, for a ringbuf.
        ring_size: bytes that it keeps.
        on: what closing it may wait for; see `Job.on`.
        counted: what it counts as.
    """

    def __init__(self, tree: Tree, kind: str, addr: JSON, opened: _Opened, share: Share) -> None:
        super().__init__(tree, kind, addr)
        self.counted = share
        self._opened = opened
        self.on = opened.on
        self.filename = opened.filename
        self.given: Held | None = None
        self.ring = bytearray()
        self.ring_size = 0

    def close(self) -> None:
        """Close what is behind it; a socket that it made is removed. May wait."""
        self._opened.close()


class _Opened:
    """The files and sockets that were opened for a device that is being made."""

    made: Made | None = None
    filename: str | None = None
    addr: JSON = None
    on = ELSEWHERE
    connection: int | None = None
    ends: tuple[str, str] | None = None
    family = 0

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.copies: dict[str, Copy] = {}

    def connected(self, sock: socket.socket) -> None:
        """It is connected by this socket."""
        self.ends, self.family = ends_of(sock), sock.family
        self.connection = sock.detach()
        self.fds.append(self.connection)

    def look(self, given: int, name: str) -> None:
        """See that a descriptor is a socket; may wait. Raises `QMPError`."""
        try:
            self.family, self.ends = look_at(given)
        except OSError:
            raise QMPError(f"File descriptor '{name}' is not a socket") from None

    def close(self) -> None:
        for fd in self.fds:
            with suppress(OSError):
                os.close(fd)
        self.fds.clear()
        for copy in self.copies.values():
            copy.close()
        self.copies.clear()
        if self.made is not None:
            self.made.remove()
            self.made = None


class Chardevs:
    """The character devices of a stand-in.

    Args:
        tree: where they are seen, and which paths clients may name.
        with_spice: whether there is a SPICE display.
        sets: the sets of descriptors that paths may name.

    Attributes:
        changeable: those in use whose users take another backend instead.
    """

    def __init__(self, tree: Tree, with_spice: Callable[[], bool], sets: Sets) -> None:
        self._tree = tree
        self._sets = sets
        self._with_spice = with_spice
        self._making: set[str] = set()
        self._closed = False
        self.changeable: set[ChardevObject] = set()
        self._ports: list[ChardevObject] = []

    def find(self, id: str) -> ChardevObject | None:
        """The device of that id."""
        found = self._tree.chardevs.children.get(id)
        return found if isinstance(found, ChardevObject) else None

    def _need(self, id: str) -> ChardevObject:
        device = self.find(id)
        if device is None:
            raise QMPError(f"Chardev '{id}' not found")
        return device

    async def add(self, args: JSONObject, take_fd: TakeFd) -> JSON:
        """`chardev-add`.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        id = args["id"]
        if self.find(id) is not None or id in self._making:
            raise QMPError(f"Chardev with id '{id}' already exists")
        with prefixed(f"Failed to add chardev '{id}': "):
            return await self.make(args, take_fd)

    async def make(self, args: JSONObject, take_fd: TakeFd) -> JSON:
        """The same, of which the reason alone is told where it can't be."""
        id, backend = args["id"], args["backend"]
        check_length(id)
        there = self._tree.chardevs.children
        if id in there or id in self._making:
            raise QMPError(f"Duplicate ID '{id}' for chardev")
        kind, data = backend["type"], backend["data"]
        size = data.get("size", _RING)
        if kind == "ringbuf" and (size <= 0 or size & (size - 1)):
            raise QMPError("size of ringbuf chardev must be power of two")
        if kind == "ringbuf" and size > _RING * 16:
            raise QMPError(f"memd keeps rings of at most {_RING * 16} bytes")
        if kind == "spicevmc" and data["type"] not in _SPICE_CHANNELS:
            raise QMPError(f"unsupported type name: {data['type']}")
        if kind == "spiceport" and not self._with_spice():
            raise QMPError("spice not enabled")
        if data.get("websocket") and not data.get("server", True):
            raise QMPError("Websocket client is not implemented")
        more = size if kind == "ringbuf" else 0
        with self._tree.objects.account.charge(args, more, _opens(kind, data)) as share:
            return await self._made(id, kind, data, take_fd, share)

    async def _made(
        self, id: str, kind: str, data: JSONObject, take_fd: TakeFd, share: Share
    ) -> JSON:
        given = self._given(kind, data, take_fd)
        below = self._take_below(data) if kind == "mux" else None
        self._making.add(id)
        number = None if given is None else given.fd
        # A socket may wait for who is at its other end.
        on = of_paths([data[each] for each, _flags in _files(kind, data) if kind != "socket"])
        opened = _Opened()
        opened.on = on
        try:
            self._take_copies(opened, kind, data)
            if _opens(kind, data):
                await Job(lambda: _open(opened, kind, data, self._tree.host.roots, number), on=on)
            if self._closed:
                await Job(opened.close, on=on, release=True)
                raise reset_meanwhile()
        except BaseException:
            # Copies may be left, whose set holds the file open.
            opened.close()
            if given is not None:
                given.close()
            if below is not None:
                below.users -= 1
            raise
        finally:
            self._making.discard(id)
        device = Registered(self._tree, kind, opened.addr, opened, share)
        device.server = kind == "socket" and data.get("server", True)
        device.protocol = next(filter(data.get, _PROTOCOLS), device.protocol)
        device.ring_size = data.get("size", _RING)
        device.given = given
        device.ends = opened.ends
        connection = number if given is not None else opened.connection
        if connection is not None and not device.server:
            device.hold(connection, opened.family)
        if below is not None:
            device.share(below)
        self._tree.chardevs.add_child(id, device)
        name = opened.filename
        return {} if name is None else {"pty": name.removeprefix("pty:")}

    def _take_below(self, data: JSONObject) -> Registered:
        below = self.find(data["chardev"])
        if not isinstance(below, Registered):
            raise QMPError(f"mux: base chardev {data['chardev']} not found")
        below.use()
        return below

    def _take_copies(self, opened: _Opened, kind: str, data: JSONObject) -> None:
        """Take what sets have of the files that a device names."""
        for member, flags in _files(kind, data):
            path = data[member]
            if path.startswith(FDSETS):
                with _telling(member, path):
                    opened.copies[member] = self._sets.open(path, flags)

    def _given(self, kind: str, data: JSONObject, take_fd: TakeFd) -> Held | None:
        if kind != "socket" or data["addr"]["type"] != "fd":
            return None
        return take_fd(data["addr"]["data"]["str"])

    async def change(self, args: JSONObject, take_fd: TakeFd) -> JSON:
        """`chardev-change`: another backend behind the same id.

        Raises:
            QMPError: there is none, or it is in use.
        """
        id = args["id"]
        old = self.find(id)
        if old is None:
            raise QMPError(f"Chardev '{id}' does not exist")
        if old.qom_type.name == "chardev-mux":
            raise QMPError("For mux or hub device hotswap is not supported yet")
        if not isinstance(old, Registered) or (old.used and old not in self.changeable):
            raise QMPError("Chardev user does not support chardev hotswap")
        self._tree.chardevs.remove_child(id)
        make = self.make if old.used else self.add
        try:
            answer = await make(args, take_fd)
        except BaseException:
            if self._closed:
                await self._close_behind(old)
            else:
                self._tree.chardevs.add_child(id, old)
            raise
        if old in self.changeable:
            new = self._tree.chardevs.children[id]
            assert isinstance(new, ChardevObject)
            new.users = old.users
            self.changeable.add(new)
            if old in self._ports:
                self._ports.append(new)
        self.changeable.discard(old)
        await self._close_behind(old)
        return answer

    async def remove(self, args: JSONObject) -> None:
        """`chardev-remove`.

        Raises:
            QMPError: there is none, or it is in use.
        """
        id = args["id"]
        device = self._need(id)
        if not isinstance(device, Registered) or device.used:
            raise QMPError(f"Chardev '{id}' is busy")
        self._tree.chardevs.remove_child(id)
        await self._close_behind(device)

    async def _close_behind(self, device: Registered) -> None:
        if device.below is not None:
            device.below.above = None
            device.below.users -= 1
        if device.given is not None:
            device.given.close()
        await Job(device.close, on=device.on, release=True)
        device.counted.end()

    async def close(self) -> None:
        """Remove every device that was registered here; no port is on any other.

        Those that are being made are closed then.
        """
        self._closed = True
        children = self._tree.chardevs.children
        for id, device in [*children.items()]:
            if isinstance(device, Registered):
                self._tree.chardevs.remove_child(id)
                await self._close_behind(device)
        for other in self._ports:
            other.users -= 1

    def remove_names(self) -> None:
        """Remove the sockets and links of all devices: the process ends. May wait."""
        for device in self._tree.chardevs.children.values():
            if isinstance(device, Registered):
                device.close()

    def use(self, id: str, *, changeable: bool, there: bool = True) -> None:
        """A serial or parallel port is on a device.

        Args:
            id: of the device.
            changeable: whether `chardev-change` may give the port another backend.
            there: whether the machine has the port; where not, the device is free.

        Raises:
            QMPError: there is no such device, or it is in use.
        """
        device = self.find(id)
        if device is None:
            raise QMPError(f"chardev '{id}' not found")
        device.use()
        if not there:
            device.users -= 1
            return
        self._ports.append(device)
        if changeable:
            self.changeable.add(device)

    async def make_log(self, path: str, *, append: bool) -> None:
        """Make the log of a device, in which nothing will be; raises `QMPError`."""
        log = {"logfile": path, "logappend": append}
        opened, roots = _Opened(), self._tree.host.roots
        self._take_copies(opened, "null", log)

        def make() -> None:
            _open(opened, "null", log, roots, None)
            opened.close()

        await Job(make, on=of_paths([path]))

    def send_break(self, args: JSONObject) -> None:
        """`chardev-send-break`; raises `QMPError` where there is none."""
        self._need(args["id"])

    def write(self, args: JSONObject) -> None:
        """`ringbuf-write`; raises `QMPError` where that is not a ring."""
        import base64

        device, data = self._ring(args["device"]), args["data"]
        if args.get("format") == "base64":
            try:
                # An incomplete group at the end is no error, and is left out.
                raw = base64.b64decode(data[: len(data) // 4 * 4])
                valid = re.fullmatch(_BASE64, data)
            except ValueError:
                valid = None
            if valid is None:
                raise QMPError("Base64 data contains invalid characters")
        else:
            raw = data.encode("utf-8", "surrogatepass")
        device.ring += raw
        del device.ring[: -device.ring_size]

    def read(self, args: JSONObject) -> str:
        """`ringbuf-read`; raises `QMPError` where that is not a ring."""
        import base64

        ring, size = self._ring(args["device"]).ring, args["size"]
        if size <= 0:
            raise QMPError("size must be greater than zero")
        raw = bytes(ring[:size])
        del ring[:size]
        if args.get("format") == "base64":
            return base64.b64encode(raw).decode()
        return raw.decode("utf-8", "replace")

    def _ring(self, id: str) -> Registered:
        device = self.find(id)
        if device is None:
            raise QMPError(f"Device '{id}' not found")
        if not isinstance(device, Registered) or device.qom_type.name != "chardev-ringbuf":
            raise QMPError(f"{id} is not a ringbuf device")
        return device


@contextmanager
def _telling(member: str, path: str) -> Iterator[None]:
    """A context in which a set may have no descriptor: of a log QEMU says which and why."""
    try:
        yield
    except NoDescriptorError as error:
        if member == "logfile":
            raise
        raise QMPError(f"Could not open '{path}': {os.strerror(error.errno)}") from None


def _files(kind: str, data: JSONObject) -> Iterator[tuple[str, int]]:
    """The members of a backend that name files, and how these are opened, in their order."""
    for member, append in (("logfile", "logappend"), ("in", ""), ("out", "append")):
        if member in data and (member == "logfile" or kind == "file"):
            end = os.O_APPEND if data.get(append) else os.O_TRUNC
            yield member, os.O_RDONLY if member == "in" else os.O_WRONLY | os.O_CREAT | end
    if kind in ("serial", "parallel", "pipe"):
        yield "device", os.O_RDWR | (os.O_NONBLOCK if kind == "serial" else 0)


def _opens(kind: str, data: JSONObject) -> int:
    """How many descriptors a backend keeps open, at most; 0 where nothing is opened."""
    # Both ends of a terminal, a socket, and the directory that has its link or name.
    own = {"pty": 3, "socket": 2, "udp": 1, "pipe": 1}.get(kind, 0)
    if kind == "socket" and data["addr"]["type"] == "inet" and data.get("server", True):
        own = MOST_ADDRESSES
    return own + sum(1 for _ in _files(kind, data))


def _open(
    opened: _Opened, kind: str, data: JSONObject, roots: Roots | None, given: int | None
) -> None:
    """Open what is behind a device, or nothing of it. Runs in a thread."""
    try:
        for member, flags in _files(kind, data):
            path, copy = data[member], opened.copies.get(member)
            if copy is not None:
                fd, found = copy.fd, os.fstat(copy.fd)
                opened.on |= {number(found.st_mode, found.st_dev, found.st_rdev)}
                if flags & os.O_TRUNC:
                    with _telling(member, path):
                        copy.truncate()
            elif flags & os.O_CREAT:
                what = "create" if member == "logfile" else "open"
                end = flags & (os.O_APPEND | os.O_TRUNC)
                opened.fds.append(create_file(path, end, roots, what))
            elif kind != "pipe" or not _pipes(opened, path, roots):
                opened.fds.append(fd := open_file(path, flags, roots))
        if kind == "parallel":
            with refusing("not a parallel port"):
                ioctl(fd, _PPCLAIM)
        elif kind == "pty":
            opened.fds += os.openpty()
            terminal = os.ttyname(opened.fds[-1])
            opened.filename = f"pty:{terminal}"
            if "path" in data:
                with refusing("Failed to create PTY symlink"):
                    opened.made = _link(terminal, data["path"], roots)
        elif kind == "socket":
            _socket(opened, data, roots, given)
        elif kind == "udp":
            opened.fds.append(_udp(data["remote"], data.get("local")))
    except BaseException:
        opened.close()
        raise


def _pipes(opened: _Opened, path: str, roots: Roots | None) -> bool:
    """Open both of a pair of pipes; False where there is no such pair."""
    try:
        opened.fds.append(open_file(f"{path}.in", os.O_RDWR, roots))
        opened.fds.append(open_file(f"{path}.out", os.O_RDWR, roots))
    except QMPError:
        # One of them alone is closed with the device.
        return False
    return True


def _link(to: str, path: str, roots: Roots | None) -> Made:
    """Make a link; raises `OSError`."""
    entry = new_entry(encode_path(path), roots)
    try:
        os.symlink(to, entry.name, dir_fd=entry.directory)
        return Made(entry)
    except BaseException:
        entry.close()
        raise


def create_file(path: str, end: int, roots: Roots | None, what: str, mode: int = 0o666) -> int:
    """Open a file for writing, and make it where there is none; may wait.

    Args:
        path: as a client named it.
        end: O_APPEND, O_TRUNC or 0.
        roots: what it has to be below; None for anywhere.
        what: "create" or "open", as an error has it.
        mode: of a new one.

    Raises:
        QMPError: it can't be.
    """
    with refusing(f"Could not {what} '{path}'"):
        return create_path(encode_path(path), os.O_WRONLY | os.O_CREAT | end | _ACCESS, mode, roots)


def open_file(path: str, access: int, roots: Roots | None) -> int:
    """Open a file that is there; see `create_file`."""
    with refusing(f"Could not open '{path}'"):
        return open_path(encode_path(path), access | _ACCESS, roots)


def _socket(opened: _Opened, data: JSONObject, roots: Roots | None, given: int | None) -> None:
    """Listen, or connect."""
    kind, where = data["addr"]["type"], data["addr"]["data"]
    server = data.get("server", True)
    if kind == "unix":
        path = where["path"]
        opened.addr = {"type": "unix", **where}
        if server:
            opened.addr = {"type": "unix", "path": path}
            listening, opened.made = listen_unix(path, roots)
            opened.fds.append(listening.detach())
            return
        try:
            opened.connected(connect_unix(path, roots))
        except QMPError:
            if not (data.get("reconnect") or data.get("reconnect-ms")):
                raise
    elif kind == "inet":
        host, port = where["host"], where["port"]
        family = _family(where)
        if server:
            made = listen_tcp(host, port, family, backlog=1)
            host, port = made[0].getsockname()[:2]
            opened.fds += [each.detach() for each in made]
        else:
            opened.connected(connect_tcp(host, port, family, PATIENCE))
        opened.addr = {"type": "inet", "host": str(host), "port": str(port)}
    elif given is not None:
        opened.look(given, where["str"])
        opened.addr = {"type": "fd", "str": where["str"]}
    else:
        raise QMPError(f"memd has no sockets of type '{kind}'")


def _udp(remote: JSONObject, local: JSONObject | None) -> int:
    """A socket between two addresses, of which the one here may be any."""
    if any(each["type"] != "inet" for each in (remote, local or remote)):
        raise QMPError("socket type unsupported for datagram")
    there = remote["data"]
    here = {"host": "", "port": ""} if local is None else local["data"]
    return connect_udp(
        (here["host"], here["port"] or "0"),
        (there["host"] or "localhost", there["port"]),
        _family(there),
    ).detach()


def _family(address: JSONObject) -> str:
    return tcp_family(address.get("ipv4"), address.get("ipv6"))
