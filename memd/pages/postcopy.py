"""The sending side of one postcopy migration, without I/O.

QEMU, the destination, loads the devices, runs, and asks for the pages that it
touches; they are sent first, then the working set in its order, then the rest.
Pages of zeroes are sent only when they are asked for. No page is sent twice:
the destination would take that for a failure and pause.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from memd.errors import QMPError
from memd.hostmem.spec import round_up
from memd.pages.recording import (
    COMMAND,
    CONFIGURATION,
    DATA,
    END,
    END_OF_PART,
    FOOTER,
    MAGIC,
    PAGE,
    RECORD,
    SAME_BLOCK,
    SECTION_END,
    SECTION_PART,
    SECTION_START,
    SIZES,
    VERSION,
    ZERO,
    RecordedBlock,
    Recording,
)

if TYPE_CHECKING:
    from memd.pages.layout import Range

BATCH = 64
"""Pages sent at once at most where nobody asked for them: 256 KiB, which a reader takes in
0.2 ms. A request that comes meanwhile waits for them, and fewer cost more a page (measured)."""

_QUIET_BATCH = 4 * BATCH
"""The same once nobody asks: as much as is on the way in the socket anyway."""

_QUIET = 1024
"""Pages sent since the last request, from which on nobody asks: 4 MiB, some 2 ms."""

_MOST_REQUESTS = 4096
"""Pages that a destination may wait for at once: its threads wait for one each, and all are
gone through each time that there is something to send."""

WAITS = (0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0)
"""Seconds by which requests are counted."""

_SECTION = 1

_OPEN_RETURN_PATH, _PING, _ADVISE, _LISTEN, _RUN = 1, 2, 3, 4, 5
_DISCARD, _PACKAGE, _RESUME, _ASK_RECEIVED = 6, 7, 9, 10

_SHUT, _PONG, _ASK_OF_BLOCK, _ASK, _RECEIVED, _RESUMED = 1, 2, 3, 4, 5, 6

_LENGTHS = {
    **dict.fromkeys((_SHUT, _PONG, _RESUMED), (4, 4)),
    _ASK: (12, 12),
    _ASK_OF_BLOCK: (13, 268),
    _RECEIVED: (1, 256),
}
"""Bytes of each kind of message, at least and at most."""

_LOADED = 3
"""The number of the ping that is answered when the devices are loaded."""

_MASKS = bytes.maketrans(b"01", b"\x00\xff")

_RECEIVED_END = 0x0123456789ABCDEF

_EMPTY, _UNSENT = 0, 1
_ASKED, _NEEDED, _REST, _BEFORE = 2, 3, 4, 5
"""Why a page was sent; the last, that an earlier process had sent it."""

_LETTERS = ((_ASKED, "A"), (_NEEDED, "W"), (_REST, "R"), (_BEFORE, "E"))

_CELLS = 512
"""Parts of a picture, at most."""

NO_PAGE = b"\0" * PAGE

_ALL_NEEDED, _ALL_REST = (bytes((cause,)) * _QUIET_BATCH for cause in (_NEEDED, _REST))

_SECTION_BEGIN = struct.pack(">BI", SECTION_PART, _SECTION)
_SECTION_FOOT = struct.pack(">QBI", END_OF_PART, FOOTER, _SECTION)
_END = struct.pack(">BIQBIB", SECTION_END, _SECTION, END_OF_PART, FOOTER, _SECTION, END)


class Span:
    """A part of a file that is mapped.

    Args:
        fd: the file.
        view: all of it.
        start: the first byte.
        end: the one after the last.
    """

    __slots__ = ("end", "fd", "start", "view")

    def __init__(self, fd: int, view: memoryview, start: int, end: int) -> None:
        self.fd = fd
        self.view = view
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, part: slice) -> Span:
        start, end, _step = part.indices(len(self))
        return Span(self.fd, self.view, self.start + start, self.start + end)


Buffer = bytes | memoryview | Span


class Missing(Exception):
    """Bytes of a template are not available at present."""


class PageSource(Protocol):
    """The memory of a template: those blocks that its stream has no content of, in a row."""

    @property
    def content(self) -> bytes | bytearray:
        """A byte for each page of 4 KiB: 1 where it is not all zeroes, 0 where it is."""

    def records(self, page: int, count: int, asked: bool) -> Buffer | None:
        """Pages as they are sent, `RECORD` bytes each: with addresses in their block, which is
        that of the page before, and verified. None where they have to be fetched first.

        Args:
            page: the first.
            count: how many; those of zeroes are not looked at.
            asked: whether somebody waits for them: their fetching begins then.

        Raises:
            Missing: they are not available at present.
        """


class _Part:
    """A block as it is sent.

    Attributes:
        unit: the size of its pages at the destination, in bytes.
        base: where it begins in the template's memory, in bytes; -1 where the stream has
            its content.
        state: a byte for each of its pages: not sent, of zeroes and not sent, or why it was.
    """

    def __init__(
        self,
        block: RecordedBlock,
        unit: int = PAGE,
        memory: PageSource | None = None,
        base: int = -1,
    ) -> None:
        self.block = block
        self.name = bytes((len(block.name),)) + block.name
        self.unit = unit
        self.base = base
        self._memory = memory
        count = -(-block.length // unit)
        if memory is None:
            self._content: bytes | bytearray = bytes(
                at in block.pages for at in range(0, count * PAGE, PAGE)
            )
        else:
            first, pages = base // PAGE, count * unit // PAGE
            self._content = memory.content
            if len(self._content) > pages:
                self._content = self._content[first : first + pages]
        if unit == PAGE:
            self.state = bytearray(self._content)
        else:
            step = unit // PAGE
            found = self._content.find
            self.state = bytearray(
                found(1, at, at + step) >= 0 for at in range(0, count * step, step)
            )

    def entries(self, first: int, count: int, asked: bool) -> list[Buffer] | None:
        """The entries for `count` units from `first` on; None where they are not here yet."""
        step = self.unit // PAGE
        at = start = first * step
        end = start + count * step
        find = self._content.find
        records: Buffer = b""
        if find(1, start, end) >= 0:
            found = self._records(start, end - start, asked)
            if found is None:
                return None
            if find(0, start, end) < 0:
                return [found]
            records = found
        out: list[Buffer] = []
        while at < end:
            data = find(1, at, end)
            data = end if data < 0 else data
            out += (
                struct.pack(">QB", page * PAGE | ZERO | SAME_BLOCK, 0) for page in range(at, data)
            )
            at = find(0, data, end)
            at = end if at < 0 else at
            if at > data:
                out.append(records[(data - start) * RECORD : (at - start) * RECORD])
        return out

    def _records(self, page: int, count: int, asked: bool) -> Buffer | None:
        if self._memory is not None:
            return self._memory.records(self.base // PAGE + page, count, asked)
        pages = self.block.pages
        return b"".join(
            struct.pack(">Q", at | DATA | SAME_BLOCK) + pages.get(at, NO_PAGE)
            for at in range(page * PAGE, (page + count) * PAGE, PAGE)
        )

    def name_block(self, first: int, entries: list[Buffer]) -> None:
        """Have entries, whose first is of unit `first`, say which block they are of."""
        at = first * self.unit
        flag = DATA if self._content[at // PAGE] else ZERO
        entries[:1] = struct.pack(">Q", at | flag) + self.name, entries[0][8:]


_Run = tuple[_Part, int, int, bool]
"""Units that are sent at once: a part, the first, how many, whether they are needed soon."""


class SentCounts:
    """Pages and bytes that were sent.

    Attributes:
        pages: by cause (QAPI `TemplatePages`): those that were asked for, and of them those of
            zeroes; those of the working set that nobody had asked for yet; and the rest.
        bytes: everything included.
        waits: how many requests were answered within each of `WAITS`, and after all of them.
        waited: seconds that all requests waited together, until they were handed to the socket.
    """

    def __init__(self) -> None:
        self.pages = {"asked": 0, "zeroes": 0, "working-set": 0, "rest": 0}
        self.bytes = 0
        self.waits = [0] * (len(WAITS) + 1)
        self.waited = 0.0


class Sender:
    """One clone's migration.

    Args:
        recording: the machine's state.
        memory: the content of its memory.
        page_sizes: of the blocks that this is at the destination, in bytes.
        working_set: pages of 4 KiB in the order in which they are needed, as ranges.
        counts: where what is sent is added.
        on_demand: whether only what is asked for is sent, until `push` is called.
        recover: whether the destination is one that has paused.

    Attributes:
        running: whether the destination has loaded the devices and runs.
        ran_at: since when, as `receive` was told the time.
        ended: whether the destination has said that it has everything.
        asked: pages of the memory in the order in which they were asked for.
        counts: what has been sent; also over an earlier connection.
    """

    def __init__(
        self,
        recording: Recording,
        memory: PageSource,
        page_sizes: Sequence[int],
        working_set: Sequence[Range] = (),
        counts: SentCounts | None = None,
        *,
        on_demand: bool = False,
        recover: bool = False,
    ) -> None:
        self._recording = recording
        self._main: list[_Part] = []
        base = 0
        for block, page_size in zip(recording.memory, page_sizes, strict=True):
            if page_size < PAGE or page_size % PAGE or block.length % page_size:
                raise QMPError(
                    f"the memory of {block.length} bytes is not of whole pages of {page_size} bytes"
                )
            self._main.append(_Part(block, page_size, memory, base))
            base += block.length
        left = iter(self._main)
        self._parts = [_Part(block) if block.sent else next(left) for block in recording.blocks]
        self._by_name = {part.block.name: part for part in self._parts}
        self.running = recover
        self.ran_at = 0.0
        self.ended = False
        self.asked = array("I")
        self.counts = counts or SentCounts()
        self._received = b""
        self._now = 0.0
        self._last_asked: _Part | None = None
        # Units that were asked for and are not sent yet, and since when.
        self._requests: dict[tuple[_Part, int], float] = {}
        # Pages that were sent since something was asked for.
        self._quiet = 0
        # Where what is pushed comes from; the last is gone through first.
        self._pushed = [self._push(working_set)]
        # What was not available when its turn came.
        self._missing: list[_Run] = []
        self._on_demand = on_demand
        self._end_sent = False
        # Of what was sent last; None until the section of pages has begun.
        self._block: _Part | None = None
        # Parts whose list of received pages is yet to come, and whether the destination goes on.
        self._unknown = list(self._parts) if recover else []
        self._resumed = not recover
        asking = (_command(_ASK_RECEIVED, part.name) for part in self._unknown)
        self._control = deque([b"".join(asking) if recover else self._opening()])

    @property
    def goes_on(self) -> bool:
        """Whether the destination has loaded the devices, and goes on after a pause."""
        return self.running and self._resumed

    def push(self) -> None:
        """Send what nobody has asked for as well, from now on."""
        self._on_demand = False

    def picture(self) -> str:
        """A picture of the memory: a letter for each part, which tells why it was sent.

        A: something of it was asked for, else W: of the working set, else R: of the rest, else
        E: by an earlier process; small where something of it is still to come. ".": nothing
        was sent, and " ": it is all zeroes.
        """
        total = sum(len(part.state) for part in self._main)
        letters = []
        for part in self._main:
            cells = max(1, min(len(part.state), _CELLS * len(part.state) // total))
            ends = [len(part.state) * cell // cells for cell in range(cells + 1)]
            letters += [_letter(part.state[a:b]) for a, b in pairwise(ends)]
        return "".join(letters)

    # What comes.

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take what has come on the return path.

        Args:
            now: the time in seconds.

        Raises:
            QMPError: it is not what a destination says, or it says that it failed.
        """
        self._received += data
        self._now = now
        at = 0
        while (length := self._message(at)) > 0:
            at += length
        self._received = self._received[at:]

    def _message(self, at: int) -> int:
        """Take one message; gives its length, or 0 while it is not all here."""
        data = self._received
        if len(data) < at + 4:
            return 0
        kind = int.from_bytes(data[at : at + 2], "big")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        least, most = _LENGTHS.get(kind, (1, 0))
        if not least <= length <= most:
            raise QMPError(f"the destination sends an unknown message (type 0x{kind:x})")
        end = at + 4 + length
        if len(data) < end:
            return 0
        body = data[at + 4 : end]
        if kind in (_ASK, _ASK_OF_BLOCK):
            self._asked(kind, body)
        elif kind == _RECEIVED:
            taken = self._take_received(body, end)
            return taken and taken - at
        else:
            self._answer(kind, int.from_bytes(body, "big"))
        return end - at

    def _answer(self, kind: int, value: int) -> None:
        if kind == _PONG:
            if value == _LOADED and not self.running:
                self.running, self.ran_at = True, self._now
        elif kind == _RESUMED:
            self._resumed = True
        elif value or not self._end_sent:
            raise QMPError(
                f"the destination gave up (status {value}): it says why on its standard error"
            )
        else:
            self.ended = True

    def _asked(self, kind: int, body: bytes) -> None:
        self._quiet = 0
        start, length = struct.unpack_from(">QI", body)
        if kind == _ASK_OF_BLOCK:
            self._last_asked = self._by_name.get(body[13:]) if body[12:13] else None
        part = self._last_asked
        if (
            part is None
            or not 0 < length <= part.unit
            or start + length > len(part.state) * part.unit
        ):
            raise QMPError(f"the destination asks for a page that does not exist (0x{start:x})")
        for unit in range(start // part.unit, -(-(start + length) // part.unit)):
            if part.state[unit] <= _UNSENT and (part, unit) not in self._requests:
                self._requests[part, unit] = self._now
                if part.base >= 0:
                    first = (part.base + unit * part.unit) // PAGE
                    self.asked.extend(range(first, first + part.unit // PAGE))
        if len(self._requests) > _MOST_REQUESTS:
            raise QMPError(f"the destination waits for more than {_MOST_REQUESTS} pages at once")

    def _take_received(self, body: bytes, at: int) -> int:
        """Take the list of what a block has received; gives where it ends, 0 if it is not here."""
        data = self._received
        part = self._by_name.get(body[1:])
        if part is None or part not in self._unknown:
            raise QMPError("the destination lists the received pages of an unknown block")
        if len(data) < at + 8:
            return 0
        size = int.from_bytes(data[at : at + 8], "big")
        step = part.unit // PAGE
        count = len(part.state) * step
        if not count <= 8 * size <= count + 256:
            raise QMPError("the destination's list of received pages has the wrong size")
        end = at + 8 + size + 8
        if len(data) < end:
            return 0
        if int.from_bytes(data[end - 8 : end], "big") != _RECEIVED_END:
            raise QMPError("the destination's list of received pages is damaged")
        bits = int.from_bytes(data[at + 8 : end - 8], "little") & ((1 << count) - 1)
        # A bit for each 4 KiB; large pages are received as a whole.
        _mark(part.state, f"{bits:0{count}b}"[::-step])
        self._unknown.remove(part)
        if not self._unknown:
            self._control.append(_command(_RESUME))
        return end

    # What goes.

    def next(self, now: float = 0.0) -> list[Buffer]:
        """The buffers to send next; none where there is nothing (yet).

        Args:
            now: the time in seconds.
        """
        if self._control:
            return self._count(self._control.popleft())
        if not self._resumed or self._end_sent:
            return []
        for (part, unit), since in tuple(self._requests.items()):
            found = None
            if part.state[unit] <= _UNSENT:
                with suppress(Missing):
                    found = part.entries(unit, 1, True)
                if found is None:
                    # Others need not wait for it.
                    continue
            del self._requests[part, unit]
            if found is None:
                continue
            counts = self.counts
            counts.bytes += sum(map(len, found))
            counts.pages["asked"] += part.unit // PAGE
            if part.state[unit] == _EMPTY:
                counts.pages["zeroes"] += part.unit // PAGE
            counts.waits[bisect(WAITS, now - since)] += 1
            counts.waited += now - since
            part.state[unit] = _ASKED
            return self._entries(part, unit, found)
        # Until it runs, it needs the processor for its devices.
        if self._on_demand or not self.running:
            return []
        return self._next_pushed()

    def _next_pushed(self) -> list[Buffer]:
        """Runs of pages together, as many as are sent at once."""
        entries: list[Buffer] = []
        pages = 0
        most = self._batch
        while self._pushed and pages < most:
            run = next(self._pushed[-1], None)
            if run is None:
                self._pushed.pop()
                continue
            part, first, count, needed = run
            try:
                found = part.entries(first, count, False)
            except Missing:
                self._missing.append(run)
                continue
            if found is None:
                # It is being fetched. Some of it may be asked for meanwhile.
                self._pushed.append(self._runs(part, first, first + count, needed))
                break
            part.state[first : first + count] = (_ALL_NEEDED if needed else _ALL_REST)[:count]
            entries += found if part is self._block else self._entries(part, first, found)
            length = count * (part.unit // PAGE)
            pages += length
            self._quiet += length
            self.counts.bytes += length * RECORD
            self.counts.pages["working-set" if needed else "rest"] += length
        if entries or self._pushed:
            return entries
        if self._missing:
            # It is tried again when somebody calls the next time.
            self._pushed = [
                self._runs(part, first, first + count, needed)
                for part, first, count, needed in self._missing
            ]
            self._missing.clear()
            return []
        if self._requests:
            return []
        self._end_sent = True
        return self._count(_END if self._block is None else _SECTION_FOOT + _END)

    def _push(self, working_set: Sequence[Range]) -> Iterator[_Run]:
        """The runs to send without being asked for."""
        for first, count in working_set:
            end = first + count
            for part in self._main:
                start = part.base // PAGE
                step = part.unit // PAGE
                if start < end and first < start + len(part.state) * step:
                    units = max(first - start, 0) // step, -(-(end - start) // step)
                    yield from self._runs(part, units[0], min(units[1], len(part.state)), True)
        # What the stream has the content of is little, and devices need it.
        for part in sorted(self._parts, key=lambda each: each.base >= 0):
            yield from self._runs(part, 0, len(part.state), False)

    @property
    def _batch(self) -> int:
        """Pages to send at once, at most."""
        return _QUIET_BATCH if self._quiet >= _QUIET else BATCH

    def _runs(self, part: _Part, start: int, end: int, needed: bool) -> Iterator[_Run]:
        """The unsent units of a range, in runs of as much as is sent at once.

        Args:
            needed: whether units of zeroes are sent, too.
        """
        state = part.state
        unsent = b"\x00\x01" if needed else b"\x01"
        while start < end:
            most = max(1, self._batch * PAGE // part.unit)
            run = state[start : min(start + most, end)]
            count = len(run) - len(run.lstrip(unsent))
            if count:
                yield part, start, count, needed
                start += count
            elif needed:
                start += 1
            else:
                start = state.find(_UNSENT, start, end)
                if start < 0:
                    return

    def _entries(self, part: _Part, first: int, entries: list[Buffer]) -> list[Buffer]:
        """Entries, whose first is of unit `first`, in the section that all are sent in."""
        if part is not self._block:
            part.name_block(first, entries)
            if self._block is None:
                entries.insert(0, _SECTION_BEGIN)
            self._block = part
        return entries

    def _count(self, data: bytes) -> list[Buffer]:
        self.counts.bytes += len(data)
        return [data]

    def _opening(self) -> bytes:
        """All that comes before the pages."""
        recording = self._recording
        machine = recording.machine.encode()
        total = sum(round_up(block.length, PAGE) for block in recording.blocks)
        page_sizes = 0
        for part in self._parts:
            page_sizes |= part.unit
        parts = [
            MAGIC,
            struct.pack(">IBI", VERSION, CONFIGURATION, len(machine)),
            machine,
            _command(_OPEN_RETURN_PATH),
            _command(_PING, struct.pack(">I", 1)),
            _command(_ADVISE, struct.pack(">QQ", page_sizes, PAGE)),
            struct.pack(">BIB3sIIQ", SECTION_START, _SECTION, 3, b"ram", 0, 4, total | SIZES),
        ]
        for part in self._parts:
            parts += (part.name, struct.pack(">Q", part.block.length))
            if part.unit != PAGE:
                parts.append(struct.pack(">Q", part.unit))
        parts.append(struct.pack(">QBI", END_OF_PART, FOOTER, _SECTION))
        for part in self._parts:
            # A list without any range hangs the destination, its monitor included.
            whole = struct.pack(">QQ", 0, len(part.state) * part.unit)
            parts.append(_command(_DISCARD, b"\0" + part.name + b"\0" + whole))
        package = b"".join(
            (
                _command(_LISTEN),
                recording.devices,
                _command(_PING, struct.pack(">I", _LOADED)),
                _command(_RUN),
            )
        )
        parts += (_command(_PACKAGE, struct.pack(">I", len(package))), package)
        return b"".join(parts)


def _mark(state: bytearray, received: str) -> None:
    """Have those of the units `_BEFORE` that were received, "1" and not "0": all in one go, as
    there may be millions, and other clones wait."""
    here = int.from_bytes(received.encode().translate(_MASKS), "little")
    before = int.from_bytes(bytes((_BEFORE,)) * len(state), "little")
    there = int.from_bytes(state, "little")
    state[:] = (there ^ (there ^ before) & here).to_bytes(len(state), "little")


def _letter(state: bytearray) -> str:
    """The letter of a part; see `picture`."""
    for cause, letter in _LETTERS:
        if cause in state:
            return letter.lower() if _UNSENT in state else letter
    return "." if _UNSENT in state else " "


def _command(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">BHH", COMMAND, number, len(data)) + data
