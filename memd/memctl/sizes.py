"""Sizes as people write and read them."""

from __future__ import annotations

import argparse

from memd.sizes import rounded

PAGE = 4096
"""Bytes of a page of a template, whatever the host's are."""


def size(text: str) -> int:
    """A number of bytes: 4096, 0x1000, 64M, 1.5G, as in QEMU's options.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from memd.qapi.numbers import parse_size

    found = parse_size(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size: bytes are expected, or a number with K, M, G or T"
        )
    return found


def short(count: int) -> str:
    """A size without the word: "0" and not "0 bytes", for tables."""
    return "0" if not count else rounded(count)


def exact(count: int) -> str:
    """A size in people's units, and in bytes where those are more."""
    return rounded(count) if count < 1024 else f"{rounded(count)} ({count} bytes)"
