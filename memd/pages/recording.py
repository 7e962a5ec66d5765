"""A machine's state as an `x-ignore-shared` migration writes it, taken apart.

Such a stream holds everything but the machine's memory, files that are mapped shared:
the contents of the small blocks of RAM (firmware, ACPI tables, video memory) and
the state of the devices. All numbers are big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from memd.errors import QMPError
from memd.hostmem.spec import round_up

PAGE = 4096
"""Bytes of a page, in a stream and in templates, whatever the host's pages are."""

RECORD = 8 + PAGE
"""Bytes of a page as it is sent: its address with flags, and its content."""

# What a part of the stream begins with.
END = 0x00
SECTION_START = 0x01
SECTION_PART = 0x02
SECTION_END = 0x03
SECTION_FULL = 0x04
SUBSECTION = 0x05
DESCRIPTION = 0x06
CONFIGURATION = 0x07
COMMAND = 0x08
FOOTER = 0x7E

MAGIC = b"QEVM"
VERSION = 3

# Flags in the low bits of a page's address.
ZERO = 0x02
SIZES = 0x04
DATA = 0x08
END_OF_PART = 0x10
SAME_BLOCK = 0x20

_RAM = b"ram"
_RAM_VERSION = 4
_IGNORE_SHARED = b"x-ignore-shared"

LARGEST = 256 << 20
"""Bytes of a stream at most: 0.3 to 1 MB without video memory, and 16 to 64 MB of that
(measured). More is the main memory, which should not be in it."""


@dataclass(slots=True)
class RecordedBlock:
    """A block of RAM.

    Attributes:
        name: its name, in bytes as it is sent.
        length: its used length in bytes.
        pages: the pages that the stream brings, by their offset; those of zeroes are
            left out.
        sent: whether the stream brings the block's content.
    """

    name: bytes
    length: int
    pages: dict[int, bytes] = field(default_factory=dict)
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """The parts of a stream.

    Attributes:
        machine: the machine's type, such as "pc-q35-10.0".
        memory: the blocks whose content is not in the stream, in their order: together
            they are the template's memory.
        blocks: all blocks in their order, those among them.
        devices: the sections of the devices, to be loaded as they are.
    """

    machine: str
    memory: tuple[RecordedBlock, ...]
    blocks: tuple[RecordedBlock, ...]
    devices: bytes


def parse(data: bytes, size: int) -> Recording:
    """Take a stream apart.

    Args:
        data: all of it.
        size: bytes of the memory that belongs to it, all blocks together.

    Raises:
        QMPError: it is no such stream, it is cut, or it is of another machine.
    """
    if data[:4] != MAGIC[: len(data[:4])] or not data:
        raise QMPError("the devices are not a migration stream")
    if len(data) > LARGEST:
        raise QMPError(f"the stream has more than {LARGEST} bytes: the main memory is in it")
    reader = _Reader(data, 4)
    version = reader.number(4)
    if version != VERSION:
        raise QMPError(f"the migration stream is of version {version}; memd knows {VERSION}")
    machine = _configuration(reader)
    section, blocks = _block_list(reader)
    while (kind := reader.peek()) != SECTION_FULL:
        if kind in (SECTION_PART, SECTION_END):
            reader.take(1)
            reader.expect(4, section, "a section of memory")
            _pages(reader, blocks)
            reader.footer(section)
        elif kind == COMMAND:
            reader.skip_command()
        else:
            raise reader.strange("a part", kind)
    memory = tuple(block for block in blocks if not block.sent)
    if not memory:
        raise QMPError("the machine's memory is in the stream: it is not mapped with share=on")
    there = sum(block.length for block in memory)
    if there != size:
        raise QMPError(
            f"the stream is of another machine: its memory has {there} bytes,"
            f" and the template's {size}"
        )
    end = _end_of_devices(data, reader.at)
    return Recording(machine, memory, tuple(blocks), data[reader.at : end])


def _configuration(reader: _Reader) -> str:
    """The machine's type; sees that the main memory was left out."""
    reader.expect(1, CONFIGURATION, "a part")
    name = reader.take(reader.number(4))
    capabilities: list[bytes] = []
    while reader.peek() == SUBSECTION:
        reader.take(1)
        what = reader.name()
        reader.take(4)
        if what != b"configuration/capabilities":
            raise _unknown_part(what)
        capabilities += [reader.name() for _ in range(reader.number(4))]
    if _IGNORE_SHARED not in capabilities:
        raise QMPError("the migration stream was made without the capability x-ignore-shared")
    return block_name(name)


