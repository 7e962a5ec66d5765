"""Processes that serve QMP, and a plain blocking client to talk to them.

The client is written from the QMP specification alone and shares no code with
memd, so that a mistake in memd's wire room cannot hide in it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from memd.compat import Compat
from memd.json_types import JSON
from tests import prefork
from tests.prefork import Forked

Message = dict[str, JSON]

PATIENCE = 60.0
"""Seconds after which a peer that says nothing is taken to hang."""

TREE = Path(__file__).resolve().parents[2]
"""The checkout that the tests stand in."""

QEMU = "qemu-system-x86_64"


class Died(Exception):
    """The server ended, or closed the connection, instead of answering."""


def memd_argv(compat: Compat = Compat.V10_0) -> list[str]:
    """The command under test; MEMD_UNDER_TEST names another, shell-like.

    Args:
        compat: whose texts and introspection it has.
    """
    named = os.environ.get("MEMD_UNDER_TEST")
    if named:
        return shlex.split(named)
    return [*prefork.MEMD, *compat_options(compat)]


def qemu_system_memd(compat: Compat = Compat.V10_0) -> list[str]:
    """The command `qemu-system-memd`, as for `memd_argv`."""
    return [*prefork.QEMU_SYSTEM_MEMD, *compat_options(compat)]


def compat_options(compat: Compat) -> list[str]:
    """The options that choose a release, none for the default."""
    return [] if compat is Compat.V10_0 else ["-compat", compat.value]


def qemu_binary() -> list[str]:
    """The reference, the QEMU on PATH; skips where there is none."""
    qemu_compat()
    return [QEMU]


def qemu_argv() -> list[str]:
    """The reference and what makes it comparable, without a machine."""
    return [*qemu_binary(), "-machine", "none", "-nodefaults", "-nographic"]


def qemu_compat() -> Compat:
    """The release that the reference is of; skips where there is none."""
    found = _release()
    if isinstance(found, str):
        judges = " or ".join(map(_version, Compat))
        pytest.skip(f"needs QEMU {judges}: {found}")
    return found


@functools.cache
def _release() -> Compat | str:
    """The release of the QEMU on PATH, or why it is not a reference."""
    if shutil.which(QEMU) is None:
        return f"there is no {QEMU} on PATH"
    done = subprocess.run([QEMU, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout)
    # A comparison with another release says nothing: 10.0.13 has other texts than 10.0.2.
    of = [compat for compat in Compat if found and _version(compat) == found[1]]
    return of[0] if of else f"{QEMU} is {found[1] if found else 'none'}"


def _version(compat: Compat) -> str:
    return ".".join(map(str, compat.version))


class Monitor:
    """One QMP connection over a Unix socket, used synchronously.

    Args:
        path: the socket.
        negotiate: whether to leave capabilities negotiation at once.

    Attributes:
        greeting: the first message.
        events: the asynchronous messages read so far, in order.
    """

    __slots__ = ("_buffer", "_lines", "events", "greeting", "socket")

    def __init__(self, path: str | Path, *, negotiate: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self._buffer = bytearray()
        self._lines: deque[bytes] = deque()
        self.events: list[Message] = []
        try:
            self.socket.connect(str(path))
            self.greeting = self.read()
            if negotiate:
                answer = self.execute("qmp_capabilities")
                while "QMP" in answer and "memd" not in str(answer):
                    # QEMU may greet a client more than once that comes as others leave, and
                    # say something to one of these in between.
                    self.greeting, answer = answer, self.read_answer()
                if answer != {"return": {}}:
                    raise Died(f"negotiation failed: {answer}")
        except BaseException:
            self.socket.close()
            raise

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are, with descriptors if there are any."""
        try:
            if fds:
                sent = socket.send_fds(self.socket, [data], fds)
                data = data[sent:]
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Died(str(error)) from error

    def read_line(self) -> bytes:
        """The next line, its ending included; `Died` at the end of the stream."""
        while not self._lines:
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError as error:
                raise Died(str(error)) from error
            if not data:
                raise Died(f"end of stream after {bytes(self._buffer)!r}")
            *lines, rest = data.split(b"\n")
            if lines:
                lines[0] = bytes(self._buffer + lines[0])
                self._lines.extend(line + b"\n" for line in lines)
                self._buffer = bytearray(rest)
            else:
                self._buffer += rest
        return self._lines.popleft()

    def read(self) -> Message:
        """The next message, an event or an answer."""
        message = json.loads(self.read_line())
        if not isinstance(message, dict):
            raise Died(f"not a message: {message!r}")
        return message

    def read_answer(self) -> Message:
        """The next answer; events that come before it are kept."""
        while True:
            message = self.read()
            if "event" not in message:
                return message
            self.events.append(message)

    def read_event(self, name: str) -> Message:
        """The event of that name: one already kept, or the next to come."""
        for event in self.events:
            if event["event"] == name:
                self.events.remove(event)
                return event
        while True:
            message = self.read()
            if message.get("event") == name:
                return message
            self.events.append(message)

    def execute(self, command: str, arguments: JSON = None, **members: JSON) -> Message:
        """Send a command and return its answer; `members` such as `id` go with it."""
        request: Message = {"execute": command, **members}
        if arguments is not None:
            request["arguments"] = arguments
        self.send(json.dumps(request).encode())
        return self.read_answer()

    def at_end(self) -> bool:
        """Whether the peer has closed; waits for it to say something or close."""
        try:
            self.read_line()
        except Died:
            return True
        return False

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def is_listening(path: Path) -> bool:
    """Whether a process listens on a UNIX socket, found out without connecting.

    A client that connects and leaves at once can make QEMU greet the next one twice.
    """
    accepts = "00010000"  # __SO_ACCEPTCON, in the flags of /proc/net/unix
    rows = Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()
    own = f" {path}"
    return any(row.endswith(own) and row.split(maxsplit=4)[3] == accepts for row in rows)


