from __future__ import annotations

import pytest

from memd.qapi.numbers import parse_size
from memd.sizes import rounded, size_option, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB")),
        *((1536, "1.5 KiB"), (1025, "1 KiB"), (100 << 10, "100 KiB"), (102_350, "100 KiB")),
        *(((1 << 20) - 1, "1 MiB"), ((1 << 30) - 1, "1 GiB"), (5 << 40, "5 TiB")),
        *((1023 << 10, "1023 KiB"), ((1 << 64) - 1, "16 EiB")),
    ],
)
def test_rounded(size: int, text: str) -> None:
    assert rounded(size) == text


@pytest.mark.parametrize(
    ("size", "text", "option"),
    [
        *((0, "0 bytes", "0"), (512, "512 bytes", "512"), (4097, "4097 bytes", "4097")),
        *((4096, "4 KiB", "4K"), (64 << 20, "64 MiB", "64M"), (3 << 30, "3 GiB", "3G")),
        *((1 << 40, "1 TiB", "1T"), (1 << 50, "1 PiB", "1P"), (3 << 60, "3 EiB", "3E")),
    ],
)
def test_exact(size: int, text: str, option: str) -> None:
    assert size_text(size) == text
    assert size_option(size) == option
    assert parse_size(option) == size
