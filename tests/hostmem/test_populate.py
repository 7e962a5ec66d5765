from __future__ import annotations

import errno
import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.faulty.kernel import FaultyHost
from memd.hostmem import libc, populate
from memd.hostmem.host import Host
from memd.hostmem.populate import Cancelled, Population, slices, thread_count
from memd.hostmem.region import Region
from memd.hostmem.spec import READ, READ_WRITE, MapSpec
from tests.conftest import no_more_threads
from tests.hostmem.made import HOST, HeldHost, anonymous, failing
from tests.hostmem.smaps import row_of

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def of_file(
    size: int,
    shared: bool,
    protection: int = READ_WRITE,
    directory: str = "",
    host: Host = HOST,
) -> Region:
    with tempfile.NamedTemporaryFile(dir=directory or None) as file:
        file.truncate(size)
        fd = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
    return Region(host, MapSpec(size, size, PAGE, PAGE, shared=shared, protection=protection), fd)


def resident(region: Region) -> int:
    row = row_of(region.address)
    assert row is not None
    return row.resident


class ManyCPUs(FaultyHost):
    """A kernel with 8 CPUs, some of whose calls fail."""

    def cpus(self) -> int:
        return 8


class SmallSteps(Population):
    """Small regions get threads, too, and are populated in several calls."""

    bytes_per_thread = PAGE
    chunk = 16 * PAGE


@pytest.fixture
def kernel() -> Host:
    return ManyCPUs(lambda kind: 0)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [PAGE, 7 * PAGE, MIB + 3 * PAGE])
def test_anonymous_memory(kernel: Host, size: int, threads: int) -> None:
    region = anonymous(size, kernel)
    run = SmallSteps(region, threads)
    assert (run.total, run.done, run.threads) == (size, 0, min(threads, size // PAGE))
    run.run()
    assert run.done == size
    assert resident(region) == size
    region.close()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("protection", [READ, READ_WRITE])
def test_files(kernel: Host, protection: int, shared: bool) -> None:
    region = of_file(MIB, shared, protection, host=kernel)
    Population(region, 1).run()
    assert resident(region) == MIB
    # Only what may be written to the file takes blocks of it; a shared
    # mapping that is populated for writing has to be given them. Of a file in
    # memory every page that is looked at is one of its own.
    in_memory = libc.file_system_type(region.fd) == libc.TMPFS_MAGIC
    blocks = os.fstat(region.fd).st_blocks * 512
    assert blocks == (MIB if in_memory or (shared and protection == READ_WRITE) else 0)
    region.close()


def test_content_stays(kernel: Host) -> None:
    with tempfile.NamedTemporaryFile() as file:
        content = bytes(range(256)) * (MIB // 256)
        file.write(content)
        file.flush()
        for shared in (True, False):
            fd = os.open(file.name, os.O_RDWR)
            region = Region(kernel, MapSpec(MIB, MIB, PAGE, PAGE, shared=shared), fd)
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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_full_file_system(full: str, kernel: Host, threads: int, shared: bool) -> None:
    region = of_file(2 * MIB, shared, directory=full, host=kernel)
    with pytest.raises(OSError) as failed:
        SmallSteps(region, threads).run()
    assert failed.value.errno == errno.EFAULT
    region.close()


def test_a_truncated_file(kernel: Host) -> None:
    region = of_file(MIB, shared=True, protection=READ, host=kernel)
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


@pytest.mark.parametrize("how", ["itself", "region", "all"])
def test_cancelling(how: str) -> None:
    kernel = HeldHost()
    region, other = anonymous(host=kernel), anonymous()
    run = SmallSteps(region, 2)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            run.run()
        except Cancelled as cancelled:
            outcome.append(cancelled)

    worker = threading.Thread(target=work)
    worker.start()
    assert kernel.begun.wait(60)
    populate.cancel(other)
    match how:
        case "itself":
            run.cancel()
        case "region":
            populate.cancel(region)
        case "all":
            populate.cancel_all()
    kernel.go_on.set()
    worker.join()
    assert len(outcome) == 1
    assert 0 < run.done < run.total
    region.close()
    other.close()
    assert not populate._running


def test_an_interrupted_call_is_made_again() -> None:
    answers = [errno.EINTR, errno.EINTR]

    def refusal(kind: str) -> int:
        return answers.pop() if answers and kind == "populate" else 0

    region = anonymous(host=FaultyHost(refusal))
    Population(region, 1).run()
    assert answers == []
    assert resident(region) == MIB
    region.close()


class Spread(ManyCPUs):
    """A kernel that makes no pages: of each call is noted which thread made it, and where.

    Args:
        near: the CPUs of each node; none on a machine with one node.
    """

    def __init__(self, *near: set[int]) -> None:
        super().__init__(lambda kind: 0)
        self._near = near
        self.asked: list[Sequence[int]] = []
        self.seen: list[tuple[int, set[int]]] = []

    def places(self, nodes: Sequence[int]) -> list[set[int]]:
        self.asked.append(nodes)
        return list(self._near)

    def advise(self, address: int, length: int, advice: int) -> int:
        self.seen.append((threading.get_ident(), os.sched_getaffinity(0)))
        return 0


def test_threads_run_on_the_cpus_given() -> None:
    here = os.sched_getaffinity(0)
    cpu = min(here)
    kernel = Spread()
    region = anonymous(64 * PAGE, kernel)
    for threads in (1, 3):
        kernel.seen.clear()
        SmallSteps(region, threads, {cpu}).run()
        assert kernel.seen
        assert all(each == {cpu} for _thread, each in kernel.seen)
    assert os.sched_getaffinity(0) == here
    kernel.seen.clear()
    SmallSteps(region, 1, set()).run()
    assert [each for _thread, each in kernel.seen] == [here] * 4
    region.close()


def test_threads_are_spread_over_nodes() -> None:
    here = os.sched_getaffinity(0)
    cpus = sorted(here)
    kernel = Spread({cpus[0]}, {cpus[-1]})
    region = anonymous(4 * PAGE, kernel)
    SmallSteps(region, 4, nodes=[0, 1]).run()
    assert kernel.asked == [[0, 1]]
    where = sorted(sorted(each) for _thread, each in kernel.seen)
    assert where == sorted([[cpus[0]], [cpus[-1]]] * 2)
    assert os.sched_getaffinity(0) == here
    # One alone runs where it was.
    kernel.seen.clear()
    SmallSteps(region, 1, nodes=[0, 1]).run()
    assert kernel.seen == [(threading.get_ident(), here)]
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


def test_no_more_threads() -> None:
    for affinity in (None, {0}):
        region = anonymous(host=ManyCPUs(lambda kind: 0))
        run = SmallSteps(region, 4, affinity)
        with no_more_threads():
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
def test_thread_count(mib: int, allowed: int, cpus: int, threads: int) -> None:
    assert thread_count(mib * MIB, allowed, cpus) == threads


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


def test_a_range_that_can_not_be_had() -> None:
    region = anonymous(4 * MIB, failing(populate=errno.ENOMEM))
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
