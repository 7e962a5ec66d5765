"""Where a migration goes to and comes from: sockets, files, descriptors, commands.

Addresses and what is said of wrong ones are QEMU 10.0.2's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable
from typing import cast

from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.libc import socket_family
from memd.hostmem.paths import FDSETS, Made, Roots
from memd.hostmem.sockets import (
    MOST_ADDRESSES,
    PATIENCE,
    address_of,
    close_socket,
    connect_tcp,
    connect_unix,
    connect_vsock,
    listen_tcp,
    listen_unix,
    listen_vsock,
    tcp_family,
)
from memd.json_types import JSON, JSONObject
from memd.places import USER, Account, Share
from memd.qapi.numbers import parse_size, parse_uint64
from memd.qapi.visit import as_signed
from memd.standin.chardevs import Copy, Held, TakeFd, create_file, open_file
from memd.work import Completion, Job

# With vfork(2) all threads would wait until a program is loaded, of whatever file system.
subprocess._USE_VFORK = False  # type: ignore[misc]

Address = JSONObject
"""A QAPI `MigrationAddress`."""

_INET = r"(?:\[([^]]{1,64})\]|((?!\[)[^:]{0,64})):([^,]{1,32})(,.*)?"
_TOO_FAR = r"(?ai)\s*(?:-\d+|\+?\d+[bkmgtpe]?)"
"""Offsets of files that are numbers, whose only fault can be that they are out of range."""
_VSOCK = r"([^:]{1,32}):([^,]{1,32})(.*)"
_MODE = 0o660
_REFUSED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MOST_OPEN = 3
"""Descriptors of a channel that is not given, at most: a socket, its directory, who has come. A
host's name may stand for several addresses that are listened on."""
_PAUSE = 0.1
"""Seconds until a client is accepted that there was no descriptor for, and until a device is
tried again."""
_SHORT_PAUSE = 0.001
"""The same of a file, which is always ready where no server says otherwise."""


def address(args: JSONObject, compat: Compat) -> Address:
    """The address that `migrate` and `migrate-incoming` are given, as a URI or as channels.

    Args:
        args: theirs.
        compat: whose texts.

    Raises:
        QMPError: there is none, more than one, or it can't be understood.
    """
    channels = args.get("channels") or []
    if ("uri" in args) == bool(channels):
        raise QMPError("need either 'uri' or 'channels' argument")
    if "uri" in args:
        return _parse(args["uri"], compat)
    mains: list[Address] = [each["addr"] for each in channels if each["channel-type"] == "main"]
    if len(mains) > 1:
        raise QMPError("Channel list has more than one main entry")
    if not mains:
        raise QMPError("Channel list has no main entry")
    return mains[0]


def _parse(uri: str, compat: Compat) -> Address:
    kind, colon, rest = uri.partition(":")
    if not colon:
        raise QMPError(f"unknown migration protocol: {uri}")
    if kind == "exec":
        return {"transport": "exec", "args": ["/bin/sh", "-c", rest]}
    if kind == "file":
        name, comma, offset = rest.partition(",offset=")
        number = parse_size(offset) if comma else 0
        if number is None:
            code = errno.ERANGE if re.fullmatch(_TOO_FAR, offset) else errno.EINVAL
            raise QMPError(f"file URI has bad offset {offset}: {os.strerror(code)}")
        return {"transport": "file", "filename": name, "offset": number}
    if kind == "unix":
        if not rest:
            raise QMPError("invalid Unix socket address")
        return {"transport": "socket", "type": "unix", "path": rest}
    if kind == "fd":
        if not rest:
            raise QMPError("invalid file descriptor address")
        return {"transport": "socket", "type": "fd", "str": rest}
    if kind == "vsock":
        pair = re.fullmatch(_VSOCK, rest, re.DOTALL)
        if pair is None:
            raise QMPError(f"error parsing address '{rest}'")
        if pair[3]:
            raise QMPError(f"trailing characters in address '{rest}'")
        return {"transport": "socket", "type": "vsock", "cid": pair[1], "port": pair[2]}
    if kind in ("tcp", "rdma"):
        found = re.fullmatch(_INET, rest, re.DOTALL)
        if found is None:
            what = "address"
            if rest[:1] == "[":
                what = "IPv6 address"
            elif rest[:1] == ":" and compat is Compat.V10_0:
                what = "port in address"
            raise QMPError(f"error parsing {what} '{rest}'")
        of = {"transport": kind} if kind == "rdma" else {"transport": "socket", "type": "inet"}
        of |= {"host": found[1] or found[2] or "", "port": found[3]}
        return of | _flags(found[4] or "", compat)
    raise QMPError(f"unknown migration protocol: {uri}")


