"""Sizes as people and options write them."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_text(size: int) -> str:
    """A size in the largest unit that divides it: "64 MiB", "4097 bytes"."""
    unit = 0
    while size and not size % 1024 and unit + 1 < len(_UNITS):
        size //= 1024
        unit += 1
    return f"{size} {_UNITS[unit]}"


def size_option(size: int) -> str:
    """The same as an option of the command line has it: "64M", "4097"."""
    number, unit = size_text(size).split()
    return number if unit == "bytes" else number + unit[0]


def short_size(size: int) -> str:
    """A size as QEMU rounds it, to three digits and a unit: "64 MiB", "1.46 GiB", "0 B"."""
    power = 0
    while size >> 10 * power >= 1000:
        power += 1
    return f"{size / (1 << 10 * power):.3g} {('B', *_UNITS[1:])[power]}"


def rounded(size: int) -> str:
    """A size in at most four digits: "64 MiB", "1.4 GiB", "17 bytes"."""
    if size < 1024:
        return f"{size} bytes" if size != 1 else "1 byte"
    value = float(size)
    unit = 0
    # Half a digit below 1024 would be written as 1024 of the smaller unit.
    while value >= 1023.5 and unit + 1 < len(_UNITS):
        value /= 1024
        unit += 1
    text = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return f"{text.removesuffix('.0')} {_UNITS[unit]}"