def waits_for_clients(pid: int) -> bool:
    """Whether a QEMU's main thread sleeps, and so do two others: of RCU and of monitors.

    On its way there its listener moves from the first to the last. A client that comes
    meanwhile is accepted by both: then each reads a part of its commands, or one waits in
    accept(2) for another (one start in a thousand of 10.0.2 on a busy machine).
    """
    tasks = Path(f"/proc/{pid}/task")
    asleep = {
        task.name
        for task in tasks.iterdir()
        if (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    }
    return str(pid) in asleep and len(asleep) > 2


class Server:
    """A running process that serves QMP on a socket of its own.

    Args:
        name: how failures call it.
        argv: the command, to which the socket's option is added.
        directory: an empty directory for its socket and standard error.
        cwd: where it runs.
    """

    __slots__ = ("_monitors", "_stderr", "argv", "name", "path", "process")

    def __init__(
        self, name: str, argv: Iterable[str], directory: Path, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.path = directory / "qmp.sock"
        self.argv = [*argv, "-qmp", f"unix:{self.path},server=on,wait=off"]
        self._stderr = directory / "stderr"
        self._monitors: list[Monitor] = []
        env = dict(os.environ, PYTHONPATH=str(TREE))
        program = prefork.program_of(self.argv)
        self.process: Forked | subprocess.Popen[bytes]
        with self._stderr.open("wb") as stderr, open(os.devnull, "rb") as nothing:
            if program is not None:
                files = [nothing.fileno(), stderr.fileno(), stderr.fileno()]
                self.process = prefork.start(program, self.argv[3:], cwd or directory, env, files)
            else:
                self.process = subprocess.Popen(
                    [*prefork.DIES_WITH_PARENT, *self.argv],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    cwd=cwd or directory,
                    env=env,
                )
        try:
            self._wait_for_socket()
        except BaseException:
            self.stop()
            raise

    def _wait_for_socket(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self.process.poll() is not None:
                raise Died(f"{self.name} did not start: {self.stderr()}")
            if time.monotonic() > deadline:
                raise Died(f"{self.name} does not listen: {self.stderr()}")
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        if not is_listening(self.path):
            return False
        try:
            program = os.readlink(f"/proc/{self.pid}/exe")
            return "qemu-system" not in program or waits_for_clients(self.pid)
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def monitor(self, *, negotiate: bool = True) -> Monitor:
        """A new connection, closed at the latest when the server is stopped."""
        monitor = Monitor(self.path, negotiate=negotiate)
        self._monitors.append(monitor)
        return monitor

    def stderr(self, wanted: str = "") -> str:
        """What it has written to its standard output and error.

        Args:
            wanted: what has to be there, sooner or later: it writes its log in a thread.
        """
        deadline = time.monotonic() + PATIENCE
        text = self._stderr.read_text(errors="replace")
        while self.alive():
            time.sleep(0.03)
            before, text = text, self._stderr.read_text(errors="replace")
            if text == before and (wanted in text or time.monotonic() > deadline):
                break
        return text

    def wait(self) -> int:
        """Wait for it to end by itself; its exit status, negative for a signal."""
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        for monitor in self._monitors:
            monitor.close()
        self._monitors.clear()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def starter(name: str, argv: Sequence[str], directory: Path) -> Iterator[Callable[..., Server]]:
    """What starts servers, given further options; they are ended with the `with` block."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start(*options: str) -> Server:
            place = directory / f"{name}{next(numbers)}"
            place.mkdir()
            return stack.enter_context(running(name, [*argv, *options], place))

        yield start


@contextlib.contextmanager
def running(
    name: str, argv: Iterable[str], directory: Path, cwd: Path | None = None
) -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = Server(name, argv, directory, cwd)
    try:
        yield server
    finally:
        server.stop()