def _block_list(reader: _Reader) -> tuple[int, list[RecordedBlock]]:
    """The number of the section that has the memory, and its blocks."""
    while reader.peek() == COMMAND:
        reader.skip_command()
    reader.expect(1, SECTION_START, "a part")
    section = reader.number(4)
    name = reader.name()
    instance, version = reader.number(4), reader.number(4)
    if (name, instance) != (_RAM, 0):
        raise _unknown_part(name)
    if version != _RAM_VERSION:
        raise QMPError(f"the stream's memory is of version {version}; memd knows {_RAM_VERSION}")
    word = reader.number(8)
    if word & (PAGE - 1) != SIZES:
        raise reader.strange("flags", word & (PAGE - 1))
    left = word - SIZES
    blocks: list[RecordedBlock] = []
    while left:
        block = RecordedBlock(reader.name(), reader.number(8))
        reader.take(8)  # Where it lies in the guest.
        # A block may end within a page; in the total its whole pages count.
        left -= round_up(block.length, PAGE)
        if left < 0 or not block.length:
            raise QMPError("the migration stream is damaged: its blocks do not add up")
        blocks.append(block)
    reader.expect(8, END_OF_PART, "the end of a part")
    reader.footer(section)
    return section, blocks


def _pages(reader: _Reader, blocks: list[RecordedBlock]) -> None:
    """Take the blocks' pages from a section."""
    by_name = {block.name: block for block in blocks}
    block: RecordedBlock | None = None
    while True:
        word = reader.number(8)
        flags = word & (PAGE - 1)
        if flags == END_OF_PART:
            return
        kind = flags & ~SAME_BLOCK
        if kind not in (ZERO, DATA):
            raise reader.strange("flags", flags)
        if not flags & SAME_BLOCK:
            block = by_name.get(reader.name())
        at = word - flags
        if block is None or at >= block.length:
            raise QMPError("the migration stream is damaged: a page of no block")
        block.sent = True
        if kind == DATA:
            block.pages[at] = reader.take(PAGE)
        elif reader.take(1) != b"\0":
            raise QMPError("the migration stream is damaged: a page of zeroes that is none")
        else:
            # It may have been written between two rounds.
            block.pages.pop(at, None)


def _end_of_devices(data: bytes, start: int) -> int:
    """Where the devices' sections end.

    Their length is not in the stream; a description in JSON follows, whose length is.
    """
    end = len(data)
    while (end := data.rfind(bytes((END, DESCRIPTION)), start, end + 1)) >= 0:
        if end + 6 + int.from_bytes(data[end + 2 : end + 6], "big") == len(data):
            return end
    raise _cut()


class _Reader:
    """Goes through a stream; what lies beyond its end is a `QMPError`."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, length: int) -> bytes:
        at, self.at = self.at, self.at + length
        if self.at > len(self._data):
            raise _cut()
        return self._data[at : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def name(self) -> bytes:
        return self.take(self.number(1))

    def peek(self) -> int:
        kind = self.number(1)
        self.at -= 1
        return kind

    def skip_command(self) -> None:
        self.take(3)
        self.take(self.number(2))

    def expect(self, size: int, wanted: int, what: str) -> None:
        found = self.number(size)
        if found != wanted:
            raise self.strange(what, found)

    def footer(self, section: int) -> None:
        self.expect(1, FOOTER, "a part")
        self.expect(4, section, "the end of a section")

    def strange(self, what: str, found: int) -> QMPError:
        return QMPError(
            f"the migration stream has {what} that memd does not know:"
            f" 0x{found:x} before byte {self.at}"
        )


def _unknown_part(name: bytes) -> QMPError:
    return QMPError(f"the migration stream has a part that memd does not know: {block_name(name)}")


def _cut() -> QMPError:
    return QMPError("the migration stream is cut")


def block_name(name: bytes) -> str:
    """A name in a stream as text."""
    return name.decode("ascii", "backslashreplace")
