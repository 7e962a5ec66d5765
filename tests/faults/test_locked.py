"""What another process keeps locked holds up those who use it, and nobody else.

The kernel locks a pipe, a socket, a file or a directory while it copies what is read or
written; a process whose own memory is a file's that stalls keeps it locked for as long.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from memd.server.jobs import HEAVY_ON_MEMORY, LIGHT
from tests.conftest import need_shm
from tests.differential.harness import settle
from tests.differential.server import Monitor, Server, qemu_system_memd, starter
from tests.faults.conftest import MIB, Broken, arguments
from tests.faults.test_stalls import others_go_on, send

_KEEPER = """
import ctypes, mmap, os, sys
path, fd, call = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(path, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 1 << 16)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
act = getattr(ctypes.CDLL(None), call)
act.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
print(flush=True)
sys.stdin.readline()
act(fd, address, 1 << 16)
"""


@contextmanager
def locked(broken: Broken, fd: int, call: str = "write") -> Iterator[None]:
    """A context in which a process is in such a call, `getdents64` for a directory."""
    (broken.path / "own").write_bytes(bytes(1 << 16))
    command = [sys.executable, "-c", _KEEPER, str(broken.path / "own"), str(fd), call]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, pass_fds=(fd,), stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()

        def is_in() -> bool:
            said = Path(f"/proc/{process.pid}/syscall").read_text().split()
            return said[1:2] == [hex(fd)]

        broken.stall("read")
        try:
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert settle(is_in, bool)
            yield
        finally:
            broken.mend()


@pytest.fixture
def standin(directory: Path) -> Iterator[Callable[..., Server]]:
    """Starts `qemu-system-memd`."""
    argv = [*qemu_system_memd(), "-display", "none", "-clients", "many"]
    with starter("memd", argv, directory) as start:
        yield start


def name(monitor: Monitor, fd: int) -> None:
    """Leave a descriptor with the daemon, as `given`."""
    monitor.send(json.dumps({"execute": "getfd", "arguments": {"fdname": "given"}}).encode(), (fd,))
    assert monitor.read_answer() == {"return": {}}


GIVEN: dict[str, Any] = {
    "id": "c",
    "backend": {
        "type": "socket",
        "data": {"addr": {"type": "fd", "data": {"str": "given"}}, "server": False},
    },
}


def test_a_pipe_that_is_closed(broken: Broken, start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    monitor = server.monitor()
    reading, writing = os.pipe()
    name(monitor, reading)
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0), locked(broken, writing):
        assert monitor.execute("closefd", {"fdname": "given"}) == {"return": {}}
        others_go_on(server)


def test_a_pipe_in_a_set(broken: Broken, standin: Callable[..., Server]) -> None:
    """Of which a copy has flags of its own, as far as that takes no lock."""
    server = standin("-machine", "none")
    monitor = server.monitor()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0):
        fcntl.fcntl(writing, fcntl.F_SETFL, os.O_ASYNC)
        request = {"execute": "add-fd", "arguments": {"fdset-id": 1}}
        monitor.send(json.dumps(request).encode(), (writing,))
        assert "return" in monitor.read_answer()
        with locked(broken, writing):
            file: dict[str, Any] = {"out": "/dev/fdset/1", "append": True}
            made: dict[str, Any] = {"id": "c", "backend": {"type": "file", "data": file}}
            assert monitor.execute("chardev-add", made) == {"return": {}}
            others_go_on(server)


@pytest.mark.parametrize("command", ["chardev-add", "yank"])
def test_a_socket(broken: Broken, standin: Callable[..., Server], command: str) -> None:
    server = standin("-machine", "none")
    monitor = server.monitor()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as given,
        closing(listening.accept()[0]),
    ):
        name(monitor, given.fileno())
        if command == "yank":
            assert monitor.execute("chardev-add", GIVEN) == {"return": {}}
        with locked(broken, given.fileno()):
            if command == "yank":
                yanked: dict[str, Any] = {"instances": [{"type": "chardev", "id": "c"}]}
                assert monitor.execute("yank", yanked) == {"return": {}}
            else:
                send(monitor, "chardev-add", GIVEN)
            others_go_on(server)
        if command == "chardev-add":
            assert monitor.read_answer() == {"return": {}}
        here, there = (
            f"127.0.0.1:{each[1]}" for each in (given.getsockname(), listening.getsockname())
        )
        told = monitor.execute("query-chardev")["return"]
        assert isinstance(told, list)
        names = [each["filename"] for each in told if each["label"] == "c"]
        assert names == [
            f"tcp:{here} <-> {there}" if command == "chardev-add" else "disconnected:fd:given"
        ]


def add(monitor: Monitor, kind: str, id: str, **options: Any) -> None:
    request = arguments(kind, id=id, **options)
    assert monitor.execute("object-add", request) == {"return": {}}


@contextmanager
def exported(monitor: Monitor) -> Iterator[int]:
    """A context in which a client has a descriptor of memory."""
    add(monitor, "memfd", "m", size=4 * MIB)
    monitor.send(b'{"execute": "x-memdev-export", "arguments": {"id": "m"}}')
    _data, fds, _flags, _address = socket.recv_fds(monitor.socket, 65536, 1)
    try:
        yield fds[0]
    finally:
        os.close(fds[0])


@pytest.mark.parametrize("command", ["x-memdev-discard", "x-memdev-read"])
def test_memory_that_a_client_has(
    broken: Broken, start_memd: Callable[..., Server], command: str
) -> None:
    """As many of its commands as there are threads for memory alone leave these to others."""
    server = start_memd()
    monitors = [server.monitor() for _ in range(LIGHT + HEAVY_ON_MEMORY + 1)]
    for id in ("here", "large"):
        add(monitors[0], "ram", id, size=4 * MIB)
    with exported(monitors[0]) as fd:
        with locked(broken, fd):
            for number, monitor in enumerate(monitors):
                if command == "x-memdev-discard":
                    send(monitor, command, {"id": "m", "offset": 0, "length": 4096})
                else:
                    size = 4096 if number % 2 else 4 * MIB
                    asked = {"id": "here", "offset": 0, "length": size, "descriptor": True}
                    request = {"execute": command, "arguments": asked}
                    monitor.send(json.dumps(request).encode(), (fd,))
            others_go_on(server)
            other = server.monitor()
            # Work on memory alone, of either kind.
            assert "return" in other.execute("x-memdev-map", {"id": "here"})
            add(other, "ram", "filled", prealloc=True)
        for monitor in monitors:
            assert monitor.read_answer() == {"return": {}}


@need_shm
def test_the_directory_of_shared_memory(broken: Broken, start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    monitor = server.monitor()
    fd = os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with locked(broken, fd, "getdents64"):
            send(monitor, "object-add", arguments("shm"))
            others_go_on(server)
    finally:
        os.close(fd)
    assert monitor.read_answer() == {"return": {}}


@pytest.mark.parametrize("empty", [False, True])
def test_a_file_in_memory_that_is_made(
    broken: Broken,
    start_memd: Callable[..., Server],
    directory: Path,
    mount: Callable[..., None],
    empty: bool,
) -> None:
    """Its directory, or where that is there, itself."""
    (directory / "tmpfs").mkdir()
    mount("tmpfs", directory / "tmpfs")
    server = start_memd()
    monitor = server.monitor()
    add(monitor, "file", "known", mem_path=f"{directory}/tmpfs/known", share=True)
    path = directory / "tmpfs/new"
    if empty:
        path.touch()
    fd = os.open(path if empty else path.parent, os.O_RDWR if empty else os.O_DIRECTORY)
    try:
        with locked(broken, fd, "write" if empty else "getdents64"):
            send(monitor, "object-add", arguments("file", mem_path=str(path), share=True))
            others_go_on(server)
    finally:
        os.close(fd)
    assert monitor.read_answer() == {"return": {}}


def test_a_file_in_memory_whose_directory_is_another_one_by_now(
    broken: Broken, start_memd: Callable[..., Server], directory: Path, mount: Callable[..., None]
) -> None:
    """What is mounted there may have a server."""
    place = directory / "tmpfs"
    place.mkdir()
    mount("tmpfs", place)
    server = start_memd()
    monitor = server.monitor()
    add(monitor, "file", "m", mem_path=f"{place}/memory", share=True)
    (broken.path / "memory").touch()
    subprocess.run(["mount", "--bind", broken.path, place], check=True)
    try:
        broken.stall("getattr")
        # The kernel remembers for a second what it was told.
        time.sleep(1.1)
        send(monitor, "x-memdev-export", {"id": "m"})
        others_go_on(server)
    finally:
        broken.mend()
        subprocess.run(["umount", "-l", place], check=True)
    told = monitor.read_answer()["return"]
    assert isinstance(told, dict)
    assert str(told["path"]).startswith("/proc/")


def test_a_stream_from_a_file_whose_server_is_asked_when_more_comes(
    broken: Broken, standin: Callable[..., Server], directory: Path
) -> None:
    """epoll_ctl(2) would ask it."""
    source = standin("-machine", "q35", "-m", "64", "-S")
    target = standin("-machine", "q35", "-m", "64", "-S", "-incoming", "defer")
    there = source.monitor()
    # More than is read at once.
    for at in range(0, 12 * MIB, 4 * MIB):
        write = {"id": "pc.ram", "offset": at, "data": "QUJD" * (MIB + MIB // 4)}
        assert there.execute("x-memdev-write", write) == {"return": {}}
    assert there.execute("migrate", {"uri": f"file:{directory}/stream"}) == {"return": {}}

    def status(asked: Monitor) -> object:
        told = asked.execute("query-migrate")["return"]
        assert isinstance(told, dict)
        return told.get("status")

    assert settle(lambda: status(there), lambda told: told == "completed") == "completed"
    (broken.path / "stream").write_bytes((directory / "stream").read_bytes())
    monitor = target.monitor()
    broken.stall("poll")
    try:
        request = {"uri": f"file:{broken.path}/stream"}
        assert monitor.execute("migrate-incoming", request) == {"return": {}}
        assert settle(lambda: status(monitor), lambda told: told == "completed") == "completed"
    finally:
        broken.mend()
