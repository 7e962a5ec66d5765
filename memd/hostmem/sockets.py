"""Sockets by address: listening ones and connected ones.

Refusals are worded as in QEMU 10.0.2.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import stat
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from memd.errors import QMPError, refusing
from memd.fd_passing import receive_with_fds
from memd.json_types import JSON

if TYPE_CHECKING:
    from memd.hostmem.paths import Entry, Made, Roots

_MOST_UNCLOSED = 32
"""Descriptors that were sent where none are taken and that are not closed yet, from which on no
further ones are received."""

_unclosed: deque[int] = deque()
"""As many items as there are such descriptors."""

_UCRED = struct.Struct("iII")

UNIX_PATH_MAX = 108
"""Bytes of a socket's path, its closing NUL included (unix(7))."""

BACKLOG = 1024
"""Connections that wait to be accepted; the kernel cuts it at net.core.somaxconn."""

MOST_ADDRESSES = 8
"""Addresses of one name that are listened on, each with a socket of its own."""

PATIENCE = 10.0
"""Seconds for each attempt to connect to where a client says."""


def check_path(path: str) -> None:
    """Raise `QMPError` where a path is too long for a UNIX socket."""
    if len(os.fsencode(path)) >= UNIX_PATH_MAX:
        raise QMPError(
            f"UNIX socket path '{path}' is too long",
            hint=f"Path must be less than {UNIX_PATH_MAX} bytes",
        )


def tcp_family(ipv4: bool | None, ipv6: bool | None) -> str:
    """The family that an address is confined to: "ipv4", "ipv6", or "" for none.

    Args:
        ipv4: whether that is asked for; None where nothing is said.
        ipv6: the same.

    Raises:
        QMPError: none is left.
    """
    if ipv4 is False and ipv6 is False:
        raise QMPError("Cannot disable IPv4 and IPv6 at same time")
    if ipv6 is False or (ipv4 and not ipv6):
        return "ipv4"
    return "ipv6" if ipv4 is False or (ipv6 and not ipv4) else ""


@contextlib.contextmanager
def opening(sock: socket.socket, what: str) -> Iterator[None]:
    """A context in which an `OSError` is a `QMPError` that begins so, and closes a socket."""
    try:
        yield
    except OSError as error:
        sock.close()
        # Python's own timeout comes without a text.
        reason = error.strerror or os.strerror(errno.ETIMEDOUT)
        raise QMPError(f"{what}: {reason}") from None


def connect_unix(path: str, roots: Roots | None) -> socket.socket:
    """Connect to where a client says.

    Args:
        roots: what the path has to be below; None for anywhere.

    Raises:
        QMPError: it can't be.
    """
    # Brings in ctypes, which a start need not pay for.
    from memd.hostmem.paths import encode_path, target

    check_path(path)
    if not path:
        # The kernel takes it for an abstract name, at which nobody listens.
        raise QMPError(f"Failed to connect to '': {os.strerror(errno.ECONNREFUSED)}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with (
        opening(made, f"Failed to connect to '{path}'"),
        contextlib.closing(target(encode_path(path), roots)) as entry,
    ):
        made.settimeout(PATIENCE)
        made.connect(_here(entry))
    return made


