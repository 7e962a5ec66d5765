"""Migration of stand-ins: what one's memory holds, the other's holds in the end."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Any

import pytest

from tests import NOT_THERE
from tests.conftest import need_shm
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import TREE, Monitor, Server, qemu_system_memd, running

MIB = 1 << 20
PAGE = 4096
SIZE = 2 * MIB
COMMAND = (*qemu_system_memd(), "-nodefaults")


class Machine:
    """A stand-in and a connection to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.monitor: Monitor = server.monitor()

    def ask(self, command: str, **arguments: Any) -> Any:
        answer = self.monitor.execute(
            command, {name.replace("_", "-"): value for name, value in arguments.items()} or None
        )
        return answer.get("return", answer.get("error", {}).get("desc"))

    def switch(self, *capabilities: str) -> None:
        on = [{"capability": each, "state": True} for each in ("events", *capabilities)]
        assert self.ask("migrate-set-capabilities", capabilities=on) == {}

    def until(self, *statuses: str) -> str:
        """The next of these statuses of a migration."""
        while True:
            status: str = self.monitor.read_event("MIGRATION")["data"]["status"]
            if status in statuses:
                return status

    def give(self, end: socket.socket | IO[bytes]) -> None:
        """Hand a descriptor over, by the name `given`."""
        request = json.dumps({"execute": "getfd", "arguments": {"fdname": "given"}})
        self.monitor.send(request.encode(), [end.fileno()])
        assert self.monitor.read_answer() == {"return": {}}
        end.close()

    def sent(self) -> int:
        """Bytes of the stream that it has sent."""
        transferred: int = self.ask("query-migrate")["ram"]["transferred"]
        return transferred

    def read(self, id: str, offset: int, length: int) -> bytes:
        pieces = [
            self.ask("x-memdev-read", id=id, offset=at, length=min(MIB, offset + length - at))
            for at in range(offset, offset + length, MIB)
        ]
        return b"".join(base64.b64decode(each["data"]) for each in pieces)

    def write(self, id: str, offset: int, data: bytes) -> None:
        text = base64.b64encode(data).decode()
        assert self.ask("x-memdev-write", id=id, offset=offset, data=text) == {}


Start = Callable[..., Machine]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(*options: str, machine: str = "q35", memory: str = "16M") -> Machine:
            place = tmp_path / f"m{len(list(tmp_path.glob('m*')))}"
            place.mkdir()
            argv = [*COMMAND, "-machine", machine, "-m", memory, *options]
            return Machine(stack.enter_context(running("memd", argv, place)))

        yield begin


