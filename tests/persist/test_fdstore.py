"""The store and its list; what a daemon makes of them is in tests/app."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memd.persist.fdstore import LIST, FdStore, capacity_of, let_more_be_opened, name_of
from memd.persist.sd_notify import Notifier
from tests.manager import ServiceManager
from tests.seccomp import Lacking, without

Open = Callable[..., FdStore]


@pytest.mark.parametrize(
    ("environ", "capacity"),
    [({}, 0), ({"FDSTORE": "512"}, 512), ({"FDSTORE": "-1"}, 0), ({"FDSTORE": ""}, 0)],
)
def test_the_capacity(environ: dict[str, str], capacity: int) -> None:
    assert capacity_of(environ) == capacity


@without(Lacking(302 if os.uname().machine == "x86_64" else 261, error=errno.EPERM))
def test_a_limit_that_can_not_be_raised() -> None:
    """As in a sandbox without prlimit(2): the start goes on."""
    let_more_be_opened({"a": 1 << 30})


@pytest.fixture
def manager(manage: Callable[..., ServiceManager]) -> ServiceManager:
    manager = manage(capacity=4)
    manager.main = os.getpid()
    return manager


@pytest.fixture
async def open_store(manager: ServiceManager) -> Any:
    opened: list[tuple[FdStore, Notifier]] = []

    def open_store(capacity: int = 4, found: tuple[str, ...] = (LIST,)) -> FdStore:
        notifier = Notifier(manager.address)
        store = FdStore(notifier, asyncio.get_running_loop(), capacity, found)
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


async def test_capacity_for_so_many(manager: ServiceManager, open_store: Open, memory: int) -> None:
    store = open_store()
    for number in (1, 2, 3):
        assert store.has_free_place()
        assert store.store(name_of(number), memory)
        assert store.has(name_of(number))
    assert not store.has_free_place()
    store.remove(name_of(2))
    store.remove(name_of(2))
    store.remove(name_of(99))
    assert store.has_free_place()
    manager.catch_up()
    assert "memd-2" not in manager.names()


async def test_removals_go_before(manager: ServiceManager, open_store: Open) -> None:
    """However far behind the manager is: much that comes and goes does not fill its store."""
    memories = [os.memfd_create("memory") for _ in range(6)]
    store = open_store()
    for number in (1, 2, 3):
        store.store(name_of(number), memories[number])
    manager.catch_up()
    with manager.deaf():
        while store._notifier.send("X=1"):
            pass
        store.remove(name_of(1))
        store.remove(name_of(2))
        assert store.has_free_place()
        assert not store.store(name_of(4), memories[4])
        storing = threading.Thread(target=store.store, args=(name_of(4), memories[4], True))
        storing.start()
        # The loop waits for nobody.
        store.remove(name_of(3))
    storing.join(60)
    assert store.store(name_of(5), memories[5], True)
    manager.catch_up()
    assert manager.names() == ["memd-4", "memd-5"]
    for fd in memories:
        os.close(fd)


async def test_names_fit_into_the_environment(open_store: Open, memory: int) -> None:
    """Of a store of any size no more is used than can be passed on (execve(2))."""
    store = open_store(capacity=0)
    number = 1 << 20
    while store.has_free_place():
        store._account(name_of(number))
        number += 1
    passed = "LISTEN_FDNAMES=" + ":".join(store._names)
    assert (100 << 10) < len(passed) < (128 << 10)


async def test_another_daemon_has_it(
    manager: ServiceManager, open_store: Open, memory: int
) -> None:
    open_store().store(name_of(2), memory)
    manager.catch_up()
    other = open_store(found=tuple(manager.names()))
    assert other.has(name_of(2))
    other.remove(name_of(2))
    manager.catch_up()
    assert manager.names() == []


async def test_the_manager_goes_away(
    manager: ServiceManager, open_store: Open, memory: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What was to be removed is removed once it is back; nobody waits for it."""
    store = open_store()
    store.store(name_of(1), memory)
    manager.catch_up()
    with manager.away():
        store.remove(name_of(1))
        store.wait_for_manager()
        with pytest.raises(FileNotFoundError):
            store.store(name_of(2), memory)
    while manager.names():
        await asyncio.sleep(0.01)
    assert "the service manager can't be reached: No such file or directory" in caplog.text