def _flags(text: str, compat: Compat) -> dict[str, bool]:
    """The families that are asked for behind a port; raises `QMPError`."""
    told: dict[str, bool] = {}
    if compat is not Compat.V10_0:
        for each in text.split(",")[1:]:
            name, sign, value = each.partition("=")
            if name == "to":
                if parse_uint64(value) is None:
                    raise QMPError("Parameter 'to' expects a number")
                continue
            if name not in _SWITCHES:
                raise QMPError(f"Invalid parameter '{name}'")
            if sign + value not in _FLAG:
                raise QMPError(f"Parameter '{name}' expects 'on' or 'off'")
            told[name] = _FLAG[sign + value]
        return told
    to = re.search(",to=([^,]*)", text)
    if to is not None and not re.fullmatch(_INT, to[1], re.ASCII):
        raise QMPError("error parsing to= argument")
    for name in _SWITCHES:
        if flag := re.search(f",{name}([^,]*)", text):
            if flag[1] not in _FLAG:
                raise QMPError(f"error parsing '{name}' flag '{text[flag.start(1) :]}'")
            told[name] = _FLAG[flag[1]]
    return told


_INT = r"\s*[+-]?[0-9]+"
_SWITCHES = ("ipv4", "ipv6", "keep-alive", "mptcp")
_FLAG = {"": True, "=on": True, "=off": False}


