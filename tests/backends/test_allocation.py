from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.hostmem import populate
from memd.hostmem.host import NO_RESERVE_UNSUPPORTED, Host
from memd.hostmem.region import LARGE
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import SHARED_MEMORY, Job
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.conftest import NOT_HERE
from tests.differential.harness import Side
from tests.differential.server import Monitor, qemu_argv, running
from tests.hostmem.made import HeldHost, StrictHost
from tests.hostmem.smaps import row_of
from tests.stepping import Running, close_all

GIVEN_UP = "qemu_prealloc_mem: preallocating memory failed: Operation canceled"


def start(tree: Tree, kind: str, **options: JSON) -> Running:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    arguments = {"qom-type": f"memory-backend-{kind}", "id": "m0", **named}
    return Running(tree.objects.create(arguments))


def start_to_set(tree: Tree, name: str, value: JSON) -> Running:
    return Running(tree.objects.change(tree.resolve("/objects/m0"), name, value))


@pytest.mark.parametrize("kind", ["ram", "memfd"])
def test_quick_ones_are_made_at_once(tree: Tree, kind: str) -> None:
    assert start(tree, kind, size=MIB).wait is None
    assert get(tree, "size") == MIB


@pytest.mark.parametrize("kind", ["ram", "memfd", "shm"])
def test_what_may_take_long_is_made_beside(tree: Tree, kind: str) -> None:
    slow = start(tree, kind, size=MIB, prealloc=True)
    assert isinstance(slow.wait, Job)
    # The id is taken, the object is not there.
    assert tree.objects.get("m0") is None
    assert refusal(lambda: start(tree, "ram", size=MIB)) == (
        "attempt to add duplicate property 'm0' to object (type 'container')"
    )
    slow.finish()
    assert get(tree, "prealloc") is True
    row = row_of(region_of(tree).address)
    assert row is not None
    assert row.resident == MIB


def test_what_was_exported_is_populated_in_a_thread_of_its_users(tree: Tree) -> None:
    """Another process that has it may have it take long; work on memory alone goes on."""
    start(tree, "memfd", size=MIB)
    region_of(tree).exports = 1
    slow = start_to_set(tree, "prealloc", True)
    assert isinstance(slow.wait, Job)
    assert slow.wait.on == SHARED_MEMORY
    slow.finish()


def test_a_file_is_opened_in_a_thread(tree: Tree, directory: Path) -> None:
    (directory / "f").write_bytes(bytes(MIB))
    slow = start(tree, "file", size=MIB, mem_path=str(directory / "f"))
    assert isinstance(slow.wait, Job)
    slow.finish()
    assert get(tree, "size") == MIB


