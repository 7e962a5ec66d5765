"""The process itself: its pidfile, the way into the background, the default socket.

What QEMU does was observed on 10.0.2 with strace.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from contextlib import suppress
from functools import partial

from memd.errors import QMPError, refusing
from memd.hostmem.deadline import at_start, within

_END_PATIENCE = 0.5
"""Seconds that the end of the process waits for the PID file's file system."""

_STARTED = b"\0"
"""Written by the background process to the one that was started."""


def fill_standard_descriptors() -> None:
    """Open /dev/null as each of descriptors 0 to 2 that is closed.

    Else the first socket became standard output, and what is printed there
    went to its client.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one: those below are open by now.
            os.open(os.devnull, os.O_RDWR)


def print_anything() -> None:
    """Have what standard output's encoding has not be printed as escapes.

    Paths hold any bytes, and a locale may have no more than ASCII.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class PidFile:
    """A file with the process id, locked and there for as long as the process is.

    Args:
        path: the file; one that is there is taken over, its mode kept, unless
            another process has it locked.

    Raises:
        QMPError: it is not available, or its file system does not answer.
    """

    def __init__(self, path: str) -> None:
        try:
            # --daemonize changes the working directory.
            self._fd, self._path = at_start(lambda: (_locked(path), os.path.realpath(path)))
        except QMPError as error:
            raise QMPError(f"cannot create PID file: {error.desc}") from None
        except TimeoutError as late:
            raise QMPError(f"cannot create PID file: '{path}': {late.strerror}") from None

    def close(self) -> None:
        """Remove the file, if it is still the one made, and close it.

        A file system that stalls keeps nobody waiting for long.
        """
        if self._fd < 0:
            return
        with suppress(TimeoutError):
            within(_END_PATIENCE, self._remove)

    def _remove(self) -> None:
        from memd.hostmem.paths import is_at

        if is_at(self._fd, self._path):
            try:
                os.unlink(self._path)
            except OSError as error:
                import logging

                log = logging.getLogger("memd")
                log.warning("cannot remove the PID file '%s': %s", self._path, error.strerror)
        os.close(self._fd)
        self._fd = -1


def _locked(path: str) -> int:
    from memd.hostmem.paths import is_at, open_own

    while True:
        with refusing(f"Could not create '{path}'"):
            fd = open_own(os.fsencode(path), os.O_WRONLY | os.O_CLOEXEC, 0o600)
        step = "Cannot lock pid file: "
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed it between the opening and the locking.
            if not is_at(fd, path):
                os.close(fd)
                continue
            step = "Failed to truncate pid file: "
            os.ftruncate(fd, 0)
            step = "Failed to write pid file: "
            os.write(fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            os.close(fd)
            raise QMPError(f"{step}{error.strerror}") from None
        return fd


def _flush() -> None:
    """Write out what is held, while there are streams for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Nobody reads it any more.
            pass


class Background:
    """The way into the background: the caller goes on in a new process.

    To be made before there are threads, a pidfile, or locks. The process that
    was started waits, with the standard error that messages go to, and exits:
    with 0 upon `ready`, with 1 if the new process ends without it.
    """

    def __init__(self) -> None:
        _flush()
        reader, self._writer = os.pipe()
        child = os.fork()
        if child:
            os.close(self._writer)
            # The child ends at once. Its own child is not waited for.
            os.waitpid(child, 0)
            os._exit(0 if os.read(reader, 1) == _STARTED else 1)
        os.close(reader)
        os.setsid()
        # Not the leader of its session any more, it can't get a terminal by
        # opening one (setsid(2)).
        if os.fork():
            os._exit(0)
        os.umask(0o027)

    def ready(self) -> None:
        """Leave the terminal and the directory, and release the process that waits."""
        if self._writer < 0:
            return
        os.chdir("/")
        _flush()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._writer, _STARTED)
        os.close(self._writer)
        self._writer = -1


def make_socket_directory(path: str, *, shared: bool = False) -> None:
    """Make the directory of the default socket, with mode 0700, where it is missing.

    Args:
        path: the socket's.
        shared: whether users that were allowed by name have to get through to
            it: then they are let through that directory.

    Raises:
        QMPError: it can't be made, it is somebody else's, or its file system does not answer.
    """
    directory = os.path.dirname(path)
    with refusing(f"Could not create directory '{directory}'"):
        at_start(partial(_make_directory, directory, shared))


def _make_directory(directory: str, shared: bool) -> None:
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise QMPError(f"'{directory}' is not a directory")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise QMPError(
            f"Directory '{directory}' can be written by others, and so is not a place for a socket"
        )
    if shared and status.st_mode & 0o011 != 0o011:
        os.chmod(directory, stat.S_IMODE(status.st_mode) | 0o011)


def default_socket_path() -> str:
    """The path of the socket that memd serves when it is told of none.

    It is below /run for root and below $XDG_RUNTIME_DIR for others (XDG Base
    Directory Specification), in a directory of memd's own.

    Raises:
        QMPError: there is no place for it.
    """
    return os.path.join(_runtime_directory(), "memd", "qmp.sock")


def _runtime_directory() -> str:
    if os.geteuid() == 0:
        return "/run"
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(directory):
        return directory
    # Logins that keep no environment, such as su's, have it all the same.
    directory = f"/run/user/{os.geteuid()}"
    if os.path.isdir(directory):
        return directory
    raise QMPError("XDG_RUNTIME_DIR is not set: say where to serve, --qmp unix:PATH,server=on")
