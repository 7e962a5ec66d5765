from __future__ import annotations

import os
import socket

import pytest

from memd.persist.fdstore import LIST, is_stored, name_of


def test_names_are_short() -> None:
    assert name_of(1) == "memd-1"
    assert name_of((1 << 20) - 1) == "memd-fffff"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (LIST, True),
        ("memd-1", True),
        ("memd-ff0", True),
        ("memd-", False),
        ("memd", False),
        ("memd.socket", False),
        ("memd-qmp", False),
        ("memd-1.socket", False),
        ("memd-FF", False),
        ("1", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_what_is_out_of_the_store(name: str, stored: bool) -> None:
    fd = os.memfd_create("x")
    assert is_stored(name, fd) is stored
    os.close(fd)


@pytest.mark.parametrize("name", [LIST, "memd-1"])
def test_a_socket_is_not_stored(name: str) -> None:
    """Whatever name its unit gives it."""
    with socket.socket(socket.AF_UNIX) as sock:
        assert not is_stored(name, sock.fileno())


def test_what_is_not_there() -> None:
    fd = os.memfd_create("x")
    os.close(fd)
    assert not is_stored("memd-1", fd)
