from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.hostmem.spec import is_rom, round_up

NEEDS_READONLY = "property 'rom' = 'on' is not supported with 'readonly' = 'off'"
CONTRADICTION = "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'"

# share, readonly, rom: whether it can't be written, or why there is no such memory.
TABLE: dict[tuple[bool, bool, str], bool | str] = {
    (False, False, "auto"): False,
    (False, False, "off"): False,
    (False, False, "on"): NEEDS_READONLY,
    (True, False, "auto"): False,
    (True, False, "off"): False,
    (True, False, "on"): NEEDS_READONLY,
    (False, True, "auto"): True,
    (False, True, "off"): False,
    (False, True, "on"): True,
    (True, True, "auto"): True,
    (True, True, "off"): CONTRADICTION,
    (True, True, "on"): True,
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product((False, True), (False, True), ("auto", "on", "off")))


@pytest.mark.parametrize("key", TABLE, ids=str)
def test_is_rom(key: tuple[bool, bool, str]) -> None:
    expected = TABLE[key]
    if isinstance(expected, str):
        with pytest.raises(QMPError) as refused:
            is_rom(*key)
        assert refused.value.desc == expected
        assert refused.value.error_class == "GenericError"
    else:
        assert is_rom(*key) is expected


@given(st.integers(0, 1 << 64), st.integers(0, 40))
def test_round_up(value: int, shift: int) -> None:
    multiple = 1 << shift
    found = round_up(value, multiple)
    assert found % multiple == 0
    assert value <= found < value + multiple
