"""Numbers that clients write as text: signs, leading zeroes, and more digits than fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side, settle
from tests.differential.standin import standin_pair, tell

NUMBERS = (
    *("1", "-1", "+1", " 1", "1x", "2147483647", "2147483648", "9223372036854775808"),
    *("18446744073709551615", "18446744073709551616", "9" * 30, "0" * 4400 + "1", "9" * 4400, "٣"),
)


def human(line: str) -> tuple[str, dict[str, Any]]:
    return "human-monitor-command", {"command-line": line}


def outcome(side: Side) -> Any:
    told = side.ask("query-migrate", {})["return"]
    return told.get("status"), told.get("error-desc")


def test_sets_of_descriptors(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35") as pair:
        for number in (*NUMBERS, ""):
            pair.ask("migrate", {"uri": f"file:/dev/fdset/{number}"})
            pair.same(
                "migrate",
                lambda side: settle(lambda: outcome(side), lambda seen: seen[0] == "failed"),
            )


@pytest.mark.parametrize("word", ["balloon", "sendkey a"])
def test_integers_of_the_human_monitor(directory: Path, word: str) -> None:
    # A complaint of QEMU's has only the first byte of a character.
    numbers = filter(str.isascii, NUMBERS)
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, [human(f"{word} {number}") for number in (*numbers, "010", "08", "0x10", "0xg")])


@pytest.mark.parametrize("name", ["unit", "index", "bus", "throttling.bps-total", "bps"])
def test_numbers_of_drives(directory: Path, name: str) -> None:
    with standin_pair(directory, "-machine", "q35") as pair:
        # QEMU cuts the text of a refusal that repeats thousands of digits.
        for number in (each for each in NUMBERS if each != "9" * 4400):
            drive = f"drive_add 0 if=none,id=a,driver=null-co,{name}={number}"
            tell(pair, [human(drive), human("drive_del a")])
