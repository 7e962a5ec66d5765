"""The store and its list; what a daemon makes of them is in tests/app."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memd.server import store as module
from memd.server.journal import Unreadable, line_of
from memd.server.notify import Notifier
from memd.server.store import Ledger, Store, room
from memd.server.stored import LIST, name_of
from tests.manager import ServiceManager

Open = Callable[..., Store]


@pytest.mark.parametrize(
    ("environ", "capacity"),
    [({}, 0), ({"FDSTORE": "512"}, 512), ({"FDSTORE": "-1"}, 0), ({"FDSTORE": ""}, 0)],
)
def test_the_room(environ: dict[str, str], capacity: int) -> None:
    assert room(environ) == capacity


def ledger_of(*entries: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    for entry in entries:
        ledger.heed(entry, line_of(entry))
    return ledger


def test_entries() -> None:
    ledger = ledger_of(
        {"is": 1, "id": "a"},
        {"is": 2, "id": "b"},
        {"is": 1, "id": "a", "more": True},
        {"is": 3, "id": "c"},
        {"gone": 2},
        {"gone": 3, "discard": [0, 4096]},
        {"is": 4, "id": "d"},
        {"lost": {"id": "d"}, "was": 4},
        {"lost": {"id": "e"}, "was": 0},
        {"found": "e"},
        {"clean": 1},
        {"making": 5, "path": "/x", "time": 1.5},
        {"making": 6, "path": "/y", "time": 1.5},
        {"made": 6, "dev": 1, "ino": 2},
        {"making": 7, "path": "/z", "time": 1.5},
        {"settled": 7},
        {"made": 7, "dev": 1, "ino": 2},
        {"gone": 9, "discard": [0, 1]},
        {"discarded": 9},
    )
    for _ in range(2):
        assert ledger.objects == {1: line_of({"is": 1, "id": "a", "more": True})}
        assert ledger.discards == {3: [0, 4096]}
        assert ledger.lost == {"d": {"id": "d"}}
        assert ledger.clean == {1}
        assert sorted(ledger.makings) == [5, 6]
        assert ledger.makings[6]["ino"] == 2
        assert ledger.next == 8
        # What it comes to in short comes to the same.
        import json

        short = [json.loads(line[9:]) for line in ledger.lines()]
        ledger = ledger_of(*short)


def test_an_unknown_entry() -> None:
    with pytest.raises(Unreadable, match="an entry is of the unknown kind 'x'"):
        ledger_of({"x": 1})


@pytest.fixture
def manager(manage: Callable[..., ServiceManager]) -> ServiceManager:
    manager = manage(capacity=4)
    manager.main = os.getpid()
    return manager


@pytest.fixture
async def open_store(manager: ServiceManager) -> Any:
    opened: list[tuple[Store, Notifier]] = []

    def open_store(capacity: int = 4, found: dict[str, int] | None = None) -> Store:
        notifier = Notifier(manager.address)
        try:
            store = Store(notifier, asyncio.get_running_loop(), capacity, found or {})
        except (OSError, Unreadable):
            notifier.close()
            raise
        opened.append((store, notifier))
        return store

    yield open_store
    for store, notifier in opened:
        store.close()
        notifier.close()


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("memory")
    yield fd
    os.close(fd)


async def test_the_list_comes_first(manager: ServiceManager, open_store: Open) -> None:
    open_store()
    manager.catch_up()
    assert manager.names() == [LIST]
    # One that was killed at once has left it; the next one does not know.
    open_store()
    manager.catch_up()
    assert manager.names() == [LIST]


async def test_a_manager_that_never_reads(
    manager: ServiceManager, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is kept, and who starts goes on."""
    monkeypatch.setattr("memd.server.notify.PATIENCE", 1)
    with manager.deaf():
        notifier = Notifier(manager.address)
        while notifier.send("X=1"):
            pass
        with pytest.raises(OSError, match="timed out"):
            open_store()
        notifier.close()


