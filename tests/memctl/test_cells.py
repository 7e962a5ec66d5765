from __future__ import annotations

from typing import Any

import pytest

from memd.memctl.cells import (
    COPIED,
    HUGE,
    KINDS,
    NONE,
    RESIDENT,
    SHARED,
    SWAPPED,
    Cell,
    Kind,
    cells_of,
    totals,
)

PAGE = 4096


def cell(resident: int = 0, private: int = 0, swapped: int = 0, huge: int = 0) -> dict[str, int]:
    return {
        "resident": resident,
        "private-dirty": private,
        "swapped": swapped,
        "huge": huge,
    }


def told(*cells: dict[str, int], length: int | None = None) -> dict[str, Any]:
    size = 4 * PAGE
    return {
        "offset": 8 * PAGE,
        "length": len(cells) * size if length is None else length,
        "cell-size": size,
        "cells": list(cells),
    }


@pytest.mark.parametrize(
    ("given", "share", "of_file", "kind", "letter"),
    [
        (cell(), False, False, NONE, "."),
        (cell(4 * PAGE, 4 * PAGE), False, False, RESIDENT, "R"),
        (cell(PAGE, PAGE), False, False, RESIDENT, "r"),
        (cell(4 * PAGE), True, True, SHARED, "S"),
        (cell(PAGE), True, False, SHARED, "s"),
        (cell(4 * PAGE, PAGE), False, True, COPIED, "c"),
        (cell(4 * PAGE, 4 * PAGE), False, True, COPIED, "C"),
        (cell(4 * PAGE, 0), False, True, RESIDENT, "R"),
        (cell(4 * PAGE, 4 * PAGE, huge=4 * PAGE), False, False, HUGE, "H"),
        (cell(2 * PAGE, 2 * PAGE, huge=PAGE), False, False, HUGE, "h"),
        (cell(3 * PAGE, 3 * PAGE, PAGE), False, False, SWAPPED, "w"),
        (cell(swapped=4 * PAGE), True, False, SWAPPED, "W"),
    ],
)
def test_kinds(given: dict[str, int], share: bool, of_file: bool, kind: Kind, letter: str) -> None:
    (found,) = cells_of(told(given), share, of_file)
    assert (found.kind, found.letter) == (kind, letter)


def test_nothing_is_counted_twice() -> None:
    (found,) = cells_of(told(cell(3 * PAGE, PAGE, PAGE, 4 * PAGE)), False, True)
    assert sum(found.amounts) == 4 * PAGE
    assert found.share == 1


def test_the_last_part_is_shorter() -> None:
    found = cells_of(told(cell(4 * PAGE), cell(PAGE), length=5 * PAGE), True, False)
    assert [each.length for each in found] == [4 * PAGE, PAGE]
    assert [each.letter for each in found] == ["S", "S"]


def test_totals() -> None:
    found = cells_of(told(cell(4 * PAGE, PAGE), cell(), cell(swapped=PAGE)), False, True)
    assert totals(found) == [
        (SWAPPED, PAGE),
        (COPIED, PAGE),
        (RESIDENT, 3 * PAGE),
        (NONE, 7 * PAGE),
    ]
    assert totals(cells_of(told(cell(4 * PAGE)), True, False)) == [(SHARED, 4 * PAGE)]
    assert totals([]) == []


def test_nothing_at_all() -> None:
    assert Cell(0, (0,) * len(KINDS)).share == 0
