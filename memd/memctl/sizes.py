"""Sizes as people write and read them."""

from __future__ import annotations

import argparse

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(text: str) -> int:
    """A number of bytes: 4096, 0x1000, 64M, 1.5G, as in QEMU's options.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from memd.qapi.numbers import parse_size

    found = parse_size(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no size: bytes are expected, or a number with K, M, G or T"
        )
    return found


def rounded(count: int) -> str:
    """A size in at most four digits: "64 MiB", "1.4 GiB", "17 bytes"."""
    if count < 1024:
        return f"{count} bytes" if count != 1 else "1 byte"
    value = float(count)
    unit = 0
    # Half a digit below 1024 would be written as 1024 of the smaller unit.
    while value >= 1023.5 and unit + 1 < len(UNITS):
        value /= 1024
        unit += 1
    text = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return f"{text.removesuffix('.0')} {UNITS[unit]}"


def short(count: int) -> str:
    """A size without the word: "0" and not "0 bytes", for tables."""
    return "0" if not count else rounded(count)


def exact(count: int) -> str:
    """A size in people's units, and in bytes where those are more."""
    return rounded(count) if count < 1024 else f"{rounded(count)} ({count} bytes)"
