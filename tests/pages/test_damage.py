"""Bits that are not what they were, in any part of a store: a clear error, and nothing else."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import threading
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from memd.errors import QMPError
from memd.pages import chunks
from memd.pages.blobs import Damaged
from memd.pages.layout import ChunkPlaces, Layout
from memd.pages.manifest import Manifest
from memd.pages.store import Store
from tests.pages.memory import PAGE, memory, save

DATA = memory(100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    for name in ("a", "b"):
        data = DATA if name == "a" else memory(40, seed=2)
        save(store, name, data, devices=name.encode())
    store.set_working_set("a", range(10))
    store.close()
    return store


def use(directory: str, name: str) -> bytes:
    """All that there is of a template."""
    with (
        closing(Store(directory, readonly=True)) as reader,
        closing(reader.open(name)) as template,
    ):
        assert template.devices() == name.encode()
        template.working_set()
        return template.read(0, template.size)


def test_a_bit_anywhere(store: Store) -> None:
    chance = random.Random(11)
    place = Path(store.directory)
    refused = 0
    for path in [*place.glob("names/*"), *place.glob("blobs/*")]:
        before = path.read_bytes()
        for _try in range(6):
            broken = bytearray(before)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            path.write_bytes(broken)
            for name, data in (("a", DATA), ("b", memory(40, seed=2))):
                try:
                    assert use(store.directory, name) == data
                except QMPError:
                    refused += 1
        path.write_bytes(before[: len(before) // 2])
        for name in ("a", "b"):
            try:
                use(store.directory, name)
            except QMPError:
                refused += 1
        # The next start lives with it, and keeps the rest.
        again = Store(store.directory)
        again.all_usage()
        again.close()
        path.write_bytes(before)
    assert refused > 40
    assert use(store.directory, "a") == DATA


def layout(**other: object) -> bytes:
    """A layout of 8 pages, of which the first 4 are in a chunk; with other values in it."""
    parts: dict[str, object] = {
        "pages": 8,
        "counts": [4],
        "starts": [0],
        "lengths": [4],
        "stored": [0],
    }
    parts |= other
    kinds = {"counts": "H", "starts": "I", "lengths": "I", "stored": "I"}
    made = {key: array(kind, parts[key]) for key, kind in kinds.items()}  # type: ignore[call-overload]
    return Layout(parts["pages"], bytes(32), **made).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        {"counts": [0]},
        {"counts": [300]},
        {"lengths": [5]},
        {"lengths": [0]},
        {"stored": [1]},
        {"starts": [6]},
        {"pages": 3},
        {"starts": [0, 2], "lengths": [4, 4], "stored": [0, 0]},
        {"starts": [4, 0], "lengths": [4, 4], "stored": [0, 0]},
    ],
)
def test_a_layout_of_a_strangers_making(bad: dict[str, object]) -> None:
    Layout.decode(layout()).check()
    with pytest.raises(Damaged):
        Layout.decode(layout(**bad)).check()


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{}", b"[]\n", b"null", b"\xff", b'{"format": 2}'),
        b'{"packs": [], "chunks": 1}\n',
        b'{"packs": ["../../etc/passwd"], "chunks": 0}\n',
        b'{"packs": [], "chunks": 1}\n' + struct.pack("<IQI", 0, 0, 0),
    ],
)
def test_texts_that_are_none(text: bytes) -> None:
    for decode in (Manifest.decode, ChunkPlaces.decode, Layout.decode):
        with pytest.raises(Damaged):
            decode(text)


def in_thread(act: Callable[[], object]) -> object:
    """Run it in a thread of its own, which looks for libraries by itself."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)


def test_without_a_library_for_zstd(without_zstd: None) -> None:
    record = in_thread(lambda: chunks.pack(DATA[:PAGE]))
    assert isinstance(record, bytes)
    assert record[:1] == b"d"
    digest = hashlib.sha256(DATA[:PAGE]).digest()
    assert chunks.unpack(record, PAGE, digest) == DATA[:PAGE]

    def unpack() -> str:
        try:
            chunks.unpack(b"z123", PAGE, digest)
        except Damaged as damaged:
            return damaged.desc
        return ""

    assert "there is no library here" in str(in_thread(unpack))


def test_the_standard_library_has_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.14 on no other library is needed, and hosts with either share chunks."""
    zstandard = pytest.importorskip("zstandard", reason="needs zstandard")
    page = b"memd" * (PAGE // 4)
    digest = hashlib.sha256(page).digest()
    # As Python 3.14.8 packs it.
    packed = bytes.fromhex("7a28b52ffd60000f5d0000206d656d640100f9df7744")
    assert in_thread(lambda: chunks.unpack(packed, PAGE, digest)) == page
    standard = SimpleNamespace(
        ZstdError=zstandard.ZstdError,
        compress=lambda data, level: zstandard.ZstdCompressor(level=level).compress(data),
        ZstdDecompressor=lambda: SimpleNamespace(
            decompress=lambda data, most: (
                zstandard.ZstdDecompressor().stream_reader(data).read(most)
            )
        ),
    )
    monkeypatch.setitem(sys.modules, "compression.zstd", standard)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    record = in_thread(lambda: chunks.pack(page))
    assert isinstance(record, bytes)
    assert record[:1] == b"z"
    assert in_thread(lambda: chunks.unpack(record, PAGE, digest)) == page
    assert in_thread(lambda: chunks.unpack(packed, PAGE, digest)) == page


@pytest.mark.parametrize("coding", [b"0", b"d", b"z", b"x", b""])
def test_records_that_unpack_to_something_else(coding: bytes) -> None:
    for rest in (b"", b"\x00" * 20, random.Random(1).randbytes(500), bytes(PAGE)):
        with pytest.raises(Damaged):
            chunks.unpack(coding + rest, PAGE, bytes(32))


def test_a_record_that_would_unpack_to_gigabytes() -> None:
    """What it says of itself is not believed."""
    import zlib

    with pytest.raises(Damaged):
        chunks.unpack(b"d" + zlib.compress(bytes(64 << 20)), PAGE, bytes(32))
    zstandard = pytest.importorskip("zstandard", reason="needs zstandard")
    with pytest.raises(Damaged):
        chunks.unpack(b"z" + zstandard.compress(bytes(64 << 20)), PAGE, bytes(32))
