from __future__ import annotations

import argparse

import pytest

from memd.memctl.sizes import exact, short, size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("64M", 64 << 20),
        ("1.5G", 3 << 29),
        ("2k", 2048),
    ],
)
def test_what_is_read(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "M", "1Q", "1 M", "16E"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        size(text)
    assert str(refused.value).startswith(f"'{text}' is not a size")


def test_in_tables_and_in_full() -> None:
    assert (short(0), short(4096)) == ("0", "4 KiB")
    assert (exact(512), exact(4097)) == ("512 bytes", "4 KiB (4097 bytes)")