def pattern(seed: int, length: int) -> bytes:
    """Bytes with pages of zeroes among them."""
    random = Random(seed)
    pages = [
        random.randbytes(PAGE) if random.random() < 0.4 else bytes(PAGE)
        for _ in range(length // PAGE)
    ]
    return b"".join(pages)


def kinds(directory: Path) -> tuple[str, ...]:
    """Options for memory of each kind, of 2 MiB each."""
    objects = (
        "ram,id=anonymous",
        "ram,id=together,share=on",
        "memfd,id=memfd",
        "shm,id=shm",
        f"file,id=file,share=on,mem-path={directory}/file",
        f"file,id=copied,mem-path={directory}/copied",
        f"file,id=clone,readonly=on,rom=off,mem-path={directory}/clone",
    )
    found = ["-m", "16M,slots=8,maxmem=1G"]
    for each in objects:
        id = each.partition("id=")[2].partition(",")[0]
        found += ["-object", f"memory-backend-{each},size=2M"]
        found += ["-device", f"pc-dimm,id=d-{id},memdev={id}"]
    return tuple(found)


IDS = ("pc.ram", "anonymous", "together", "memfd", "shm", "file", "copied", "clone")


@need_shm
def test_every_byte_of_every_kind_of_memory(tmp_path: Path, start: Start) -> None:
    """The targets had other content, and their files other bytes."""
    for side in ("here", "there"):
        (tmp_path / side).mkdir()
    for number, name in enumerate(("file", "copied", "clone")):
        (tmp_path / "here" / name).write_bytes(pattern(number, SIZE))
    source = start(*kinds(tmp_path / "here"), "--allow-exec", "-S")
    source.switch()
    expected = {}
    for number, id in enumerate(IDS):
        # Some pages of files are not written over.
        source.write(id, MIB // 2, pattern(200 + number, MIB // 4))
        source.write(id, 5 * PAGE, bytes(PAGE))
        expected[id] = source.read(id, 0, SIZE)
    path = tmp_path / "stream"
    for way, going, coming in (
        ("a file", f"file:{path},offset=0x1000", f"file:{path},offset=0x1000"),
        ("a command", f"exec:cat >{path}", f"exec:cat {path}"),
        ("descriptors", "fd:given", "fd:given"),
        ("a socket", f"unix:{path}", f"unix:{path}"),
        ("a machine that runs", f"unix:{path}", f"unix:{path}"),
    ):
        for number, name in enumerate(("file", "copied", "clone")):
            (tmp_path / "there" / name).write_bytes(pattern(50 + number, SIZE))
        target = start(*kinds(tmp_path / "there"), "--allow-exec", "-S", "-incoming", "defer")
        target.switch()
        for number, id in enumerate(IDS):
            target.write(id, 0, pattern(100 + number, MIB // 4))
        if way == "descriptors":
            for machine, end in zip((source, target), socket.socketpair(), strict=True):
                machine.give(end)
        path.unlink(missing_ok=True)
        if way == "a machine that runs":
            source.ask("cont")
        awaits = going.startswith(("fd:", "unix:"))
        if awaits:
            assert target.ask("migrate-incoming", uri=coming) == {}
        assert source.ask("migrate", uri=going) == {}
        assert source.until("completed", "failed") == "completed", way
        if not awaits:
            if way == "a command":
                settle(path.stat, lambda now: now.st_size >= source.sent())
            assert target.ask("migrate-incoming", uri=coming) == {}
        assert target.until("completed", "failed") == "completed", way
        for id in IDS:
            assert target.read(id, 0, SIZE) == expected[id], (way, id)
        told = source.ask("query-migrate")["ram"]
        assert told["total"] == 16 * MIB + 7 * SIZE
        assert told["remaining"] == 0
        assert told["normal"] + told["duplicate"] >= told["total"] // PAGE
        # What is private there was not written to its file.
        assert (tmp_path / "there" / "copied").read_bytes() == pattern(51, SIZE)
        assert (tmp_path / "there" / "file").read_bytes() == expected["file"]
        target.server.stop()
        # Once it is reset it can go again.
        source.ask("system_reset")


def test_what_is_written_while_it_goes(tmp_path: Path, start: Start) -> None:
    """As much as was written before the machine stood arrives, and all of it once."""
    source, target = start(), start("-S", "-incoming", "defer")
    for machine in (source, target):
        machine.switch()
    data = pattern(1, 4 * MIB)
    source.write("pc.ram", 0, data)
    source.write("pc.ram", 6 * MIB, b"\1" * MIB)
    source.ask("migrate-set-parameters", max_bandwidth=100_000)
    target.ask("migrate-incoming", uri=f"unix:{tmp_path}/s")
    source.ask("migrate", uri=f"unix:{tmp_path}/s")
    source.until("active")
    # The first bytes of the memory are under way, and the last ones are not.
    settle(source.sent, lambda now: now > 4096)
    for number in range(8):
        source.write("pc.ram", number * MIB, bytes([number]) * MIB)
    source.ask("migrate-set-parameters", max_bandwidth=0)
    source.monitor.read_event("STOP")
    expected = source.read("pc.ram", 0, 16 * MIB)
    assert source.until("completed")
    assert target.until("completed")
    assert target.read("pc.ram", 0, 16 * MIB) == expected


def test_shared_memory_of_files_can_be_left_out(tmp_path: Path, start: Start) -> None:
    options = (
        *("-object", f"memory-backend-file,id=m0,size=4M,share=on,mem-path={tmp_path}/ram"),
        *("-machine", "memory-backend=m0", "-S"),
    )
    source, target = (start(*options, *more, memory="4M") for more in ((), ("-incoming", "defer")))
    for machine in (source, target):
        machine.switch("x-ignore-shared")
    data = pattern(1, MIB)
    source.write("m0", 0, data)
    source.ask("migrate", uri=f"file:{tmp_path}/stream")
    source.until("completed")
    assert source.ask("query-migrate")["ram"]["total"] == 0
    assert (tmp_path / "stream").stat().st_size < 1000
    target.ask("migrate-incoming", uri=f"file:{tmp_path}/stream")
    target.until("completed")
    assert target.read("m0", 0, MIB) == data


def test_a_peer_that_reads_nothing_keeps_nobody_waiting(tmp_path: Path, start: Start) -> None:
    source = start("-S")
    source.switch()
    source.write("pc.ram", 0, b"\1" * (8 * MIB))
    before = descriptors(source.server.pid)
    for _ in range(2):
        here, there = socket.socketpair()
        source.give(here)
        assert source.ask("migrate", uri="fd:given") == {}
        source.until("active")
        assert source.ask("query-migrate")["status"] == "active"
        assert source.ask("migrate_cancel") == {}
        assert source.until("cancelled")
        there.close()
        # It is closed in a thread.
        assert settle(partial(descriptors, source.server.pid), before.__eq__) == before
    assert source.ask("query-status")["status"] == "prelaunch"


def test_a_socket_that_is_made_to_wait_keeps_no_migration_from_its_end(start: Start) -> None:
    """Another process that has it may, at any time: the flag is the open file's, fcntl(2)."""
    source = start("-S")
    source.switch()
    source.write("pc.ram", 0, b"\1" * (8 * MIB))
    pid = source.server.pid
    here, there = socket.socketpair()
    name = f"socket:[{os.fstat(here.fileno()).st_ino}]"
    with there, here.dup() as kept:
        source.give(here)
        assert source.ask("migrate", uri="fd:given") == {}
        source.until("active")
        links = {each: os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
        (number,) = (int(each.name) for each, link in links.items() if link == name)

        def waits() -> bool:
            kept.setblocking(True)
            with suppress(BlockingIOError):
                there.recv(1 << 16, socket.MSG_DONTWAIT)
            calls = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/syscall")]
            return any(hex(number) == each.split()[1] for each in calls if " " in each)

        assert settle(waits, bool)
        assert source.ask("migrate_cancel") == {}
        assert source.until("cancelled")
    assert source.ask("query-status")["status"] == "prelaunch"


def test_a_peer_that_goes(start: Start) -> None:
    source = start()
    source.switch()
    source.write("pc.ram", 0, b"\1" * (8 * MIB))
    with socket.create_server(("127.0.0.1", 0)) as server:
        source.ask("migrate", uri=f"tcp:127.0.0.1:{server.getsockname()[1]}")
        peer = server.accept()[0]
        peer.recv(1 << 16)
        peer.close()
        assert source.until("failed", "completed") == "failed"
    assert "Unable to write to socket" in source.ask("query-migrate")["error-desc"]
    assert source.ask("query-status")["status"] == "running"


def test_a_stream_of_qemus_is_told_from_others(tmp_path: Path, start: Start) -> None:
    (tmp_path / "s").write_bytes(b"QEVM\0\0\0\3\7\0\0\0\5pc-q3")
    target = start("-S", "-incoming", "defer")
    target.switch()
    target.ask("migrate-incoming", uri=f"file:{tmp_path}/s", exit_on_error=False)
    target.until("failed")
    assert "QEMU's" in target.ask("query-migrate")["error-desc"]


def test_the_size_of_a_virtio_mem_goes_with_it(tmp_path: Path, start: Start) -> None:
    options = (
        *("-m", "16M,maxmem=1G", "-object", "memory-backend-ram,id=m0,size=64M"),
        *("-device", "virtio-mem-pci,id=vm0,memdev=m0"),
    )
    source, target = start(*options), start(*options, "-incoming", f"unix:{tmp_path}/s")
    source.switch()
    target.switch()
    source.ask("qom-set", path="vm0", property="requested-size", value=8 * MIB)
    source.monitor.read_event("MEMORY_DEVICE_SIZE_CHANGE")
    source.write("m0", 0, b"memd")
    source.ask("migrate", uri=f"unix:{tmp_path}/s")
    assert target.until("completed", "failed") == "completed"
    assert target.ask("query-memory-devices") == source.ask("query-memory-devices")
    assert target.read("m0", 0, 4) == b"memd"
    assert target.ask("query-status")["status"] == "running"


def test_no_command_is_run_without_leave(tmp_path: Path, start: Start) -> None:
    source = start("-S")
    told = source.ask("migrate", uri=f"exec:touch {tmp_path}/ran")
    assert "--allow-exec" in told
    target = start("-S", "-incoming", "defer")
    assert "--allow-exec" in target.ask("migrate-incoming", uri=f"exec:touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()


def test_paths_are_below_the_root(tmp_path: Path, start: Start) -> None:
    (tmp_path / "root").mkdir()
    source = start("-S", "--mem-root", str(tmp_path / "root"))
    for uri in (f"file:{tmp_path}/out", f"file:{tmp_path}/root/../out"):
        assert "Path is not below" in source.ask("migrate", uri=uri)
    os.symlink(tmp_path, tmp_path / "root" / "link")
    assert "Path is not below" in source.ask("migrate", uri=f"file:{tmp_path}/root/link/out")
    target = start("-S", "--mem-root", str(tmp_path / "root"), "-incoming", "defer")
    assert "Path is not below" in target.ask("migrate-incoming", uri=f"unix:{tmp_path}/s")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m0", "m1", "root"]
    source.switch()
    source.ask("migrate", uri=f"file:{tmp_path}/root/in")
    source.until("completed")


def test_a_reset_gives_up_what_is_awaited(tmp_path: Path, start: Start) -> None:
    control = tmp_path / "control"
    target = start(
        *("-S", "-incoming", "defer", "-test-faults"),
        *("-test-control", f"unix:{control},server=on,wait=off"),
    )
    monitor = Monitor(control)
    for _ in range(2):
        assert target.ask("migrate-incoming", uri=f"unix:{tmp_path}/s") == {}
        assert monitor.execute("x-test-reset") == {"return": {}}
        settle(lambda: (tmp_path / "s").exists(), lambda there: not there)
        assert not (tmp_path / "s").exists()
        assert target.ask("query-migrate") == {}
    monitor.close()


@pytest.mark.parametrize(
    "address",
    [
        {"uri": "unix:\0x"},
        {"uri": f"unix:{'x' * 5000}"},
        {"uri": f"file:{'x' * 5000}"},
        {"uri": "file:/dev/full"},
        {"uri": "file:@DIR@/x,offset=18446744073709551615"},
        {"uri": f"tcp:{'a' * 64}:1"},
        {"uri": "tcp:a..b:1"},
        {"uri": "tcp:127.0.0.1:-1"},
        {"uri": "fd:-1"},
        {"uri": "rdma:a:1"},
        *(
            {"channels": [{"channel-type": kind, "addr": address}]}
            for kind, address in (
                ("main", {"transport": "file", "filename": "@DIR@/x", "offset": (1 << 64) - 1}),
                ("main", {"transport": "rdma", "host": "a", "port": "1"}),
                ("main", {"transport": "socket", "type": "vsock", "cid": "1", "port": "2"}),
                ("main", {"transport": "exec", "args": []}),
                ("main", {"transport": "exec", "args": ["a\0b"]}),
                ("cpr", {"transport": "exec", "args": ["true"]}),
            )
        ),
    ],
)
def test_where_nobody_can_go(tmp_path: Path, nowhere: Machine, address: dict[str, Any]) -> None:
    here = json.loads(json.dumps(address).replace("@DIR@", str(tmp_path)))
    told = nowhere.ask("migrate", **here)
    if told == {}:
        told = settle(lambda: nowhere.ask("query-migrate"), lambda now: now["status"] == "failed")[
            "error-desc"
        ]
    assert isinstance(told, str)
    assert "internal error" not in told, nowhere.server.stderr()
    assert nowhere.ask("query-status")["status"] == "prelaunch"


def test_one_after_the_other_that_fails(nowhere: Machine) -> None:
    """One that is begun as soon as the last has failed comes to an end of its own."""
    for number in range(100):
        path = f"{NOT_THERE}/{number}"
        assert nowhere.ask("migrate", uri=f"unix:{path}") == {}
        while (told := nowhere.ask("query-migrate"))["status"] != "failed":
            pass
        assert told["error-desc"] == f"Failed to connect to '{path}': No such file or directory"


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("nowhere")
    argv = [*COMMAND, "-machine", "q35", "-m", "16M", "-S", "--allow-exec"]
    with running("memd", argv, place) as server:
        machine = Machine(server)
        machine.write("pc.ram", 0, b"x")
        yield machine


def test_memds_own_descriptors_cannot_be_named(start: Start) -> None:
    target = start("-S", "-incoming", "defer")
    for number in range(3, 12):
        told = target.ask("migrate-incoming", uri=f"fd:{number}")
        assert "has not been found" in told or "Illegal" in told, told
    assert target.ask("query-status")["status"] == "inmigrate"


FD_FILE = "fd: migration to a file is not supported. Use file: instead."


@pytest.mark.parametrize(("release", "said"), [("10.0", {}), ("11.1", FD_FILE)])
def test_a_files_descriptor(tmp_path: Path, start: Start, release: str, said: Any) -> None:
    source = start("-S", "-compat", release)
    source.give((tmp_path / "stream").open("wb"))
    assert source.ask("migrate", uri="fd:given") == said
    if said:
        assert source.ask("query-migrate") == {"status": "failed", "error-desc": said}
        # A pipe's is not a file's.
        reader, writer = os.pipe()
        source.give(os.fdopen(writer, "wb"))
        assert source.ask("migrate", uri="fd:given") == {}
        os.close(reader)


def test_a_pipe_does_not_hold_the_whole(start: Start) -> None:
    """Who copies a state into a pipe, and closes both ends then, hands one over in between."""
    source, target = start("-S"), start("-S", "-incoming", "defer")
    source.switch()
    target.switch()
    reader, writer = os.pipe()
    source.give(os.fdopen(writer, "wb"))
    assert source.ask("migrate", uri="fd:given") == {}
    with os.fdopen(reader, "rb") as stream:
        held = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        state = stream.read()
    assert source.until("completed", "failed") == "completed"
    assert len(state) > held
    reader, writer = os.pipe()
    target.give(os.fdopen(reader, "rb"))
    assert target.ask("migrate-incoming", uri="fd:given") == {}
    with os.fdopen(writer, "wb") as copied:
        copied.write(state)
    assert target.until("completed", "failed") == "completed"


def test_a_descriptor_at_the_start(tmp_path: Path, start: Start) -> None:
    source = start("-S")
    source.switch()
    source.write("pc.ram", 0, pattern(7, 64 * PAGE))
    source.ask("migrate", uri=f"file:{tmp_path}/whole")
    source.until("completed")
    place = tmp_path / "t"
    place.mkdir()
    # What a shell opens is handed on to what it runs.
    line = ["sh", "-c", f'exec "$0" "$@" -incoming fd:7 7<{tmp_path}/whole', *COMMAND, "-S"]
    with running("memd", [*line, "-machine", "q35", "-m", "16M"], place) as server:
        target = Machine(server)
        settle(lambda: target.ask("query-migrate"), lambda now: now["status"] == "completed")
        assert target.read("pc.ram", 0, 64 * PAGE) == pattern(7, 64 * PAGE)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("nope", "-incoming nope: Parameter 'channel-type' does not accept value 'nope'"),
        (f"unix:{NOT_THERE}/x", f"Failed to bind socket to {NOT_THERE}/x: No such file or"),
    ],
)
def test_what_can_not_be_awaited_ends_the_start(uri: str, why: str) -> None:
    line = [*COMMAND, "-machine", "none", "-incoming", uri, "-qmp", "unix:s,server=on,wait=off"]
    with tempfile.TemporaryDirectory() as cwd:
        environment = dict(os.environ, PYTHONPATH=str(TREE))
        done = subprocess.run(
            line, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 1
    assert why in done.stderr


def test_what_the_human_monitor_of_11_1_takes_and_prints(start: Start) -> None:
    machine = start("-S", "-compat", "11.1", "-object", "throttle-group,id=tg")

    def typed(line: str) -> str:
        told: str = machine.ask("human-monitor-command", command_line=line)
        return told

    assert typed("migrate nope").startswith("Error: ")
    assert typed("migrate_set_parameter cpr-exec-command a 'b c'") == ""
    assert typed("migrate_set_parameter mode normal x").startswith("Error: ")
    assert typed("migrate_set_parameter x-rdma-chunk-size 3M").startswith("Error: Option")
    shown = typed("info migrate_parameters").splitlines()
    assert shown[-2:] == ["x-rdma-chunk-size: 1048576 bytes", "cpr-exec-command: a b c"]
    assert shown.index("tls-authz: ''") == shown.index("tls-hostname: ''") + 1
    # All but what is wrong with an id is told as of other words.
    assert typed("drive_add 0 if=none,id=a") == "OK\r\n"
    assert typed("drive_add 0 if=none,id=a") == "Duplicate ID 'a' for drive\r\n"
    assert typed("drive_add 0 if=foo,id=b") == "Error: unsupported bus type 'foo'\r\n"
    below = {"driver": "null-co"}
    machine.ask("blockdev-add", driver="throttle", node_name="t", throttle_group="tg", file=below)
    assert "with active references" in typed("object_del tg")
    assert typed("drive_del t") == ""
    assert typed("object_del tg") == ""
