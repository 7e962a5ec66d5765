"""Addresses and slots: where things go, and what is said where they can't."""

from __future__ import annotations

import pytest

from memd.config import MachineConfig
from memd.devices.area import ANY_SLOT, ANYWHERE, Area, area_of, choose_slot
from memd.errors import QMPError

MIB = 1 << 20
GIB = 1 << 30


class Thing:
    """Something that has a place."""

    def __init__(self, address: int, memory_size: int, id: str | None = "d0") -> None:
        self.address = address
        self.memory_size = memory_size
        self.id = id


def refusal(area: Area, there: list[Thing], size: int, hint: int = ANYWHERE) -> str:
    with pytest.raises(QMPError) as caught:
        area.find(there, size, 2 * MIB, 2 * MIB, hint)
    return caught.value.desc


@pytest.mark.parametrize(
    ("kind", "ram", "base"),
    [
        # Observed on QEMU 10.0.2.
        ("q35", 256 * MIB, 4 * GIB),
        ("q35", 2815 * MIB, 4 * GIB),
        ("q35", 2816 * MIB, 5 * GIB),
        ("q35", 3 * GIB, 5 * GIB),
        ("q35", 4 * GIB, 6 * GIB),
        ("q35", 8 * GIB, 10 * GIB),
        ("pc", 3583 * MIB, 4 * GIB),
        ("pc", 3584 * MIB, 5 * GIB),
        ("pc", 8 * GIB, 9 * GIB),
        ("virt", 256 * MIB, 2 * GIB),
    ],
)
def test_where_it_begins(kind: str, ram: int, base: int) -> None:
    area = area_of(MachineConfig(kind, ram_size=ram, slots=3, maxmem=16 * GIB))
    assert area is not None
    assert (area.base, area.size, area.total) == (base, 19 * GIB - ram, 16 * GIB - ram)


def test_no_area() -> None:
    assert area_of(MachineConfig("q35")) is None
    assert area_of(MachineConfig("none", maxmem=GIB)) is None


def test_the_first_gap_that_is_large_enough() -> None:
    area = Area(4 * GIB, 2 * GIB, GIB)
    there = [Thing(4 * GIB + 16 * MIB, 4 * MIB), Thing(4 * GIB + 8 * MIB, 4 * MIB)]
    page = 2 * MIB
    assert area.find(there, 8 * MIB, page, page, ANYWHERE) == 4 * GIB
    assert area.find(there, 10 * MIB, page, page, ANYWHERE) == 4 * GIB + 20 * MIB
    there.append(Thing(4 * GIB, 8 * MIB))
    assert area.find(there, 4 * MIB, page, page, ANYWHERE) == 4 * GIB + 12 * MIB


def test_gaps_are_as_large_as_they_are_aligned() -> None:
    area = Area(4 * GIB, 2 * GIB, GIB)
    there = [Thing(4 * GIB, 4096), Thing(4 * GIB + 4 * MIB, 2 * MIB)]
    assert area.find(there, 2 * MIB, 2 * MIB, 2 * MIB, ANYWHERE) == 4 * GIB + 2 * MIB
    assert area.find(there, 4096, 4096, 4096, ANYWHERE) == 4 * GIB + 4096


def test_refusals_in_their_order() -> None:
    area = Area(4 * GIB, 2 * GIB, GIB)
    there = [Thing(4 * GIB, 512 * MIB)]
    assert refusal(area, there, 513 * MIB, hint=3) == (
        "not enough space, currently 0x20000000 in use of total space for memory devices 0x40000000"
    )
    assert refusal(area, there, 3 * MIB, hint=3) == (
        "backend memory size must be multiple of 0x200000"
    )
    assert refusal(area, there, 4 * MIB, hint=3) == "address must be aligned to 0x200000 bytes"
    for outside in (2 * MIB, 6 * GIB, 6 * GIB - 2 * MIB):
        assert refusal(area, there, 4 * MIB, hint=outside) == (
            f"can't add memory device [0x{outside:x}:0x400000], usable range for"
            " memory devices [0x100000000:0x80000000]"
        )
    for taken in (4 * GIB, 4 * GIB + 510 * MIB):
        assert refusal(area, there, 4 * MIB, hint=taken) == (
            "address range conflicts with memory device id='d0'"
        )
    assert area.find(there, 4 * MIB, 2 * MIB, 2 * MIB, 4 * GIB + 512 * MIB) == 4 * GIB + 512 * MIB


def test_a_device_without_an_id_is_in_the_way() -> None:
    area = Area(4 * GIB, 2 * GIB, GIB)
    assert refusal(area, [Thing(4 * GIB, 4 * MIB, None)], 2 * MIB, hint=4 * GIB) == (
        "address range conflicts with memory device id='(unnamed)'"
    )


def test_fragments() -> None:
    area = Area(4 * GIB, GIB, GIB)
    there = [Thing(4 * GIB + 512 * MIB, 2 * MIB)]
    assert refusal(area, there, 600 * MIB) == (
        "could not find position in guest address space for memory device"
        " - memory fragmented due to alignments"
    )


def test_slots() -> None:
    assert choose_slot(3, (), ANY_SLOT) == 0
    assert choose_slot(3, {0, 2}, ANY_SLOT) == 1
    assert choose_slot(3, {0}, 2) == 2


@pytest.mark.parametrize(
    ("slots", "taken", "hint", "text"),
    [
        (0, (), ANY_SLOT, "no slots where allocated, please specify the 'slots' option"),
        (0, (), 1, "no slots where allocated, please specify the 'slots' option"),
        (3, (0, 1, 2), ANY_SLOT, "no free slots available"),
        (3, (), 3, "invalid slot number 3, valid range is [0-2]"),
        (3, (), -2, "invalid slot number -2, valid range is [0-2]"),
        (3, (2,), 2, "slot 2 is busy"),
    ],
)
def test_slots_that_are_refused(slots: int, taken: tuple[int, ...], hint: int, text: str) -> None:
    with pytest.raises(QMPError) as caught:
        choose_slot(slots, taken, hint)
    assert caught.value.desc == text
