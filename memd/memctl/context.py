"""The context of a subcommand: the daemon's address, output, errors.

memctl speaks to memd through `memd.client`, and not through qemu.qmp: that sends
descriptors and does not take any, which `export` needs; it gives up on a message of more
than 10 MB, and 16 MiB of memory are 22 MB of base64; and it stands on asyncio, whose
import takes longer than `memctl ls` (34 ms and 27 ms, CPython 3.11).
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Iterable

from memd.client import Client
from memd.errors import COMMAND_NOT_FOUND, QMPError, printable
from memd.json_types import JSON

Address = str | tuple[str, int]

OK = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
BROKEN_PIPE = 141
SIGNALLED = 128
"""Exit statuses. FAILED: the daemon or the host refused. The last two are what a
shell shows for a command that SIGPIPE ended, or, with its number added, another signal."""

SOCKET_VARIABLE = "MEMD_SOCKET"

PATIENCE = 10.0
"""Seconds in which a daemon has to greet; whatever is asked then may take longer."""

_CLASSES = {FAILED: "Failed", USAGE: "Usage", NO_DAEMON: "NoDaemon"}


class Trouble(Exception):
    """Something is in the way.

    Args:
        text: what, for standard error.
        status: the exit status.
        hint: what to do, lines that follow the text.
        error_class: for scripts; by default that of the status.
    """

    def __init__(
        self, text: str, status: int = FAILED, hint: str = "", error_class: str = ""
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.hint = hint
        self.error_class = error_class or _CLASSES[status]


class Terminated(KeyboardInterrupt):
    """A signal says that it is time to clean up and leave, as Ctrl-C does.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Context:
    """The context of a subcommand, besides its own arguments.

    Args:
        socket: the address given with -s, or None.
        as_json: see below.
        patience: seconds, see `PATIENCE`.

    Attributes:
        as_json: whether it is to print data instead of words.
    """

    def __init__(self, socket: str | None, as_json: bool, patience: float = PATIENCE) -> None:
        self._socket = socket
        self._patience = patience
        self.as_json = as_json

    def address(self) -> Address:
        """The daemon's address: a path, or a host and port.

        Raises:
            Trouble: nobody says.
        """
        given = self._socket or os.environ.get(SOCKET_VARIABLE)
        if not given:
            from memd.cli.process import default_socket_path

            try:
                return default_socket_path()
            except QMPError as error:
                text = error.desc.split(":")[0]
                hint = f"Name memd's socket with -s PATH or ${SOCKET_VARIABLE}."
                raise Trouble(text, NO_DAEMON, hint) from None
        kind, colon, rest = given.partition(":")
        if kind == "unix" and colon:
            if not rest:
                raise Trouble(f"'{given}' is not an address: unix:PATH is expected", USAGE)
            return rest
        if kind == "tcp" and colon:
            host, _, port = rest.rpartition(":")
            if not host or not port.isdigit():
                raise Trouble(f"'{given}' is not an address: tcp:HOST:PORT is expected", USAGE)
            return host.strip("[]"), int(port)
        return given

    def connect(self) -> Client:
        """A connection to the daemon.

        Raises:
            Trouble: there is none.
        """
        address = self.address()
        try:
            client = Client(address, timeout=self._patience)
        except (OSError, QMPError, ValueError) as error:
            raise no_daemon(address, error) from None
        client.set_timeout(None)
        return client

    def tell(self, data: JSON, lines: Iterable[str] = ()) -> None:
        """Print data for scripts, or words for people."""
        if self.as_json:
            utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            lines = (json.dumps(data, indent=2, ensure_ascii=not utf8),)
        for line in lines:
            print(line)


def absolute(path: str) -> str:
    """A path as the daemon finds it, whose directory is another; raises `Trouble`."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise Trouble(
            f"the current directory is gone, so there is no '{path}' in it",
            hint="Change into another one, or name the file by its whole path.",
        ) from None


def no_daemon(address: Address, error: Exception) -> Trouble:
    """Why there is no connection, and how to come to one."""
    from memd.hostmem.sockets import host_and_port

    where = address if isinstance(address, str) else f"tcp:{host_and_port(*address)}"
    # Its backlog may be full as well, which a UNIX socket tells at once.
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return Trouble(
            f"{where} does not answer",
            NO_DAEMON,
            "It may serve one client at a time, as a QEMU does, and have one.",
        )
    if isinstance(error, (QMPError, ValueError, ConnectionAbortedError)) or (
        isinstance(error, ConnectionError) and error.errno is None
    ):
        hint = "Another program listens there. Name memd's socket with -s PATH."
        return Trouble(f"{where} does not serve QMP: {error}", NO_DAEMON, hint)
    if isinstance(address, str) and _is_other_than_socket(address):
        hint = f"Name memd's socket with -s PATH or ${SOCKET_VARIABLE}."
        return Trouble(f"{where} is not a socket", NO_DAEMON, hint)
    reason = error.strerror if isinstance(error, OSError) else None
    return Trouble(f"cannot connect to {where}: {reason or error}", NO_DAEMON, _way(where, error))


def _is_other_than_socket(path: str) -> bool:
    """Whether there is a file that is not a socket."""
    try:
        return not stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _way(where: str, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "It is another user's: run memctl as that user, or have the socket's mode changed."
    if isinstance(error, socket.gaierror):
        return "No daemon is there: give the name or address of its host."
    if where.startswith("tcp:"):
        return f"Start a daemon there: memd --qmp {where},server=on,wait=off"
    try:
        from memd.cli.process import default_socket_path

        start = "memd" if where == default_socket_path() else ""
    except QMPError:
        start = ""
    # A comma in a value is written twice.
    start = start or f"memd --qmp unix:{where.replace(',', ',,')},server=on,wait=off"
    return (
        f"Start a daemon there: {start}\n"
        f"or name the socket of one that runs: -s PATH or ${SOCKET_VARIABLE}"
    )


def refused(error: QMPError) -> Trouble:
    """A refusal by the daemon, in its own words."""
    hint = ""
    if error.error_class == COMMAND_NOT_FOUND:
        hint = "The daemon is of another version than this memctl, or it is not memd."
    return Trouble(error.desc, FAILED, hint, error.error_class)


def needs_extra(what: str, package: str) -> Trouble:
    """The error for something that needs a package which is not installed."""
    return Trouble(
        f"{what} needs {package}, which is not installed",
        hint="The extra memctl brings it: in memd's source tree, pip install '.[memctl]'",
    )


def say(text: str) -> None:
    """Print a line to standard error."""
    print(f"memctl: {text}", file=sys.stderr)


def report(context: Context | None, trouble: Trouble) -> int:
    """Say what is in the way; gives the exit status.

    With --json it is said on standard output, too, as QMP says it.
    """
    say(printable(trouble.text))
    if trouble.hint:
        print(trouble.hint, file=sys.stderr)
    if context is not None:
        context.tell({"error": {"class": trouble.error_class, "desc": trouble.text}})
    return trouble.status
