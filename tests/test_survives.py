"""Where the reference aborts, hangs, leaks or makes others wait, memd answers and lives."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.differential.harness import Side, settle
from tests.differential.kernel import resident
from tests.differential.server import PATIENCE, Died, Message, Monitor, Server
from tests.faults.conftest import MIB, arguments, error, memory

SLOW = 256 * MIB
"""Bytes whose preallocation by one thread takes longer than another client's answer."""

T = TypeVar("T")


def refused(memd: Side, request: Message) -> str:
    """The text of a refusal that changed nothing."""
    before = memd.holdings()
    text = error(memd.ask("object-add", request))
    memd.expect_unchanged(before)
    assert memd.ask("query-memdev") == {"return": []}
    return text


@pytest.mark.parametrize("size", [(1 << 64) - 1, -1, (1 << 64) - 4096, -4096, 1 << 63])
@pytest.mark.parametrize("share", [False, True])
def test_a_size_that_aborts_the_reference(memd: Side, size: int, share: bool) -> None:
    """It is refused in the words that other impossible sizes get."""
    text = refused(memd, arguments(size=size, share=share))
    usual = refused(memd, arguments(size=1 << 62, share=share))
    assert text == usual


@pytest.mark.parametrize("kind", ["memfd", "shm"])
@pytest.mark.parametrize("size", [(1 << 64) - 1, -4096, 1 << 63])
def test_an_impossible_memory_file(memd: Side, kind: str, size: int) -> None:
    assert refused(memd, arguments(kind, size=size))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("rom", ["auto", "on"])
def test_preallocating_a_rom_reads_its_pages_in(memd: Side, share: bool, rom: str) -> None:
    if share and rom == "on":
        rom = "auto"
    (memd.scratch / "rom").write_bytes(b"r" * MIB)
    request = arguments(
        "file", mem_path="@DIR@/rom", readonly=True, rom=rom, share=share, prealloc=True
    )
    assert memd.ask("object-add", request) == {"return": {}}
    assert resident(memd.server.pid) == [(MIB, MIB)]
    assert memd.ask("qom-get", {"path": "m", "property": "rom"}) == {"return": "on"}
    assert memd.ask("qom-get", {"path": "m", "property": "prealloc"}) == {"return": True}


def test_preallocating_a_rom_afterwards(memd: Side) -> None:
    (memd.scratch / "rom").write_bytes(b"r" * MIB)
    memd.ask("object-add", arguments("file", mem_path="@DIR@/rom", readonly=True))
    answer = memd.ask("qom-set", {"path": "m", "property": "prealloc", "value": True})
    assert answer == {"return": {}}
    assert resident(memd.server.pid) == [(MIB, MIB)]
    assert (memd.scratch / "rom").read_bytes() == b"r" * MIB


def test_a_dangling_link(memd: Side) -> None:
    """The reference tries to make and to open it for ever, in turn."""
    (memd.scratch / "link").symlink_to("nowhere")
    text = refused(memd, arguments("file", mem_path="@DIR@/link"))
    assert text == "can't open backing store @DIR@/link for guest RAM: File exists"
    assert refused(memd, arguments("file", mem_path="@DIR@/link", readonly=True)) == (
        "can't open backing store @DIR@/link for guest RAM: No such file or directory"
    )


def test_a_full_file_system(memd: Side, mount: Callable[..., None]) -> None:
    """The error is the reference's; what was made for nothing goes, what was there stays."""
    mount("tmpfs", memd.scratch / "small", "size=1m")
    for path in ("small/new", "small"):
        text = refused(
            memd,
            arguments("file", size=4 * MIB, mem_path=f"@DIR@/{path}", prealloc=True, share=True),
        )
        assert text == "qemu_prealloc_mem: preallocating memory failed: Bad address"
    assert list((memd.scratch / "small").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 4097},
        {"policy": "bind"},
        {"host_nodes": [99], "policy": "bind"},
        {"align": 3},
        {"offset": 100},
        {"size": 1 << 62},
        {"rom": "on"},
    ],
    ids=str,
)
def test_a_refusal_leaves_no_file(memd: Side, wrong: dict[str, Any]) -> None:
    """A file that was made for nothing goes; one that was there is there."""
    request = arguments("file", **{"mem_path": "@DIR@/new", "share": True, **wrong})
    refused(memd, request)
    (memd.scratch / "new").touch()
    assert "error" in memd.ask("object-add", request)
    assert list(memd.files()) == ["new"]


