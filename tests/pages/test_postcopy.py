"""What a source sends: every page once, right, what is asked for first."""

from __future__ import annotations

import random
import struct

import pytest

from memd.errors import QMPError
from memd.pages.layout import ranges_of
from memd.pages.postcopy import Missing, Sender, Span
from memd.pages.recording import parse
from tests.pages.destination import Destination
from tests.pages.streams import DEVICES, PAGE, ROM, stream

HUGE = 2 << 20


class Memory:
    """A memory of which some pages are zero; `late` ones are there at the second time of asking."""

    def __init__(self, pages: int, *, empty: set[int], late: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        some = random.Random(7)
        self.bytes = b"".join(
            bytes(PAGE) if page in empty else some.randbytes(PAGE) for page in range(pages)
        )
        self.content = bytearray(page not in empty for page in range(pages))
        self.late = set(late)

    def records(self, page: int, count: int, asked: bool) -> memoryview | None:
        wanted = range(page, page + count)
        if self.late & {*wanted}:
            self.late -= {*wanted}
            return None
        return memoryview(
            b"".join(
                struct.pack(">Q", (each - self.start(each)) * PAGE | 0x28)
                + self.bytes[each * PAGE : (each + 1) * PAGE]
                for each in wanted
            )
        )

    second = 1 << 32
    """The first page of the second block."""

    def start(self, page: int) -> int:
        return self.second if page >= self.second else 0


def ask(at: int, length: int = PAGE, block: str | None = "ram") -> bytes:
    if block is None:
        return struct.pack(">HHQI", 4, 12, at, length)
    name = bytes((len(block),)) + block.encode()
    return struct.pack(">HHQI", 3, 12 + len(name), at, length) + name


PONG = struct.pack(">HHI", 2, 4, 3)
SHUT = struct.pack(">HHI", 1, 4, 0)


class Pair:
    """A source and a destination.

    `large` for huge pages; `second` bytes of the memory are a block of their own.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        working_set: tuple[int, ...] = (),
        large: bool = False,
        second: int = 0,
        on_demand: bool = False,
        recovering: Destination | None = None,
    ) -> None:
        size = len(memory.bytes)
        self.blocks = (("ram", size - second), *((("more", second),) if second else ()))
        recording = parse(stream(blocks=(*self.blocks, ("rom", PAGE + 100))), size)
        if second:
            memory.second = (size - second) // PAGE
        self.memory = memory
        self.source = Sender(
            recording,
            memory,
            [HUGE if large else PAGE] * len(self.blocks),
            ranges_of(working_set),
            on_demand=on_demand,
            recover=recovering is not None,
        )
        self.destination = Destination(recovering=recovering)
        self.destination.large = large

    def step(self) -> bool:
        """Send once; whether there was something to send."""
        data = self.source.next()
        self.destination.take(b"".join(each for each in data if not isinstance(each, Span)))
        return bool(data)

    def finish(self) -> None:
        for _ in range(50):
            while self.step():
                pass
        assert self.destination.ended
        assert not self.source.ended
        self.source.receive(SHUT)
        assert self.source.ended
        found = b"".join(self.destination.content(name) for name, _size in self.blocks)
        assert found == self.memory.bytes
        assert self.destination.content("rom") == ROM + bytes(PAGE)


def test_opening() -> None:
    pair = Pair(Memory(16, empty=set()))
    pair.step()
    there = pair.destination
    assert there.machine == "q35x"
    assert there.commands == [1, 2, 3, 6, 6, 7]
    assert there.lengths == {"ram": 16 * PAGE, "rom": PAGE + 100}
    # LISTEN, the devices, PING 3, RUN.
    ping = struct.pack(">BHHI", 8, 2, 4, 3)
    assert there.package == b"\x08\0\x04\0\0" + DEVICES + ping + b"\x08\0\x05\0\0"


def test_a_machine_that_loads_its_devices_is_sent_what_it_asks_for_alone() -> None:
    pair = Pair(Memory(16, empty=set()), working_set=(3, 4))
    pair.step()
    assert not pair.step()
    pair.source.receive(ask(5 * PAGE))
    assert pair.step()
    assert pair.destination.order == [("ram", 5 * PAGE)]
    assert not pair.step()
    pair.source.receive(PONG)
    pair.finish()


def test_pages_of_zeroes_stay_where_nobody_asks() -> None:
    pair = Pair(Memory(300, empty={0, 5, *range(100, 200)}))
    pair.source.receive(PONG)
    pair.finish()
    assert len(pair.destination.order) == 300 - 102 + 1
    assert pair.source.counts.pages["rest"] == 300 - 102 + 1


def test_what_is_asked_for_comes_first() -> None:
    pair = Pair(Memory(300, empty={7}), working_set=(250, 251, 3, 7))
    pair.step()
    pair.source.receive(PONG + ask(9 * PAGE) + ask(7 * PAGE, block=None) + ask(0, block="rom"))
    pair.finish()
    assert [(block, at // PAGE) for block, at in pair.destination.order[:6]] == [
        ("ram", 9),
        ("ram", 7),
        ("rom", 0),
        ("ram", 250),
        ("ram", 251),
        ("ram", 3),
    ]
    pages = pair.source.counts.pages
    assert (pages["asked"], pages["zeroes"], pages["working-set"]) == (3, 1, 3)
    assert list(pair.source.asked) == [9, 7]


def test_requests_in_pieces_and_more_than_once() -> None:
    pair = Pair(Memory(64, empty=set()))
    for byte in PONG + ask(9 * PAGE) + ask(9 * PAGE) + ask(9 * PAGE + 512):
        pair.source.receive(bytes((byte,)))
    pair.finish()
    assert list(pair.source.asked) == [9, 10]


def test_on_demand_alone() -> None:
    pair = Pair(Memory(64, empty=set()), on_demand=True)
    pair.source.receive(PONG + ask(9 * PAGE))
    while pair.step():
        pass
    assert pair.destination.order == [("ram", 9 * PAGE)]
    pair.source.push()
    pair.finish()


def test_huge_pages() -> None:
    """They come whole, in order; their pages of zeroes as such."""
    memory = Memory(4 * 512, empty={1, *range(512, 1024)})
    pair = Pair(memory, large=True, working_set=(1030, 1600, 3))
    pair.step()
    pair.source.receive(PONG + ask(3 * HUGE, HUGE))
    pair.finish()
    order = [at for block, at in pair.destination.order if block == "ram"]
    assert [at // HUGE for at in order[::512]] == [3, 2, 0]
    assert len(order) == 3 * 512
    assert order[512:] == [*range(2 * HUGE, 3 * HUGE, PAGE), *range(0, HUGE, PAGE)]


def test_memory_of_two_blocks() -> None:
    """Pages are numbered through them; each block's own offset is what QEMU is told."""
    memory = Memory(3 * 64, empty={70, *range(150, 160)})
    pair = Pair(memory, second=64 * PAGE, working_set=(130, 131, 3, 129, 70))
    pair.step()
    pair.source.receive(PONG + ask(2 * PAGE, block="more"))
    pair.finish()
    assert [(block, at // PAGE) for block, at in pair.destination.order[:5]] == [
        *(("more", 2), ("more", 3), ("ram", 3), ("more", 1)),
        ("ram", 70),
    ]
    assert list(pair.source.asked) == [130]


def test_picture() -> None:
    """Of 512 parts of two pages each; one in which all is zeroes, one in part."""
    pair = Pair(Memory(1024, empty={0, 1, 10}), working_set=(20, 21, 30), on_demand=True)
    assert pair.source.picture() == " " + "." * 511
    pair.source.receive(PONG + ask(8 * PAGE) + ask(10 * PAGE) + ask(11 * PAGE))
    while pair.step():
        pass
    picture = pair.source.picture()
    assert (picture[:7], set(picture[7:])) == (" ...aA.", {"."})
    pair.source.push()
    pair.finish()
    picture = pair.source.picture()
    assert (picture[:16], set(picture[16:])) == (" RRRAARRRRWRRRRW", {"R"})
    small = Pair(Memory(4, empty=set()))
    assert small.source.picture() == "...."


def test_pages_that_have_to_be_fetched_hold_up_no_others() -> None:
    pair = Pair(Memory(64, empty=set(), late={9, 30}))
    pair.step()
    pair.source.receive(PONG + ask(9 * PAGE) + ask(11 * PAGE))
    pair.finish()
    assert [at // PAGE for _block, at in pair.destination.order[:1]] == [11]


@pytest.mark.parametrize("large", [False, True])
def test_recovery(large: bool) -> None:
    """Another source sends the rest, and nothing that has come."""
    memory = Memory(4 * 512, empty={2, 600, *range(1024, 1536)})
    first = Pair(memory, large=large)
    first.step()
    first.source.receive(PONG + ask(HUGE, HUGE if large else PAGE))
    for _ in range(3):
        first.step()
    second = Pair(memory, large=large, recovering=first.destination)
    second.step()
    assert second.destination.commands == [10, 10]
    assert not second.step()
    for block in ("ram", "rom"):
        for byte in first.destination.received(block):
            second.source.receive(bytes((byte,)))
    second.step()
    assert second.destination.commands == [10, 10, 9]
    assert not second.step()
    second.source.receive(struct.pack(">HHI", 6, 4, 1) + ask(2 * HUGE, HUGE if large else PAGE))
    second.finish()


class Damaged(Memory):
    """Some of its pages are not available at first."""

    damaged = frozenset((40, 300))

    def records(self, page: int, count: int, asked: bool) -> memoryview | None:
        if self.damaged & {*range(page, page + count)}:
            raise Missing
        return super().records(page, count, asked)


def test_pages_that_can_not_be_had() -> None:
    """They stay out until they are there; everything else is sent."""
    pair = Pair(Damaged(400, empty=set()))
    pair.source.receive(PONG + ask(40 * PAGE))
    while pair.step():
        pass
    assert not pair.destination.ended
    # What goes together with a page that is damaged is verified together with it.
    assert len(pair.destination.order) >= 400 - 2 * 64
    pair.memory.damaged = frozenset()  # type: ignore[attr-defined]
    pair.finish()


def test_any_order() -> None:
    """Random requests between random steps, some of what has to be fetched."""
    for seed in range(20):
        some = random.Random(seed)
        empty = set(some.sample(range(400), 100))
        memory = Memory(400, empty=empty, late=set(some.sample(range(400), 20)))
        pair = Pair(memory, working_set=tuple(some.sample(range(450), 60)))
        pair.source.receive(PONG)
        for _ in range(100):
            if some.random() < 0.5:
                pair.source.receive(ask(some.randrange(400) * PAGE))
            else:
                pair.step()
                if pair.destination.ended:
                    break
        pair.finish()


@pytest.mark.parametrize(
    "data",
    [
        ask(400 * PAGE),
        ask(0, 0),
        ask(0, 300 * PAGE),
        ask(0, block="disk"),
        ask(0, block=None),
        struct.pack(">HHI", 1, 4, 1),
        SHUT,
        struct.pack(">HHI", 9, 4, 0),
        struct.pack(">HH", 2, 0),
        b'{"QMP": ',
        struct.pack(">HH", 5, 4) + b"\x03ram",
    ],
)
def test_strange_answers(data: bytes) -> None:
    pair = Pair(Memory(300, empty=set()))
    pair.step()
    with pytest.raises(QMPError, match="destination"):
        pair.source.receive(data)


def test_more_pages_at_once_than_a_machine_has_threads() -> None:
    """Each would be looked for again and again, and other clones would wait."""
    pages = 4100
    pair = Pair(Memory(pages, empty=set()))
    pair.step()
    asked = [ask(page * PAGE) for page in range(pages)]
    for _ in range(3):
        # The same ones again are no more.
        pair.source.receive(b"".join(asked[:4096]))
    with pytest.raises(QMPError, match="the destination waits for more than 4096 pages at once"):
        pair.source.receive(b"".join(asked[4096:]))


@pytest.mark.parametrize("page_size", [0, 1, 3000, -PAGE])
def test_pages_of_no_size(page_size: int) -> None:
    recording = parse(stream(), 16 * PAGE)
    with pytest.raises(QMPError, match=f"not of whole pages of {page_size} bytes"):
        Sender(recording, Memory(16, empty=set()), [page_size])


def test_memory_that_is_not_of_whole_huge_pages() -> None:
    with pytest.raises(QMPError, match="not of whole pages of 2097152 bytes"):
        Pair(Memory(300, empty=set()), large=True)
