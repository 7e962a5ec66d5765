"""A file system that does not answer holds up those who use it, and nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.server.jobs import LIGHT, UNKNOWN
from tests.descriptors import lingering
from tests.differential.harness import settle
from tests.differential.kernel import descriptors, is_exiting
from tests.differential.server import PATIENCE, TREE, Monitor, Server, memd_argv, qemu_system_memd
from tests.faults.conftest import MIB, Broken, arguments
from tests.prefork import Forked


def others_go_on(server: Server) -> None:
    """Another client is answered, whatever it asks that has nothing to do with it."""
    other = server.monitor()
    assert "return" in other.execute("query-status")
    assert other.execute("object-add", arguments(id="other")) == {"return": {}}
    assert "return" in other.execute("x-memdev-stat")
    assert other.execute("object-del", {"id": "other"}) == {"return": {}}


def send(monitor: Monitor, command: str, request: dict[str, object]) -> None:
    monitor.send(json.dumps({"execute": command, "arguments": request}).encode())


@pytest.mark.parametrize(
    ("call", "command"),
    [
        ("getattr", "object-add"),
        ("open", "object-add"),
        ("getattr", "x-memdev-export"),
        ("read", "x-memdev-read"),
        ("write", "x-memdev-write"),
        ("statfs", "x-memdev-explain"),
        ("fsync", "x-memdev-save"),
        ("unlink", "x-memdev-save"),
        ("flush", "object-del"),
        ("release", "object-del"),
    ],
)
def test_a_stalled_call(
    broken: Broken, start_memd: Callable[..., Server], directory: Path, call: str, command: str
) -> None:
    server = start_memd()
    monitor = server.monitor()
    path = broken.path / "file"
    path.write_bytes(bytes(MIB))
    add = arguments("file", mem_path=str(path), share=True)
    here = arguments("ram", id="here")
    assert monitor.execute("object-add", here) == {"return": {}}
    if command not in ("object-add", "x-memdev-explain"):
        assert monitor.execute("object-add", add) == {"return": {}}
    request: Any = {
        "x-memdev-export": {"id": "m"},
        "x-memdev-read": {"id": "m", "offset": 0, "length": 1},
        "x-memdev-write": {"id": "m", "offset": 0, "data": "eA=="},
        "x-memdev-save": {"id": "here", "filename": str(broken.path / "saved")},
        "object-del": {"id": "m"},
    }.get(command, add)
    broken.stall(call)
    try:
        send(monitor, command, request)
        others_go_on(server)
        if command == "object-del":
            # What closes its file is not waited for.
            assert monitor.read_answer() == {"return": {}}
    finally:
        broken.mend()
    if command != "object-del":
        assert "return" in monitor.read_answer()


def threads(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/task"))


def test_how_many_threads_a_file_system_that_stalls_takes(
    broken: Broken, start_memd: Callable[..., Server]
) -> None:
    """Further commands wait in line, whichever connection they are of, and are done in the end."""
    server = start_memd()
    monitors = [server.monitor() for _ in range(30)]
    (broken.path / "file").write_bytes(bytes(MIB))
    others_go_on(server)
    before = threads(server)
    broken.stall("open")
    try:
        for number, monitor in enumerate(monitors):
            add = arguments("file", id=f"f{number}", mem_path=str(broken.path / "file"))
            send(monitor, "object-add", add)
        # The loop's own, and as many as there may be for a file system.
        busy = settle(lambda: threads(server), lambda count: count > LIGHT)
        others_go_on(server)
        assert LIGHT < max(busy, threads(server)) <= before + LIGHT + 1
    finally:
        broken.mend()
    for monitor in monitors:
        assert monitor.read_answer() == {"return": {}}


def test_deletions_are_answered_and_hold_no_thread_more(
    broken: Broken, start_memd: Callable[..., Server]
) -> None:
    server = start_memd()
    monitor = server.monitor()
    count = 3
    for number in range(count):
        path = broken.path / f"f{number}"
        path.write_bytes(bytes(MIB))
        add = arguments("file", id=f"f{number}", mem_path=str(path), share=True)
        assert monitor.execute("object-add", add) == {"return": {}}
    before = threads(server)
    broken.stall("flush")
    try:
        for number in range(count):
            assert monitor.execute("object-del", {"id": f"f{number}"}) == {"return": {}}
        assert monitor.execute("query-memdev") == {"return": []}
        others_go_on(server)
        assert threads(server) <= before + LIGHT + 1
    finally:
        broken.mend()

    def left() -> int:
        return sum(each.startswith(str(broken.path)) for each in descriptors(server.pid))

    assert settle(left, lambda count: count == 0) == 0


def test_a_descriptor_that_a_client_sent(broken: Broken, start_memd: Callable[..., Server]) -> None:
    """To close it may wait for its file system, or, of a socket, for who is at the other end."""
    server = start_memd("--max-descriptors", "32")
    monitor = server.monitor()
    path = broken.path / "file"
    path.write_bytes(bytes(MIB))
    with path.open("rb") as file, socket.create_server(("127.0.0.1", 0)) as listening:
        sock = lingering(listening, 3600)
        broken.stall("flush")
        try:
            for number, fd in enumerate((file.fileno(), sock.fileno())):
                named = {"fdname": f"n{number}"}
                request = json.dumps({"execute": "getfd", "arguments": named}).encode()
                monitor.send(request, (fd,))
                assert monitor.read_answer() == {"return": {}}
                assert monitor.execute("closefd", named) == {"return": {}}
            for _ in range(3):
                # What takes none.
                request = b'{"execute":"query-status"}'
                monitor.send(request, (file.fileno(),) * 4)
                assert "return" in monitor.read_answer()
            others_go_on(server)
        finally:
            broken.mend()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def ends(process: Forked | subprocess.Popen[bytes]) -> bool:
    """Have it end: whether it calls exit(2). That its threads are in the kernel yet is the
    kernel's."""
    process.send_signal(signal.SIGTERM)
    return settle(lambda: process.poll() is not None or is_exiting(process.pid), bool)


