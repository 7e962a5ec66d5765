from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memd.compat import Compat
from memd.persist.sd_notify import Notifier, Watchdog, monotonic_usec, watchdog_period
from memd.persist.service_manager import ServiceManager
from memd.qom import Tree
from memd.work import value_of
from tests.descriptors import open_descriptors


@pytest.fixture
def manager(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{directory}/notify")
        sock.settimeout(60)
        yield sock


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier(manager.getsockname())
    yield notifier
    notifier.close()


def test_lines(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.send("READY=1", "STATUS=ü")
    assert manager.recv(100) == "READY=1\nSTATUS=ü".encode()


def test_descriptors(manager: socket.socket, notifier: Notifier, directory: Path) -> None:
    with open(directory / "one", "w+b") as one, open(directory / "two", "w+b") as two:
        two.write(b"second")
        two.flush()
        assert notifier.send("FDSTORE=1", fds=(one.fileno(), two.fileno()))
    data, fds, _flags, _sender = socket.recv_fds(manager, 100, 10)
    assert data == b"FDSTORE=1"
    assert len(fds) == 2
    assert os.pread(fds[1], 10, 0) == b"second"
    for fd in fds:
        os.close(fd)


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0memd-test-{os.getpid()}")
        notifier = Notifier(f"@memd-test-{os.getpid()}")
        notifier.send("READY=1")
        assert sock.recv(100) == b"READY=1"
        notifier.close()


def test_an_address_that_no_socket_can_have() -> None:
    """It is said, and not that nobody is there."""
    for address in ("/" + "n" * 106, "@" + "n" * 107):
        Notifier(address).close()
        with pytest.raises(ValueError, match="is too long: a socket's path has at most 107 bytes"):
            Notifier(address + "n")


@pytest.mark.parametrize("address", ["", "/", "@", "relative", "vsock:2:1234"])
def test_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="neither a path nor an abstract name"):
        Notifier(address)


def test_nobody_listens(manager: socket.socket, notifier: Notifier) -> None:
    address = manager.getsockname()
    manager.close()
    with pytest.raises(ConnectionRefusedError):
        notifier.send("READY=1")
    os.unlink(address)
    with pytest.raises(FileNotFoundError):
        notifier.send("READY=1")


def fill(notifier: Notifier) -> int:
    """Send until the manager has too much to read; how many messages that took."""
    count = 0
    while notifier.send("X=1"):
        count += 1
    return count


def test_a_manager_that_does_not_read(manager: socket.socket, notifier: Notifier) -> None:
    """Nobody waits for it, unless he says that he can."""
    count = fill(notifier)
    waiting = threading.Thread(target=notifier.send, args=("LAST=1",), kwargs={"wait": True})
    waiting.start()
    for _ in range(count):
        assert manager.recv(100) == b"X=1"
    assert manager.recv(100) == b"LAST=1"
    waiting.join()


def test_patience_has_an_end(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname(), patience=1)
    fill(notifier)
    assert notifier.send("LATE=1", wait=True) is False
    notifier.close()


async def test_a_start_waits_once_for_a_manager_that_does_not_read(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gave_up = []

    class Impatient(Notifier):
        def __init__(self, address: str) -> None:
            super().__init__(address, patience=1)

        def send(self, *lines: str, fds: Sequence[int] = (), wait: bool = False) -> bool:
            sent = super().send(*lines, fds=fds, wait=wait)
            if wait and not sent:
                gave_up.append(lines)
            return sent

    monkeypatch.setattr("memd.persist.service_manager.Notifier", Impatient)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("FDSTORE", "100")
    other = Notifier(manager.getsockname())
    fill(other)
    service = ServiceManager(asyncio.get_running_loop(), Tree(Compat.V10_0), value_of, {})
    service.open()
    assert len(gave_up) == 1
    assert caplog.messages == ["nothing is kept over a restart: Connection timed out"]
    service.end()
    other.close()


def test_a_barrier(manager: socket.socket, notifier: Notifier) -> None:
    passed = threading.Event()

    def wait() -> None:
        notifier.barrier()
        passed.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    data, (fd,), _flags, _sender = socket.recv_fds(manager, 100, 10)
    assert data == b"BARRIER=1"
    assert not passed.is_set()
    os.close(fd)
    waiting.join(60)
    assert passed.is_set()


def test_no_barrier_leaves_a_descriptor(manager: socket.socket, notifier: Notifier) -> None:
    before = open_descriptors()
    manager.close()
    with pytest.raises(ConnectionRefusedError):
        notifier.barrier()
    assert len(open_descriptors()) < len(before)


def test_the_time_of_a_reload() -> None:
    """Microseconds of the monotonic clock, as sd_notify(3) asks for."""
    import time

    name, value = monotonic_usec().split("=")
    assert name == "MONOTONIC_USEC"
    assert abs(int(value) - time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000) < 60_000_000


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "17"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "18"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
    ],
)
def test_the_period_of_the_watchdog(environ: dict[str, str], period: float) -> None:
    assert watchdog_period(environ, 17) == period


async def test_signs_of_life(manager: socket.socket, notifier: Notifier) -> None:
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(loop, notifier, 0.002)
    manager.setblocking(False)
    for _ in range(3):
        assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
    # The manager goes away for a while, and comes back with another socket.
    address = manager.getsockname()
    manager.close()
    os.unlink(address)
    await asyncio.sleep(0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fresh:
        fresh.setblocking(False)
        fresh.bind(address)
        assert await loop.sock_recv(fresh, 100) == b"WATCHDOG=1"
    watchdog.close()