def listen_unix(path: str, roots: Roots | None) -> tuple[socket.socket, Made]:
    """Listen where a client says, in place of a socket or an empty file that is there.

    Args:
        roots: what the path has to be below; None for anywhere.

    Returns:
        the socket, and its name, which is to be removed in the end.

    Raises:
        QMPError: it can't be.
    """
    # Brings in ctypes, which a start need not pay for.
    from memd.hostmem.paths import Made, encode_path, new_entry

    check_path(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with opening(made, f"Failed to bind socket to {path}"):
        # Nothing is removed elsewhere because a link leads there.
        entry = new_entry(encode_path(path), roots)
        try:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                is_empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
                if is_empty or stat.S_ISSOCK(status.st_mode):
                    entry.unlink()
            made.bind(_here(entry))
            made.listen(1)
            name = Made(entry)
        except BaseException:
            entry.close()
            raise
    return made, name


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """The process at the other end of a UNIX socket, its user and its group (unix(7), SO_PEERCRED).

    Raises:
        OSError: it is not connected.
    """
    pid, uid, gid = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return pid, uid, gid


def brings_fds(sock: socket.socket, most: int) -> bool:
    """Whether descriptors would come along with the next so many bytes of a UNIX socket."""
    try:
        _data, _none, flags, _address = sock.recvmsg(most, 0, socket.MSG_PEEK)
    except OSError:
        return False
    return bool(flags & socket.MSG_CTRUNC)


def keep_urgent(sock: socket.socket) -> None:
    """Have urgent data of a UNIX socket read with the rest.

    What nobody reads would be dropped, and the descriptors that come along with it closed.
    """
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def receive(sock: socket.socket, most: int) -> bytes:
    """So many bytes at most, where no descriptors are taken; empty ones at the end.

    What comes all the same is closed where that keeps nobody waiting: recv(2) would close
    it, which may wait. `keep_urgent` is to be called before.

    Raises:
        BlockingIOError: nothing is there yet.
        ConnectionAbortedError: there are descriptors; the connection is to be ended.
        OSError: the connection is broken.
    """
    if sock.family != socket.AF_UNIX:
        return sock.recv(most)
    fds: list[int] = []
    too_many = len(_unclosed) >= _MOST_UNCLOSED and brings_fds(sock, most)
    if not too_many:
        data, fds, _flags = receive_with_fds(sock, most)
        if not fds:
            return data
    # Brings in ctypes, which a start need not pay for.
    from memd.hostmem.closing import close

    _pid, user, _group = peer_credentials(sock)
    for fd in fds:
        _unclosed.append(fd)
        close(fd, _unclosed.pop, user)
    raise ConnectionAbortedError(errno.ECONNABORTED, "the peer sends descriptors")


async def receive_soon(sock: socket.socket, most: int) -> bytes:
    """The same as `receive`, once there is something."""
    # A command line has addresses, and no loop.
    import asyncio

    loop, fd = asyncio.get_running_loop(), sock.fileno()
    while True:
        try:
            return receive(sock, most)
        except (BlockingIOError, InterruptedError):
            readable = asyncio.Event()
            loop.add_reader(fd, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(fd)


def close_socket(sock: socket.socket, then: Callable[[], object] | None = None) -> None:
    """Close a socket, at once or soon.

    What was sent to it and not read may carry descriptors, which the kernel closes with it:
    that may wait, and is done in the thread of the user at the other end.

    Args:
        then: called once it is closed, in whatever thread.
    """
    if sock.family == socket.AF_UNIX and sock.fileno() >= 0:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            close_listener(sock, then)
            return
        with contextlib.suppress(OSError):
            # Nothing more is sent to it.
            sock.shutdown(socket.SHUT_RDWR)
        if any(fcntl.ioctl(sock, termios.FIONREAD, bytes(4))):
            # Brings in ctypes, which a start need not pay for.
            from memd.hostmem.closing import close_in_thread

            _pid, user, _group = peer_credentials(sock)
            close_in_thread(sock.detach(), 0, then, user)
            return
    sock.close()
    if then is not None:
        then()


def close_listener(sock: socket.socket, then: Callable[[], object] | None = None) -> None:
    """Close a listening socket, and with it the connections that nobody has accepted.

    What was sent over these may carry descriptors, which the kernel closes with them: that
    may wait, and is done in a thread. It is not shut down, as a service manager or the
    process that started memd may have it, too.

    Args:
        then: called once it is closed, in whatever thread.
    """
    if sock.family != socket.AF_UNIX:
        sock.close()
        return
    from memd.hostmem.closing import close_in_thread

    close_in_thread(sock.detach(), 0, then)


def _here(entry: Entry) -> str:
    """An entry's path by its directory, which is the one that was looked up wherever it is."""
    return f"/proc/self/fd/{entry.directory}/{os.fsdecode(entry.name)}"


_FAMILIES = {"": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}

_Found = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]]


