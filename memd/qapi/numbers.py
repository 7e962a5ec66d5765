"""Numbers, sizes and switches as they are written on a command line.

Observed on QEMU 10.0.2 by `-object` and the human monitor's `object_add`:
integers as C's strtoll and strtoull read them with base 0, sizes as QEMU's own
reader takes them. (Whether `0b1` is a number depends on the C library that a
QEMU was built with; here it is none.) Each function returns None for what it
does not take, as the caller knows the text of the error; `option_number` raises.
"""

from __future__ import annotations

from memd.errors import QMPError
from memd.qapi.visit import INT64_MAX, INT64_MIN, UINT64_MAX, as_signed

_SPACE = " \t\n\v\f\r"
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_OCTAL = frozenset("01234567")
_TRUE = frozenset(("on", "yes", "true", "y"))
_FALSE = frozenset(("off", "no", "false", "n"))
_SHIFT = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def parse_switch(text: str) -> bool | None:
    """on, yes, true, y and off, no, false, n; in lower case only."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def _bounded(digits: str, base: int) -> int:
    """The value of digits, or one beyond 64 bits: int() refuses thousands of them by raising."""
    digits = digits.lstrip("0") or "0"
    return int(digits, base) if len(digits) <= 64 else UINT64_MAX + 1


def _magnitude(digits: str) -> int | None:
    """The value of unsigned digits as C reads them with base 0: 0x for hex, 0 for octal."""
    if digits[:2] in ("0x", "0X"):
        alphabet, base, digits = _HEX, 16, digits[2:]
    elif digits[:1] == "0":
        alphabet, base = _OCTAL, 8
    else:
        alphabet, base = _DIGITS, 10
    if not digits or not alphabet.issuperset(digits):
        return None
    return _bounded(digits, base)


def _signed(text: str) -> tuple[str, int | None]:
    """A sign or none, and the magnitude behind it; leading white space is fine."""
    text = text.lstrip(_SPACE)
    sign = text[:1] if text[:1] in ("-", "+") else ""
    return sign, _magnitude(text.removeprefix(sign))


def is_integer(text: str) -> bool:
    """Whether it is an integer to C's strtoull with base 0, however large."""
    return _signed(text)[1] is not None


def parse_int64(text: str) -> int | None:
    """A signed integer of 64 bits; leading white space and a sign are fine."""
    sign, value = _signed(text)
    if value is None:
        return None
    value = -value if sign == "-" else value
    return value if INT64_MIN <= value <= INT64_MAX else None


def parse_uint64(text: str) -> int | None:
    """An unsigned integer of 64 bits; as in strtoull, a minus sign wraps around."""
    sign, value = _signed(text)
    if value is None or value > UINT64_MAX:
        return None
    return -value & UINT64_MAX if sign == "-" else value


def option_number(text: str, name: str) -> int:
    """The number of an option, as the signed 64 bits that QEMU keeps it in.

    Args:
        name: the option's.

    Raises:
        QMPError: it is none, or has more than 64 bits.
    """
    number = parse_uint64(text)
    if number is None:
        if is_integer(text):
            raise QMPError(f"Value '{text}' is too large for parameter '{name}'")
        raise QMPError(f"Parameter '{name}' expects a number")
    return as_signed(number, 64)


SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively."
)
"""The hint that follows on a command line."""


def option_size(text: str, name: str) -> int:
    """The size of an option, in bytes.

    Args:
        name: the option's.

    Raises:
        QMPError: it is none, or has more than 64 bits.
    """
    size = parse_size(text)
    if size is not None:
        return size
    # Too large for its suffix is another matter than no size at all.
    suffixed = text[-1:].lower() in tuple("kmgtpe")
    if is_integer(text) or (suffixed and parse_size(f"{text[:-1]}k")):
        raise QMPError(f"Value '{text}' is out of range for parameter '{name}'")
    raise QMPError(f"Parameter '{name}' expects a non-negative number below 2^64", hint=SIZE_HINT)


def parse_uuid(text: str) -> str | None:
    """A UUID in lower case; dashes stand where they always do."""
    groups = text.split("-")
    right = [len(group) for group in groups] == [8, 4, 4, 4, 12]
    return text.lower() if right and _HEX.issuperset("".join(groups)) else None


def parse_unsigned(text: str) -> int | None:
    """An unsigned integer of 64 bits, without a minus sign."""
    return None if "-" in text else parse_uint64(text)


def parse_size(text: str) -> int | None:
    """A size in bytes: 4096, 0x1000, 64M, 1.5G; suffixes b, k, m, g, t, p, e.

    A fraction is rounded to whole bytes and needs a suffix; a hexadecimal
    number takes neither suffix nor fraction; exponents are not known.
    """
    text = text.lstrip(_SPACE)
    if text[:1] == "+":
        text = text[1:]
    if text[:2] in ("0x", "0X"):
        value = _magnitude(text)
        return value if value is not None and value <= UINT64_MAX else None
    shift = _SHIFT.get(text[-1:].lower())
    if shift is not None:
        text = text[:-1]
    whole, _, fraction = text.partition(".")
    if not (whole or fraction) or not _DIGITS.issuperset(whole + fraction):
        return None
    value = _bounded(whole, 10) << (shift or 0)
    if fraction.strip("0"):
        if not shift:
            return None
        value += int(float("." + fraction) * (1 << shift) + 0.5)
    return value if value <= UINT64_MAX else None
