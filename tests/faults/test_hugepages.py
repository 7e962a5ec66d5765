"""The pool of huge pages runs out: at once, when populating, and at a write much later."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import hugepage_state
from tests.differential.harness import Side
from tests.faults.conftest import MIB, arguments, error

HUGE = 2 * MIB


@contextmanager
def taken(count: int) -> Iterator[None]:
    """So many huge pages are somebody else's, in a `with` block."""
    import mmap

    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
    with mmap.mmap(-1, count * HUGE, flags=flags) as memory:
        for at in range(0, count * HUGE, HUGE):
            memory[at] = 1
        yield


def test_at_once(memd: Side, hugepages: Callable[[int], None]) -> None:
    hugepages(2)
    before = memd.holdings()
    with taken(2):
        request = arguments("memfd", size=HUGE, hugetlb=True)
        assert "Cannot allocate memory" in error(memd.ask("object-add", request))
        memd.expect_unchanged(before)
    assert memd.ask("object-add", request) == {"return": {}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}


@pytest.mark.parametrize("share", [True, False])
def test_when_populating(memd: Side, hugepages: Callable[[int], None], share: bool) -> None:
    """Nothing was set aside, so it is only then that there are too few."""
    hugepages(2)
    request = arguments("memfd", size=2 * HUGE, hugetlb=True, reserve=False, share=share)
    assert memd.ask("object-add", request) == {"return": {}}
    with taken(1):
        # Without a reservation QEMU has no prealloc; a write makes the pages, too.
        data = base64.b64encode(bytes(2 * HUGE)).decode()
        write = {"id": "m", "offset": 0, "data": data}
        assert "cannot write 'm' at offset 0: " in error(memd.ask("x-memdev-write", write))
    assert memd.ask("x-memdev-write", write) == {"return": {}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}


@pytest.mark.parametrize("share", [True, False])
def test_later(memd: Side, hugepages: Callable[[int], None], share: bool) -> None:
    """The first access of a page that is not available is an error, where QEMU gets SIGBUS."""
    hugepages(1)
    request = arguments("memfd", size=HUGE, hugetlb=True, reserve=False, share=share)
    assert memd.ask("object-add", request) == {"return": {}}
    with taken(1):
        write = {"id": "m", "offset": 5, "data": "AAAA"}
        text = error(memd.ask("x-memdev-write", write))
        assert text.startswith("cannot write 'm' at offset 5: ")
        read = {"id": "m", "offset": 5, "length": 3}
        memd.ask("x-memdev-read", read)
        memd.ask("x-memdev-save", {"id": "m", "filename": "@DIR@/saved"})
        assert "return" in memd.ask("x-memdev-stat", {"id": "m"})
    assert memd.ask("x-memdev-write", write) == {"return": {}}
    assert memd.ask("x-memdev-read", read) == {"return": {"data": "AAAA"}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}


def test_the_machine_has_what_it_had(hugepages: Callable[[int], None]) -> None:
    hugepages(1)
    with taken(1):
        assert hugepage_state()["Free"] == hugepage_state()["Rsvd"]
    assert hugepage_state()["Free"] >= 1
