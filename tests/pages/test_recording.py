"""A machine's state is read from a migration stream, or refused with a clear error."""

from __future__ import annotations

import contextlib
import struct

import pytest

from memd.errors import QMPError
from memd.pages.recording import parse
from tests.pages.streams import DEVICES, MEMORY, PAGE, ROM, name, stream


def refusal(data: bytes, size: int = MEMORY) -> str:
    with pytest.raises(QMPError) as refused:
        parse(data, size)
    return refused.value.desc


def test_parts() -> None:
    found = parse(stream(), MEMORY)
    assert found.machine == "q35x"
    assert [each.name for each in found.memory] == [b"ram"]
    assert [(each.name, each.length, each.pages) for each in found.blocks] == [
        (b"ram", MEMORY, {}),
        (b"rom", PAGE + 100, {0: ROM}),
    ]
    assert found.devices == DEVICES


def test_devices_that_hold_the_mark_of_their_end() -> None:
    devices = DEVICES + b"\0\x06\0\0\0\x01" + b"\0\x06"
    assert parse(stream(devices=devices), MEMORY).devices == devices


def test_cut_anywhere() -> None:
    whole = stream()
    for length in range(1, len(whole)):
        # What is cut within the devices may as well be of another stream.
        assert "cut" in refusal(whole[:length])


@pytest.mark.parametrize("data", [b"", b"QEVX" + bytes(64), b"\x7fELF" + bytes(64), b"\0" * 99])
def test_no_stream(data: bytes) -> None:
    assert refusal(data) == "the devices are not a migration stream"


def test_unknown_version() -> None:
    assert refusal(stream(version=4)) == "the migration stream is of version 4; memd knows 3"


def test_without_the_capability() -> None:
    assert "without the capability x-ignore-shared" in refusal(stream(capability="xbzrle"))


def test_memory_of_another_size() -> None:
    assert refusal(stream(), 2 * MEMORY) == (
        f"the stream is of another machine: its memory has {MEMORY} bytes,"
        f" and the template's {2 * MEMORY}"
    )


def test_memory_that_was_not_shared() -> None:
    pages = (
        struct.pack(">QB", 2, 0)[:8] + name("ram") + b"\0",
        struct.pack(">QB", 2, 0)[:8] + name("rom") + b"\0",
    )
    assert "it is not mapped with share=on" in refusal(stream(pages=pages))


def test_memory_of_several_blocks() -> None:
    data = stream(blocks=(("ram0", MEMORY), ("ram1", 2 * MEMORY), ("rom", 2 * PAGE)))
    assert [each.name for each in parse(data, 3 * MEMORY).memory] == [b"ram0", b"ram1"]
    assert "its memory has 196608 bytes, and the template's 65536" in refusal(data)


def test_damage() -> None:
    """Every byte in front of the devices, changed: refused, or another content; no other error."""
    whole = stream()
    for at in range(whole.index(DEVICES)):
        for change in (0x01, 0x80):
            data = bytearray(whole)
            data[at] ^= change
            with contextlib.suppress(QMPError):
                parse(bytes(data), MEMORY)
