"""The destination of a postcopy migration, as much of it as tests of the source need.

It is written from what QEMU was seen to take, and shares no code with memd.
"""

from __future__ import annotations

import struct

PAGE = 4096


class Destination:
    """Takes what a source sends, and notes it.

    Attributes:
        machine: the machine's type.
        commands: the numbers of the commands, in order.
        lengths: the blocks' lengths, by name.
        units: the blocks' page sizes.
        pages: what has come of the blocks, by name and offset; a page that comes
            twice is an error.
        order: (block, offset) of each page, in the order of arrival.
        devices: what the package holds besides commands.
        ended: whether the source has sent the end.
    """

    def __init__(self, *, recovering: Destination | None = None) -> None:
        self.commands: list[int] = []
        self.lengths: dict[str, int] = {}
        self.units: dict[str, int] = {}
        self.pages: dict[tuple[str, int], bytes] = {}
        self.order: list[tuple[str, int]] = []
        self.machine = ""
        self.devices = b""
        self.package = b""
        self.ended = False
        self._data = b""
        self._block = ""
        self._in_section = self._first = False
        if recovering is not None:
            self.lengths, self.units = recovering.lengths, recovering.units
            self.pages = dict(recovering.pages)

    def take(self, data: bytes) -> None:
        """Take whole parts; what is left is kept for the next call."""
        self._data += data
        if self._data[:4] == b"QEVM":
            (version,) = struct.unpack_from(">I", self._data, 4)
            assert version == 3
            self._data = self._data[8:]
        while self._data and not self.ended:
            if self._in_section:
                self._page()
                continue
            kind = self._take(1)[0]
            if kind == 7:
                self.machine = self._take(self._number(4)).decode()
            elif kind == 8:
                self._command()
            elif kind == 1:
                self._blocks()
            elif kind == 2:
                assert self._number(4) == 1
                self._first = self._in_section = True
            elif kind == 3:
                assert self._take(4 + 8 + 5 + 1) == struct.pack(">IQBIB", 1, 0x10, 0x7E, 1, 0)
                self.ended = True
            else:
                raise AssertionError(f"part {kind}")
        assert not self.ended or not self._data

    def content(self, block: str) -> bytes:
        """What a block holds once all is there: what has not come is zero."""
        zero = bytes(PAGE)
        size = -(-self.lengths[block] // PAGE) * PAGE
        return b"".join(self.pages.get((block, at), zero) for at in range(0, size, PAGE))

    def received(self, block: str) -> bytes:
        """The answer to command 10."""
        count = -(-self.lengths[block] // PAGE)
        bits = sum(1 << at for at in range(count) if (block, at * PAGE) in self.pages)
        size = -(-count // 64) * 8
        name = bytes((len(block),)) + block.encode()
        return (
            struct.pack(">HH", 5, len(name))
            + name
            + struct.pack(">Q", size)
            + bits.to_bytes(size, "little")
            + struct.pack(">Q", 0x0123456789ABCDEF)
        )

    def _take(self, count: int) -> bytes:
        assert count <= len(self._data), "a part is cut"
        found, self._data = self._data[:count], self._data[count:]
        return found

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _name(self) -> str:
        return self._take(self._number(1)).decode()

    def _command(self) -> None:
        number, length = self._number(2), self._number(2)
        body = self._take(length)
        self.commands.append(number)
        if number == 6:
            count = body[1]
            assert (length - 3 - count) % 16 == 0
            assert length - 3 - count >= 16, "QEMU hangs without a range"
        elif number == 7:
            self.package = self._take(int.from_bytes(body, "big"))

    def _blocks(self) -> None:
        assert self._take(4 + 4 + 8) == struct.pack(">I", 1) + b"\x03ram" + struct.pack(">II", 0, 4)
        total = self._number(8) - 4
        while total:
            block = self._name()
            self.lengths[block] = self._number(8)
            self.units[block] = PAGE
            if block == "ram" and self.large:
                self.units[block] = self._number(8)
            total -= -(-self.lengths[block] // PAGE) * PAGE
        assert self._take(8 + 5) == struct.pack(">QBI", 0x10, 0x7E, 1)

    large = False

    def _page(self) -> None:
        """An entry of the section of pages, or its end."""
        word = self._number(8)
        if word == 0x10:
            assert self._take(5) == struct.pack(">BI", 0x7E, 1)
            self._in_section = False
            return
        at, flags = word & ~0xFFF, word & 0xFFF
        # QEMU would take the block of an earlier section; its own source names it.
        assert not (self._first and flags & 0x20)
        self._first = False
        if not flags & 0x20:
            self._block = self._name()
        data = self._take(PAGE) if flags & ~0x20 == 8 else self._take(1) * PAGE
        assert flags & ~0x20 in (2, 8)
        assert (self._block, at) not in self.pages, "QEMU pauses at a page that it has"
        self.pages[self._block, at] = data
        self.order.append((self._block, at))
