"""`dump-guest-memory`: the same memory at the same addresses, and the same errors, as QEMU's."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Any

from tests import NOT_THERE
from tests.differential.harness import Pair, Side, settle
from tests.differential.standin import standin_pair, tell

MIB = 1 << 20
MACHINE = (
    *("-machine", "q35,memory-backend=m0", "-m", "64M,slots=2,maxmem=1G"),
    *("-object", "memory-backend-file,id=m0,size=64M,share=on,mem-path=@DIR@/m0"),
    *("-object", "memory-backend-file,id=m1,size=128M,share=off,mem-path=@DIR@/m1"),
    *("-device", "pc-dimm,id=d1,memdev=m1"),
)
DIMM = 1 << 32
WRITTEN = {"m0": (5 * MIB, 63 * MIB), "m1": (0, 127 * MIB)}
PLACES = (5 * MIB, 63 * MIB, 30 * MIB, DIMM, DIMM + 127 * MIB, DIMM + 7 * MIB)


def dump(protocol: str, **options: Any) -> dict[str, Any]:
    return {"paging": False, "protocol": protocol, **options}


def fill(pair: Pair) -> None:
    for side in (pair.reference, pair.subject):
        for name, offsets in WRITTEN.items():
            with open(side.scratch / name, "r+b") as file:
                for offset in offsets:
                    file.seek(offset)
                    file.write(b"%s %d;" % (name.encode(), offset) * 256)


def load(data: bytes) -> list[tuple[int, int, int]]:
    """The segments of a core file that have memory: address, where in the file, bytes."""
    assert data[:4] == b"\x7fELF"
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    rows = [struct.unpack_from("<IIQQQQQQ", data, start + 56 * n) for n in range(count)]
    return [(row[4], row[2], row[5]) for row in rows if row[0] == 1]


def at(data: bytes, address: int) -> bytes:
    """The page at an address of the machine; empty where the file has none."""
    for base, offset, length in load(data):
        if base <= address < base + length:
            return data[offset + address - base : offset + address - base + 4096]
    return b""


def test_what_is_dumped(directory: Path) -> None:
    with standin_pair(directory, *MACHINE) as pair:
        fill(pair)
        for name, options in {
            "all": {},
            "part": {"begin": 63 * MIB, "length": DIMM - 62 * MIB},
        }.items():
            for side in (pair.reference, pair.subject):
                answer = side.ask("dump-guest-memory", dump(f"file:@DIR@/{name}", **options))
                assert answer == {"return": {}}
            files = [(side.scratch / name).read_bytes() for side in (pair.reference, pair.subject)]
            for place in PLACES:
                assert at(files[0], place) == at(files[1], place), hex(place)
            assert any(at(files[1], DIMM))
        assert pair.subject.ask("query-dump")["return"]["status"] == "completed"
        assert pair.subject.take_events()[-1]["event"] == "DUMP_COMPLETED"


def test_a_detached_dump_into_a_pipe(directory: Path) -> None:
    """As libvirt has it: a descriptor that another process reads, however slowly."""
    with standin_pair(directory, *MACHINE) as pair:
        fill(pair)
        files = []
        for side in (pair.reference, pair.subject):
            files.append(_through_pipe(side))
        for place in PLACES:
            assert at(files[0], place) == at(files[1], place), hex(place)


def _through_pipe(side: Side) -> bytes:
    read, write = os.pipe()
    try:
        side.monitor.send(b'{"execute": "getfd", "arguments": {"fdname": "f"}}', [write])
        assert side.monitor.read_answer() == {"return": {}}
    finally:
        os.close(write)
    assert side.ask("dump-guest-memory", dump("fd:f", detach=True)) == {"return": {}}
    assert side.ask("query-dump")["return"]["status"] == "active"
    with os.fdopen(read, "rb") as file:
        data = file.read()
    side.monitor.read_event("DUMP_COMPLETED")
    assert side.ask("query-dump")["return"]["status"] == "completed"
    return data


def test_errors(directory: Path) -> None:
    steps = [
        ("query-dump", None),
        *(
            ("dump-guest-memory", arguments)
            for arguments in (
                dump("foo:x"),
                dump("file"),
                dump("fd:nope"),
                dump(f"file:{NOT_THERE}/x"),
                dump("file:@DIR@/x", begin=5),
                dump("file:@DIR@/x", length=5),
                dump("file:@DIR@/x", begin=5, length=6, format="kdump-zlib"),
                {**dump("file:@DIR@/x", format="kdump-zlib"), "paging": True},
            )
        ),
        ("query-dump", None),
        ("dump-guest-memory", dump("file:@DIR@/x", begin=5, length=0)),
        ("query-dump", None),
    ]
    with standin_pair(directory, *MACHINE) as pair:
        tell(pair, steps)


def test_nothing_is_kept_open(directory: Path) -> None:
    with standin_pair(directory, *MACHINE) as pair:
        memd = pair.subject
        before = memd.holdings().descriptors
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                memd.monitor.send(
                    b'{"execute": "getfd", "arguments": {"fdname": "f"}}', [theirs.fileno()]
                )
            assert memd.monitor.read_answer() == {"return": {}}
            assert memd.ask("dump-guest-memory", dump("fd:f", detach=True)) == {"return": {}}
        # Who reads it has gone.
        event = memd.monitor.read_event("DUMP_COMPLETED")
        assert event["data"]["result"]["status"] == "failed"
        assert memd.ask("dump-guest-memory", dump("file:@DIR@/x")) == {"return": {}}
        assert settle(lambda: memd.holdings().descriptors, lambda now: now == before) == before
