"""What is kept while the daemon runs: each kind, each moment, and a manager that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from memd.commands.memdev import x_memdev_export
from memd.errors import QMPError
from memd.hostmem import access
from memd.hostmem.host import Host
from memd.persist.fdstore import LIST
from memd.persist.object_log import LogFile
from memd.persist.sd_notify import Notifier
from memd.work import run_here
from tests.backends.doing import MIB, delete, get, region_of
from tests.commands.fakes import daemon_of, make_local_session
from tests.differential.kernel import descriptors
from tests.hostmem.smaps import rows
from tests.kvm import needs_guest_memfd
from tests.persist.life import Begin, Killed, Life, add
from tests.persist.test_object_log import no_larger_file
from tests.stepping import Running, as_user


def properties(life: Life, id: str = "m0") -> dict[str, Any]:
    obj = life.tree.resolve(f"/objects/{id}")
    return {
        name: prop.getter(obj)
        for name, prop in obj.qom_type.all_properties.items()
        if prop.getter is not None and name != "thread-id"
    }


def mapping(life: Life, id: str = "m0") -> Any:
    """How the kernel has it mapped, wherever that is."""
    region = region_of(life.tree, id)
    (row,) = [each for each in rows() if each.start == region.address]
    return row.permissions, row.offset, row.flags, region.length, region.page_size, region.exports


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("memfd", {}),
    ("memfd", {"seal": False, "merge": False, "dump": False, "prealloc": True}),
    ("memfd", {"prealloc-threads": 3, "x-use-canonical-path-for-ramblock-id": True}),
    ("memfd", {"policy": "bind", "host-nodes": [0]}),
    ("shm", {"reserve": False}),
    ("ram", {"share": True}),
    ("ram", {"share": True, "size": 5000}),
    ("file", {"share": True, "mem-path": "new"}),
    ("file", {"share": True, "mem-path": "there", "offset": 4096, "align": 2 * MIB}),
    ("file", {"share": True, "mem-path": ".", "discard-data": True}),
    ("file", {"share": True, "mem-path": "there", "pmem": True}),
    ("file", {"readonly": True, "mem-path": "there"}),
    ("file", {"readonly": True, "share": True, "mem-path": "there"}),
    pytest.param("guest-memfd", {}, marks=needs_guest_memfd),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
async def test_each_kind(begin: Begin, directory: Path, kind: str, options: dict[str, Any]) -> None:
    """The same properties, the same mapping, every byte; twice."""
    (directory / "there").write_bytes(b"t" * (MIB + 4096))
    options = {"size": MIB, **options}
    if "mem-path" in options:
        options["mem-path"] = f"{directory}/{options['mem-path']}"
    life = await begin()
    add(life, kind, **options)
    region = region_of(life.tree)
    if region.writable:
        access.write(region, "m0", 4096 if kind == "guest-memfd" else 1, b"every byte")
    content = access.read(region, "m0", 0, life.tree.resolve("/objects/m0").get_property("size"))
    before = properties(life), mapping(life), os.fstat(region.fd).st_ino
    for _ in range(2):
        life.kill()
        (directory / "there").rename(directory / "there.")
        life = await begin()
        (directory / "there.").rename(directory / "there")
        region = region_of(life.tree)
        assert (properties(life), mapping(life), os.fstat(region.fd).st_ino) == before
        assert access.read(region, "m0", 0, len(content)) == content
        assert life.manager.names() == ["memd-list", "memd-1" if kind != "shm" else "memd-2"] or (
            kind == "file"
        )


async def test_in_their_order(begin: Begin) -> None:
    life = await begin()
    for number in (3, 1, 2):
        add(life, "memfd", f"m{number}", size=4096)
    add(life, "thread-context", "t0", cpu_affinity=[0])
    life.set("m1", "prealloc-context", "/objects/t0")
    life.kill()
    life = await begin()
    assert life.ids() == ["m3", "m1", "m2", "t0"]
    assert get(life.tree, "prealloc-context", "m1") == "/objects/t0"
    assert get(life.tree, "cpu-affinity", "t0") == [0]


async def test_changes(begin: Begin) -> None:
    life = await begin()
    add(life, "memfd", size=MIB)
    for name, value in (
        ("merge", False),
        ("dump", False),
        ("prealloc", True),
        ("prealloc-threads", 2),
        # Shown, and not where the memory is bound to.
        ("policy", "bind"),
        ("host-nodes", [3]),
    ):
        life.set("m0", name, value)
    before = properties(life), mapping(life)
    assert "dd" in before[1][2]
    life.kill()
    life = await begin()
    assert (properties(life), mapping(life)) == before


async def test_what_is_set_elsewhere(begin: Begin) -> None:
    """Objects that are not kept, such as the machine, are changed as ever."""
    life = await begin()
    add(life, "memfd", size=4096)
    before = life.storage.log.state.objects.copy()
    for path, name in (("/machine", "mem-merge"), ("/objects/m0/m0[0]", "priority")):
        obj = life.tree.resolve(path)
        with contextlib.suppress(QMPError):
            run_here(life.tree.objects.change(obj, name, False))
    assert life.storage.log.state.objects == before


async def test_deleted(begin: Begin) -> None:
    life = await begin()
    add(life, "memfd", size=4096)
    add(life, "memfd", "m1", size=4096)
    delete(life.tree)
    life.manager.catch_up()
    assert life.manager.names() == ["memd-list", "memd-2"]
    # The same id is another object.
    add(life, "ram", size=8192, share=True)
    life.kill()
    life = await begin()
    assert life.ids() == ["m1", "m0"]
    assert get(life.tree, "type") == "memory-backend-ram"


class Doom:
    """Ends the process at one of the moments at which it tells somebody something.

    Attributes:
        left: how many are let pass.
        passed: how many there were.
    """

    def __init__(self, patch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        self.passed = 0
        for where, name in (
            (Notifier, "send"),
            (LogFile, "append"),
            (os, "open"),
            (os, "unlink"),
            (os, "ftruncate"),
            (Host, "look"),
        ):
            self._guard(patch, where, name)
        from memd.hostmem.region import Region

        self._guard(patch, Region, "discard")
        self._guard(patch, Region, "close")

    def _guard(self, patch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        real = getattr(where, name)

        def guarded(*args: Any, **named: Any) -> Any:
            if self.left >= 0 and self.passed >= self.left:
                raise Killed
            self.passed += 1
            return real(*args, **named)

        patch.setattr(where, name, guarded)


ADDED: list[tuple[str, dict[str, Any]]] = [
    ("memfd", {}),
    ("shm", {}),
    ("file", {"share": True, "mem-path": "new"}),
    ("file", {"share": True, "mem-path": "new", "prealloc": True}),
    ("file", {"share": True, "mem-path": "."}),
    ("ram", {}),
    ("thread-context", {}),
]


@pytest.mark.parametrize(("kind", "options"), ADDED, ids=str)
async def test_killed_while_adding(
    begin: Begin, directory: Path, kind: str, options: dict[str, Any]
) -> None:
    """At whichever step: it is there whole, or nothing of it is, its file included."""
    options = dict(options)
    if kind != "thread-context":
        options["size"] = MIB
    if "mem-path" in options:
        (directory / "files").mkdir()
        options["mem-path"] = f"{directory}/files/{options['mem-path']}"
    outcomes = set()
    for step in range(100):
        life = await begin()
        with pytest.MonkeyPatch.context() as patch:
            doom = Doom(patch, step)
            try:
                add(life, kind, **options)
                killed = False
            except Killed:
                killed = True
        life.kill()
        life = await begin()
        there = life.ids() == ["m0"]
        outcomes.add(there)
        stored = there and kind != "thread-context"
        assert len(life.manager.names()) == 1 + stored
        if "mem-path" in options:
            left = os.listdir(directory / "files")
            assert left == (["new"] if there and options["mem-path"].endswith("new") else [])
        if there:
            if stored:
                assert region_of(life.tree).length == os.fstat(region_of(life.tree).fd).st_size
            delete(life.tree)
            for name in os.listdir(directory / "files") if "mem-path" in options else ():
                os.unlink(directory / "files" / name)
        life.kill()
        if not killed:
            break
    assert doom.passed >= 1
    assert not [*Path("/dev/shm").glob(f"qemu-{os.getpid()}-*")]
    # Private memory is gone either way.
    assert outcomes == ({False} if (kind, "share" in options) == ("ram", False) else {False, True})
    await begin()


@pytest.mark.parametrize("discard", [False, True])
async def test_killed_while_deleting(begin: Begin, directory: Path, discard: bool) -> None:
    """At whichever step: it is there whole, or gone whole, its data included where that goes."""
    path = directory / "data"
    outcomes = set()
    for step in range(100):
        path.write_bytes(b"x" * MIB)
        life = await begin()
        add(life, "file", share=True, size=MIB, mem_path=str(path), discard_data=discard)
        with pytest.MonkeyPatch.context() as patch:
            doom = Doom(patch, step)
            try:
                delete(life.tree)
                killed = False
            except Killed:
                killed = True
        life.kill()
        life = await begin()
        there = life.ids() == ["m0"]
        outcomes.add(there)
        assert len(life.manager.names()) == 1 + there
        content = path.read_bytes()
        assert content == (b"x" if there or not discard else b"\0") * MIB
        if there:
            delete(life.tree)
        life.kill()
        if not killed:
            break
    assert doom.passed > 2
    assert outcomes == {False, True}
    await begin()


def clog(life: Life) -> None:
    """Have the manager's socket full."""
    notifier: Notifier = cast("Any", life.storage.fdstore)._notifier
    while notifier.send("X=1"):
        pass


