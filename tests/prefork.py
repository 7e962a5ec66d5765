"""Daemons that are forked from a process which has memd imported already.

Nearly all of a daemon's start is imports, and most of its end is the interpreter's own:
a fifth of a second of one core, a thousand times in a run of the tests. So a process of
each worker imports what a daemon needs, and daemons are forks of it that call `main`.
What a start itself is like (tests/cli, tests/persist, tests/systemd, ...) is tested with
processes of their own, and so is how much memory a daemon takes.

A daemon is a child of the process that asked for it, as if that had started it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_TREE = Path(__file__).resolve().parents[1]
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

MEMD = [sys.executable, "-m", "memd"]
QEMU_SYSTEM_MEMD = [
    sys.executable,
    "-c",
    "import sys; from memd.cli.qemu_system import main; sys.exit(main())",
]
_APART = {"man", "memctl", "testing", "__main__"}
"""What daemons import nothing of."""


DIES_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]
"""Before a command: as `die_with_parent`. A function to call before exec(2) has the whole of a
worker forked, which takes 20 ms of a core, half of what a QEMU takes to start."""


def die_with_parent() -> None:
    """Have this process killed when its parent ends: a run that is killed leaves none behind."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Forked:
    """A child process, used as a `subprocess.Popen`.

    Args:
        pid: of the child.

    Attributes:
        returncode: its exit status, negative for a signal; None until it is waited for.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for it to end; its exit status. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        while (status := self._wait(os.WNOHANG)) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(0.002)
        return status

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Forking:
    """The process that forks, and the connection to it, which it ends with."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.prefork", str(theirs.fileno())],
                cwd=_TREE,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                preexec_fn=die_with_parent,
            )

    def close(self) -> None:
        """End it; the daemons stay."""
        self.connection.close()
        self._process.wait()


_forking: list[_Forking | None] = [None]


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """For a `with` block, daemons are forked from a process that is started at once."""
    forking = _Forking()
    _forking.append(forking)
    try:
        yield
    finally:
        _forking.pop()
        forking.close()


@contextlib.contextmanager
def executed() -> Iterator[None]:
    """For a `with` block, daemons are processes of their own all the same."""
    _forking.append(None)
    try:
        yield
    finally:
        _forking.pop()


def program_of(argv: Sequence[str]) -> str | None:
    """The module whose `main` a command calls; None where it has to be executed."""
    if _forking[-1] is None:
        return None
    if argv[:3] == MEMD:
        return "memd.cli.main"
    return "memd.cli.qemu_system" if argv[:3] == QEMU_SYSTEM_MEMD else None


def start(
    program: str, argv: Sequence[str], cwd: Path, env: Mapping[str, str], files: Sequence[int]
) -> Forked:
    """Start a daemon.

    Args:
        program: see `program_of`.
        argv: without the program.
        cwd: where it runs.
        env: its environment.
        files: the descriptors that it has as its standard input, output and error.
    """
    forking = _forking[-1]
    assert forking is not None
    request = {
        "program": program,
        "argv": list(argv),
        "cwd": str(cwd),
        "env": dict(env),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    # What is left without a parent in the meantime becomes a child of this process.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(forking.connection, [json.dumps(request).encode()], files)
        pid = int(forking.connection.recv(100))
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    return Forked(pid)


def run(
    argv: Sequence[str], *, cwd: Path | None = None, text: str = "", timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command that is to end by itself; a daemon's is forked.

    Args:
        argv: the command, which prints less than a pipe holds (64 KiB).
        cwd: where it runs; None: here.
        text: its standard input, also less than a pipe holds.
        timeout: seconds within which it ends.

    Raises:
        subprocess.TimeoutExpired: it does not, and is killed.
    """
    env = dict(os.environ, PYTHONPATH=str(_TREE))
    program = program_of(argv)
    if program is None:
        return subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=env,
        )
    with contextlib.ExitStack() as stack:
        readers, writers = zip(*(_pipe(stack) for _ in range(3)), strict=True)
        writers[0].write(text)
        writers[0].close()
        files = [end.fileno() for end in (readers[0], *writers[1:])]
        process = start(program, argv[3:], cwd or Path.cwd(), env, files)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        for writer in writers[1:]:
            writer.close()
        return subprocess.CompletedProcess(argv, status, readers[1].read(), readers[2].read())


def _pipe(stack: contextlib.ExitStack) -> list[IO[str]]:
    """The end to read from and the one to write to."""
    fds = zip(os.pipe(), "rw", strict=True)
    return [stack.enter_context(open(fd, mode, encoding="utf-8")) for fd, mode in fds]


def _load() -> None:
    """Import what daemons may import, and read what each reads when it starts."""
    for path in sorted((_TREE / "memd").rglob("*.py")):
        parts = path.relative_to(_TREE).with_suffix("").parts
        if parts[1] not in _APART:
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
    from memd.compat import Compat
    from memd.standin.catalogue import SECTIONS, find_catalogue
    from memd.standin.schema import standin_schema

    for compat in Compat:
        catalogue = find_catalogue(compat, None)
        for section in SECTIONS:
            catalogue.section(section)
        standin_schema(catalogue, compat, test=False)


def _serve(connection: socket.socket) -> None:
    """Fork daemons until nobody is left to ask for one."""
    _load()
    gc.collect()
    gc.freeze()
    while True:
        data, fds, _flags, _address = socket.recv_fds(connection, 1 << 20, 3)
        if not data:
            return
        told, tell = os.pipe()
        between = os.fork()
        if not between:
            parent = os.getpid()
            pid = os.fork()
            if pid:
                os.write(tell, str(pid).encode())
                os._exit(0)
            _become(json.loads(data), fds, parent)
        os.close(tell)
        for fd in fds:
            os.close(fd)
        os.waitpid(between, 0)
        connection.send(os.read(told, 100))
        os.close(told)


def _become(request: dict[str, Any], files: list[int], parent: int) -> None:
    """Be a daemon; does not return."""
    while os.getppid() == parent:
        time.sleep(0.0005)
    die_with_parent()
    for number, fd in enumerate(files):
        os.dup2(fd, number)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    # Those that are there took the descriptors for files, or for pipes.
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    status = 1
    try:
        status = importlib.import_module(request["program"]).main(request["argv"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
