"""Signals at any time, and standard error that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.client import Client, QMPError
from memd.server.listener import listen_unix
from tests.conftest import need_shm
from tests.differential.harness import settle
from tests.differential.server import (
    PATIENCE,
    TREE,
    Server,
    is_listening,
    memd_argv,
    qemu_system_memd,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_after_quit(start_memd: Callable[..., Server], number: int) -> None:
    """Whenever they come, the end is an orderly one."""
    server = start_memd()
    ended = threading.Event()

    def shower() -> None:
        while not ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
            time.sleep(0.0002)

    with Client(server.path, timeout=60) as client:
        client.execute("quit")
        thread = threading.Thread(target=shower)
        thread.start()
        try:
            assert server.wait() == 0
        finally:
            ended.set()
            thread.join()


def test_signals_after_the_loop() -> None:
    """They do nothing once the loop is closed, which is some milliseconds before the end."""
    code = (
        "import asyncio, os, signal\n"
        "from memd.app.signals import Signals\n"
        "loop = asyncio.new_event_loop()\n"
        "signals = Signals(loop, {signal.SIGTERM: lambda: None})\n"
        "signals.close()\n"
        "loop.close()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LATE = """
import os, sys, time

class Late:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"the end\\n")
        sleep(0.5)

sys.late = Late()
from memd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_at_the_end_of_the_interpreter(directory: Path, number: int) -> None:
    """When it has given up its handlers, and frees what there is."""
    path = directory / "sock"
    argv = [sys.executable, "-c", LATE]
    options = ("--qmp", f"unix:{path},server=on,wait=off")
    with start(*options, argv=argv, stdout=subprocess.PIPE, cwd=TREE) as process:
        assert process.stdout is not None
        assert settle(lambda: is_listening(path), bool)
        with Client(path, timeout=60) as client:
            client.execute("quit")
        assert process.stdout.readline() == b"the end\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


def start(*options: str, argv: list[str] | None = None, **how: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*(argv or memd_argv()), *options], stdin=subprocess.DEVNULL, **how)  # type: ignore[call-overload,no-any-return]


def test_a_reload_without_a_manager_does_nothing(start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    with Client(server.path, timeout=60) as client:
        os.kill(server.pid, signal.SIGUSR1)
        assert client.execute("query-status")["running"]
        client.execute("quit")
    assert server.wait() == 0


def test_a_signal_while_it_waits_for_its_client(directory: Path) -> None:
    path = directory / "sock"
    process = start("--qmp", f"unix:{path},server=on,wait=on", stderr=subprocess.PIPE)
    with process:
        assert process.stderr is not None
        assert b"waiting for connection" in process.stderr.readline()
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert not path.exists()


@contextlib.contextmanager
def writing_to(
    path: Path, read: int, write: int, *options: str, argv: list[str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon whose standard error is a pipe that nobody reads, once it listens at `path`."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, read)
        process = start(*options, argv=argv, stderr=write)
        os.close(write)
        stack.enter_context(process)
        stack.callback(process.kill)
        assert settle(lambda: is_listening(path), bool)
        yield process


def test_a_log_that_nobody_reads(directory: Path) -> None:
    """Clients are served, and the daemon ends when it is told to."""
    path = directory / "sock"
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with writing_to(path, read, write, "--qmp", f"unix:{path},server=on,wait=off") as process:
        options = {
            "qom-type": "memory-backend-file",
            "size": 4096,
            "share": True,
            "mem-path": f"{directory}/{'d' * 200}/file",
        }
        with Client(path, timeout=60) as client:
            # A line each of the first, as far as one place in the code may write them.
            for number in range(1000):
                with pytest.raises(QMPError):
                    client.execute("object-add", {**options, "id": f"m{number}", "x" * 90: 1})
                with contextlib.suppress(QMPError):
                    client.execute(
                        "object-add",
                        {**options, "id": f"m{number}", "mem-path": "/dev/null"},
                    )
            assert client.execute("query-name") == {}
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_warnings_that_nobody_reads(directory: Path) -> None:
    """Of each device that is plugged in there is one, longer than what the pipe takes."""
    path = directory / "sock"
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    options = ("-machine", "pc", "-display", "none", "-device", "virtio-serial-pci")
    given = ("-global", f"virtconsole.chardev={'x' * 3000}", "-qmp", f"unix:{path},server,nowait")
    with (
        writing_to(path, read, write, *options, *given, argv=qemu_system_memd()),
        Client(path, timeout=60) as client,
    ):
        for _ in range(3):
            client.execute("device_add", {"driver": "virtconsole"})


def test_what_a_start_says_and_nobody_reads(directory: Path) -> None:
    """That it waits for a client, which is no reason not to end."""
    path = directory / "sock"
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x")
    os.set_blocking(write, True)
    with writing_to(path, read, write, "--qmp", f"unix:{path},server=on,wait=on") as process:
        # Until it waits, or would wait for its reader.
        time.sleep(0.2)
        process.terminate()
        assert process.wait(30) == 0
    assert not path.exists()


def _listen(path: str, go: object, found: object, done: object) -> None:
    go.wait()  # type: ignore[attr-defined]
    try:
        sock = listen_unix(path)
    except OSError:
        found.put(False)  # type: ignore[attr-defined]
        return
    found.put(True)  # type: ignore[attr-defined]
    done.wait(PATIENCE)  # type: ignore[attr-defined]
    sock.close()


@need_shm
def test_many_start_at_a_stale_socket(directory: Path) -> None:
    """One has it, and the others are told; nobody's is removed."""
    path = str(directory / "sock")
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        go, done, found = context.Event(), context.Event(), context.Queue()
        processes = [
            context.Process(target=_listen, args=(path, go, found, done)) for _ in range(6)
        ]
        for process in processes:
            process.start()
        go.set()
        outcomes = [found.get(timeout=PATIENCE) for _ in processes]
        assert outcomes.count(True) == 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        done.set()
        for process in processes:
            process.join(PATIENCE)
        os.unlink(path)


def test_lines_from_one_place_are_limited(capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose standard error is read."""
    code = (
        "import logging, memd.cli.log as log\n"
        "log.log_in_lines()\n"
        "for number in range(5000): logging.getLogger('memd').warning('a %d', number)\n"
        "logging.getLogger('memd').warning('b')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "a 0"
    assert lines[-1] == "b"
    assert 256 <= len(lines) < 400
