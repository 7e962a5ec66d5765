"""Descriptors left with the daemon: named ones, and sets of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands.fakes import Console
from tests.descriptors import is_open, open_descriptors

GENERIC = "GenericError"


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    before = open_descriptors()
    yield console
    console.client.monitor.close()
    console.daemon.fdsets.close()
    assert open_descriptors() == before


def send(console: Console) -> int:
    """Let a descriptor come along with the next command."""
    fd = os.open(os.devnull, os.O_RDONLY)
    console.client.fds.append(fd)
    return fd


def test_without_a_descriptor_there_is_nothing_to_keep(console: Console) -> None:
    missing = (GENERIC, "No file descriptor supplied via SCM_RIGHTS")
    assert console.refusal("getfd", fdname="a") == missing
    assert console.refusal("getfd", fdname="9a") == missing
    assert console.refusal("add-fd") == missing
    assert console.refusal("add-fd", fdset_id=-1) == missing


def test_named_descriptors(console: Console) -> None:
    first = send(console)
    assert console("getfd", fdname="a") == {}
    second = send(console)
    assert console("getfd", fdname="a") == {}
    assert not is_open(first)
    assert is_open(second)
    assert console("closefd", fdname="a") == {}
    assert not is_open(second)
    assert console.refusal("closefd", fdname="a") == (
        GENERIC,
        "File descriptor named 'a' not found",
    )


@pytest.mark.parametrize("name", ["9", "9a"])
def test_a_name_that_begins_with_a_digit_closes_the_descriptor(console: Console, name: str) -> None:
    fd = send(console)
    assert console.refusal("getfd", fdname=name) == (
        GENERIC,
        "Parameter 'fdname' expects a name not starting with a digit",
    )
    assert not is_open(fd)


def test_what_a_descriptor_is_called_is_so_long_and_no_longer(console: Console) -> None:
    told = (GENERIC, "what a descriptor is called has 4352 characters at most")
    send(console)
    assert console("getfd", fdname="x" * 4352) == {}
    fd = send(console)
    assert console("add-fd", opaque="x" * 4352) == {"fdset-id": 0, "fd": fd}
    for command, arguments in (("getfd", "fdname"), ("add-fd", "opaque")):
        fd = send(console)
        refused: dict[str, Any] = {arguments: "x" * 4353}
        assert console.refusal(command, **refused) == told
        assert not is_open(fd)


def test_any_other_name_will_do(console: Console) -> None:
    for name in ("", "\u0663", "-"):
        send(console)
        assert console("getfd", fdname=name) == {}


def test_sets_are_numbered_from_the_lowest_free(console: Console) -> None:
    one, two, three, four = (send(console) for _ in range(4))
    console.client.fds.reverse()
    assert console("add-fd") == {"fdset-id": 0, "fd": one}
    assert console("add-fd", fdset_id=7, opaque="hello") == {"fdset-id": 7, "fd": two}
    assert console("add-fd", fdset_id=7) == {"fdset-id": 7, "fd": three}
    assert console("add-fd") == {"fdset-id": 1, "fd": four}
    assert console("query-fdsets") == [
        {"fdset-id": 7, "fds": [{"fd": two, "opaque": "hello"}, {"fd": three}]},
        {"fdset-id": 1, "fds": [{"fd": four}]},
        {"fdset-id": 0, "fds": [{"fd": one}]},
    ]
    assert console.refusal("remove-fd", fdset_id=7, fd=999) == (
        GENERIC,
        "File descriptor named 'fdset-id:7, fd:999' not found",
    )
    assert console("remove-fd", fdset_id=7, fd=two) == {}
    assert not is_open(two)
    assert is_open(three)
    assert console("remove-fd", fdset_id=7) == {}
    assert not is_open(three)
    assert console.refusal("remove-fd", fdset_id=7) == (
        GENERIC,
        "File descriptor named 'fdset-id:7' not found",
    )
    assert [each["fdset-id"] for each in console("query-fdsets")] == [1, 0]


def test_a_negative_set_closes_the_descriptor(console: Console) -> None:
    fd = send(console)
    assert console.refusal("add-fd", fdset_id=-1) == (
        GENERIC,
        "Parameter 'fdset-id' expects a non-negative value",
    )
    assert not is_open(fd)