async def test_room_for_so_many(
    manager: ServiceManager, open_store: Open, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    for number in (1, 2, 3):
        assert store.has_room()
        assert store.park(number, memory)
        assert store.has(number)
    assert not store.has_room()
    store.remove(2)
    store.remove(2)
    store.remove(99)
    assert store.has_room()
    manager.catch_up()
    assert "memd-2" not in manager.names()
    monkeypatch.setattr(module, "_NAMES_LENGTH", 20)
    assert not store.has_room()


async def test_removals_go_before(manager: ServiceManager, open_store: Open) -> None:
    """However far behind the manager is: much that comes and goes does not fill its store."""
    memories = [os.memfd_create("memory") for _ in range(6)]
    store = open_store()
    for number in (1, 2, 3):
        store.park(number, memories[number])
    manager.catch_up()
    with manager.deaf():
        while store._notifier.send("X=1"):
            pass
        store.remove(1)
        store.remove(2)
        assert store.has_room()
        assert not store.park(4, memories[4])
        parking = threading.Thread(target=store.park, args=(4, memories[4], True))
        parking.start()
        # The loop waits for nobody.
        store.remove(3)
    parking.join(60)
    assert store.park(5, memories[5], True)
    manager.catch_up()
    assert manager.names() == [LIST, "memd-4", "memd-5"]
    for fd in memories:
        os.close(fd)


async def test_names_fit_into_the_environment(open_store: Open, memory: int) -> None:
    """Of a store of any size no more is used than can be passed on (execve(2))."""
    store = open_store(capacity=0)
    number = 1 << 20
    while store.has_room():
        store._account(name_of(number))
        number += 1
    passed = "LISTEN_FDNAMES=" + ":".join(store._names)
    assert (100 << 10) < len(passed) < (128 << 10)


async def test_another_daemon_reads_it(
    manager: ServiceManager, open_store: Open, memory: int
) -> None:
    store = open_store()
    assert (store.number(), store.number()) == (1, 2)
    store.write({"is": 2, "id": "x"})
    store.park(2, memory)
    manager.catch_up()
    found = {each.name: os.dup(each.fd) for each in manager.store}
    other = open_store(found=found)
    assert other.ledger.objects == {2: line_of({"is": 2, "id": "x"})}
    assert other.number() == 3
    assert other.has(2)
    other.remove(2)
    manager.catch_up()
    assert manager.names() == [LIST]
    os.close(found["memd-2"])


async def test_it_stays_short(open_store: Open) -> None:
    store = open_store()
    for number in range(3000):
        store.write({"is": number, "text": "x" * 100})
        store.write({"gone": number})
    assert os.fstat(store._journal.fd).st_blocks * 512 < 256 << 10


async def test_it_cannot_be_shortened(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it goes on, longer than it need be."""
    store = open_store()

    def refuse(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._journal.__class__, "shorten", refuse)
    for number in range(1000):
        store.write({"is": number, "text": "x" * 100})
    assert "the list of objects can't be shortened: No space left on device" in caplog.text
    assert len(store.ledger.objects) == 1000


async def test_descriptors_without_a_list(open_store: Open, memory: int) -> None:
    with pytest.raises(Unreadable, match="there is no list"):
        open_store(found={"memd-1": memory})


async def test_files_that_are_made(open_store: Open, memory: int) -> None:
    store = open_store()
    number = store.making(b"relative/\xff")
    assert store.ledger.makings[number]["path"] == f"{os.getcwd()}/relative/\udcff"
    store.made(number, memory)
    assert store.ledger.makings[number]["ino"] == os.fstat(memory).st_ino
    store.settled(number)
    assert store.ledger.makings == {}


async def test_the_manager_goes_away(
    manager: ServiceManager, open_store: Open, memory: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What was to be removed is removed once it is back; nobody waits for it."""
    store = open_store()
    store.park(1, memory)
    os.rename(manager.address, manager.address + ".away")
    store.remove(1)
    store.settle()
    with pytest.raises(FileNotFoundError):
        store.park(2, memory)
    os.rename(manager.address + ".away", manager.address)
    while LIST not in manager.names() or len(manager.names()) > 1:
        await asyncio.sleep(0.01)
    assert "the service manager can't be reached: No such file or directory" in caplog.text