async def test_a_manager_without_an_ear_for_an_addition(begin: Begin) -> None:
    """It is waited for beside the loop, and the object is listed when it is stored."""
    life = await begin()
    with life.manager.deaf():
        clog(life)
        memfd = {"qom-type": "memory-backend-memfd", "id": "m0", "size": 4096}
        slow = Running(life.tree.objects.create(memfd))
        assert life.ids() == []
        with pytest.raises(QMPError, match="duplicate"):
            run_here(life.tree.objects.create(memfd))
        working = threading.Thread(target=slow.finish)
        working.start()
    working.join(60)
    assert life.ids() == ["m0"]
    life.kill()
    life = await begin()
    assert life.ids() == ["m0"]


async def test_a_manager_without_an_ear_for_a_deletion(begin: Begin) -> None:
    """The object goes at once, its descriptor once the manager reads again."""
    life = await begin()
    add(life, "memfd", size=4096)
    with life.manager.deaf():
        clog(life)
        delete(life.tree)
        assert life.ids() == []
    while len(life.manager.names()) > 1:
        await asyncio.sleep(0.01)


async def test_a_manager_that_has_gone(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Objects are made and deleted all the same; they will be told to be lost."""
    life = await begin()
    add(life, "memfd", "m1", size=4096)
    with life.manager.away():
        add(life, "memfd", size=4096)
        delete(life.tree, "m1")
    assert "the service manager can't be reached: " in caplog.text
    life.kill()
    life = await begin()
    assert life.ids() == []
    assert [(each["id"], each["reason"]) for each in life.service.lost.values()] == [
        ("m0", "not-stored")
    ]


async def test_no_room(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """What the store has no room for is there until the daemon ends, and told to be lost then."""
    life = await begin()
    life.manager.capacity = 3
    life.kill()
    life = await begin()
    for number in range(4):
        add(life, "memfd", f"m{number}", size=4096)
    delete(life.tree, "m0")
    add(life, "memfd", "m4", size=4096)
    assert life.ids() == ["m1", "m2", "m3", "m4"]
    kept = {"m1": True, "m2": False, "m3": False, "m4": True}
    assert {obj.name: obj.kept for obj in life.tree.objects.each()} == kept
    assert caplog.messages[-2:] == [
        f"'{id}' is not kept: the service manager has no room for it" for id in ("m2", "m3")
    ]
    life.kill()
    assert len(life.manager.names()) == 3
    life = await begin()
    assert life.ids() == ["m1", "m4"]
    assert {each["id"]: each["reason"] for each in life.service.lost.values()} == {
        "m2": "not-stored",
        "m3": "not-stored",
    }


async def test_the_last_room_is_one_objects(begin: Begin) -> None:
    """Also where the manager does not read, and several wait for it."""
    life = await begin()
    life.manager.capacity = 2
    life.kill()
    life = await begin()
    with life.manager.deaf():
        while life.storage.fdstore.store(LIST, life.storage.log.fd):
            pass
        waiting = []
        for id in ("m0", "m1", "m2"):
            options = {"qom-type": "memory-backend-memfd", "id": id, "size": 4096}
            waiting.append(Running(life.tree.objects.create(options)))
    for running in waiting:
        running.finish()
    life.kill()
    assert len(life.manager.names()) == 2
    life = await begin()
    assert life.ids() == ["m0"]
    assert {id: each["reason"] for id, each in life.service.lost.items()} == {
        "m1": "not-stored",
        "m2": "not-stored",
    }


async def test_room_that_was_not_taken(begin: Begin) -> None:
    """It is another object's, where the manager could not be reached."""
    life = await begin()
    life.manager.capacity = 2
    life.kill()
    life = await begin()
    with life.manager.away():
        add(life, "memfd", "m0", size=4096)
        add(life, "memfd", "m1", size=4096)
    add(life, "memfd", "m2", size=4096)
    life.kill()
    life = await begin()
    assert life.ids() == ["m2"]
    assert sorted(life.service.lost) == ["m0", "m1"]


async def test_no_memory_for_the_list(begin: Begin, directory: Path) -> None:
    """What can't be noted is refused, and nothing has changed."""
    life = await begin()
    add(life, "memfd", size=4096)
    life.manager.catch_up()
    before = descriptors(os.getpid())

    text = "cannot note it for a restart: File too large"
    path = directory / "precious"
    path.write_bytes(b"x" * 4096)
    with no_larger_file(os.fstat(life.storage.log.fd).st_size):
        for work in (
            lambda: add(life, "memfd", "m1", size=4096),
            lambda: add(life, "memfd", "m1", size=4096, prealloc=True),
            lambda: add(
                life, "file", "m1", size=4096, mem_path=str(path), share=True, discard_data=True
            ),
            lambda: delete(life.tree),
            lambda: life.set("m0", "dump", False),
            lambda: run_here(
                x_memdev_export(daemon_of(life.tree), make_local_session(), {"id": "m0"})
            ),
        ):
            with pytest.raises(QMPError) as caught:
                work()
            assert caught.value.desc == text
    assert path.read_bytes() == b"x" * 4096
    assert life.ids() == ["m0"]
    assert region_of(life.tree).exports == 0
    life.manager.catch_up()
    assert descriptors(os.getpid()) <= before
    add(life, "memfd", "m1", size=4096)


async def test_no_memory_for_what_only_saves_work(
    begin: Begin, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the list, or off it, stays so."""
    life = await begin()
    add(life, "ram", size=4096)
    life.kill()
    life = await begin()
    real = LogFile.append
    left = 0

    def refuse_later(journal: LogFile, line: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(journal, line)

    path = directory / "new"
    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "append", refuse_later)
        # Making it, having made it, the object.
        left = 3
        add(life, "file", size=4096, mem_path=str(path), share=True, discard_data=True)
    life.kill()
    life = await begin()
    assert life.ids() == ["m0"]
    assert path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "append", refuse_later)
        left = 1
        delete(life.tree)
    life.kill()
    life = await begin()
    assert life.ids() == []
    assert life.manager.names() == ["memd-list"]


async def test_memory_is_free_once_it_is_deleted(begin: Begin) -> None:
    """Of much memory: the manager has closed its descriptor before the answer is given."""
    life = await begin()
    add(life, "memfd", size=65 * MIB)
    acting = threading.Event()

    def act_late() -> None:
        with life.manager.deaf():
            acting.set()
            time.sleep(0.1)

    late = threading.Thread(target=act_late)
    late.start()
    acting.wait()
    delete(life.tree)
    assert life.manager.names() == ["memd-list"]
    late.join()


async def test_huge_pages(begin: Begin, hugepages: Callable[[int], None]) -> None:
    """They are back, and free for the next one as soon as they are deleted."""
    hugepages(2)
    life = await begin()
    for _ in range(3):
        add(life, "memfd", size=4 * MIB, hugetlb=True, prealloc=True)
        access.write(region_of(life.tree), "m0", 2 * MIB, b"huge")
        life.kill()
        life = await begin()
        region = region_of(life.tree)
        assert region.page_size == 2 * MIB
        assert access.read(region, "m0", 2 * MIB, 4) == b"huge"
        delete(life.tree)


async def test_the_data_of_what_is_kept_stays(begin: Begin, directory: Path) -> None:
    """The daemon's end is not a deletion, whatever discard-data says."""
    path = directory / "data"
    path.write_bytes(b"x" * MIB)
    life = await begin()
    add(life, "file", share=True, size=MIB, mem_path=str(path), discard_data=True)
    life.end()
    assert path.read_bytes() == b"x" * MIB
    life = await begin()
    assert get(life.tree, "discard-data") is True
    run_here(life.tree.objects.delete("m0"))
    assert path.read_bytes() == b"\0" * MIB


async def test_who_made_it(begin: Begin) -> None:
    """It counts for the same user as before, whatever the limits are now."""
    life = await begin()
    options = {"qom-type": "memory-backend-memfd", "id": "m0", "size": MIB}
    with as_user(1234):
        run_here(life.tree.objects.create(options))
    life.kill()
    life = await begin()
    assert life.tree.objects.quota.users == {1234: MIB}
    assert life.tree.objects.quota.objects == 1


async def test_how_often_it_was_exported(begin: Begin) -> None:
    life = await begin()
    add(life, "memfd", size=MIB)
    outcome = run_here(x_memdev_export(daemon_of(life.tree), make_local_session(), {"id": "m0"}))
    os.close(outcome.fds[0])
    life.kill()
    life = await begin()
    assert region_of(life.tree).exports == 1


async def test_a_surprise_while_it_is_recorded(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is free, so is the room in the store, and the memory is gone."""
    life = await begin()
    life.manager.capacity = 2
    life.kill()
    life = await begin()

    def surprise(*_args: Any, **_named: Any) -> bool:
        raise ZeroDivisionError

    before = descriptors(os.getpid())
    for where, name in ((Notifier, "send"), (LogFile, "append")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, surprise)
            with pytest.raises(ZeroDivisionError):
                add(life, "memfd", size=4096)
        assert life.ids() == []
        # It has a copy until it has read that it is to drop it.
        life.manager.catch_up()
        assert descriptors(os.getpid()) == before
        assert life.tree.objects.quota.objects == 0
    add(life, "memfd", size=4096)
    life.kill()
    life = await begin()
    assert life.ids() == ["m0"]


async def test_what_can_not_be_recorded_has_not_changed(begin: Begin) -> None:
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "thread-context", "t0")
    with as_user(1234):
        add(life, "secret", "s0", data="x")
    cpus = sorted(os.sched_getaffinity(0))[:1]
    kept = life.tree.objects.account.places
    changes: list[tuple[str, str, Any]] = [
        ("m0", "dump", False),
        ("m0", "merge", False),
        ("m0", "prealloc", True),
        ("m0", "host-nodes", [0]),
        ("m0", "policy", "bind"),
        ("m0", "prealloc-context", "/objects/t0"),
        ("t0", "cpu-affinity", cpus),
        ("s0", "iv", "x" * 1000),
    ]
    for id, name, value in changes:
        was, there = get(life.tree, name, id), kept.of(1234)
        # Nothing is written beyond the size that the log has.
        with (
            no_larger_file(os.fstat(life.storage.log.fd).st_size),
            pytest.raises(QMPError, match="cannot note it for a restart"),
        ):
            life.set(id, name, value)
        assert (get(life.tree, name, id), kept.of(1234)) == (was, there)
        life.set(id, name, value)
        assert get(life.tree, name, id) == value
    life.kill()
    life = await begin()
    for id, name, value in changes:
        assert get(life.tree, name, id) == value