@pytest.mark.parametrize("wrong", [{"size": 4097}, {"policy": "bind"}], ids=str)
def test_a_refusal_discards_nothing(memd: Side, wrong: dict[str, Any]) -> None:
    """The reference punches the file out for an object that never was."""
    (memd.scratch / "file").write_bytes(b"precious" * (MIB // 8))
    request = {"mem_path": "@DIR@/file", "share": True, "discard_data": True, **wrong}
    refused(memd, arguments("file", **request))


@pytest.mark.parametrize("kind", ["memfd", "shm"])
def test_a_refusal_keeps_nothing_for_the_next_of_its_id(memd: Side, kind: str) -> None:
    """The reference gives the refused one's descriptor, of the wrong size, to the next."""
    assert "too small" in refused(memd, arguments(kind, size=100))
    assert memd.ask("object-add", arguments(kind)) == {"return": {}}


@pytest.mark.parametrize("readonly", [False, True])
def test_a_fifo(memd: Side, readonly: bool) -> None:
    """Nobody writes to it, and nobody has to wait for that."""
    os.mkfifo(memd.scratch / "fifo")
    refused(memd, arguments("file", mem_path="@DIR@/fifo", readonly=readonly))


def test_a_socket_and_a_directory_below_a_file(memd: Side) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(memd.scratch / "sock"))
        for path in ("sock", "sock/below"):
            for readonly in (False, True):
                refused(memd, arguments("file", mem_path=f"@DIR@/{path}", readonly=readonly))


def test_many_backends(memd: Side) -> None:
    """The reference's search for a gap makes each more costly than the last."""
    count = 1500
    for number in range(count):
        request = arguments("ram", id=f"m{number}", size=4096)
        assert memd.monitor.execute("object-add", request) == {"return": {}}
    assert len(memd.ask("query-memdev")["return"]) == count
    for number in range(count):
        answer = memd.monitor.execute("object-del", {"id": f"m{number}"})
        assert answer == {"return": {}}
    assert memd.ask("query-memdev") == {"return": []}


def quiet(monitor: Monitor) -> bool:
    """Whether a client has been told nothing yet."""
    return not select.select([monitor.socket], [], [], 0)[0]


def begin_slow(monitor: Monitor, size: int = SLOW, **options: Any) -> None:
    """Begin a preallocation that takes long: of 4 KiB pages, by one thread."""
    kind = options.pop("kind", "memfd")
    request = arguments(kind, size=size, prealloc=True, prealloc_threads=1, **options)
    monitor.send(b'{"execute":"object-add","id":1,"arguments":%s}' % to_json(request))


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def while_preallocating(monitor: Monitor, work: Callable[[], T]) -> T:
    """Do what others do while a preallocation of `m` by this client is under way.

    Should it be over before they are, they have shown nothing: then again,
    with twice as much.
    """
    size = SLOW
    while size < available() // 2:
        begin_slow(monitor, size)
        outcome = work()
        if quiet(monitor):
            return outcome
        assert monitor.read_answer() == {"return": {}, "id": 1}
        assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
        size *= 2
    pytest.fail(f"others were not served within the preallocation of {size // 2} bytes")


def available() -> int:
    """Bytes of memory that may still be taken (proc(5), /proc/meminfo)."""
    rows = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    row = next(row for row in rows if row.startswith("MemAvailable:"))
    return int(row.split()[1]) << 10


def test_others_are_served_while_one_preallocates(memd: Side) -> None:
    """The answer of the one comes after all of the others'."""
    other = memd.server.monitor()

    def work() -> list[Message]:
        newcomer = memd.server.monitor()
        answers = [other.execute("query-status") for _ in range(20)]
        answers.append(newcomer.execute("object-add", arguments(id="n")))
        answers.append(newcomer.execute("object-del", {"id": "n"}))
        newcomer.close()
        return answers

    answers = while_preallocating(memd.monitor, work)
    assert all("return" in answer for answer in answers)
    # A client's own answers keep their order.
    memd.monitor.send(b'{"execute":"query-status","id":2}')
    assert memd.monitor.read_answer() == {"return": {}, "id": 1}
    assert memd.monitor.read_answer()["id"] == 2


def test_an_id_is_taken_while_its_object_is_made(memd: Side) -> None:
    """Nobody else can have it, and the object is not there before it is whole."""
    other = memd.server.monitor()

    def work() -> list[Message]:
        # Once this is answered, what was sent before it has been begun.
        other.execute("query-status")
        return [
            other.execute("object-add", arguments()),
            other.execute("qom-get", {"path": "/objects/m", "property": "size"}),
            other.execute("query-memdev"),
        ]

    taken, read, listed = while_preallocating(memd.monitor, work)
    assert error(taken) == "attempt to add duplicate property 'm' to object (type 'container')"
    assert error(read) == "Device '/objects/m' not found"
    assert listed == {"return": []}
    assert memd.monitor.read_answer() == {"return": {}, "id": 1}
    assert [item["id"] for item in other.execute("query-memdev")["return"]] == ["m"]
    ((size, present),) = resident(memd.server.pid)
    assert present == size


def test_what_is_still_being_made_can_be_deleted(memd: Side) -> None:
    """It is given up, or deleted if it was whole just then; either way nothing is left."""
    other = memd.server.monitor()
    begin_slow(memd.monitor)
    # Once this is answered, what was sent before it has been begun. What is asked first may
    # be taken up first, for epoll(7) promises no order.
    other.execute("query-status")
    assert is_taken(other)
    assert other.execute("object-del", {"id": "m"}) == {"return": {}}
    assert other.execute("query-memdev") == {"return": []}
    assert memd.regions() == []
    assert memd.monitor.read_answer()["id"] == 1
    assert other.execute("object-add", arguments()) == {"return": {}}


def is_taken(monitor: Monitor) -> bool:
    """Whether the id `m` is taken; asked by what fails all the same."""
    request = arguments("file", mem_path="/nowhere/file")
    return "duplicate" in error(monitor.execute("object-add", request))


def test_an_id_is_free_again_after_a_failure(memd: Side, mount: Callable[..., None]) -> None:
    mount("tmpfs", memd.scratch / "small", "size=1m")
    request = arguments("file", size=4 * MIB, mem_path="@DIR@/small", prealloc=True)
    assert "error" in memd.ask("object-add", request)
    assert memd.ask("object-add", arguments()) == {"return": {}}


def test_a_client_that_leaves_while_its_command_runs(memd: Side) -> None:
    """The command finishes; what the client had queued behind it is dropped."""
    leaver = memd.server.monitor()
    begin_slow(leaver)
    leaver.send(to_json({"execute": "object-add", "arguments": arguments(id="n")}))
    assert memd.ask("query-memdev") == {"return": []}
    leaver.close()
    found = settle(
        lambda: [item["id"] for item in memd.ask("query-memdev")["return"]],
        lambda ids: ids == ["m"],
        PATIENCE,
    )
    assert found == ["m"]


@pytest.mark.parametrize("how", ["quit", "terminate"])
def test_an_end_while_a_command_runs(
    start_memd: Callable[..., Server], directory: Path, how: str
) -> None:
    """It ends with status 0, and the file of an object that never was is gone."""
    server = start_memd()
    slow, other = server.monitor(), server.monitor()
    made = directory / "new"
    begin_slow(slow, kind="file", mem_path=str(made), share=True)
    assert settle(made.exists, bool, PATIENCE)
    assert other.execute("query-memdev") == {"return": []}
    if how == "quit":
        assert other.execute("quit") == {"return": {}}
    else:
        server.process.terminate()
    assert server.wait() == 0
    assert not server.path.exists()
    assert not made.exists()


def test_a_second_client_is_greeted_at_once(memd: Side) -> None:
    others = [memd.server.monitor() for _ in range(50)]
    assert all(other.greeting == memd.monitor.greeting for other in others)
    others[0].execute("stop")
    others[1].execute("cont")
    for other in others[2:]:
        assert [other.read_event(name)["event"] for name in ("STOP", "RESUME")]
        other.close()


def test_a_client_that_does_not_read(memd: Side) -> None:
    """It holds up itself alone, and what the daemon keeps for it is bounded."""
    deaf = socket.socket(socket.AF_UNIX)
    with deaf:
        deaf.connect(str(memd.server.path))
        deaf.setblocking(False)
        deaf.send(b'{"execute":"qmp_capabilities"}')
        request = b'{"execute":"query-qmp-schema"}' * 100
        stuck = 0
        while stuck < 20:
            try:
                deaf.send(request)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                # Time for the daemon to read on, were it to do so.
                for _ in range(10):
                    assert "return" in memd.ask("query-status")
        assert memory(memd.server.pid) < 400 * MIB
    assert "return" in memd.ask("query-status")


def test_garbage(memd: Side) -> None:
    """Noise of every kind, each from a client that then vanishes."""
    for noise in (
        bytes(range(256)) * 1000,
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'"' + b"x" * 3_000_000,
        b"\xff" * 100_000,
        b"{}" * 20_000,
        b'{"execute":"' + b"y" * 1_000_000 + b'"}',
        b"0" * 1_000_000,
    ):
        client = memd.server.monitor()
        client.socket.settimeout(60)
        try:
            client.send(noise)
        except Died:
            pass
        client.close()
        assert "return" in memd.ask("query-status")


def test_descriptors_that_nobody_takes(memd: Side) -> None:
    """Descriptors sent with anything but getfd or add-fd are closed, not kept."""
    before = memd.holdings()
    with open("/dev/null", "rb") as file:
        for _ in range(100):
            memd.monitor.send(b'{"execute":"query-status"}', [file.fileno()] * 5)
            assert "return" in memd.monitor.read_answer()
        memd.monitor.send(b'{"execute":"getfd","arguments":{"fdname":"x"}}', [file.fileno()])
        assert memd.monitor.read_answer() == {"return": {}}
        assert memd.ask("closefd", {"fdname": "x"}) == {"return": {}}
    memd.expect_unchanged(before)


def test_clients_come_and_go(memd: Side) -> None:
    before = memd.holdings()
    for number in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(memd.server.path))
        if number % 3:
            client.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-comm')
        client.close()
    memd.expect_unchanged(before)


def test_a_socket_file_that_was_replaced_stays(
    start_memd: Callable[..., Server], directory: Path
) -> None:
    """At its end a daemon removes its own socket, not another's of the same name."""
    server = start_memd()
    server.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(server.path))
        server.process.terminate()
        assert server.wait() == 0
        assert stat.S_ISSOCK(server.path.lstat().st_mode)
