"""The stream of a migration: what is written is what is loaded, or it is refused."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any, BinaryIO

import pytest

from memd.hostmem.access import read, write
from memd.hostmem.region import Region
from memd.standin.stream import END, Block, NotLoaded, Reader, Writer
from tests.hostmem.made import MIB, PAGE, made, memfd

MOST = 64 << 20


@pytest.fixture
def regions() -> Iterator[tuple[Region, Region]]:
    with made(size=2 * MIB) as here, memfd(2 * MIB) as there:
        yield here, there


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as opened:
        yield opened


def send(writer: Writer, file: BinaryIO, *, last: bool = True) -> None:
    while writer.push(file.fileno(), MOST) != END:
        pass
    writer.go_through(remember=not last)
    while writer.push(file.fileno(), MOST) != END:
        pass
    if last:
        writer.finish({"run-state": "paused"})
        assert writer.push(file.fileno(), MOST) == END


def written(region: Region, file: BinaryIO) -> bytes:
    send(Writer({"machine": "m"}, [Block("b", region, carried=True)]), file)
    file.seek(0)
    return file.read()


def load(data: bytes, region: Region) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        reader = Reader(lambda header: None, [Block("b", region, carried=True)])
        while not reader.pull(file.fileno()):
            pass
    assert reader.state is not None
    return reader.state


def test_what_is_zeroes_is_left_out_and_loaded(
    regions: tuple[Region, Region], file: BinaryIO
) -> None:
    here, there = regions
    write(here, "here", 3 * PAGE, b"a" * PAGE)
    write(here, "here", 300 * PAGE, b"b" * PAGE)
    write(there, "there", 0, b"x" * MIB)
    data = written(here, file)
    assert len(data) < 3 * PAGE
    assert load(data, there) == {"run-state": "paused"}
    assert read(there, "there", 0, 2 * MIB) == read(here, "here", 0, 2 * MIB)


def test_what_did_not_change_is_not_sent_again(
    regions: tuple[Region, Region], file: BinaryIO
) -> None:
    here, there = regions
    write(here, "here", 0, b"a" * MIB)
    write(here, "here", MIB, b"b" * PAGE)
    writer = Writer({"machine": "m"}, [Block("b", here, carried=True)])
    send(writer, file, last=False)
    before = writer.sent
    write(here, "here", MIB, bytes(PAGE))
    write(here, "here", MIB + PAGE, b"c" * PAGE)
    send(writer, file)
    assert writer.sent - before < MIB // 4
    file.seek(0)
    load(file.read(), there)
    assert read(there, "there", 0, 2 * MIB) == read(here, "here", 0, 2 * MIB)


def test_a_damaged_stream_is_never_taken_for_a_whole_one(
    regions: tuple[Region, Region], file: BinaryIO
) -> None:
    here, there = regions
    write(here, "here", 0, Random(1).randbytes(8 * PAGE))
    data = written(here, file)
    random = Random(2)
    for _ in range(200):
        wrong = bytearray(data)
        wrong[random.choice((random.randrange(300), random.randrange(len(data))))] ^= 0x41
        with pytest.raises(NotLoaded):
            load(bytes(wrong), there)
        with pytest.raises(NotLoaded, match="cut off"):
            load(data[: random.randrange(len(data))], there)


def record(
    kind: int, data: bytes = b"", number: int = 0, offset: int = 0, length: int = -1
) -> bytes:
    head = struct.pack(">BHQI", kind, number, offset, len(data) if length < 0 else length)
    return head + struct.pack(">I", zlib.crc32(data, zlib.crc32(head))) + data


HEADER = {"machine": "m", "blocks": [{"name": "b", "size": 2 * MIB, "carried": True}]}


@pytest.mark.parametrize(
    "records",
    [
        record(2, bytes(PAGE)),
        record(1, b"[]"),
        record(1, b"{}"),
        record(1, b"\xff"),
        record(1, json.dumps({"blocks": [{"name": [], "size": 0}]}).encode()),
        *(
            record(1, json.dumps(HEADER).encode()) + rest
            for rest in (
                record(1, json.dumps(HEADER).encode()),
                record(2, bytes(PAGE), offset=2 * MIB),
                record(2, bytes(PAGE), offset=(1 << 64) - PAGE),
                record(2, bytes(PAGE), number=1),
                record(2, bytes(5)),
                record(3, length=(1 << 32) - 1),
                record(2, length=(1 << 32) - 1),
                record(9),
                record(5, b"\xff"),
            )
        ),
    ],
)
def test_records_that_nobody_writes(records: bytes) -> None:
    with memfd(2 * MIB) as there, pytest.raises(NotLoaded):
        load(struct.pack(">8sI", b"memdmigr", 1) + records, there)


def test_it_waits_for_what_is_not_there_yet(regions: tuple[Region, Region], file: BinaryIO) -> None:
    here, there = regions
    write(here, "here", 0, b"a" * (8 * PAGE))
    data = written(here, file)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    reader = Reader(lambda header: None, [Block("b", there, carried=True)])
    try:
        for at in range(0, len(data), 999):
            assert not reader.pull(reading)
            os.write(writing, data[at : at + 999])
        assert reader.pull(reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert read(there, "there", 0, 8 * PAGE) == b"a" * (8 * PAGE)
