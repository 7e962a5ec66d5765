"""Listening sockets: made, taken over, cleaned up."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, sleep

from memd.hostmem.sockets import BACKLOG, close_listener, close_socket
from memd.places import operators
from memd.server.peer import peer_of

log = logging.getLogger("memd")

ACCEPT_PAUSE = 0.1
"""Seconds without accepting once descriptors have run out (accept(2), EMFILE):
the waiting client keeps the socket readable, and the loop would spin."""

END_PATIENCE = 0.5
"""Seconds for which a step of the daemon's end waits for a file system."""

LOCK_PATIENCE = 2.0
"""Seconds that one waits for others who make sockets in the same directory."""


def listen_unix(path: str, mode: int = 0o600) -> socket.socket:
    """Listen on a UNIX socket at `path`.

    A socket file that nobody listens on any more is replaced, and an empty file.

    Args:
        mode: of the file: who can connect. Whom memd asks for by name is
            checked once they have, so all must be able to.

    Raises:
        OSError: EADDRINUSE where another process serves it; whatever bind(2)
            says otherwise.
    """
    if not path:
        # bind(2) chooses an abstract name for it, which everybody can connect to (unix(7)).
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lock = _lock_directory(path)
    try:
        # The mode of the socket gives that of the file, so there is no moment
        # in which others could connect (unix(7)).
        os.fchmod(sock.fileno(), mode)
        try:
            _bind(sock, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            _bind(sock, path)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        if lock >= 0:
            os.close(lock)
    return sock


def _lock_directory(path: str) -> int:
    """Lock a socket's directory among those that make sockets there; -1 where that fails.

    Between bind(2) and listen(2) a socket looks like one that nobody listens on, and
    who finds a stale one may remove what another has put in its place by then.
    """
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    end = monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError:
            # Anybody who can read the directory can lock it, and keep it so.
            if monotonic() > end:
                os.close(fd)
                return -1
            sleep(0.01)


def _bind(sock: socket.socket, path: str) -> None:
    # What the mode grants was decided on; a mask is for what nobody thought of.
    mask = os.umask(0)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket that nobody listens on, or an empty file."""
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode):
        # Incus makes one, as a name that nobody else has.
        return status.st_size == 0
    # A connection to anything else is refused too.
    if not stat.S_ISSOCK(status.st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


class Listener:
    """A listening socket on the loop; each client's socket goes to `accepted`.

    It keeps a descriptor, by which an operator gets in when there is no other.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accepted: Callable[[socket.socket], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._accepted = accepted
        self._paused = True
        self._spare = -1

    def start(self) -> None:
        """Accept clients from now on."""
        self._paused = False
        self._accept_again()

    def pause(self) -> None:
        """Accept nobody until it is started again: who connects waits to be greeted."""
        self._paused = True
        self._loop.remove_reader(self._socket.fileno())

    def _on_readable(self) -> None:
        # One a wake-up would serve a rush of a thousand clients a round of the
        # loop late; all of them would keep the present ones waiting.
        for _ in range(16):
            if self._paused:
                return
            try:
                client, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("cannot accept a client: %s", error.strerror)
                self._let_operators_in()
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(ACCEPT_PAUSE, self._accept_again)
                return
            self._accepted(client)

    def _let_operators_in(self) -> None:
        """Accept who waits by the descriptor that is kept; turn away all but operators."""
        for _ in range(16):
            if self._spare < 0 or self._paused:
                return
            os.close(self._spare)
            self._spare = -1
            try:
                client, _address = self._socket.accept()
            except OSError:
                # Nobody waits, or another thread was faster.
                self._keep_spare()
                return
            peer = peer_of(client)
            if peer is not None and peer.uid in operators():
                self._accepted(client)
            else:
                close_socket(client)
            self._keep_spare()

    def _keep_spare(self) -> None:
        if self._spare < 0:
            with suppress(OSError):
                self._spare = os.dup(self._socket.fileno())

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0 and not self._paused:
            self._keep_spare()
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        """Stop listening."""
        # First, so that it is not the last to be closed.
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            close_listener(self._socket)


class SocketFile:
    """The file of a listening socket. All of this may wait for its file system.

    Args:
        path: where it has just been made.
    """

    def __init__(self, path: str) -> None:
        # --daemonize changes the working directory.
        self._path = os.path.abspath(path)
        self._identity = _identity(self._path)

    def remove(self) -> None:
        """Remove it, if it is still the one made."""
        if _identity(self._path) == self._identity:
            try:
                os.unlink(self._path)
            except OSError as error:
                log.warning("cannot remove the socket '%s': %s", self._path, error.strerror)


class SocketFiles:
    """The files of listening sockets that are removed at the end, each added as it is made.

    One may be made in a thread after nobody waits for that any more, so it is removed
    there once the end has come.
    """

    def __init__(self) -> None:
        self._made: list[SocketFile] = []
        self._ended = False

    def add(self, path: str) -> None:
        """A socket has been made at `path`; called in the thread that made it."""
        made = SocketFile(path)
        self._made.append(made)
        if self._ended:
            made.remove()

    async def remove(self, in_thread: Callable[..., Awaitable[object]]) -> None:
        """Remove them, each in a thread of its own: one may wait for its file system.

        Args:
            in_thread: runs a function for so many seconds at most.
        """
        self._ended = True
        await asyncio.gather(*(in_thread(each.remove, END_PATIENCE) for each in self._made))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
