from __future__ import annotations

import errno
import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.hostmem import libc, numa, populate
from memd.hostmem.populate import Cancelled, Population, slices, thread_count
from memd.hostmem.region import Region
from memd.hostmem.spec import READ, READ_WRITE, MapSpec
from tests.hostmem.made import HOST, anonymous
from tests.hostmem.smaps import row_of

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def of_file(size: int, shared: bool, protection: int = READ_WRITE, directory: str = "") -> Region:
    with tempfile.NamedTemporaryFile(dir=directory or None) as file:
        file.truncate(size)
        fd = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
    return Region(HOST, MapSpec(size, size, PAGE, PAGE, shared=shared, protection=protection), fd)


def resident(region: Region) -> int:
    row = row_of(region.address)
    assert row is not None
    return row.resident


@pytest.fixture(params=["by advice", "by touch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the kernel has, and with what it had before Linux 5.14."""
    if request.param == "by touch":
        real = libc.madvise

        def madvise(address: int, length: int, advice: int) -> int:
            if advice in (libc.MADV_POPULATE_READ, libc.MADV_POPULATE_WRITE):
                return errno.EINVAL
            return real(address, length, advice)

        monkeypatch.setattr(libc, "madvise", madvise)


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small regions get threads, too, and chunks are small."""
    monkeypatch.setattr(populate, "BYTES_PER_THREAD", PAGE)
    monkeypatch.setattr(populate, "CHUNK", 16 * PAGE)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.usefixtures("way", "many_threads")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [PAGE, 7 * PAGE, MIB + 3 * PAGE])
def test_anonymous_memory(size: int, threads: int) -> None:
    region = anonymous(size)
    run = Population(region, threads)
    assert (run.total, run.done, run.threads) == (size, 0, min(threads, size // PAGE))
    run.run()
    assert run.done == size
    assert resident(region) == size
    region.close()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("protection", [READ, READ_WRITE])
def test_files(protection: int, shared: bool) -> None:
    region = of_file(MIB, shared, protection)
    Population(region, 1).run()
    assert resident(region) == MIB
    # Only what may be written to the file takes blocks of it; a shared
    # mapping that is populated for writing has to be given them. Of a file in
    # memory every page that is looked at is one of its own.
    in_memory = libc.file_system_type(region.fd) == libc.TMPFS_MAGIC
    blocks = os.fstat(region.fd).st_blocks * 512
    assert blocks == (MIB if in_memory or (shared and protection == READ_WRITE) else 0)
    region.close()


def test_touching_is_only_for_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "touch", lambda *_arguments: errno.EIO)
    for protection in (READ, READ_WRITE):
        region = of_file(MIB, shared=False, protection=protection)
        Population(region, 1).run()
        region.close()


def test_what_others_write_is_not_written_back(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []

    def touch(address: int, count: int, stride: int, write: bool) -> int:
        writes.append(write)
        return 0

    monkeypatch.setattr(libc, "madvise", lambda *_arguments: errno.EINVAL)
    monkeypatch.setattr(libc, "touch", touch)
    for shared in (True, False):
        region = of_file(MIB, shared)
        Population(region, 1).run()
        region.close()
    assert writes == [False, True]


@pytest.mark.usefixtures("way")
def test_content_stays() -> None:
    with tempfile.NamedTemporaryFile() as file:
        content = bytes(range(256)) * (MIB // 256)
        file.write(content)
        file.flush()
        for shared in (True, False):
            fd = os.open(file.name, os.O_RDWR)
            region = Region(HOST, MapSpec(MIB, MIB, PAGE, PAGE, shared=shared), fd)
            Population(region, 2).run()
            with open("/proc/self/mem", "rb", buffering=0) as memory:
                memory.seek(region.address)
                assert memory.read(MIB) == content
            region.close()
        file.seek(0)
        assert file.read() == content


@pytest.fixture
def full(directory: Path, mount: Callable[..., None]) -> str:
    """A directory with room for 1 MiB."""
    mount("tmpfs", directory / "small", "size=1m")
    return str(directory / "small")


@pytest.mark.usefixtures("way", "many_threads")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_full_file_system(full: str, threads: int, shared: bool) -> None:
    region = of_file(2 * MIB, shared, directory=full)
    with pytest.raises(OSError) as failed:
        Population(region, threads).run()
    assert failed.value.errno == errno.EFAULT
    region.close()


@pytest.mark.usefixtures("way")
def test_a_truncated_file() -> None:
    region = of_file(MIB, shared=True, protection=READ)
    os.ftruncate(region.fd, MIB // 2)
    with pytest.raises(OSError) as failed:
        Population(region, 1).run()
    assert failed.value.errno == errno.EFAULT
    region.close()


def test_no_huge_pages_left(hugepages: Callable[[int], None]) -> None:
    hugepages(2)
    free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    size = (free + 1) * 2 * MIB
    fd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_HUGETLB)
    os.ftruncate(fd, size)
    region = Region(HOST, MapSpec(size, size, 2 * MIB, 2 * MIB, reserve=False), fd)
    run = Population(region, 4)
    with pytest.raises(OSError) as failed:
        run.run()
    assert failed.value.errno in (errno.EFAULT, errno.ENOMEM)
    assert run.done < size
    region.close()


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize("how", ["itself", "region", "all"])
def test_cancelling(held: tuple[threading.Event, threading.Event], how: str) -> None:
    begun, go_on = held
    region, other = anonymous(), anonymous()
    run = Population(region, 2)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            run.run()
        except Cancelled as cancelled:
            outcome.append(cancelled)

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(20)
    populate.cancel(other)
    match how:
        case "itself":
            run.cancel()
        case "region":
            populate.cancel(region)
        case "all":
            populate.cancel_all()
    go_on.set()
    worker.join()
    assert len(outcome) == 1
    assert 0 < run.done < run.total
    region.close()
    other.close()
    assert not populate._running


def test_an_interrupted_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = libc.madvise
    answers = [errno.EINTR, errno.EINTR]

    def madvise(address: int, length: int, advice: int) -> int:
        return answers.pop() if answers else real(address, length, advice)

    monkeypatch.setattr(libc, "madvise", madvise)
    region = anonymous()
    Population(region, 1).run()
    assert resident(region) == MIB
    region.close()


@pytest.mark.usefixtures("many_threads")
def test_threads_run_on_the_cpus_given(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = min(os.sched_getaffinity(0))
    here = os.sched_getaffinity(0)
    seen = []

    def madvise(*_arguments: object) -> int:
        seen.append(os.sched_getaffinity(0))
        return 0

    monkeypatch.setattr(libc, "madvise", madvise)
    region = anonymous(64 * PAGE)
    for threads in (1, 3):
        seen.clear()
        Population(region, threads, {cpu}).run()
        assert seen
        assert all(each == {cpu} for each in seen)
    assert os.sched_getaffinity(0) == here
    seen.clear()
    Population(region, 1, set()).run()
    assert seen == [here] * 4
    monkeypatch.undo()
    region.close()


@pytest.mark.usefixtures("many_threads")
def test_threads_are_spread_over_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.sched_getaffinity(0)
    cpus = sorted(here)
    seen = []
    asked = []

    def places(nodes: list[int]) -> list[set[int]]:
        asked.append(nodes)
        return [{cpus[0]}, {cpus[-1]}]

    def madvise(*_arguments: object) -> int:
        seen.append((threading.get_ident(), os.sched_getaffinity(0)))
        return 0

    region = anonymous(4 * PAGE)
    monkeypatch.setattr(numa, "places", places)
    monkeypatch.setattr(libc, "madvise", madvise)
    Population(region, 4, nodes=[0, 1]).run()
    assert asked == [[0, 1]]
    assert sorted(sorted(where) for _thread, where in seen) == sorted([[cpus[0]], [cpus[-1]]] * 2)
    assert os.sched_getaffinity(0) == here
    # One alone runs where it was.
    seen.clear()
    Population(region, 1, nodes=[0, 1]).run()
    assert seen == [(threading.get_ident(), here)]
    monkeypatch.undo()
    region.close()


def test_a_region_that_was_closed_is_given_up() -> None:
    region = anonymous()
    run = Population(region, 1)
    region.pin()
    region.close()
    with pytest.raises(Cancelled):
        run.run()
    assert run.done == 0
    region.unpin()


def test_cpus_that_have_gone() -> None:
    region = anonymous()
    Population(region, 1, {4321}).run()
    assert resident(region) == MIB
    region.close()


@pytest.mark.usefixtures("many_threads")
def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for affinity in (None, {0}):
        region = anonymous()
        run = Population(region, 4, affinity)
        run.run()
        assert run.done == resident(region) == MIB
        region.close()


@pytest.mark.parametrize(
    ("mib", "allowed", "cpus", "threads"),
    [
        (1, 8, 8, 1),
        (64, 8, 8, 1),
        (127, 8, 8, 1),
        (128, 8, 8, 2),
        (128, 1, 8, 1),
        (1024, 8, 2, 2),
        (1024, 8, 64, 8),
        (1024, (1 << 32) - 1, 64, 16),
    ],
)
def test_thread_count(
    monkeypatch: pytest.MonkeyPatch, mib: int, allowed: int, cpus: int, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert thread_count(mib * MIB, allowed) == threads


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_slices(pages: int, count: int) -> None:
    length = pages * PAGE
    parts = slices(length, PAGE, count)
    assert len(parts) == count
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    for (_, end), (start, _) in itertools.pairwise(parts):
        assert start == end
    sizes = [end - start for start, end in parts]
    assert all(size % PAGE == 0 for size in sizes)
    assert max(sizes) - min(sizes) <= PAGE
    assert sizes == sorted(sizes, reverse=True)


def test_a_range() -> None:
    region = anonymous(8 * MIB)
    try:
        populate.populate_range(region, 2 * MIB, 5 * MIB)
        assert resident(region) == 3 * MIB
    finally:
        region.close()


def test_a_range_of_what_is_closed() -> None:
    region = anonymous(8 * MIB)
    region.pin()
    region.close()
    with pytest.raises(OSError, match="canceled"):
        populate.populate_range(region, 0, 8 * MIB)
    region.unpin()


def test_a_range_without_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 5.14 does not know it."""
    monkeypatch.setattr(populate, "_populate_by_advice", lambda *_arguments: errno.EINVAL)
    region = anonymous(4 * MIB)
    try:
        populate.populate_range(region, MIB, 2 * MIB)
        assert resident(region) >= MIB
    finally:
        region.close()


def test_a_range_that_can_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(populate, "_populate_by_advice", lambda *_arguments: errno.ENOMEM)
    region = anonymous(4 * MIB)
    try:
        with pytest.raises(OSError, match="Cannot allocate memory"):
            populate.populate_range(region, 0, MIB)
    finally:
        region.close()


def test_the_count_does_not_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the moment either in which a population ends."""
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(populate.populated()))

    class Watched(set[object]):
        def discard(self, each: object) -> None:
            super().discard(each)
            reader.start()
            reader.join(0.1)

    monkeypatch.setattr(populate, "_running", Watched())
    before = populate.populated()
    region = anonymous()
    Population(region, 1).run()
    region.close()
    reader.join()
    assert seen == [before + region.length]
