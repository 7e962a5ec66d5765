"""A control group's limit on memory: what would go beyond it is refused, not begun and killed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.harness import settle
from tests.differential.kernel import descriptors, regions
from tests.differential.server import (
    PATIENCE,
    Message,
    Monitor,
    Server,
    qemu_system_memd,
    running,
)
from tests.faults.conftest import MIB, ControlGroup, arguments, error, memory

NO_MEMORY = "qemu_prealloc_mem: preallocating memory failed: Cannot allocate memory"

pytestmark = pytest.mark.usefixtures("executed")


@pytest.mark.parametrize("kind", ["ram", "memfd", "shm"])
def test_what_surely_does_not_fit_is_not_begun(limited: Server, kind: str) -> None:
    monitor = limited.monitor()
    fits = arguments(kind, size=64 * MIB, prealloc=True)
    assert monitor.execute("object-add", fits) == {"return": {}}
    assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    before = descriptors(limited.pid)
    answer = monitor.execute("object-add", arguments(kind, size=256 * MIB, prealloc=True))
    assert error(answer) == NO_MEMORY
    assert (regions(limited.pid, limited.path), descriptors(limited.pid)) == ([], before)
    # Later, too, and memory that is only promised is nobody's business.
    assert monitor.execute("object-add", arguments(kind, size=256 * MIB)) == {"return": {}}
    populate = {"path": "m", "property": "prealloc", "value": True}
    assert error(monitor.execute("qom-set", populate)) == NO_MEMORY
    assert monitor.execute("qom-get", {"path": "m", "property": "prealloc"}) == {"return": False}
    assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    assert monitor.execute("object-add", fits) == {"return": {}}
    assert limited.alive()


def test_two_that_fit_one_by_one(limited: Server) -> None:
    """They are begun at once; what is over the limit gives up when it comes to it."""
    monitors = [limited.monitor() for _ in range(2)]
    for number, monitor in enumerate(monitors):
        monitor.send(
            b'{"execute": "object-add", "arguments": {"qom-type": "memory-backend-memfd",'
            b' "id": "m%d", "size": %d, "prealloc": true}}' % (number, 80 * MIB)
        )
    answers = [monitor.read_answer() for monitor in monitors]
    refused = [answer for answer in answers if "error" in answer]
    assert 1 <= len(refused) <= 2
    assert {error(answer) for answer in refused} == {NO_MEMORY}
    assert limited.alive()
    whole = settle(lambda: len(regions(limited.pid, limited.path)), lambda n: n == 2 - len(refused))
    assert whole == 2 - len(refused)


def write(monitor: Monitor, offset: int) -> bool:
    answer = monitor.execute("x-memdev-write", {"id": "m", "offset": offset, "data": "AAAA" * MIB})
    if "error" in answer:
        assert error(answer) == f"cannot write 'm' at offset {offset}: Cannot allocate memory"
    return "error" in answer


def test_writes_until_it_is_full(limited: Server) -> None:
    monitor = limited.monitor()
    full = arguments("ram", id="n", size=64 * MIB, prealloc=True)
    assert monitor.execute("object-add", full) == {"return": {}}
    assert monitor.execute("object-add", arguments("memfd", size=256 * MIB)) == {"return": {}}
    # More often than memory would last for what is refused, were it kept.
    refused = [offset for offset in range(0, 80 * MIB, 4 * MIB) if write(monitor, offset)]
    assert refused
    assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    assert "return" in limited.monitor().execute("query-status")


def test_a_save_into_memory(limited: Server, directory: Path) -> None:
    """What is saved on a tmpfs is the daemon's memory, too."""
    monitor = limited.monitor()
    (directory / "file").write_bytes(b"data" * (28 * MIB))
    request = arguments("file", size=112 * MIB, mem_path=str(directory / "file"), readonly=True)
    assert monitor.execute("object-add", request) == {"return": {}}
    path = Path(f"/dev/shm/memd-test-{limited.pid}")
    try:
        answer = monitor.execute("x-memdev-save", {"id": "m", "filename": str(path)})
        assert error(answer) == f"cannot save 'm' to '{path}': Cannot allocate memory"
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)
    assert limited.alive()


def test_reading_what_was_never_written(limited: Server) -> None:
    """Holes are not pages, and reading makes none."""
    monitor = limited.monitor()
    request = arguments("memfd", size=144 * MIB)
    assert monitor.execute("object-add", request) == {"return": {}}
    for offset in range(0, 144 * MIB, 16 * MIB):
        part = {"id": "m", "offset": offset, "length": 16 * MIB}
        assert "return" in monitor.execute("x-memdev-read", part)
    assert memory(limited.pid) < 128 * MIB