@pytest.mark.parametrize(
    ("call", "command"),
    [
        ("open", "object-add"),
        ("read", "x-memdev-read"),
        ("fsync", "x-memdev-save"),
        ("flush", "object-del"),
        ("unlink", ""),
    ],
)
def test_the_end(
    broken: Broken, start_memd: Callable[..., Server], directory: Path, call: str, command: str
) -> None:
    """With a region, a secret, the PID file, the audit and a socket on what stalls."""
    where = broken.path
    for name in ("file", "other"):
        (where / name).write_bytes(bytes(MIB))
    pidfile = (where if call == "unlink" else directory) / "pid"
    options = ["--pidfile", str(pidfile), "--audit", str(where / "audit")]
    if call == "unlink":
        options += ["--qmp", f"unix:{where}/sock,server=on,wait=off"]
    server = start_memd(*options)
    monitor = server.monitor()
    for kind, request in {
        "file": arguments("file", mem_path=str(where / "file"), share=True),
        "ram": arguments(id="here"),
    }.items():
        assert monitor.execute("object-add", request) == {"return": {}}, kind
    requests: dict[str, Any] = {
        "object-add": arguments("file", id="n", mem_path=str(where / "other")),
        "x-memdev-read": {"id": "m", "offset": 0, "length": 1},
        "x-memdev-save": {"id": "here", "filename": str(where / "saved")},
        "object-del": {"id": "m"},
    }
    broken.stall(call)
    try:
        if command:
            send(monitor, command, requests[command])
            others_go_on(server)
        assert ends(server.process)
        assert not server.path.exists()
        if call != "unlink":
            assert not pidfile.exists()
    finally:
        broken.mend()
    assert server.wait() == 0


def test_the_audit(broken: Broken, start_memd: Callable[..., Server]) -> None:
    """A command waits a second for its record, and no further one does until it is written."""
    path = broken.path / "audit"
    server = start_memd("--audit", str(path))
    monitor = server.monitor()
    assert monitor.execute("object-add", arguments()) == {"return": {}}
    assert path.read_text().count("\n") == 1
    broken.stall("write")
    try:
        others_go_on(server)
        begin = time.monotonic()
        for _ in range(60):
            assert "error" in monitor.execute("object-add", arguments())
        # A second each, were they waited for.
        assert time.monotonic() - begin < 50
    finally:
        broken.mend()
    # None is lost, and each is written once.
    assert settle(lambda: path.read_text().count("\n"), lambda count: count >= 63) == 63


