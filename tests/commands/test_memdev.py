from __future__ import annotations

import base64
import fcntl
import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memd.commands import memdev as room
from memd.commands.memdev import decode, decoded_length
from memd.errors import NO_DESCRIPTOR, QMPError
from memd.hostmem import access
from memd.json_types import JSON
from memd.session import Peer
from memd.work import Outcome, Pieces
from tests.backends.doing import refusal
from tests.commands.fakes import Console
from tests.conftest import NOT_HERE
from tests.differential.kernel import descriptors, regions
from tests.stepping import close_all, here, made, made_text

PAGE = 4096
MIB = 1 << 20


class Memory:
    """A console that counts the commands that leave something to a thread."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.slow = 0

    def __call__(self, name: str, **arguments: JSON) -> JSON:
        running = self.console.begin(name, **arguments)
        self.slow += running.wait is not None
        return made(running.finish())

    def refusal(self, name: str, **arguments: JSON) -> str:
        before = descriptors(os.getpid()), self.regions()
        try:
            value = self(f"x-memdev-{name}", **arguments)
        except QMPError as error:
            assert (descriptors(os.getpid()), self.regions()) == before
            return error.desc
        raise AssertionError(f"not refused: {value}")

    def regions(self) -> list[Any]:
        return regions(os.getpid(), Path("/nowhere"))

    def add(self, kind: str, size: int = MIB, **options: JSON) -> None:
        self("object-add", qom_type=f"memory-backend-{kind}", id="m", size=size, **options)

    def write(self, offset: int, data: bytes) -> None:
        assert self("x-memdev-write", id="m", offset=offset, data=b64(data)) == {}

    def read(self, offset: int, length: int) -> bytes:
        value = self("x-memdev-read", id="m", offset=offset, length=length)
        return base64.b64decode(value["data"], validate=True)

    def stat(self) -> JSON:
        (found,) = self("x-memdev-stat", id="m")
        return found


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def memory() -> Iterator[Memory]:
    """A daemon; whatever is done to it, nothing of it stays."""
    before = descriptors(os.getpid())
    console = Console()
    console.client.peer = Peer(1, 0, 0, frozenset())
    memory = Memory(console)
    yield memory
    close_all(console.daemon.tree)
    assert memory.regions() == []
    assert descriptors(os.getpid()) <= before


@given(st.binary(max_size=10))
def test_base64(data: bytes) -> None:
    text = b64(data)
    assert decode(text) == data
    assert decoded_length(text) == len(data)


@example("AB==")
@example("AAB=")
@example("AA==AA==")
@given(st.text("ABQgw=+/ -_\n\u00e9", max_size=9) | st.text(max_size=5))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        spelled = b64(decode(text))
    except QMPError:
        assert refusal(lambda: decode(text)) == "Parameter 'data' expects base64"
    else:
        assert spelled == text


def test_much_base64_is_gone_through_in_pieces() -> None:
    piece = 144 << 10
    for length in range(piece - 4, piece + 5):
        for pieces in (0, 2):
            data = os.urandom(pieces * piece + length)
            assert decode(b64(data)) == data
    whole = "A" * (piece // 3 * 4)
    for text in (whole[1:] + "=AAAA", whole + "AA==AAAA", whole + "AAA"):
        assert refusal(partial(decode, text)) == "Parameter 'data' expects base64"


def test_read_and_write(memory: Memory) -> None:
    memory.add("ram", 5000)
    memory.write(4995, b"hello")
    assert memory.read(4990, 10) == bytes(5) + b"hello"
    assert memory.read(5000, 0) == b""
    assert memory.slow == 0
    refused: list[tuple[str, dict[str, JSON]]] = [
        ("read", {"offset": 4999, "length": 2}),
        ("read", {"offset": -1, "length": 2}),
        ("write", {"offset": 5000, "data": "AA=="}),
    ]
    for name, arguments in refused:
        text = memory.refusal(name, id="m", **arguments)
        assert text.endswith("are not within the 5000 bytes of 'm'")
    assert memory.refusal("write", id="m", offset=0, data="AA=") == (
        "Parameter 'data' expects base64"
    )


def test_much_at_once(memory: Memory) -> None:
    """It is done, and made a message, beside the event loop; more is refused."""
    memory.add("memfd", 64 * MIB)
    data = os.urandom(access.MAX_LENGTH)
    memory.write(3, data)
    slow = memory.console.begin("x-memdev-read", id="m", offset=3, length=len(data))
    assert slow.wait is not None
    value = slow.finish()
    assert isinstance(value, Pieces)
    assert base64.b64decode(made(value)["data"]) == data
    assert memory.refusal("read", id="m", offset=0, length=len(data) + 1) == (
        "Parameter 'length' exceeds 16777216 bytes"
    )
    assert memory.refusal("write", id="m", offset=0, data=b64(data + b"x")) == (
        "Parameter 'data' exceeds 16777216 bytes"
    )


@contextmanager
def memfd(size: int = MIB, seals: int = fcntl.F_SEAL_SHRINK) -> Iterator[int]:
    fd = os.memfd_create("sent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ram", {}),
        ("memfd", {}),
        ("memfd", {"share": False}),
        ("file", {"share": True}),
        ("file", {"share": False}),
    ],
)
def test_through_a_memfd(
    memory: Memory, kind: str, options: dict[str, JSON], tmp_path: Path
) -> None:
    if kind == "file":
        options = {**options, "mem_path": str(tmp_path / "file")}
    memory.add(kind, 3 * MIB, **options)
    data = os.urandom(2 * MIB)
    client = memory.console.client
    with memfd(2 * MIB) as fd:
        os.pwrite(fd, data, 0)
        client.fds = [os.dup(fd)]
        assert memory("x-memdev-write", id="m", offset=5, length=len(data)) == {}
        assert memory.read(0, 3 * MIB) == bytes(5) + data + bytes(MIB - 5)
        client.fds = [os.dup(fd)]
        assert memory("x-memdev-read", id="m", offset=7, length=MIB + 1, descriptor=True) == {}
        assert os.pread(fd, 2 * MIB, 0) == data[2 : MIB + 3] + data[MIB + 1 :]
        # Not what goes into a thread, but what waits for one.
        assert memory.slow >= 2


def refused_with(memory: Memory, fd: int, name: str, **arguments: JSON) -> str:
    memory.console.client.fds = [os.dup(fd)]
    try:
        memory(f"x-memdev-{name}", id="m", offset=0, **arguments)
    except QMPError as error:
        # Who refuses before it takes the descriptor leaves it to the session.
        for left in memory.console.client.fds:
            os.close(left)
        memory.console.client.fds = []
        return error.desc
    raise AssertionError("not refused")


def test_descriptors_that_are_refused(memory: Memory, tmp_path: Path) -> None:
    memory.add("ram")
    read = partial(refused_with, memory, name="read", length=PAGE, descriptor=True)
    write = partial(refused_with, memory, name="write", length=PAGE)
    pipe, other_end = os.pipe()
    # On a tmpfs files are memory as a memfd's is.
    with open("/dev/null", "r+b") as file:
        for fd in (pipe, file.fileno()):
            for attempt in (read, write):
                assert attempt(fd) == "the descriptor that came along is not a memfd"
    with memfd(PAGE - 1) as short, memfd(PAGE, 0) as unsealed:
        for fd in (short, unsealed):
            assert write(fd) == (
                "the memfd that came along has to have 4096 bytes and be sealed against"
                " shrinking (F_SEAL_SHRINK)"
            )
        memory.console.client.fds = [os.dup(unsealed)]
        assert memory("x-memdev-read", id="m", offset=0, length=PAGE, descriptor=True) == {}
    with memfd(PAGE, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK) as sealed:
        assert read(sealed) == "cannot write to the memfd that came along: Operation not permitted"
        for flags, attempt, what in ((os.O_RDONLY, read, "written"), (os.O_WRONLY, write, "read")):
            with suppress(PermissionError):
                fd = os.open(f"/proc/self/fd/{sealed}", flags)
                assert attempt(fd) == f"the memfd that came along can't be {what}"
                os.close(fd)
        assert write(sealed, data="AA==").startswith("Parameter 'length' is for what comes in")
        assert write(sealed, length=17 * MIB) == "Parameter 'length' exceeds 16777216 bytes"
        assert write(sealed, length=2 * MIB).endswith("not within the 1048576 bytes of 'm'")
    for each in (pipe, other_end):
        os.close(each)
    assert memory.refusal("write", id="m", offset=0, length=1) == NO_DESCRIPTOR
    assert memory.refusal("read", id="m", offset=0, length=1, descriptor=True) == NO_DESCRIPTOR
    assert memory.refusal("write", id="m", offset=0) == "Parameter 'data' is missing"
    assert memory.read(0, PAGE) == bytes(PAGE)


def test_all_or_nothing_through_a_memfd(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "file"
    memory.add("file", mem_path=str(path), share=True)
    os.truncate(path, MIB // 2)
    with memfd() as fd:
        os.pwrite(fd, b"x" * MIB, 0)
        assert refused_with(memory, fd, "write", length=MIB) == (
            "cannot write 'm' at offset 0: its file was truncated to 524288 bytes"
        )
        assert path.read_bytes() == bytes(MIB // 2)
        assert refused_with(memory, fd, "read", length=MIB, descriptor=True) == (
            "cannot read 'm' at offset 524288: its file was truncated to 524288 bytes"
        )
    memory("object-del", id="m")
    path.write_bytes(b"r" * MIB)
    memory.add("file", mem_path=str(path), readonly=True)
    with memfd() as fd:
        assert refused_with(memory, fd, "write", length=MIB) == (
            "cannot write 'm' at offset 0: it is read-only memory (ROM)"
        )
    assert memory.read(0, MIB) == b"r" * MIB


def test_memory_that_is_deleted_meanwhile(memory: Memory) -> None:
    """It stays mapped until the work is done."""
    for length in (MIB, MIB // 8):
        memory.add("memfd")
        memory.write(0, b"x")
        slow = memory.console.begin("x-memdev-read", id="m", offset=0, length=length)
        memory("object-del", id="m")
        assert made(slow.finish())["data"].startswith("eA")
        assert memory.regions() == []


def test_much_is_read_as_it_is_taken(memory: Memory) -> None:
    """Memory that is deleted meanwhile stays for who reads it, and the answer says so."""
    memory.add("memfd")
    data = os.urandom(MIB)
    memory.write(0, data)
    pieces = memory.console.begin("x-memdev-read", id="m", offset=0, length=MIB).finish()
    assert isinstance(pieces, Pieces)
    assert not pieces.is_stale()
    memory("object-del", id="m")
    assert pieces.is_stale()
    assert len(memory.regions()) == 1
    assert made_text(pieces) == base64.b64encode(data)
    pieces.close(here)
    assert memory.regions() == []


def test_what_can_not_be_read_any_more_ends_it(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "file"
    memory.add("file", mem_path=str(path), share=True)
    pieces = memory.console.begin("x-memdev-read", id="m", offset=0, length=MIB).finish()
    os.truncate(path, MIB // 2)
    assert refusal(lambda: made_text(pieces)) == (
        "cannot read 'm' at offset 524288: its file was truncated to 524288 bytes"
    )
    pieces.close(here)
    assert memory.refusal("read", id="m", offset=0, length=MIB) == (
        "cannot read 'm' at offset 524288: its file was truncated to 524288 bytes"
    )


@pytest.mark.parametrize("command", ["read", "write", "discard", "stat", "map", "export", "save"])
def test_what_is_no_backend(memory: Memory, command: str) -> None:
    needed: dict[str, dict[str, JSON]] = {
        "read": {"offset": 0, "length": 0},
        "write": {"offset": 0, "data": ""},
        "discard": {"offset": 0, "length": 0},
        "save": {"filename": "/nowhere"},
    }
    more = needed.get(command, {})
    assert memory.console.refusal(f"x-memdev-{command}", id="m", **more) == (
        "DeviceNotFound",
        "Device 'm' not found",
    )
    memory("object-add", qom_type="thread-context", id="m")
    assert memory.refusal(command, id="m", **more) == "object 'm' is not a memory backend"


def test_rom(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "rom"
    path.write_bytes(b"r" * MIB)
    memory.add("file", mem_path=str(path), readonly=True)
    for data in (b"", b"x", b"x" * 200_000):
        assert memory.refusal("write", id="m", offset=1, data=b64(data)) == (
            "cannot write 'm' at offset 1: it is read-only memory (ROM)"
        )
    assert "opened read-only" in memory.refusal("discard", id="m", offset=0, length=PAGE)
    assert memory.read(0, MIB) == b"r" * MIB
    assert memory.stat()["rom"] is True


def test_stat(memory: Memory, tmp_path: Path) -> None:
    """All backends, in their order; one that is deleted leaves."""
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    memory("object-add", qom_type="memory-backend-ram", id="r", size=5000)
    memory("object-add", qom_type="thread-context", id="t")
    memory.add("file", mem_path=str(path), readonly=True, rom="off")
    memory.slow = 0
    assert [each["id"] for each in memory("x-memdev-stat")] == ["r", "m"]
    assert memory.stat() == {
        "id": "m",
        "qom-type": "memory-backend-file",
        "size": MIB,
        "page-size": PAGE,
        "rom": False,
        "share": False,
        "resident": 0,
        "private-dirty": 0,
        "swapped": 0,
        "exports": 0,
        "nodes": [],
    }
    assert memory.slow == 0
    memory.write(PAGE, b"x")
    assert memory.stat()["private-dirty"] == memory.stat()["resident"] == PAGE
    assert memory.stat()["nodes"] == [{"node": 0, "bytes": PAGE}]
    memory("object-del", id="m")
    assert [each["size"] for each in memory("x-memdev-stat")] == [5000]
    memory.slow = 0
    memory.add("memfd", 65 * MIB)
    assert memory.stat()["share"] is True
    assert memory.slow == 1


def test_stat_of_many(memory: Memory) -> None:
    for number in range(100):
        memory("object-add", qom_type="memory-backend-memfd", id=f"m{number}", size=MIB)
        memory("x-memdev-write", id=f"m{number}", offset=0, data=b64(bytes(number * PAGE)))
    found = memory("x-memdev-stat")
    assert [each["resident"] for each in found] == [number * PAGE for number in range(100)]


def test_map(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    memory.add("file", mem_path=str(path), readonly=True, rom="off")
    memory.write(5 * PAGE, b"x")
    found = memory("x-memdev-map", id="m", cells=256)
    (row,) = found.pop("mapping")
    assert " rw-p 00000000 " in row
    assert row.endswith(str(path))
    cells = found.pop("cells")
    assert found == {"offset": 0, "length": MIB, "page-size": PAGE, "cell-size": PAGE}
    assert len(cells) == 256
    assert cells[5] == {"resident": PAGE, "private-dirty": PAGE, "swapped": 0, "huge": 0}
    assert sum(each["private-dirty"] for each in cells) == PAGE
    found = memory("x-memdev-map", id="m", offset=4 * PAGE, length=8 * PAGE, cells=3)
    assert found["cell-size"] == 3 * PAGE
    assert [each["private-dirty"] for each in found["cells"]] == [PAGE, 0, 0]
    assert memory("x-memdev-map", id="m", offset=MIB)["cells"] == []
    assert len(memory("x-memdev-map", id="m")["cells"]) == 256


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cells": 0}, "Parameter 'cells' expects a number from 1 to 4096"),
        ({"cells": 4097}, "Parameter 'cells' expects a number from 1 to 4096"),
        ({"offset": 1}, "Parameter 'offset' must be a multiple of the page size 0x1000 of 'm'"),
        ({"length": 1}, "Parameter 'length' must be a multiple of the page size 0x1000 of 'm'"),
        ({"offset": MIB + 1}, "0 bytes at offset 1048577 are not within the 1048576 bytes of 'm'"),
        (
            {"offset": PAGE, "length": MIB},
            "1048576 bytes at offset 4096 are not within the 1048576 bytes of 'm'",
        ),
    ],
)
def test_maps_that_are_refused(memory: Memory, arguments: JSON, text: str) -> None:
    memory.add("memfd")
    assert memory.refusal("map", id="m", **arguments) == text


def export(memory: Memory, **arguments: JSON) -> tuple[JSON, int]:
    outcome = memory("x-memdev-export", id="m", **arguments)
    assert isinstance(outcome, Outcome)
    (fd,) = outcome.fds
    return outcome.value, fd


def test_what_was_exported_is_changed_in_a_thread(memory: Memory) -> None:
    """A process that has it may have it locked, or have it take long to reach its pages."""
    memory.add("memfd")
    memory.write(0, b"x")
    assert memory.slow == 0
    _, fd = export(memory)
    os.close(fd)
    assert memory.slow == 0
    memory.write(0, b"y")
    memory("x-memdev-discard", id="m", offset=0, length=PAGE)
    memory("object-del", id="m")
    assert memory.slow == 3


def test_export(memory: Memory) -> None:
    memory.add("memfd")
    value, fd = export(memory)
    assert os.path.samestat(os.stat(value["path"]), os.fstat(fd))
    del value["path"]
    assert value == {"size": MIB, "offset": 0, "page-size": PAGE, "writable": True}
    os.pwrite(fd, b"x", 5)
    os.close(fd)
    assert memory.read(0, 6) == bytes(5) + b"x"
    value, fd = export(memory, writable=False)
    assert value["writable"] is False
    os.close(fd)
    assert memory.stat()["exports"] == 2


@pytest.mark.parametrize(("kind", "options"), [("shm", {}), ("ram", {"share": True})])
def test_what_else_can_be_exported(memory: Memory, kind: str, options: JSON) -> None:
    memory.add(kind, **options)
    memory.write(0, b"x")
    _, fd = export(memory)
    assert os.pread(fd, 2, 0) == b"x\0"
    os.close(fd)


def test_exports_that_are_refused(memory: Memory, tmp_path: Path) -> None:
    memory.add("ram")
    assert "make it with share=on" in memory.refusal("export", id="m")
    memory("object-del", id="m")
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    memory.add("file", mem_path=str(path), readonly=True)
    assert "can't be exported writable" in memory.refusal("export", id="m", writable=True)
    value, fd = export(memory)
    assert (value["writable"], value["path"]) == (False, str(path))
    os.close(fd)
    assert memory.stat()["exports"] == 1


def test_exports_over_what_carries_no_descriptors(memory: Memory) -> None:
    memory.add("memfd")
    memory.console.client.peer = None
    text = "this connection carries no descriptors: x-memdev-export needs a UNIX socket"
    assert memory.refusal("export", id="m") == text
    assert memory.stat()["exports"] == 0


def test_discard(memory: Memory) -> None:
    memory.add("memfd")
    memory.write(0, b"x" * 3 * PAGE)
    assert memory("x-memdev-discard", id="m", offset=PAGE, length=PAGE) == {}
    assert memory.read(0, 3 * PAGE) == b"x" * PAGE + bytes(PAGE) + b"x" * PAGE
    assert "multiple of the page size" in memory.refusal("discard", id="m", offset=1, length=PAGE)


@pytest.mark.parametrize("deny", [False, True])
def test_discarding_a_private_mapping(
    tmp_path: Path, deny: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes through to the file: said once, or refused."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    console = Console(deny_private_discard=deny)
    memory = Memory(console)
    memory.add("file", mem_path=str(path))
    memory.write(0, b"x")
    with caplog.at_level(logging.WARNING):
        if deny:
            text = memory.refusal("discard", id="m", offset=0, length=PAGE)
            assert text.endswith("private mapping of a file, and --deny-private-discard is given")
            assert memory.read(0, 2) == b"xf"
            assert path.read_bytes() == b"f" * MIB
        else:
            for _ in range(2):
                memory("x-memdev-discard", id="m", offset=0, length=PAGE)
            assert memory.read(0, PAGE + 1) == path.read_bytes()[: PAGE + 1] == bytes(PAGE) + b"f"
    assert len(caplog.messages) == (0 if deny else 1)
    close_all(console.daemon.tree)


def test_save(memory: Memory, tmp_path: Path) -> None:
    """What comes of it is a template."""
    path = str(tmp_path / "template")
    memory.add("ram", 2 * MIB)
    memory.write(MIB + 5, b"hello")
    slow = memory.console.begin("x-memdev-save", id="m", filename=path)
    progress = slow.job.progress
    assert progress is not None
    event = progress()
    assert event is not None
    assert event.name == "X_MEMDEV_PROGRESS"
    assert event.data == {"id": "m", "qom-path": "/objects/m", "done": 0, "total": 2 * MIB}
    assert slow.finish() == {}
    memory("object-del", id="m")
    memory.add("file", 2 * MIB, mem_path=path, readonly=True, rom="off")
    assert memory.read(MIB, 10) == bytes(5) + b"hello"
    text = memory.refusal("save", id="m", filename=f"{tmp_path}/none/x")
    assert text.endswith("No such file or directory")


def test_lost(memory: Memory) -> None:
    """What composition found to be lost is told as it is."""
    assert room.x_memdev_lost(memory.console.daemon, {}) == []
    loss = {"id": "m0", "qom-type": "memory-backend-ram", "reason": "anonymous", "time": 1}
    memory.console.daemon.lost["m0"] = loss
    assert memory("x-memdev-lost") == [loss]


def test_a_backend_of_odd_size_makes_a_template(memory: Memory, tmp_path: Path) -> None:
    path = str(tmp_path / "template")
    memory.add("ram", 1)
    memory("x-memdev-save", id="m", filename=path)
    memory("object-del", id="m")
    memory.add("file", PAGE, mem_path=path, readonly=True)


def test_a_guest_memfd(memory: Memory, tmp_path: Path) -> None:
    """It can be mapped and nothing else: no position, no path, no second opening."""
    try:
        memory.add("guest-memfd", 4 * MIB)
    except QMPError as missing:
        pytest.skip(f"{NOT_HERE}{missing}")
    memory.write(5, b"hello")
    memory.write(MIB - 2, b"hello" * PAGE)
    assert memory.read(0, 12) == bytes(5) + b"hello" + bytes(2)
    resident = memory.stat()["resident"]
    path = tmp_path / "saved"
    memory("x-memdev-save", id="m", filename=str(path))
    assert path.read_bytes()[MIB - 3 : MIB + 3] == b"\0hello"
    assert memory.stat()["resident"] == resident
    memory("x-memdev-discard", id="m", offset=0, length=PAGE)
    assert memory.stat()["resident"] == resident - PAGE
    value, fd = export(memory)
    assert (value["writable"], value["path"]) == (True, "")
    with mmap.mmap(fd, 4 * MIB) as there:
        assert there[MIB : MIB + 3] == b"llo"
    os.close(fd)
    text = memory.refusal("export", id="m", writable=False)
    assert text == "'m' has no descriptor that is read-only"
