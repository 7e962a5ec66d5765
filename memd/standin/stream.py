"""The stream of a migration, in a format of memd's own.

    magic, version
    HEADER  JSON: the machine, capabilities that matter, the blocks of memory
    DATA    bytes of a block, in whole pages, none of them all zeroes
    SAME    the same, where the bytes are those that were sent last
    AGAIN   what follows tells anew what there is
    END     JSON: what else is carried over

What is in neither a DATA nor a SAME after the last AGAIN is zeroes. Each record has
a checksum.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from hashlib import blake2b

from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem import access, cgroup, content
from memd.hostmem.libc import PAGE_SIZE
from memd.hostmem.region import Region
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

_START = struct.Struct(">8sI")
_MAGIC = b"memdmigr"
_VERSION = 1
_QEMU = b"QEVM"
_VMSTATE = "Failed to load vmstate version_id: 4, ret:"

_HEAD = struct.Struct(">BHQI")
_CHECK = struct.Struct(">I")
_HEADER, _DATA, _SAME, _AGAIN, _END = range(1, 6)

_LONGEST_JSON = 1 << 20
MORE_THAN_A_PIPE = 128 << 10
"""Bytes that no pipe of the usual size holds, as no QEMU's stream fits into one."""

SLICE = 8 << 20
"""Bytes written or read in a thread at once: some 10 ms."""

_STRETCH = 64 << 20
"""Bytes of memory that are gone through in a thread at once, where they are zeroes."""

END, FULL, MORE = range(3)
"""The outcomes of `Writer.push`."""

Buffer = bytes | memoryview


_ZERO_COST = 9
"""Bytes of a page of zeroes in QEMU's stream: they too take their time."""


class NotLoaded(Exception):
    """A stream can't be loaded.

    Args:
        why: for the log.
        number: the errno that clients are told, None for the reason itself.
        detail: what a client of a QEMU after 10.0 is told besides, if it is not the reason.
    """

    def __init__(
        self, why: str, number: int | None = errno.EINVAL, detail: str | None = None
    ) -> None:
        super().__init__(why)
        self._number = number
        self._detail = why if detail is None else detail

    def told(self, compat: Compat) -> str:
        """The text for clients, which says as little as QEMU does."""
        text = "load of migration failed: "
        if self._number is None:
            return f"{text}{self}"
        text += os.strerror(self._number)
        return text if compat is Compat.V10_0 else f"{text}: {self._detail}"


class Block(NamedTuple):
    """A block of memory.

    Attributes:
        name: which one it is, on both sides.
        region: the memory.
        carried: whether its content is in the stream.
    """

    name: str
    region: Region
    carried: bool