@pytest.mark.parametrize("call", ["mknod", "open"])
def test_a_start_that_waits_can_be_ended(broken: Broken, directory: Path, call: str) -> None:
    """For a socket, or for the file of an object."""
    (broken.path / "file").write_bytes(bytes(MIB))
    served, pidfile = directory / "qmp.sock", directory / "pid"
    options = ["--pidfile", str(pidfile), "--qmp", f"unix:{served},server=on,wait=off"]
    if call == "mknod":
        options += ["--qmp", f"unix:{broken.path}/sock,server=on,wait=off"]
    else:
        options += ["--object", f"memory-backend-file,id=f,size=1M,mem-path={broken.path}/file"]
    broken.stall(call)
    process = subprocess.Popen([*memd_argv(), *options], cwd=TREE)
    try:
        assert settle(served.exists, bool)
        assert settle(lambda: len(os.listdir(f"/proc/{process.pid}/task")), lambda n: n > 1) > 1
        assert ends(process)
        assert (served.exists(), pidfile.exists()) == (False, False)
    finally:
        broken.mend()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "option",
    [
        *("--pidfile @", "--audit @", "-readconfig @", "-catalogue @"),
        *("-fw_cfg opt/x,file=@", "-tpmdev passthrough,id=t,path=@"),
    ],
)
def test_a_start_does_not_wait_for_its_own_files(
    broken: Broken, directory: Path, option: str
) -> None:
    """Nobody is served yet who could say what is wrong: the start fails."""
    path = broken.path / "file"
    path.touch()
    main = "main" if option.startswith("--") else "qemu_system"
    script = (
        "import sys; from memd.hostmem import deadline; deadline.PATIENCE = 0.3;"
        f" from memd.cli.{main} import main; sys.exit(main())"
    )
    words = option.replace("@", str(path)).split()
    argv = [sys.executable, "-c", script, "--qmp", f"unix:{directory}/sock", *words]
    broken.stall("open")
    try:
        with (directory / "errors").open("wb") as errors:
            process = subprocess.Popen(argv, cwd=TREE, stderr=errors)
        # The thread that waits in the kernel keeps it in the process table.
        assert settle(lambda: process.poll() is not None or is_exiting(process.pid), bool)
    finally:
        broken.mend()
    assert process.wait(PATIENCE) == 1
    told = (directory / "errors").read_text()
    assert told.count("\n") == 1
    assert "the file system does not answer" in told


