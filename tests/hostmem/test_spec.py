from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.hostmem.spec import (
    DENIED,
    FILE,
    PRIVATE,
    READ,
    READ_WRITE,
    FileAccess,
    file_access,
    round_up,
)

NEEDS_READONLY = "property 'rom' = 'on' is not supported with 'readonly' = 'off'"
CONTRADICTION = "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'"

# share, readonly, rom: what is opened and mapped, or why not.
TABLE: dict[tuple[bool, bool, str], FileAccess | str] = {
    (False, False, "auto"): FileAccess(False, READ_WRITE, False, False, PRIVATE),
    (False, False, "off"): FileAccess(False, READ_WRITE, False, False, PRIVATE),
    (False, False, "on"): NEEDS_READONLY,
    (True, False, "auto"): FileAccess(False, READ_WRITE, True, False, FILE),
    (True, False, "off"): FileAccess(False, READ_WRITE, True, False, FILE),
    (True, False, "on"): NEEDS_READONLY,
    (False, True, "auto"): FileAccess(True, READ, False, True, DENIED),
    (False, True, "off"): FileAccess(True, READ_WRITE, False, False, PRIVATE),
    (False, True, "on"): FileAccess(True, READ, False, True, DENIED),
    (True, True, "auto"): FileAccess(True, READ, True, True, DENIED),
    (True, True, "off"): CONTRADICTION,
    (True, True, "on"): FileAccess(True, READ, True, True, DENIED),
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product((False, True), (False, True), ("auto", "on", "off")))


@pytest.mark.parametrize("key", TABLE, ids=str)
def test_file_access(key: tuple[bool, bool, str]) -> None:
    expected = TABLE[key]
    if isinstance(expected, str):
        with pytest.raises(QMPError) as refused:
            file_access(*key)
        assert refused.value.desc == expected
        assert refused.value.error_class == "GenericError"
    else:
        assert file_access(*key) == expected


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("readonly", [False, True])
def test_auto_is_what_readonly_says(share: bool, readonly: bool) -> None:
    assert file_access(share, readonly) == file_access(share, readonly, "auto")
    assert file_access(share, readonly).rom is readonly


def test_open_flags() -> None:
    assert file_access(False, True).open_flags == os.O_RDONLY
    assert file_access(False, False).open_flags == os.O_RDWR


@given(st.integers(0, 1 << 64), st.integers(0, 40))
def test_round_up(value: int, shift: int) -> None:
    multiple = 1 << shift
    found = round_up(value, multiple)
    assert found % multiple == 0
    assert value <= found < value + multiple