class Writer:
    """Writes a stream, as fast as it is taken.

    Args:
        machine: what is told of the machine.
        blocks: its memory, which has to stay mapped.

    Attributes:
        total: bytes of memory that are carried.
        gone_through: bytes of it that were, this time.
        sent: bytes of the stream so far.
        normal: pages that were sent.
        passes: how often the memory is gone through.
    """

    def __init__(self, machine: JSONObject, blocks: list[Block]) -> None:
        self._blocks = blocks
        self._digests: dict[tuple[int, int, int], bytes] = {}
        told = [
            {"name": each.name, "size": each.region.length, "carried": each.carried}
            for each in blocks
        ]
        header = _json(_HEADER, {**machine, "blocks": told})
        self._left: Buffer = b""
        self._records: Iterator[Buffer] = iter((_START.pack(_MAGIC, _VERSION), *header))
        self.total = sum(each.region.length for each in blocks if each.carried)
        self.gone_through = self.sent = self.normal = self.passes = 0

    @property
    def zeroes(self) -> int:
        """Pages that need not be sent, or not again."""
        return max(0, self.gone_through // PAGE_SIZE - self.normal)

    @property
    def cost(self) -> int:
        """Bytes that QEMU would have sent, for which a page of zeroes is some."""
        return self.sent + _ZERO_COST * self.zeroes

    def go_through(self, *, remember: bool) -> None:
        """Send the memory, but for what has not changed since it was remembered.

        Args:
            remember: whether it may be gone through again.
        """
        self._records = self._pass(remember)

    def finish(self, state: JSONObject, *, least: int = 0) -> None:
        """End it.

        Args:
            state: what else is carried over.
            least: bytes that the whole is to have, which blanks at the end make up.
        """
        text = json.dumps(state).encode()
        self._records = iter(_record(_END, text.ljust(least - self.sent)))

    def close(self) -> None:
        """Send no more."""
        self._records = iter(())

    def push(self, fd: int, most: int) -> int:
        """Write until nothing more is taken, or enough was written; in a thread.

        Args:
            most: bytes that are enough.

        Returns:
            END where all is sent that is to be, FULL where no more is taken now, else
            MORE.

        Raises:
            OSError: it can't be written.
            QMPError: it can't be read.
        """

        def write(part: Buffer) -> int:
            with cgroup.writing(fd, len(part)):
                return os.write(fd, part)

        return self.push_into(write, most)

    def push_into(self, write: Callable[[Buffer], int], most: int) -> int:
        """The same, into anything that takes bytes, and says how many.

        Args:
            write: raises `BlockingIOError` where no more is taken now.
        """
        end, stop = self.sent + most, self.gone_through + _STRETCH
        while self.sent < end and self.gone_through < stop:
            if not self._left:
                try:
                    record = next(self._records, None)
                except content.Gone as gone:
                    raise QMPError(f"cannot read the memory: {gone}") from None
                if record is None:
                    return END
                self._left = memoryview(record)
                continue
            try:
                done = write(self._left[: end - self.sent])
            except BlockingIOError:
                return FULL
            self.sent += done
            self._left = self._left[done:]
        return MORE

    def _pass(self, remember: bool) -> Iterator[Buffer]:
        if self.passes:
            yield from _record(_AGAIN)
        self.passes += 1
        self.gone_through = before = 0
        for number, block in enumerate(self._blocks):
            if not block.carried:
                continue
            for at, data in _pieces(block.region):
                kind = _DATA
                if remember or self._digests:
                    key, digest = (number, at, len(data)), blake2b(data, digest_size=16).digest()
                    if self._digests.get(key) == digest:
                        kind = _SAME
                    self._digests[key] = digest
                with memoryview(data) as view:
                    for start, end, zeroes in content.runs(data):
                        if not zeroes:
                            part = view[start:end] if kind == _DATA else b""
                            yield from _record(kind, part, number, at + start, end - start)
                            self.normal += (end - start) // PAGE_SIZE if part else 0
                self.gone_through = max(self.gone_through, before + at + len(data))
                yield b""
            before += block.region.length
        self.gone_through = self.total


class Reader:
    """Loads a stream.

    Args:
        check: told the header; raises `NotLoaded` where it is another machine's.
        blocks: the memory, which has to stay mapped.

    Attributes:
        state: what else is carried over, once it has ended.
    """

    def __init__(self, check: Callable[[JSONObject], None], blocks: Iterable[Block]) -> None:
        self._check = check
        self._blocks = {each.name: each for each in blocks}
        self.state: JSONObject | None = None
        self._parsing = self._parse()
        self._into = bytearray(next(self._parsing))
        self._have = 0

    def pull(self, fd: int) -> bool:
        """Load until nothing more is there, or enough was loaded; in a thread.

        Returns:
            Whether that was all.

        Raises:
            NotLoaded: it can't be loaded.
        """
        return self.pull_from(lambda into: os.readv(fd, [into]))

    def pull_from(self, read: Callable[[memoryview], int]) -> bool:
        """The same, from anything that fills what it is given, and says with how many bytes."""
        left = SLICE
        while left > 0:
            with memoryview(self._into) as view:
                try:
                    count = read(view[self._have :])
                except BlockingIOError:
                    return False
                except OSError as error:
                    raise NotLoaded(
                        f"the stream can't be read: {error.strerror}", errno.EIO
                    ) from None
            if not count:
                raise NotLoaded("the stream was cut off", errno.EIO, f"{_VMSTATE} {-errno.EIO}")
            self._have += count
            left -= count
            while self._have == len(self._into):
                try:
                    self._into = bytearray(self._parsing.send(self._into))
                except StopIteration:
                    return True
                except (AttributeError, KeyError, TypeError, ValueError):
                    raise _damaged() from None
                self._have = 0
        return False

    def _parse(self) -> Generator[int, bytearray, None]:
        """Takes as many bytes as it asks for."""
        start = yield 4
        if start == _QEMU:
            raise NotLoaded("the stream is QEMU's, and memd loads its own", None)
        if start != _MAGIC[:4]:
            raise _foreign(start)
        _magic, version = _START.unpack(start + (yield _START.size - 4))
        if _magic != _MAGIC:
            raise _foreign(start)
        if version != _VERSION:
            why = "Unsupported migration stream version"
            detail = f"{why}, file version {version:x} != {_VERSION:x}"
            raise NotLoaded(why, errno.EOPNOTSUPP, detail)
        blocks: list[Block] = []
        seen: list[bytearray] = []
        while True:
            head = yield _HEAD.size + _CHECK.size
            kind, number, offset, length = _HEAD.unpack_from(head)
            data: bytes | bytearray = b""
            if kind in (_HEADER, _DATA, _END):
                if length > max(_LONGEST_JSON, content.CHUNK):
                    raise _damaged()
                data = yield length
            (check,) = _CHECK.unpack_from(head, _HEAD.size)
            if zlib.crc32(data, zlib.crc32(head[: _HEAD.size])) != check:
                raise _damaged()
            if kind == _HEADER and not blocks:
                blocks = self._begin(json.loads(data))
                seen = [_unseen(each) for each in blocks]
            elif kind in (_DATA, _SAME) and number < len(blocks):
                block = blocks[number]
                beyond = offset + length > block.region.length
                if beyond or not block.carried or (offset | length) % PAGE_SIZE:
                    raise _damaged()
                if kind == _DATA:
                    _write(block, offset, bytes(data))
                pages = length // PAGE_SIZE
                seen[number][offset // PAGE_SIZE : offset // PAGE_SIZE + pages] = b"\1" * pages
            elif kind == _AGAIN:
                seen = [_unseen(each) for each in blocks]
            elif kind == _END:
                for block, pages_seen in zip(blocks, seen, strict=True):
                    if block.carried:
                        _clear(block, pages_seen)
                self.state = json.loads(data)
                return
            else:
                raise _damaged()

    def _begin(self, header: JSONObject) -> list[Block]:
        self._check(header)
        blocks = []
        for told in header["blocks"]:
            name, size = told["name"], told["size"]
            block = self._blocks.get(name)
            if block is None:
                raise _other_memory(f'Unknown ramblock "{name}", cannot accept migration')
            if size != block.region.length:
                raise _other_memory(
                    f"Size mismatch: {name}: 0x{size:x} != 0x{block.region.length:x}:"
                    " Invalid argument"
                )
            blocks.append(Block(name, block.region, carried=told["carried"]))
        return blocks


def _foreign(start: bytearray) -> NotLoaded:
    why = "Not a migration stream"
    detail = f"{why}, magic: {int.from_bytes(start, 'big'):x} != {_QEMU.hex()}"
    return NotLoaded(why, detail=detail)


def _other_memory(why: str) -> NotLoaded:
    where = "error while loading state for instance 0x0 of device 'ram'"
    return NotLoaded(why, detail=f"{where}: {_VMSTATE} {-errno.EINVAL}")


def _damaged() -> NotLoaded:
    return NotLoaded("the stream is damaged")


def _record(
    kind: int, data: Buffer = b"", number: int = 0, offset: int = 0, length: int | None = None
) -> tuple[Buffer, ...]:
    head = _HEAD.pack(kind, number, offset, len(data) if length is None else length)
    head += _CHECK.pack(zlib.crc32(data, zlib.crc32(head)))
    return (head, data) if data else (head,)


def _json(kind: int, value: JSONObject) -> tuple[Buffer, ...]:
    return _record(kind, json.dumps(value).encode())


def _pieces(region: Region) -> Iterator[tuple[int, bytearray]]:
    """The content of a region, except for zeroes; a part may come twice."""
    for at, data, _over in content.pieces(region):
        if not region.shared and region.reads_as_file:
            # The file's own bytes are not what the mapping shows.
            done, number = content.read(region, at, data)
            if done < len(data):
                raise content.Gone(os.strerror(number))
        yield at, data


def _unseen(block: Block) -> bytearray:
    """A byte for each page, 0 as long as nothing was told of it."""
    return bytearray(-(-block.region.length // PAGE_SIZE))


def _clear(block: Block, seen: bytearray) -> None:
    """Have zeroes where nothing was told of."""
    for at, data in _pieces(block.region):
        first = at // PAGE_SIZE
        if 0 not in seen[first : first + len(data) // PAGE_SIZE]:
            continue
        for start, end, zeroes in content.runs(data):
            for page in range(start, 0 if zeroes else end, PAGE_SIZE):
                if not seen[(at + page) // PAGE_SIZE]:
                    _write(block, at + page, bytes(PAGE_SIZE))


def _write(block: Block, offset: int, data: bytes) -> None:
    try:
        access.write(block.region, block.name, offset, data)
    except QMPError as error:
        raise NotLoaded(error.desc, errno.ENOMEM) from None
