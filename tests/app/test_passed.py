"""Sockets and kept memory that a service manager passes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from memd.app.passed import take_passed
from memd.cli.options import parse_arguments
from memd.config import Config, Report


def config(*argv: str) -> Config:
    return parse_arguments(argv, Report("memd"))


class Passed:
    """Descriptors that were passed to this process.

    Attributes:
        numbers: theirs.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fds: list[int], names: str | None) -> None:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(len(fds)))
        if names is not None:
            monkeypatch.setenv("LISTEN_FDNAMES", names)
        first = max(fds) + 1000
        self.numbers = [os.dup2(fd, first + at) for at, fd in enumerate(fds)]

    def __enter__(self) -> list[int]:
        return self.numbers

    def __exit__(self, *_error: object) -> None:
        for each in self.numbers:
            os.close(each)


@pytest.fixture
def sock() -> Iterator[int]:
    with socket.socket(socket.AF_UNIX) as sock:
        yield sock.fileno()


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (None, ["activated0", "activated1", "activated2"]),
        ("qmp:memd.socket:x-1_y", ["qmp", "memd.socket", "x-1_y"]),
        ("qmp:qmp:other", ["activated0", "activated1", "other"]),
        ("1st:a b:", ["activated0", "activated1", "activated2"]),
        ("taken:qmp", ["activated0", "qmp", "activated2"]),
        ("memd-1:memd-list:memd-zz", ["memd-1", "memd-list", "memd-zz"]),
    ],
)
def test_sockets_have_the_names_that_they_are_passed_with(
    monkeypatch: pytest.MonkeyPatch, sock: int, names: str | None, ids: list[str]
) -> None:
    parsed = config("--chardev", "null,id=taken")
    with Passed(monkeypatch, [sock] * 3, names) as numbers:
        monitors = [each.chardev for each in take_passed(parsed, numbers[0])]
    assert [each.id for each in monitors] == ids
    assert [(each.kind, each.fd, each.server) for each in monitors] == [
        ("fd", number, True) for number in numbers
    ]
    assert parsed.stored == {}


def test_what_was_kept_is_no_socket(monkeypatch: pytest.MonkeyPatch, sock: int) -> None:
    memory = os.memfd_create("memory")
    parsed = config()
    names = "qmp:memd-list:memd-1f:second"
    with Passed(monkeypatch, [sock, memory, memory, sock], names) as numbers:
        monitors = take_passed(parsed, numbers[0])
    os.close(memory)
    assert [each.chardev.fd for each in monitors] == [numbers[0], numbers[3]]
    assert parsed.stored == {"memd-list": numbers[1], "memd-1f": numbers[2]}


def test_what_was_passed_to_another_process_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, sock: int
) -> None:
    with Passed(monkeypatch, [sock], None) as numbers:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
        assert take_passed(config(), numbers[0]) == []
