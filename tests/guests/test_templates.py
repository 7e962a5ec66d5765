"""A machine becomes a template, and templates machines, by commands alone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.kernel import children
from tests.differential.server import PATIENCE, TREE, Died, Monitor, Server
from tests.guests import image
from tests.guests.guest import MACHINE, SIZE, Guest, memory

Start = Callable[..., Guest]


def memctl(server: Server, *words: str, status: int = 0) -> str:
    """What memctl prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.memctl.program", "-s", str(server.path), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def templates(
    recorded: Path, directory: Path, start_memd: Callable[..., Server]
) -> tuple[Server, Path]:
    """A memd with a store of its own, in a directory with copies of the recorded machine."""
    return start_memd("--templates", str(directory / "store")), recorded


def test_save_and_serve(
    templates: tuple[Server, Path], directory: Path, start_guest: Start
) -> None:
    """A clone in memd's memory is saved as it runs, goes on, and its template has a clone."""
    server, recorded = templates
    monitor = server.monitor()

    def execute(command: str, **arguments: object) -> object:
        answer = monitor.execute(command, arguments or None)
        assert "return" in answer, answer
        return answer["return"]

    first = {"name": "first", "filename": str(recorded / "memory")}
    execute("x-template-save", **first, devices=str(recorded / "devices"))
    assert monitor.read_event("X_TEMPLATE_COPIED")["data"]["name"] == "first"
    saved = monitor.read_event("X_TEMPLATE_SAVED")["data"]
    assert (saved["name"], saved["size"]) == ("first", 128 << 20)
    # The clone runs in memd's memory, and writes to it.
    execute("object-add", **{"qom-type": "memory-backend-memfd", "id": "vm", "size": 128 << 20})
    path = f"/proc/{server.pid}/fd/"
    exported = monitor.execute("x-memdev-export", {"id": "vm"})["return"]["path"]
    assert exported.startswith(path)
    guest = start_guest(memory("file", mem_path=exported, share="on"))
    execute("x-template-serve", name="first", qmp=str(guest.pages))
    guest.run("head -c 1000000 /pattern > /more")
    assert monitor.read_event("X_TEMPLATE_SERVED")["data"]["outcome"] == "complete"
    guest.wait_migration("completed")
    told = json.loads(
        memctl(
            server,
            *("--json", "template", "save", "second", "--base", "first", "--qmp", str(guest.pages)),
        )
    )
    assert told["name"] == "second"
    assert told["stood"] > 0
    # It goes on, and what it does now is not in the template.
    status = guest.execute("query-status")
    assert isinstance(status, dict)
    assert status["status"] == "running"
    guest.run("rm /more")
    guest.check()
    second = start_guest(memory("memfd"))
    text = memctl(server, "template", "serve", "second", second.listen())
    assert "the machine has all of its memory" in text
    second.check()
    assert second.run("cat /more | md5sum") == f"{digest_of_more()}  -"
    # The process that served it keeps it for the next clone, and not from being deleted.
    execute("x-template-delete", name="second")
    refused = monitor.execute("x-template-serve", {"name": "second", "qmp": str(second.pages)})
    assert refused["error"]["desc"] == "template 'second' not found"


