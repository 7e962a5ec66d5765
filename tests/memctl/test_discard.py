from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.memctl.conftest import Memctl


@pytest.fixture
def m(memctl: Memctl) -> Iterator[str]:
    """A backend of an odd size, all of which is in memory."""
    memctl.out("add", "memfd,id=m,size=1028k,prealloc=on")
    yield "m"
    memctl.out("del", "m")


def resident(memctl: Memctl) -> int:
    (found,) = memctl.data("ls")
    return int(found["resident"])


def test_a_range(memctl: Memctl, m: str) -> None:
    assert memctl.out("discard", m, "4k", "1M") == ""
    assert resident(memctl) == 4096
    found = memctl.data("discard", m, "0", "4k")
    assert found == {"id": "m", "offset": 0, "length": 4096}


def test_all(memctl: Memctl, m: str) -> None:
    found = memctl.data("discard", m, "--all")
    assert found == {"id": "m", "offset": 0, "length": 1028 << 10}
    assert resident(memctl) == 0


@pytest.mark.parametrize("words", [[], ["0"], ["--all", "0"], ["--all", "0", "4k"]], ids=" ".join)
def test_what_is_meant_has_to_be_said(memctl: Memctl, m: str, words: list[str]) -> None:
    status, _out, err = memctl("discard", m, *words)
    assert (status, err) == (2, "memctl: give OFFSET and LENGTH, or --all\n")
    assert resident(memctl) == 1028 << 10


def test_what_is_refused(memctl: Memctl, m: str) -> None:
    assert "multiple of the page size" in memctl.error("discard", m, "0", "1")
    assert memctl.error("discard", "x", "--all") == "Device 'x' not found"