def _resolve(
    host: str,
    port: str,
    family: str,
    flags: int = 0,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> _Found:
    try:
        if not (host or port):
            # Python would ask for port 0.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        # Python imports its tables of other letters for a name that is text.
        name = host.encode() if host.isascii() else host
        return socket.getaddrinfo(name or None, port, _FAMILIES[family], kind, 0, flags)
    except (socket.gaierror, UnicodeError) as error:
        # A name that can be none is not asked for.
        reason = getattr(error, "strerror", None) or "Name or service not known"
        raise QMPError(f"address resolution failed for {host}:{port}: {reason}") from None


def connect_tcp(
    host: str, port: str, family: str = "", timeout: float | None = None
) -> socket.socket:
    """Connect to the first of a host's addresses that takes it.

    Args:
        host: a name or address, IPv6 without brackets; empty for this machine.
        port: a number or a service's name.
        family: "ipv4" or "ipv6" where only that is wanted.
        timeout: seconds for each address; None for as long as the kernel tries.

    Raises:
        QMPError: none does.
    """
    refusal: OSError | None = None
    for kind, type, protocol, _name, address in _resolve(host, port, family):
        sock = socket.socket(kind, type, protocol)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            sock.settimeout(None)
            return sock
        except OSError as error:
            sock.close()
            refusal = error
    reason = os.strerror(refusal.errno or errno.ETIMEDOUT) if refusal else "No address"
    raise QMPError(f"Failed to connect to '{host}:{port}': {reason}")


def listen_tcp(
    host: str, port: str, family: str = "", backlog: int = BACKLOG
) -> list[socket.socket]:
    """Listen on all of a host's addresses that can be listened on, at least on one.

    Args:
        host: as for `connect_tcp`; empty for every address.
        port: a number or a service's name.
        family: "ipv4" or "ipv6" where only that is wanted.
        backlog: clients that may wait to be accepted.

    Raises:
        QMPError: there is none; the first one's reason. Or there are more than `MOST_ADDRESSES`.
    """
    found: list[socket.socket] = []
    refusal: OSError | None = None
    for kind, type, protocol, _name, address in _resolve(host, port, family, socket.AI_PASSIVE):
        try:
            sock = socket.socket(kind, type, protocol)
        except OSError as error:
            # The kernel has no such family.
            refusal = refusal or error
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.AF_INET6:
                # "::" is for IPv4 too, unless that is not wanted or has a socket of its own.
                alone = family == "ipv6" or any(each.family == socket.AF_INET for each in found)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
            sock.bind(address)
            sock.listen(backlog)
            found.append(sock)
        except OSError as error:
            sock.close()
            refusal = refusal or error
        if len(found) > MOST_ADDRESSES:
            for sock in found:
                sock.close()
            raise QMPError(f"memd listens on {MOST_ADDRESSES} addresses of '{host}' at most")
    if found:
        return found
    reason = os.strerror(refusal.errno or 0) if refusal else "No address"
    if refusal and refusal.errno == errno.EADDRINUSE:
        raise QMPError(f"Failed to find an available port: {reason}")
    raise QMPError(f"Failed to bind socket: {reason}")


def connect_udp(here: tuple[str, str], there: tuple[str, str], family: str = "") -> socket.socket:
    """A socket for datagrams between two addresses, the first of each that there are.

    Args:
        here: host and port, as for `listen_tcp`.
        there: host and port, as for `connect_tcp`.
        family: "ipv4" or "ipv6" where only that is wanted.

    Raises:
        QMPError: there can't be one.
    """
    number, _kind, _protocol, _name, remote = _resolve(
        *there, family, socket.AI_V4MAPPED, socket.SOCK_DGRAM
    )[0]
    family = next(name for name, each in _FAMILIES.items() if each == number)
    local = _resolve(*here, family, socket.AI_PASSIVE, socket.SOCK_DGRAM)[0][4]
    sock = socket.socket(number, socket.SOCK_DGRAM)
    with opening(sock, "Failed to bind socket"):
        sock.bind(local)
    with opening(sock, f"Failed to connect to '{there[0]}:{there[1]}'"):
        sock.connect(remote)
    return sock


def _vsock(cid: str, port: str) -> tuple[socket.socket, tuple[int, int]]:
    """A socket for machines and their host (vsock(7)), and an address; raises `QMPError`."""
    numbers = []
    for what, text in (("cid", cid), ("port", port)):
        # Compiled when it is needed, and not at each start.
        found = re.fullmatch(r"[ \t-\r]*\+?0*([0-9]{1,10})", text)
        if found is None or int(found[1]) >= 1 << 32:
            raise QMPError(f"Failed to parse {what} '{text}'")
        numbers.append(int(found[1]))
    # The kernel may have no such family.
    with refusing("Failed to create socket"):
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    return made, (numbers[0], numbers[1])


def connect_vsock(cid: str, port: str) -> socket.socket:
    """Connect to a machine or its host; raises `QMPError` where that can't be.

    Args:
        cid: the machine's number, in decimal.
        port: a number, in decimal.
    """
    made, address = _vsock(cid, port)
    with opening(made, f"Failed to connect to '{cid}:{port}'"):
        made.settimeout(PATIENCE)
        made.connect(address)
    return made


def listen_vsock(cid: str, port: str) -> socket.socket:
    """Listen for machines, or the host; raises `QMPError` where that can't be.

    Args:
        cid: a number of this machine's own, in decimal.
        port: a number, in decimal.
    """
    made, address = _vsock(cid, port)
    with opening(made, "Failed to bind socket"):
        made.bind(address)
        made.listen(1)
    return made


def address_of(sock: socket.socket) -> JSON:
    """The QAPI `SocketAddress` of a socket that listens or is connected."""
    name = sock.getsockname()
    if not name:
        # Given by number, it may be connected to nobody.
        with contextlib.suppress(OSError):
            name = sock.getpeername()
    if sock.family == socket.AF_UNIX:
        return {"type": "unix", "path": os.fsdecode(name)}
    if sock.family == socket.AF_VSOCK:
        return {"type": "vsock", "cid": str(name[0]), "port": str(name[1])}
    family = "ipv6" if sock.family == socket.AF_INET6 else "ipv4"
    return {"type": "inet", "host": name[0], "port": str(name[1]), family: True}


def ends_of(sock: socket.socket) -> tuple[str, str] | None:
    """Both ends of a TCP connection, as they are written; None for others."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        here, there = sock.getsockname(), sock.getpeername()
    except OSError:
        # Gone already.
        return None
    return host_and_port(here[0], here[1]), host_and_port(there[0], there[1])


def look_at(fd: int) -> tuple[int, tuple[str, str] | None]:
    """The family of a socket that was given, and what `ends_of` says of it; may wait.

    Raises:
        OSError: it is no socket.
    """
    from memd.hostmem.libc import socket_address, socket_family

    family = socket_family(fd)
    ends = []
    if family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            for raw in (socket_address(fd, peer=False), socket_address(fd, peer=True)):
                ends.append(_read_address(family, raw))
    return family, (ends[0], ends[1]) if len(ends) == 2 else None


def _read_address(family: int, raw: bytes) -> str:
    """Host and port of an address as the kernel has it (ip(7), ipv6(7))."""
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return host_and_port(socket.inet_ntop(family, raw[4:8]), port)
    flow, scope = int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[24:28], sys.byteorder)
    address = socket.inet_ntop(family, raw[8:24]), port, flow, scope
    host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return host_and_port(host, port)


def host_and_port(host: str, port: str | int) -> str:
    """An address as it is written, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def has_hung_up(fd: int, *, half: bool = False) -> bool:
    """Whether the other end of a connection is gone; nothing is read. Does not wait.

    Args:
        fd: the socket.
        half: whether it counts that the other end sends no more.
    """
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP if half else 0)
    return bool(poll.poll(0))


def cut(fd: int, family: int, user: int) -> None:
    """End a connection, whose socket stays open; at once or soon.

    Args:
        family: of its addresses. A process that has it as well may keep it locked, unless
            it is a UNIX socket.
        user: who has given it.
    """
    # Brings in ctypes, which a start need not pay for.
    from memd.hostmem.closing import do_in_thread
    from memd.hostmem.libc import shut_down

    fd = os.dup(fd)

    def end() -> None:
        with contextlib.suppress(OSError):
            shut_down(fd)
        os.close(fd)

    if family == socket.AF_UNIX:
        end()
    else:
        do_in_thread(end, 0, user)