def nodes(**options: object) -> list[str]:
    """Two halves of memory, a node each."""
    kind = "file" if "mem_path" in options else "memfd"
    files = [
        {key: f"{value}{node}" if key == "mem_path" else value for key, value in options.items()}
        for node in range(2)
    ]
    return [memory(kind, **{**files[node], "id": f"m{node}", "size": SIZE // 2}) for node in (0, 1)]


def test_memory_of_several_nodes(
    directory: Path, start_memd: Callable[..., Server], start_guest: Start
) -> None:
    """Saved as it runs, served, and recovered."""
    server = start_memd("--templates", str(directory / "store"))
    machine = MACHINE.replace(",memory-backend=ram", "")
    numa = ("-numa", "node,memdev=m0", "-numa", "node,memdev=m1")
    first, second = nodes(mem_path=directory / "node", share="on")
    guest = start_guest(first, "-object", second, *numa, machine=machine, boots=True)
    guest.hear("READY")
    memctl(server, "template", "save", "numa", "--qmp", str(guest.pages))
    guest.check()
    shown = memctl(server, "template", "show", "numa")
    assert "block m0: 64 MiB, the template's memory from byte 0 on" in shown
    assert f"block m1: 64 MiB, the template's memory from byte {64 << 20} on" in shown
    version = guest.execute("query-version")
    assert isinstance(version, dict)
    assert "saved by QEMU {major}.{minor}.{micro}".format_map(version["qemu"]) in shown
    first, second = nodes()
    clone = start_guest(first, "-object", second, *numa, machine=machine)
    monitor = server.monitor()
    request = {"name": "numa", "qmp": str(clone.pages), "record": True}
    assert monitor.execute("x-template-serve", request) == {"return": {}}
    clone.type("md5sum /pattern")
    for process in serving_processes(server):
        os.kill(process, signal.SIGKILL)
    assert clone.hear() == f"{image.digest()}  /pattern"
    clone.execute("quit")
    assert monitor.read_event("X_TEMPLATE_SERVED")["data"]["outcome"] == "left"


def test_run(recorded: Path, directory: Path, start_memd: Callable[..., Server]) -> None:
    """memctl starts a QEMU of its own, says what becomes of it, and ends with its status."""
    server = start_memd("--templates", str(directory / "store"))
    monitor = server.monitor()
    files = {"filename": str(recorded / "memory"), "devices": str(recorded / "devices")}
    assert monitor.execute("x-template-save", {"name": "first", **files}) == {"return": {}}
    words = ["template", "run", "--record", "first", "--", *MACHINE.split()]
    words += ["-object", memory("memfd"), "-serial", "stdio"]
    words += ["-qmp", f"unix:{directory}/own,server=on,wait=off"]
    memctl = [sys.executable, "-m", "tests.memctl.program", "-s", str(server.path)]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    refused = ["template", "run", "first", "--", "-no-such-option"]
    ended = subprocess.run([*memctl, *refused], capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr == "qemu-system-x86_64: -no-such-option: invalid option\n"
    with subprocess.Popen(
        [*memctl, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        assert b"first: connected after" in running.stderr.readline()
        own = Monitor(directory / "own")
        while own.execute("query-status")["return"]["status"] != "running":
            time.sleep(0.01)
        running.stdin.write(b"md5sum /pattern\n")
        running.stdin.flush()
        said = b""
        while b"DONE" not in said:
            said += running.stdout.readline()
        assert image.digest().encode() in said
        own.execute("quit")
        own.close()
        assert b"first: the machine has ended" in running.stderr.read()
        assert running.wait(60) == 0
    shown = monitor.execute("x-template-query", {"name": "first"})
    while not shown["return"]["working-set"]:
        time.sleep(0.05)
        shown = monitor.execute("x-template-query", {"name": "first"})
    assert shown["return"]["clones"] == []


NOT_LOADED = re.compile("loadvm failed|load of migration failed")
"""What QEMU says that has not got what it needs to begin."""


def serving_processes(server: Server) -> list[int]:
    """The processes that serve pages for a daemon."""
    found = children(server.pid)
    assert found
    return found


def test_memd_is_killed(
    recorded: Path, directory: Path, start_memd: Callable[..., Server], start_guest: Start
) -> None:
    """At whatever moment the daemon dies, or what serves: not a byte is wrong.

    MEMD_KILLS says how often; MEMD_SEED when, and who.
    """
    some = random.Random(os.environ.get("MEMD_SEED"))
    options = ("--templates", str(directory / "store"))
    server = start_memd(*options)
    monitor = server.monitor()
    first = {"name": "first", "filename": str(recorded / "memory")}
    answer = monitor.execute("x-template-save", {**first, "devices": str(recorded / "devices")})
    assert answer == {"return": {}}
    seen = Counter[str]()
    for _ in range(int(os.environ.get("MEMD_KILLS", "3"))):
        guest = start_guest(memory("memfd", share=some.choice(("on", "off"))))
        request = {"name": "first", "qmp": str(guest.pages), "record": some.random() < 0.5}
        assert monitor.execute("x-template-serve", request) == {"return": {}}
        processes = serving_processes(server)
        time.sleep(some.random() * 0.2)
        who = some.choice(os.environ.get("MEMD_KILL", "daemon process both").split())
        if who != "daemon":
            for process in processes:
                os.kill(process, signal.SIGKILL)
        if who != "process":
            server.process.kill()
            server.process.wait()
            server = start_memd(*options)
            monitor = server.monitor()
        guest.monitor.socket.settimeout(PATIENCE / 2)
        try:
            guest.check()
        except (Died, ConnectionError, TimeoutError):
            # It was about to run, and so QEMU has ended, or its main thread waits for a page
            # that nobody sends, for ever; it has said so.
            assert NOT_LOADED.search(guest.stderr())
            guest.process.kill()
            guest.process.wait()
            seen[f"{who}: had not begun to run"] += 1
            continue
        paused = "Migration paused" in guest.stderr()
        seen[f"{who}: {'paused, recovered' if paused else 'went on'}"] += 1
        guest.execute("quit")
    print(dict(seen))


def test_memory_given_as_a_dimm(
    directory: Path, start_memd: Callable[..., Server], start_guest: Start
) -> None:
    """A DIMM that the guest uses is a block of the template; saved as it runs, and served."""
    server = start_memd("--templates", str(directory / "store"))
    # A machine whose memory may grow sets 64 MiB aside to copy through.
    machine = MACHINE.replace("-m 128M", "-m 256M,slots=1,maxmem=1G")
    slot = ("-device", "pc-dimm,id=d1,memdev=dimm")

    def blocks(**options: object) -> list[str]:
        kind = "file" if options else "memfd"
        sizes = (("ram", 2 * SIZE), ("dimm", SIZE))
        named = {
            key: f"{value}-{{}}" if key == "mem_path" else value for key, value in options.items()
        }
        return [
            memory(kind, **{**named, "id": name, "size": size}).format(name) for name, size in sizes
        ]

    main, dimm = blocks(mem_path=directory / "block", share="on")
    guest = start_guest(main, "-object", dimm, *slot, machine=machine, boots=True)
    guest.hear("READY")
    # Here files come to lie in it, once it is online.
    state = "/sys/devices/system/memory/memory32/state"
    busybox = "/bin/busybox"
    guest.run(f"{busybox} mkdir /sys && {busybox} mount -t sysfs sys /sys")
    guest.run(f"echo online_movable > {state}")
    guest.run("cp /pattern /copy && rm /pattern && cp /copy /pattern")
    assert image.pattern()[:4096] in (directory / "block-dimm").read_bytes()
    memctl(server, "template", "save", "grown", "--qmp", str(guest.pages))
    guest.check()
    shown = memctl(server, "template", "show", "grown")
    assert f"block dimm: 128 MiB, the template's memory from byte {2 * SIZE} on" in shown
    main, dimm = blocks()
    clone = start_guest(main, "-object", dimm, *slot, machine=machine)
    told = memctl(server, "template", "serve", "grown", "--qmp", str(clone.pages))
    assert "the machine has all of its memory" in told
    clone.check()
    assert clone.run(f"cat {state}") == "online"


def digest_of_more() -> str:
    import hashlib

    return hashlib.md5(image.pattern()[:1000000], usedforsecurity=False).hexdigest()
