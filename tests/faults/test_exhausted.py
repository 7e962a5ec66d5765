"""What a process may have runs out, descriptors, mappings, threads, and is there again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import NOT_HERE, need_shm
from tests.differential.harness import settle
from tests.differential.kernel import descriptors, regions
from tests.differential.server import PATIENCE, TREE, Server
from tests.faults.conftest import ControlGroup, arguments, error, without_descriptors

EMFILE = "Too many open files"

pytestmark = pytest.mark.usefixtures("executed")


def processor_time(pid: int) -> float:
    """Seconds that a process has run for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_descriptor_for_many_clients(start_memd: Callable[..., Server]) -> None:
    """They wait, the loop does not spin meanwhile, and they are served once there are some."""
    server = start_memd()
    first = server.monitor()
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    with without_descriptors(server):
        for each in waiting:
            each.connect(str(server.path))
        before = processor_time(server.pid)
        for _ in range(20):
            assert first.execute("query-status")["return"]["running"] is True
        settle(lambda: False, bool, 0.5)
        assert processor_time(server.pid) - before < 0.4
    for each in waiting:
        each.settimeout(PATIENCE)
        assert each.recv(3) == b'{"Q'
        each.close()
    assert server.stderr().count("cannot accept a client") < 20


@need_shm
def test_no_descriptors_left(start_memd: Callable[..., Server], directory: Path) -> None:
    """Objects that need a descriptor are refused, others and the clients are served."""
    server = start_memd()
    monitor = server.monitor()
    before = descriptors(server.pid)
    new = directory / "new"
    wanting = [
        arguments("memfd"),
        arguments("shm"),
        arguments("file", mem_path=str(new)),
        arguments("ram", share=True),
    ]
    for request in wanting:
        assert monitor.execute("object-add", request) == {"return": {}}
        assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    new.unlink()
    # What is on a disk is closed in a thread.
    assert settle(lambda: descriptors(server.pid), lambda now: now == before) == before
    with without_descriptors(server):
        for request in wanting:
            assert "Too many open files" in error(monitor.execute("object-add", request))
        assert not new.exists()
        assert monitor.execute("object-add", arguments()) == {"return": {}}
    assert monitor.execute("object-add", arguments("memfd", id="n")) == {"return": {}}


def test_no_descriptor_at_the_first_command(start_memd: Callable[..., Server]) -> None:
    """What has to be read for the first time is a clear error then, and works later."""
    server = start_memd()
    monitor = server.monitor()
    commands = [
        ("x-memdev-explain", arguments()),
        ("object-add", arguments()),
        ("query-machines", None),
        ("x-memdev-stat", None),
        ("human-monitor-command", {"command-line": "info memdev"}),
        ("qom-list-types", None),
    ]
    with without_descriptors(server):
        for name, given in commands:
            answer = monitor.execute(name, given)
            assert "return" in answer or error(answer) == EMFILE, answer
        assert "return" in monitor.execute("query-status")
    monitor.execute("object-del", {"id": "m"})
    for name, given in commands:
        assert "return" in monitor.execute(name, given)
    assert "internal error" not in server.stderr()
    assert "Traceback" not in server.stderr()


def test_no_descriptor_for_the_schema(start_memd: Callable[..., Server]) -> None:
    """It is read right after the greeting; where that fails, so does the first command."""
    server = start_memd("--name", "x")
    monitor = server.monitor(negotiate=False)
    with without_descriptors(server):
        answers = [monitor.execute("qmp_capabilities") for _ in range(2)]
    for answer in answers:
        assert "return" in answer or error(answer) == EMFILE or "already complete" in error(answer)
    monitor.execute("qmp_capabilities")
    assert monitor.execute("query-name") == {"return": {"name": "x"}}


@pytest.mark.parametrize("free", [0, 1])
def test_no_descriptor_at_export_and_save(
    start_memd: Callable[..., Server], directory: Path, free: int
) -> None:
    server = start_memd()
    monitor = server.monitor()
    assert monitor.execute("object-add", arguments("memfd")) == {"return": {}}
    before = descriptors(server.pid)
    # Whatever these need for the first time is there from then on.
    for name, more in (("export", {}), ("save", {"filename": str(directory / "saved")})):
        assert "return" in monitor.execute(f"x-memdev-{name}", {"id": "m", **more})
    (directory / "saved").unlink()
    assert settle(lambda: descriptors(server.pid), lambda now: now == before) == before
    with without_descriptors(server, free):
        save = {"id": "m", "filename": str(directory / "saved")}
        text = error(monitor.execute("x-memdev-save", save))
        assert text == f"cannot save 'm' to '{directory}/saved': {EMFILE}"
        if not free:
            assert EMFILE in error(
                monitor.execute("x-memdev-export", {"id": "m", "writable": False})
            )
    assert not list(directory.glob("saved*"))
    assert settle(lambda: descriptors(server.pid), lambda now: now == before) == before
    assert monitor.execute("x-memdev-save", save) == {"return": {}}


def test_too_many_mappings(start_memd: Callable[..., Server]) -> None:
    """vm.max_map_count is the machine's: as many are made as it takes."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 70_000:
        pytest.skip(f"{NOT_HERE}a limit on mappings that is soon reached")
    server = start_memd()
    monitor = server.monitor()
    made, refusal = 0, ""
    while not refusal and made < limit:
        requests = [
            b'{"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram",'
            b' "id": "m%d", "size": 4096}}' % number
            for number in range(made, made + 500)
        ]
        monitor.send(b"".join(requests))
        answers = [monitor.read_answer() for _ in requests]
        refusal = next((error(answer) for answer in answers if "error" in answer), "")
        made += sum("return" in answer for answer in answers)
    assert refusal.endswith("Cannot allocate memory")
    # Nor is there memory for an answer of megabytes, maybe; for others there is.
    listed = monitor.execute("query-memdev")
    assert "return" in listed or error(listed) == "Cannot allocate memory"
    # Some mappings that become free may be taken by the daemon's own allocators.
    for number in range(100):
        assert monitor.execute("object-del", {"id": f"m{number}"}) == {"return": {}}
    assert monitor.execute("object-add", arguments(size=4096)) == {"return": {}}
    assert len(monitor.execute("query-memdev")["return"]) == made - 99
    assert server.alive()


def test_no_further_thread(
    control_group: Callable[[str], ControlGroup],
    start_memd: Callable[..., Server],
    directory: Path,
) -> None:
    """Commands that would run beside the loop keep it waiting, and are done."""
    group = control_group("pids")
    server = start_memd()
    group.take(server.pid)
    group.limit(1)
    monitors = [server.monitor() for _ in range(4)]
    for number, monitor in enumerate(monitors):
        monitor.send(
            b'{"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram",'
            b' "id": "m%d", "size": 67108864, "prealloc": true, "prealloc-threads": 4}}' % number
        )
    assert [monitor.read_answer() for monitor in monitors] == [{"return": {}}] * 4
    assert len(regions(server.pid, directory)) == 4
    for number, monitor in enumerate(monitors):
        assert monitor.execute("object-del", {"id": f"m{number}"}) == {"return": {}}
    assert regions(server.pid, directory) == []
    told = "cannot start a thread: "
    assert told in server.stderr(told)


def test_no_thread_at_the_start() -> None:
    """It does not start, and says why: without one, most commands could not be run."""
    code = (
        "import os, sys, threading; from memd.cli.main import main\n"
        'def refuse(thread): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--qmp", "stdio"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=TREE,
    )
    assert done.returncode == 1
    assert "cannot start a thread: Resource temporarily unavailable" in done.stderr
    assert "Traceback" not in done.stderr