class Channel:
    """An open end of a migration, or what listens for one.

    Attributes:
        kind: "socket", "file" or "command", for messages.
        regular: whether it is a regular file.
        pipe: whether it is a pipe.
        listening: the addresses where the other end is waited for (QAPI `SocketAddress`).
        share: what it counts as until it is closed.
    """

    share: Share | None = None

    def __init__(
        self,
        kind: str,
        fds: list[int],
        close: Callable[[], None] | None = None,
        *,
        process: subprocess.Popen[bytes] | None = None,
        made: Made | None = None,
        listening: list[JSON] | None = None,
    ) -> None:
        self.kind = kind
        self.listening = listening or []
        self._fds = fds
        self._close = close
        self._made = made
        self._process = process
        self._waited: Completion | None = None
        self._pause = 0.0
        self.regular, self.pipe = True, False
        for fd in fds:
            mode = os.fstat(fd).st_mode
            self.pipe = stat.S_ISFIFO(mode)
            # What only names a file (O_PATH) can't be waited for, either: to read it fails.
            if not (stat.S_ISREG(mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH):
                self.regular = False
                os.set_blocking(fd, False)
        # To poll a file, or a device, may wait for its server, and a socket of vsock(7) for
        # another process that has it locked.
        self._polled = self.pipe or kind != "file"
        if kind == "socket" and close is not None:
            self._polled = socket_family(fds[0]) != socket.AF_VSOCK

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._fds[0]

    async def ready(self, *, write: bool = False) -> None:
        """Wait until something can be read or written, or `interrupt` is called."""
        loop = asyncio.get_running_loop()
        pause, self._pause = self._pause, 0.0
        if not self._polled:
            pause = _SHORT_PAUSE if self.regular else _PAUSE
        if pause:
            self._waited = Completion()
            again = loop.call_later(pause, self._waited.set)
            try:
                await self._waited
            finally:
                again.cancel()
                self._waited = None
            return
        add, remove = loop.add_reader, loop.remove_reader
        if write:
            add, remove = loop.add_writer, loop.remove_writer
        self._waited = Completion()
        try:
            for fd in self._fds:
                add(fd, self._waited.set)
            await self._waited
        finally:
            for fd in self._fds:
                remove(fd)
            self._waited = None

    def interrupt(self) -> None:
        """End the wait of `ready`."""
        if self._waited is not None:
            self._waited.set()

    def accept(self) -> Channel | None:
        """The other end that has come, where this listens; None where it has left again.

        None, too, where there is no descriptor for it: it is tried again a little later.
        """
        for fd in self._fds:
            listener = socket.socket(fileno=fd)
            try:
                return Channel("socket", [listener.accept()[0].detach()])
            except OSError as error:
                if error.errno in _REFUSED:
                    # What has come is still there, and would be at once.
                    self._pause = _PAUSE
            finally:
                listener.detach()
        return None

    def close(self, *, kill: bool = False) -> None:
        """Close it; may wait for a file system.

        Args:
            kill: whether a command is ended too, where it has not yet.
        """
        if self._close is not None:
            self._close()
        else:
            for fd in self._fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fds = []
        self.remove_name()
        if self.share is not None:
            self.share.end()
        if self._process is not None and kill:
            self._process.kill()

    def remove_name(self) -> None:
        """Remove the socket's file, if it has made one; may wait for a file system."""
        made, self._made = self._made, None
        if made is not None:
            made.remove()

    def disconnect(self) -> None:
        """Close who has come at once; what they have sent and nobody has read is not waited for."""
        close_socket(socket.socket(fileno=self._fds.pop()))

    async def ended(self) -> None:
        """Wait for the end of a command, once it is closed."""
        if self._process is not None and self._process.poll() is None:
            end = Channel("command", [os.pidfd_open(self._process.pid)])
            try:
                await end.ready()
            finally:
                end.close()
            self._process.poll()


async def make(
    where: Address, opening: Callable[[], Channel], account: Account, user: int | None
) -> Channel:
    """Open a channel in a thread; its descriptors count for a user until it is closed.

    Args:
        where: its address.

    Raises:
        QMPError: it can't be opened, or there are too many descriptors.
    """
    with account.charge_bytes(0, user, _most_open(where)) as share:
        channel = await Job(opening)
        channel.share = share
        return channel


def _most_open(where: Address) -> int:
    """How many descriptors what is at an address takes, at most."""
    return MOST_ADDRESSES + 1 if where.get("type") == "inet" else _MOST_OPEN


def listen(where: Address, roots: Roots | None) -> Channel:
    """Listen at the address of a socket, of type "unix", "inet" or "vsock". May wait.

    Raises:
        QMPError: it can't be.
    """
    told: list[JSON]
    if where["type"] == "vsock":
        vsock = listen_vsock(where["cid"], where["port"])
        told = [address_of(vsock)]
        return Channel("socket", [vsock.detach()], listening=told)
    if where["type"] not in ("unix", "inet"):
        raise QMPError(f"memd does not listen on sockets of type '{where['type']}'")
    if where["type"] == "unix":
        listener, made = listen_unix(where["path"], roots)
        told = [{"type": "unix", "path": where["path"]}]
        return Channel("socket", [listener.detach()], made=made, listening=told)
    family = tcp_family(where.get("ipv4"), where.get("ipv6"))
    socks = listen_tcp(where["host"], where["port"], family, backlog=1)
    told = [address_of(each) for each in socks]
    return Channel("socket", [each.detach() for each in socks], listening=told)


def _begin_at(fd: int, offset: int | None, *, write: bool) -> None:
    """Have a file read or written from an offset on; raises `QMPError`.

    Args:
        offset: None for what is not a migration, and goes to files that can't be cut, too.
    """
    if offset is None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
        return
    # The kernel's signed number; Python refuses others before they get there.
    signed = as_signed(offset, 64)
    try:
        if write:
            what = f"failed to truncate migration file to offset {offset:x}"
            os.ftruncate(fd, signed)
        if offset:
            what = f"Unable to seek to offset {signed} whence 0 in file"
            os.lseek(fd, signed, os.SEEK_SET)
    except OSError as error:
        raise QMPError(f"{what}: {error.strerror}") from None


def _no_rdma(where: Address, *, write: bool) -> str:
    """What is said on a host that has no device for RDMA."""
    if write:
        return "could not create CM channel" if where["host"] else "RDMA hostname has not been set"
    return "could not create rdma event channel" if where["host"] else "RDMA host is not set!"


class Opener:
    """Opens what the client names whose command is being run.

    Args:
        account: of what is opened.
        roots: what paths have to be below; None for anywhere.
        take_fd: gives a descriptor by its name.
        may_run: whether a command may be named.
        from_set: gives a copy of a descriptor of a set, by its path and the flags of open(2).
        fd_files: whether a descriptor may be a file's, which QEMU 11.1 refuses.
    """

    def __init__(
        self,
        account: Account,
        roots: Roots | None,
        take_fd: TakeFd,
        from_set: Callable[[str, int], Held],
        *,
        may_run: bool,
        fd_files: bool,
    ) -> None:
        self._account = account
        # A migration connects after its command has ended.
        self._user = USER.get()
        self._from_set = from_set
        self._roots = roots
        self._take_fd = take_fd
        self._may_run = may_run
        self._fd_files = fd_files

    def _copy(self, where: Address, *, write: bool) -> Held | None:
        """A copy of the descriptor of a set that an address names, if so; raises `QMPError`."""
        if not where.get("filename", "").startswith(FDSETS):
            return None
        flags = os.O_WRONLY | os.O_CREAT if write else os.O_RDONLY
        if "offset" not in where:
            flags |= os.O_TRUNC
        return self._from_set(where["filename"], flags)

    async def open(self, where: Address, *, write: bool) -> Channel:
        """Open the channel that a machine is sent over, or comes by.

        Args:
            where: the address.
            write: whether it is sent.

        Raises:
            QMPError: it can't be opened; a descriptor that it names is closed.
        """
        if where.get("type") == "fd":
            # It stays on its client's account.
            return await self._opened(where, self._take_fd(where["str"]), write=write)
        with self._account.charge_bytes(0, self._user, _most_open(where)) as share:
            copy = self._copy(where, write=write)
            channel = await self._opened(where, copy, write=write)
            channel.share = share
            return channel

    async def _opened(self, where: Address, given: Held | None, *, write: bool) -> Channel:
        try:
            return await Job(lambda: self._open(where, given, write=write))
        except BaseException:
            if given is not None:
                given.close()
            raise

    def _open(self, where: Address, given: Held | None, *, write: bool) -> Channel:
        """The same; `given` is what an address names. May wait."""
        transport, kind = where["transport"], where.get("type")
        if given is not None and transport == "file":
            if "offset" in where:
                _begin_at(given.fd, where["offset"], write=write)
            else:
                cast("Copy", given).truncate()
            return Channel("file", [given.fd], given.close)
        if given is not None:
            mode = os.fstat(given.fd).st_mode
            is_socket = stat.S_ISSOCK(mode)
            if not (is_socket or stat.S_ISFIFO(mode) or self._fd_files):
                raise QMPError("fd: migration to a file is not supported. Use file: instead.")
            return Channel("socket" if is_socket else "file", [given.fd], given.close)
        if transport == "exec":
            return self._run(where["args"], write=write)
        if transport == "file":
            return self._file(where, write=write)
        if transport == "rdma":
            raise QMPError(f"RDMA ERROR: {_no_rdma(where, write=write)}")
        if kind not in ("unix", "inet", "vsock"):
            raise QMPError(f"memd has no channels of type '{kind}'")
        if not write:
            return listen(where, self._roots)
        if kind == "unix":
            made = connect_unix(where["path"], self._roots)
        elif kind == "vsock":
            made = connect_vsock(where["cid"], where["port"])
        else:
            made = connect_tcp(where["host"], where["port"], timeout=PATIENCE)
        return Channel("socket", [made.detach()])

    def _file(self, where: Address, *, write: bool) -> Channel:
        path = where["filename"]
        if write:
            fd = create_file(path, 0, self._roots, "create", _MODE)
        else:
            fd = open_file(path, os.O_RDONLY, self._roots)
        try:
            _begin_at(fd, where.get("offset"), write=write)
        except QMPError:
            os.close(fd)
            raise
        return Channel("file", [fd])

    def _run(self, args: list[str], *, write: bool) -> Channel:
        if not self._may_run:
            raise QMPError("memd runs no command for a client: it was started without --allow-exec")
        if not args:
            raise QMPError("there is no command to run")
        pipes = {"stdin" if write else "stdout": subprocess.PIPE}
        pipes["stdout" if write else "stdin"] = subprocess.DEVNULL
        try:
            process = subprocess.Popen(args, **pipes)  # type: ignore[call-overload]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise QMPError(f"Failed to execute child process “{args[0]}” ({reason})") from None
        end = process.stdin or process.stdout
        return Channel("command", [end.fileno()], end.close, process=process)