def test_reads_into_memory_that_clients_have_made(limited: Server) -> None:
    """Its pages are charged to who writes them first, and stay while it is open anywhere."""
    monitor = limited.monitor()
    assert monitor.execute("object-add", arguments("memfd", size=16 * MIB)) == {"return": {}}
    monitor.execute("x-memdev-write", {"id": "m", "offset": 0, "data": "AAAB" * (4 * MIB)})
    part = {"id": "m", "offset": 0, "length": 12 * MIB, "descriptor": True}
    request = json.dumps({"execute": "x-memdev-read", "arguments": part}).encode()
    refusal = "cannot write to the memfd that came along: Cannot allocate memory"
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            fd = os.memfd_create("window", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
            stack.callback(os.close, fd)
            monitor.send(request, [fd])
            answer = monitor.read_answer()
            if "error" in answer:
                assert error(answer) == refusal
                break
        else:
            raise AssertionError("it was never refused")
        # Those whose pages are there are written to all the same.
        again = os.memfd_create("window", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        stack.callback(os.close, again)
        os.pwrite(again, bytes(12 * MIB), 0)
        monitor.send(request, [again])
        assert "return" in monitor.read_answer()
    assert limited.alive()


def outcome(monitor: Monitor, command: str, fd: int) -> str:
    """What comes of having the memory written to a descriptor."""
    monitor.send(b'{"execute": "getfd", "arguments": {"fdname": "there"}}', [fd])
    assert monitor.read_answer() == {"return": {}}
    given: Message = {"paging": False, "protocol": "fd:there"}
    if command == "migrate":
        given = {"uri": "fd:there"}
    answer = monitor.execute(command, given)
    if "error" in answer:
        return error(answer)
    ended = ("completed", "failed")
    asked = f"query-{command.partition('-')[0]}"
    status = settle(
        lambda: monitor.execute(asked)["return"]["status"], lambda now: now in ended, PATIENCE
    )
    monitor.execute("cont")
    return str(status)


@pytest.mark.parametrize("command", ["migrate", "dump-guest-memory"])
def test_memory_that_is_written_to_memory(
    control_group: Callable[[str], ControlGroup], directory: Path, command: str
) -> None:
    """A stand-in writes to whatever it is told to."""
    group = control_group("memory")
    group.limit(128 * MIB)
    group.refuse_swap()
    options = ("-nodefaults", "-machine", "q35,memory-backend=m", "-m", "16M")
    memory = ("-object", "memory-backend-memfd,id=m,size=16M")
    with running("memd", [*qemu_system_memd(), *options, *memory], directory) as server:
        group.take(server.pid)
        monitor = server.monitor()
        monitor.execute("x-memdev-write", {"id": "m", "offset": 0, "data": "AAAB" * (3 * MIB)})
        with contextlib.ExitStack() as stack:
            outcomes: list[str] = []
            while len(outcomes) < 12 and outcomes[-1:] in ([], ["completed"]):
                fd = os.memfd_create("there", os.MFD_CLOEXEC)
                stack.callback(os.close, fd)
                outcomes.append(outcome(monitor, command, fd))
        assert outcomes[0] == "completed"
        assert outcomes[-1] != "completed"
        assert server.alive()


def test_many_small_writes(limited: Server) -> None:
    monitor = limited.monitor()
    assert monitor.execute("object-add", arguments("memfd", size=256 * MIB)) == {"return": {}}
    data = base64.b64encode(bytes(range(256)) * 192).decode()
    refused = False
    for offset in range(0, 160 * MIB, 48 << 10):
        answer = monitor.execute("x-memdev-write", {"id": "m", "offset": offset, "data": data})
        if "error" in answer:
            refused = True
            assert error(answer) == f"cannot write 'm' at offset {offset}: Cannot allocate memory"
            break
    assert refused
    assert limited.alive()


def test_the_recipe_for_a_groups_size(
    control_group: Callable[[str], ControlGroup], start_memd: Callable[..., Server]
) -> None:
    """What `--max-memory` and `--max-held` allow, and 384 MiB: docs/limits.md."""
    group = control_group("memory")
    server = start_memd("--max-memory", "32M", "--max-held", "64M")
    group.take(server.pid)
    group.limit((32 + 64 + 384) * MIB)
    monitor = server.monitor()
    full = arguments("memfd", id="full", size=32 * MIB, prealloc=True)
    assert monitor.execute("object-add", full) == {"return": {}}
    begun = b'{"execute":"x-memdev-write","arguments":{"id":"full","offset":0,"data":"'
    read = b'{"execute":"x-memdev-read","arguments":{"id":"full","offset":0,"length":%d}}'
    worst = (
        begun + b"A" * (20 * MIB),
        begun + b"\\u20ac" * (3 * MIB),
        b'{"execute":"qom-get","arguments":{"path":"' + b"ab/" * (20 * MIB),
        b'{"execute":"query-name","id":[' + b"[]," * (4 * MIB),
        read % (16 * MIB) * 8,
    )
    with contextlib.ExitStack() as stack:
        threads = []
        for number in range(15):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(server.path))
            sock.sendall(b'{"execute":"qmp_capabilities"}')
            data = worst[number % len(worst)]
            threads.append(threading.Thread(target=send_all, args=(sock, data)))
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert "return" in monitor.execute("query-status")
            time.sleep(0.05)
        stack.close()
        for thread in threads:
            thread.join()
    assert server.alive()
    assert "return" in server.monitor().execute("query-status")


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send until it is sent, or the connection is no more."""
    sock.settimeout(5)
    with contextlib.suppress(OSError):
        sock.sendall(data)
