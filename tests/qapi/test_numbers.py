"""What `-object` and `object_add` of QEMU 10.0.2 made of the same texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_uint64, parse_unsigned

KIB, MIB, GIB, EIB = 1 << 10, 1 << 20, 1 << 30, 1 << 60


@pytest.mark.parametrize("text", ["on", "yes", "true", "y"])
def test_switch_on(text: str) -> None:
    assert parse_switch(text) is True


@pytest.mark.parametrize("text", ["off", "no", "false", "n"])
def test_switch_off(text: str) -> None:
    assert parse_switch(text) is False


@pytest.mark.parametrize("text", ["", "1", "0", "ON", "on ", "yess"])
def test_no_switch(text: str) -> None:
    assert parse_switch(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        (" 1", 1),
        ("\t +2", 2),
        ("0x2", 2),
        ("0X1f", 31),
        ("+0x2", 2),
        ("010", 8),
        ("00", 0),
        ("-0", 0),
        ("18446744073709551615", (1 << 64) - 1),
    ],
)
def test_unsigned(text: str, value: int) -> None:
    assert parse_uint64(text) == value
    assert parse_unsigned(text) == (None if "-" in text else value)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "+", "-", "x", "1 ", "1k", "1.0", "0x", "0xg", "09", "0b1", "0o7", "1_0"],
        *["+-1", "- 1", "١", "0x1_0", "18446744073709551616", "-18446744073709551616", "9" * 5000],
    ],
)
def test_no_unsigned(text: str) -> None:
    assert parse_uint64(text) is None
    assert parse_unsigned(text) is None


def test_unsigned_wraps() -> None:
    assert parse_uint64("-1") == (1 << 64) - 1
    assert parse_uint64("-18446744073709551615") == 1
    assert parse_unsigned("-1") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("0x10", 16),
        ("-0x10", -16),
        ("-0", 0),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -(1 << 63)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("x", None),
        ("1-3", None),
        ("", None),
    ],
)
def test_signed(text: str, value: int | None) -> None:
    assert parse_int64(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64M", 64 * MIB),
        ("64m", 64 * MIB),
        ("1k", KIB),
        ("20", 20),
        ("017", 17),
        (" 64M", 64 * MIB),
        ("\t64M", 64 * MIB),
        ("+1", 1),
        ("1b", 1),
        ("1B", 1),
        ("1.5G", 3 * GIB // 2),
        (".5G", GIB // 2),
        ("+.5G", GIB // 2),
        ("1.k", KIB),
        ("1.0", 1),
        ("1.0b", 1),
        ("1e", EIB),
        ("1.E", EIB),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("0x1000", 4096),
        ("0X20000", 131072),
        ("+0x10000", 65536),
        ("0x1E", 30),
        ("0x10b", 267),
        ("0.1k", 0x66),
        ("1.1k", 0x466),
        ("1.0005k", 0x401),
        ("1.00048828125k", 0x401),
        ("1.00146484375k", 0x402),
        ("1.000488k", 0x400),
        ("0.0004k", 0),
        ("1.9999k", 0x800),
        ("1048577.3M", 0x1000014CCCD),
        ("1.1234567M", 0x11F9AE),
        ("1.99999999999999999999999M", 2 * MIB),
        ("1.00000000000000000000000000000001M", MIB),
        ("15.999E", 0xFFFBE76C8B439580),
        ("7.7E", 0x7B33333333333300),
        ("9007199254740993.1k", 0x8000000000000466),
        ("18446744073709551615", (1 << 64) - 1),
        ("18446744073709551615.0b", (1 << 64) - 1),
    ],
)
def test_size(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *["", "M", "-1", "-0", "-0M", "-.5G", "- 1", "+ 1", "+-1", "--1", ".", ".k", ".5", "1.5"],
        *["0.5b", "1.00000000000000000000000000000001", "1MB", "1MiB", "64M ", "1.0 ", "1.5 G"],
        *["1.5GG", "1Q", "1e3", "1E3", "1e3M", "1.5e1M", "1..5G", "1,5G", "1.-5M", "1.+5M"],
        *["1. 5M", "0x", "0xg", "0x10k", "0x1.8", "0x1.8k", "0x1p3", "00x10", "0x-1", "-0x1"],
        *["0b1", "nan", "inf", "١M", "²", "16E", "16777216T", "15.99999999999999999999E"],
        *["18446744073709551616", "9" * 5000],
    ],
)
def test_no_size(text: str) -> None:
    assert parse_size(text) is None


@given(st.text(alphabet="0123456789.+-xXbBkKmMeE _", max_size=12))
def test_never_raises_and_stays_in_range(text: str) -> None:
    for parse in (parse_size, parse_uint64, parse_unsigned):
        value = parse(text)
        assert value is None or 0 <= value < 1 << 64
    signed = parse_int64(text)
    assert signed is None or -(1 << 63) <= signed < 1 << 63


@given(st.integers(0, (1 << 64) - 1))
def test_plain_numbers(value: int) -> None:
    assert parse_size(str(value)) == parse_size(hex(value)) == value
    assert parse_uint64(str(value)) == parse_uint64(oct(value).replace("o", "")) == value
