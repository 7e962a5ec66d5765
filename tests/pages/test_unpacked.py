"""Unpacked copies in memory: huge pages for what is sent again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.hostmem import libc
from memd.pages.store import Store
from memd.pages.template import Template
from tests.conftest import NOT_HERE, need_shm
from tests.pages.memory import PAGE, memory, save, unpacked

HUGE = libc.HUGE_PAGE
ZEROES = (600, 601, 700)
DATA = bytearray(memory(1100, zero=0).ljust(2048 * PAGE, b"\0"))
for page in ZEROES:
    DATA[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)


@pytest.fixture
def template() -> Iterator[Template]:
    """One in memory whose second 2 MiB are nearly all data, and whose third ones are not."""
    with open(os.memfd_create("any"), "w+b") as file:
        file.write(bytes(HUGE))
        file.flush()
        try:
            libc.collapse(file.fileno(), 0)
        except OSError as failed:
            pytest.skip(f"{NOT_HERE}huge pages for files in memory: {failed.strerror}")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        store = Store(place)
        save(store, "a", bytes(DATA))
        template = store.open("a")
        yield template
        template.close()
        store.close()


def held(template: Template) -> list[int]:
    """Bytes of each 2 MiB of the copy that memory is taken for."""
    (path,) = Path(template._directory).glob("*/*")
    found = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size - HUGE, HUGE):
            cached, _evicted = libc.cachestat(file.fileno(), at, HUGE)
            found.append(cached * PAGE)
    return found


@need_shm
def test_what_is_nearly_all_data_is_in_huge_pages(template: Template) -> None:
    template.fetch(0, HUGE)
    template.copy.gather(lambda: True)
    before = held(template)
    assert before[1] < HUGE // 2
    template.fetch(0, template.size)
    before = held(template)
    assert before[1] < HUGE
    template.copy.gather(lambda: False)
    assert held(template) == before
    template.copy.gather(lambda: True)
    assert held(template) == [before[0], HUGE, *before[2:]]
    assert unpacked(template, 0, 600 * PAGE) == DATA[: 600 * PAGE]
    assert unpacked(template, 701 * PAGE, 399 * PAGE) == DATA[701 * PAGE : 1100 * PAGE]