def test_a_file_in_memory_is_opened_at_once(
    tree: Tree, directory: Path, mount: Callable[..., None]
) -> None:
    """Once it is known that it is in memory; one with a lease is not, nor what others may write."""
    mount("tmpfs", directory)
    path = directory / "f"
    path.write_bytes(bytes(MIB))
    add(tree, "file", size=MIB, mem_path=str(path))
    delete(tree)
    if not tree.host._tmpfs:
        pytest.skip(f"{NOT_HERE}Linux 6.8")
    assert start(tree, "file", size=MIB, mem_path=str(path)).wait is None
    delete(tree)
    path.chmod(0o666)
    slow = start(tree, "file", size=MIB, mem_path=str(path))
    assert isinstance(slow.wait, Job)
    slow.finish()
    assert Running(tree.objects.delete("m0")).finish() is None
    path.chmod(0o644)
    with path.open("rb") as file:
        fcntl.fcntl(file, 10, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        slow = start(tree, "file", size=MIB, mem_path=str(path))
        assert isinstance(slow.wait, Job)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        slow.finish()


def test_huge_pages_are_set_aside_beside(
    tree: Tree, directory: Path, mount: Callable[..., None], hugepages: Callable[[int], None]
) -> None:
    hugepages(4)
    mount("hugetlbfs", directory / "huge")
    slow = start(tree, "memfd", size=2 * MIB, hugetlb=True)
    assert isinstance(slow.wait, Job)
    slow.finish()
    delete(tree)
    for name in ("", "f", "f"):
        slow = start(tree, "file", size=2 * MIB, mem_path=str(directory / "huge" / name))
        assert isinstance(slow.wait, Job)
        slow.finish()
        assert region_of(tree).page_size == 2 * MIB
        delete(tree)


FAILURES: list[tuple[dict[str, JSON], str]] = [
    ({"size": 1 << 62}, "Cannot allocate memory"),
    ({"size": MIB, "policy": "bind"}, "host-nodes must be set for policy bind"),
    ({"size": MIB, "policy": "preferred"}, "host-nodes must be set for policy preferred"),
    (
        {"size": MIB, "host_nodes": [0]},
        "host-nodes must be empty for policy default, or you should explicitly specify a"
        " policy other than default",
    ),
    (
        {"size": MIB, "host_nodes": [126], "policy": "bind"},
        "cannot bind memory to host NUMA nodes: Invalid argument",
    ),
]


@pytest.mark.parametrize("prealloc", [False, True])
@pytest.mark.parametrize(("options", "text"), FAILURES)
@pytest.mark.parametrize("kind", ["ram", "memfd", "shm", "file"])
def test_failures_leave_nothing(
    tree: Tree, directory: Path, kind: str, options: dict[str, JSON], text: str, prealloc: bool
) -> None:
    more: dict[str, JSON] = {"prealloc": prealloc}
    if kind == "file":
        more["mem_path"] = str(directory / "new")
    for _ in range(2):
        # Twice: the id is free again.
        assert text in refusal(lambda: add(tree, kind, **options, **more))
    assert os.listdir(directory) == []
    assert tree.objects.get("m0") is None


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_a_full_file_system(
    tree: Tree, directory: Path, mount: Callable[..., None], share: bool, existing: bool
) -> None:
    mount("tmpfs", directory / "small", "size=1m")
    path = directory / "small/f"
    if existing:
        path.touch()
    options: dict[str, JSON] = {"size": 2 * MIB, "mem_path": str(path), "share": share}
    text = "qemu_prealloc_mem: preallocating memory failed: Bad address"
    assert refusal(lambda: add(tree, "file", prealloc=True, **options)) == text
    # The file goes if it was made for this.
    assert path.exists() is existing
    path.unlink(missing_ok=True)
    add(tree, "file", **options)
    assert refusal(lambda: change(tree, "prealloc", True)) == text
    assert get(tree, "prealloc") is False
    assert not region_of(tree).pinned
    delete(tree)
    assert path.exists()


def test_rom_can_be_preallocated(tree: Tree, directory: Path) -> None:
    (directory / "f").write_bytes(b"x" * MIB)
    for share in (False, True):
        options = {"size": MIB, "mem_path": str(directory / "f"), "share": share}
        add(tree, "file", readonly=True, prealloc=True, **options)
        row = row_of(region_of(tree).address)
        assert row is not None
        assert (row.resident, row.permissions[1]) == (MIB, "-")
        delete(tree)
    assert (directory / "f").read_bytes() == b"x" * MIB


def test_unreserved_memory_where_nothing_is_overcommitted(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    tree.host = StrictHost()
    assert refusal(lambda: add(tree, "ram", size=MIB, reserve=False)) == (
        "cannot set up guest memory 'm0'"
    )
    assert refusal(lambda: add(tree, "memfd", size=MIB, reserve=False, share=False)) == (
        "unable to map backing store for guest RAM"
    )
    assert [record.getMessage() for record in caplog.records] == [NO_RESERVE_UNSUPPORTED] * 2
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("memd", logging.WARNING)
    }
    add(tree, "memfd", size=MIB, reserve=False)


class Buggy(Host):
    """A kernel that memd does not know how to ask."""

    def advise(self, address: int, length: int, advice: int) -> int:
        raise ZeroDivisionError


def test_a_bug_leaves_nothing_either(tree: Tree) -> None:
    host, tree.host = tree.host, Buggy()
    for prealloc in (False, True):
        for kind in ("ram", "memfd"):
            with pytest.raises(ZeroDivisionError):
                add(tree, kind, size=MIB, prealloc=prealloc)
    tree.host = host
    add(tree, "ram", size=MIB)


@pytest.mark.parametrize("kind", ["ram", "memfd"])
def test_large_memory_is_let_go_beside(tree: Tree, kind: str) -> None:
    add(tree, kind, size=LARGE + 4096)
    address = region_of(tree).address
    slow = Running(tree.objects.delete("m0"))
    assert isinstance(slow.wait, Job)
    # Gone from the tree, and the id is free, at once.
    assert refusal(lambda: delete(tree)) == "object 'm0' not found"
    add(tree, kind, size=LARGE)
    assert row_of(address) is not None
    slow.finish()
    assert row_of(address) is None
    assert Running(tree.objects.delete("m0")).wait is None


def test_merge_of_large_memory_is_undone_beside(tree: Tree) -> None:
    add(tree, "ram", size=LARGE + 4096)
    slow = start_to_set(tree, "merge", False)
    assert isinstance(slow.wait, Job)
    assert get(tree, "merge") is True
    slow.finish()
    assert get(tree, "merge") is False
    assert not region_of(tree).pinned
    assert start_to_set(tree, "merge", True).wait is None


LARGER = 2 * populate.CHUNK
"""Bytes that are populated in more than one step."""


@pytest.fixture
def held(tree: Tree) -> Iterator[HeldHost]:
    """The tree's kernel, which waits after a step."""
    tree.host = host = HeldHost()
    yield host
    host.go_on.set()


def beside(slow: Running) -> tuple[threading.Thread, list[JSON]]:
    """Run it in a thread; its outcome comes in a list."""
    outcome: list[JSON] = []

    def work() -> None:
        try:
            outcome.append(slow.finish())
        except QMPError as error:
            outcome.append(error.desc)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def test_deleted_while_it_is_populated(tree: Tree, held: HeldHost) -> None:
    add(tree, "ram", size=LARGER)
    region = region_of(tree)
    thread, outcome = beside(start_to_set(tree, "prealloc", True))
    assert held.begun.wait(60)
    slow = Running(tree.objects.delete("m0"))
    assert tree.objects.get("m0") is None
    slow.finish()
    # A thread that works on it still has it.
    assert row_of(region.address) is not None
    held.go_on.set()
    thread.join(60)
    assert outcome == [GIVEN_UP]
    assert row_of(region.address) is None


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_deleted_while_it_is_made(tree: Tree, directory: Path, held: HeldHost, kind: str) -> None:
    options = {"mem_path": str(directory / "new")} if kind == "file" else {}
    making, made = beside(start(tree, kind, size=LARGER, prealloc=True, **options))
    assert held.begun.wait(60)
    deleting, deleted = beside(Running(tree.objects.delete("m0")))
    # A second one finds nothing to delete, and the id is not free before the memory is.
    assert refusal(lambda: delete(tree)) == "object 'm0' not found"
    assert "duplicate property 'm0'" in refusal(lambda: start(tree, "ram", size=MIB))
    assert (made, deleted) == ([], [])
    held.go_on.set()
    making.join(60)
    deleting.join(60)
    assert (made, deleted) == ([GIVEN_UP], [None])
    assert os.listdir(directory) == []
    add(tree, "ram", size=MIB)


SECOND: dict[str, JSON] = {"qom-type": "memory-backend-file", "id": "second", "size": LARGER}
Use = Callable[[Path], object]


@contextlib.contextmanager
def in_this_memd(request: pytest.FixtureRequest) -> Iterator[Use]:
    tree: Tree = request.getfixturevalue("tree")
    yield lambda path: add(tree, "file", "second", size=LARGER, mem_path=str(path), share=True)
    delete(tree, "second")


@contextlib.contextmanager
def in_another_memd(request: pytest.FixtureRequest) -> Iterator[Use]:
    memd: Side = request.getfixturevalue("memd")
    yield lambda path: add_second(memd.monitor, path)


@contextlib.contextmanager
def in_a_qemu(request: pytest.FixtureRequest) -> Iterator[Use]:
    with running("QEMU", qemu_argv(), request.getfixturevalue("tmp_path")) as server:
        monitor = server.monitor()
        yield lambda path: add_second(monitor, path)


def add_second(monitor: Monitor, path: Path) -> None:
    options = {**SECOND, "share": True, "mem-path": str(path)}
    assert monitor.execute("object-add", options) == {"return": {}}


@contextlib.contextmanager
def by_a_descriptor(_request: pytest.FixtureRequest) -> Iterator[Use]:
    with contextlib.ExitStack() as stack:
        yield lambda path: stack.enter_context(path.open("rb"))


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("used", [in_this_memd, in_another_memd, in_a_qemu, by_a_descriptor])
def test_given_up_when_somebody_else_uses_its_file(
    request: pytest.FixtureRequest,
    tree: Tree,
    directory: Path,
    held: HeldHost,
    used: Callable[[pytest.FixtureRequest], contextlib.AbstractContextManager[Use]],
    discard: bool,
) -> None:
    """The file was made for what is given up; it stays, with what was written meanwhile."""
    path = directory / "new"
    options: dict[str, JSON] = {"share": True, "prealloc": True, "discard_data": discard}
    with used(request) as use:
        thread, outcome = beside(start(tree, "file", size=LARGER, mem_path=str(path), **options))
        assert held.begun.wait(60)
        use(path)
        with path.open("r+b") as file:
            file.write(b"theirs")
        deleting = Running(tree.objects.delete("m0"))
        held.go_on.set()
        thread.join(60)
        deleting.finish()
        assert outcome == [GIVEN_UP]
        assert path.read_bytes()[:6] == b"theirs"


def test_given_up_before_it_has_begun(tree: Tree) -> None:
    slow = start(tree, "ram", size=MIB, prealloc=True)
    deleting = Running(tree.objects.delete("m0"))
    assert refusal(slow.finish) == GIVEN_UP
    deleting.finish()


@pytest.mark.parametrize("size", [MIB, LARGE + MIB])
def test_too_late_to_give_it_up(tree: Tree, size: int) -> None:
    """It was made when its end had not come to the loop: it is deleted then."""
    slow = start(tree, "ram", size=size, prealloc=True)
    region = slow.job.work()
    deleting = Running(tree.objects.delete("m0"))
    slow.resume(region)
    assert tree.objects.get("m0") is not None
    deleting.finish()
    assert tree.objects.get("m0") is None
    assert row_of(region.address) is None


def test_what_waits_for_a_disk_is_given_up(tree: Tree, directory: Path) -> None:
    slow = start(tree, "file", size=MIB, mem_path=str(directory / "new"))
    deleting = Running(tree.objects.delete("m0"))
    assert refusal(slow.finish) == GIVEN_UP
    deleting.finish()
    assert os.listdir(directory) == []


def test_how_far_it_is(tree: Tree, held: HeldHost) -> None:
    slow = start(tree, "ram", size=LARGER, prealloc=True)
    progress = slow.job.progress
    assert progress is not None
    assert progress() is None
    thread, _outcome = beside(slow)
    assert held.begun.wait(60)
    event = progress()
    assert event is not None
    assert event.name == "X_MEMDEV_PROGRESS"
    told: JSON = {"id": "m0", "qom-path": "/objects/m0", "done": 0, "total": LARGER}
    assert event.data == told
    held.go_on.set()
    thread.join(60)
    event = progress()
    assert event is not None
    assert event.data == told | {"done": LARGER}


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_the_end_while_it_is_made(tree: Tree, directory: Path, held: HeldHost, kind: str) -> None:
    options = {"mem_path": str(directory / "new")} if kind == "file" else {}
    thread, outcome = beside(start(tree, kind, size=LARGER, prealloc=True, **options))
    assert held.begun.wait(60)
    close_all(tree)
    # The file goes even if the thread never comes to its end.
    assert os.listdir(directory) == []
    held.go_on.set()
    thread.join(60)
    assert outcome == [GIVEN_UP]
    assert tree.objects.children == {}


def test_two_that_populate_at_once(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    first, second = (start_to_set(tree, "prealloc", True) for _ in range(2))
    first.finish()
    second.finish()
    assert get(tree, "prealloc") is True
    assert not region_of(tree).pinned
