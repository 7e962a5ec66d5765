"""A daemon for the length of a test, and everything that a test wants of it."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from memd.client import Client
from memd.json_types import JSON, JSONObject
from memd.testing import checks

if TYPE_CHECKING:
    from memd.client import AsyncClient

Message = JSONObject
Path = str | os.PathLike[str]

PATIENCE = 20.0
"""Seconds after which a daemon that does not start, end or answer is given up."""

_UNIX_PATH_MAX = 107

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class ServerDied(Exception):
    """The daemon did not start, or ended by itself; the text has its log."""


class Server:
    """A daemon of this test's own; a context manager, `with` as well as `async with`.

    It listens on a socket that nobody else knows, and ends with the process
    that started it, whatever becomes of that.

    Args:
        options: of `memd`, such as "--object", "memory-backend-ram,id=m0,size=1M".
        faults: those that are there from the start; see `fault`.
        compat: whose behaviour it has: "10.0" or "11.1".
        command: what to start instead of `memd`, to which the options for its
            sockets are added.
        replay: a transcript from which it answers; see `replay`.

    Attributes:
        socket: the path of the socket that the tested client connects to.
        control: the path of a socket for faults and nothing else: there nothing
            goes wrong, and nothing is recorded.
    """

    _process: subprocess.Popen[bytes] | None = None
    _lifeline: socket.socket | None = None
    _log_file: IO[bytes] | None = None
    _last_log = ""
    _told: Client | None = None
    _may_end = False

    def __init__(
        self,
        options: Sequence[str] = (),
        faults: Iterable[Mapping[str, JSON]] = (),
        *,
        compat: str | None = None,
        command: Sequence[str] | None = None,
        replay: Path | None = None,
    ) -> None:
        base = free_path()
        self.socket = f"{base}.sock"
        self.control = f"{base}.control"
        # -P: the tests' directory may have a `queue.py`, or a `memd`, of its own.
        self._argv = [*(command or (sys.executable, "-P", "-m", "memd"))]
        self._argv += ["--qmp", f"unix:{_doubled(self.socket)},server=on,wait=off"]
        self._argv += ["--test-control", f"unix:{_doubled(self.control)},server=on,wait=off"]
        if compat is not None:
            self._argv += ["--compat", compat]
        self._options = list(options)
        self._faults = [dict(fault) for fault in faults]
        self._replay = replay
        self._clients: list[Client | AsyncClient] = []

    # From start to end

    def start(self) -> None:
        """Start it; it serves when this returns.

        Raises:
            ServerDied: it ended instead.
        """
        if self._process is not None:
            raise RuntimeError("the server was started before")
        self._may_end = False
        self._log_file = tempfile.TemporaryFile()  # noqa: SIM115
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [*self._argv, "--test-control", f"unix:fd={number}", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=self._log_file,
                stderr=self._log_file,
                pass_fds=(number,),
                env=_environment(),
                # Ctrl-C at a terminal is for the tests, which then end it.
                process_group=0,
            )
        self._lifeline = ours
        ours.settimeout(PATIENCE)
        try:
            # It is greeted once everything is there and clients are served.
            try:
                begun = ours.recv(1)
            except OSError as error:
                raise ServerDied(f"memd did not start: {error}\n{self.log}") from None
            if not begun:
                raise ServerDied(f"memd did not start\n{self.log}")
            if self._replay is not None:
                self.replay(self._replay)
            for fault in self._faults:
                self.fault(**fault)
        except BaseException:
            self._may_end = True
            self.stop()
            raise

    def stop(self, patience: float = PATIENCE) -> None:
        """End it, and close all clients that were made here.

        Args:
            patience: seconds after which it is killed.

        Raises:
            ServerDied: it had ended by itself before, and not well.
        """
        process, lifeline = self._process, self._lifeline
        if process is None or lifeline is None:
            return
        status = process.poll()
        self._close_clients()
        if self._told is not None:
            self._told.close()
            self._told = None
        # That it is gone is what ends the daemon.
        lifeline.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            status = process.wait()
        self._last_log = self.log
        if self._log_file is not None:
            self._log_file.close()
        self._process = self._lifeline = self._log_file = None
        for path in (self.socket, self.control):
            if os.path.exists(path):
                os.unlink(path)
        if status and not self._may_end:
            raise ServerDied(f"memd ended with status {status}\n{self._last_log}")

    def kill(self, number: int = 9) -> None:
        """Send it a signal that may end it; wait for that with `wait`."""
        self._may_end = True
        self._running().send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it has ended by itself, as after `quit`; its exit status.

        Raises:
            TimeoutError: it has not.
        """
        try:
            return self._running().wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"memd still runs after {timeout} seconds") from None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def log(self) -> str:
        """Its standard output and error so far."""
        file = self._log_file
        if file is None:
            return self._last_log
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        import asyncio

        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_error: object) -> None:
        import asyncio

        # The clients belong to this loop; their sockets can be closed here only.
        self._close_clients()
        await asyncio.to_thread(self.stop)

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    # Clients

    def connect(self, *, timeout: float | None = PATIENCE) -> Client:
        """A connected client, closed with the server at the latest."""
        client = Client(self.socket, timeout=timeout)
        self._clients.append(client)
        return client

    async def connect_async(self) -> AsyncClient:
        """A connected client for asyncio, closed with the server at the latest."""
        from memd.client import AsyncClient

        client = await AsyncClient.connect(self.socket)
        self._clients.append(client)
        return client

    # Misbehaviour

    def tell(self, command: str, arguments: Message | None = None) -> JSON:
        """Execute a command over the control socket, such as `x-test-fault-add`."""
        if self._told is None:
            self._told = Client(self.control, timeout=PATIENCE)
        return self._told.execute(command, arguments)

    def fault(self, **members: JSON) -> str:
        """Have something go wrong from now on; the fault's name.

        Args:
            members: of `TestFault` (docs/testing.md lists them), with underscores
                for dashes: `server.fault(command="query-status", delay=200)`.
        """
        told = {name.replace("_", "-"): value for name, value in members.items()}
        return str(self.tell("x-test-fault-add", told)["id"])

    def answer(self, command: str, value: JSON, *, listed: bool = False) -> str:
        """Have a command return this, whether or not there is such a command.

        Args:
            listed: whether `query-commands` and `query-qmp-schema` tell of it.
        """
        told = {"command": command, "return": value, "listed": listed}
        return str(self.tell("x-test-answer", told)["id"])

    def remove_fault(self, id: str) -> None:
        """Take a fault away."""
        self.tell("x-test-fault-del", {"id": id})

    @property
    def faults(self) -> list[Message]:
        """The faults: `id`, `fault`, and how often each was `seen` and `applied`."""
        faults: list[Message] = self.tell("x-test-faults")
        return faults

    def emit(self, event: str, data: JSON = None, **members: JSON) -> None:
        """Send an event to every client that has negotiated.

        Args:
            members: further ones of `x-test-emit`: `timestamp`, `client`, `early`.
        """
        told = {"event": event, **({} if data is None else {"data": data}), **members}
        self.tell("x-test-emit", told)

    def send(self, data: bytes | str, client: int | None = None) -> None:
        """Send bytes as they stand to every client, or to one, negotiated or not."""
        raw = data.encode() if isinstance(data, str) else data
        told: Message = {"raw-base64": base64.b64encode(raw).decode("ascii")}
        self.tell("x-test-send", told if client is None else {**told, "client": client})

    def replay(self, filename: Path) -> None:
        """Answer those who connect from now on as a transcript has it."""
        self.tell("x-test-replay", {"filename": os.path.abspath(filename)})

    def reset(self) -> None:
        """Be as at the start, but for the clients that are there: see `x-test-reset`.

        Raises:
            QMPError: what the options describe can't be made once more.
        """
        self.tell("x-test-reset")

    # What was said

    @property
    def transcript(self) -> list[Message]:
        """The messages between clients and the server, in order (`TestMessage`)."""
        return self._said(all=False)

    def _said(self, *, all: bool) -> list[Message]:
        messages: list[Message] = []
        following = 0
        while True:
            found = self.tell("x-test-transcript", {"since": following, "all": all})
            if not found["messages"]:
                return messages
            messages += found["messages"]
            following = found["next"]

    @property
    def sent(self) -> list[Message]:
        """The messages that clients sent, in order."""
        return checks.sent(self.transcript)

    def expect(self, *commands: checks.Expected, only: bool = True) -> None:
        """Raise `Unexpected` unless clients sent these commands, in this order.

        Args:
            commands: each a name, or a name and arguments that it must have had,
                whatever else it had.
            only: whether they are all that was sent; else others may be between.
        """
        each = [c if isinstance(c, str) else {"execute": c[0], "arguments": c[1]} for c in commands]
        self._hold("x-test-expect", {"commands": each, "only": only})

    def compare(self, filename: Path) -> None:
        """Raise `Unexpected` unless what was said is what a transcript has (`x-test-compare`)."""
        self._hold("x-test-compare", {"filename": os.path.abspath(filename)})

    def _hold(self, command: str, arguments: Message) -> None:
        try:
            self.tell(command, arguments)
        except checks.QMPError as error:
            raise checks.Unexpected(error.desc) from None

    def check_schema(
        self, *, answers: bool = True, all: bool = False, catalogue: str | None = None
    ) -> None:
        """Raise `Unexpected` unless each message is as QEMU's schema and memd's own have it.

        A command or an event that there is in neither is a mistake, also if it was told,
        and so is a command before `qmp_capabilities` was sent and not refused.

        Args:
            answers: whether the server's are looked at as well, which shows what
                is wrong with an answer that was told.
            all: whether what was said before the last reset is looked at as well.
            catalogue: the file of another QEMU's schema than the release's (`memd-test
                catalogue`).
        """
        version = self.tell("query-version")["qemu"]
        compat = f"{version['major']}.{version['minor']}"
        checks.check_schema(self._said(all=all), compat, answers=answers, catalogue=catalogue)

    def check_replay(self) -> None:
        """Raise `Unexpected` unless clients sent all that the replayed transcript has."""
        checks.check_replay(self.tell("x-test-replay-status"))

    def save_transcript(self, filename: Path) -> None:
        """Write the transcript to a file from which it can be replayed."""
        checks.save_transcript(self.transcript, filename)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process


def free_path() -> str:
    """A new path for sockets, without its ending, short enough for them."""
    name = f"memd-{secrets.token_hex(8)}"
    base = os.path.join(tempfile.gettempdir(), name)
    # A socket's path has its limit (unix(7)), and temporary directories are deep at times.
    return base if len(os.fsencode(base)) + 8 <= _UNIX_PATH_MAX else f"/tmp/{name}"


def _doubled(path: str) -> str:
    return path.replace(",", ",,")


def _environment() -> dict[str, str]:
    """The environment in which it is this memd that is found, and no service manager."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))
    }
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{path}" if path else _ROOT
    return environment