def test_messages_to_the_service_manager(
    broken: Broken,
    directory: Path,
    start_memd: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who does not read, whose address can't be looked up, and who is gone besides."""
    path = f"{broken.path}/notify"
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        server = start_memd()
        while b"WATCHDOG=1" not in manager.recv(1000):
            pass
        broken.stall("getattr")
        # The kernel remembers for a second where the address leads.
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            others_go_on(server)
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while manager.recv(1000):
                pass
    for _ in range(20):
        others_go_on(server)
        time.sleep(0.02)
    broken.mend()
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        assert manager.recv(1000)
    server.stop()


def test_the_log_of_qtest(broken: Broken, directory: Path) -> None:
    path, served = broken.path / "log", directory / "qtest"
    argv = [*qemu_system_memd(), "-machine", "none", "-display", "none", "-qtest-log", str(path)]
    argv += ["-qtest", f"unix:{served},server=on,wait=off"]
    process = subprocess.Popen(argv, cwd=TREE)
    try:
        assert settle(served.exists, bool)
        with socket.socket(socket.AF_UNIX) as harness:
            harness.settimeout(PATIENCE)
            harness.connect(str(served))
            broken.stall("write")
            for _ in range(10):
                harness.sendall(b"endianness\n")
                assert harness.recv(100)[:2] == b"OK"
        assert ends(process)
    finally:
        broken.mend()
        process.kill()
        process.wait()


def test_files_of_character_and_block_devices(broken: Broken, directory: Path) -> None:
    """As many as there are threads for what is not known keep nobody from another's."""
    (directory / "server").mkdir()
    argv = [*qemu_system_memd(), "-machine", "none", "-display", "none", "-clients", "many"]
    server = Server("memd", argv, directory / "server")
    (broken.path / "file").touch()
    (directory / "file").touch()

    def add(where: Path, number: int) -> list[tuple[str, dict[str, object]]]:
        file: dict[str, object] = {
            "driver": "file",
            "node-name": f"n{number}",
            "filename": str(where / "file"),
        }
        backend = {"type": "file", "data": {"out": str(where / "file")}}
        return [
            ("chardev-add", {"id": f"c{number}", "backend": backend}),
            ("blockdev-add", file),
        ]

    monitors = [server.monitor() for _ in range(UNKNOWN + 4)]
    broken.stall("open")
    try:
        for number, monitor in enumerate(monitors):
            send(monitor, *add(broken.path, number)[number % 2])
        others_go_on(server)
        other = server.monitor()
        for command, request in add(directory, 100):
            assert "return" in other.execute(command, request)
    finally:
        broken.mend()
    for monitor in monitors:
        assert "return" in monitor.read_answer()
    server.stop()


def test_a_program(broken: Broken, directory: Path) -> None:
    argv = [*qemu_system_memd(), "-machine", "q35", "-S", "-display", "none", "-clients", "many"]
    server = Server("memd", [*argv, "--allow-exec"], directory)
    program = {"transport": "exec", "args": [str(broken.path / "program")]}
    monitor = server.monitor()
    broken.stall("getattr")
    try:
        send(monitor, "migrate", {"channels": [{"channel-type": "main", "addr": program}]})
        others_go_on(server)
    finally:
        broken.mend()
    assert "(No such file or directory)" in str(monitor.read_answer()["error"])
    server.stop()


def test_an_unplugged_disk_is_told_once_its_image_is_closed(
    broken: Broken, directory: Path
) -> None:
    """A client that waits for the event may use the image then."""
    (broken.path / "image").write_bytes(bytes(512))
    drive = f"if=none,id=d,format=raw,file={broken.path}/image"
    machine = f"-machine q35 -S -display none -device virtio-scsi-pci -drive {drive}"
    server = Server("memd", [*qemu_system_memd(), *machine.split(), "-clients", "many"], directory)
    monitor = server.monitor()
    disk = {"driver": "scsi-hd", "drive": "d", "id": "h"}
    assert monitor.execute("device_add", disk) == {"return": {}}
    broken.stall("flush")
    try:
        assert monitor.execute("device_del", {"id": "h"}) == {"return": {}}
        # Clients are told what happens in its order.
        assert monitor.execute("cont") == {"return": {}}
        assert [event["event"] for event in monitor.events] == ["RESUME"]
        others_go_on(server)
    finally:
        broken.mend()
    monitor.read_event("DEVICE_DELETED")
    server.stop()


def test_a_secret_and_tls_files(broken: Broken, start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    (broken.path / "key").write_bytes(b"secret")
    broken.stall("open")
    monitors = [server.monitor() for _ in range(2)]
    secret: dict[str, object] = {"qom-type": "secret", "id": "s", "file": str(broken.path / "key")}
    tls: dict[str, object] = {"qom-type": "tls-creds-x509", "id": "t", "dir": str(broken.path)}
    try:
        send(monitors[0], "object-add", secret)
        send(monitors[1], "object-add", tls)
        others_go_on(server)
    finally:
        broken.mend()
    assert monitors[0].read_answer() == {"return": {}}
    # There are no certificates.
    assert "error" in monitors[1].read_answer()


def test_the_log_of_a_test(broken: Broken) -> None:
    """The command's status is told, and why there is no log."""
    script = (
        "import sys; from memd.hostmem import deadline; deadline.PATIENCE = 0.3;"
        " from memd.testing.run import main; sys.exit(main())"
    )
    argv = [sys.executable, "-c", script, "--log", str(broken.path / "log"), "--", "true"]
    broken.stall("create")
    process = subprocess.Popen(argv, cwd=TREE, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert settle(lambda: process.poll() is not None or is_exiting(process.pid), bool)
    finally:
        broken.mend()
    process.communicate(timeout=PATIENCE)
    assert b"the file system does not answer" in told
    assert process.returncode == 125
