"""Descriptors that ride on commands: what becomes of each, beside a real QEMU."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.json_types import JSON
from tests.differential.harness import Pair, Side, exact, settle
from tests.differential.kernel import descriptors
from tests.differential.server import Message

TARGETS = 16
"""Files to be sent, each told by its name from the others."""


@pytest.fixture
def files(directory: Path) -> Iterator[list[int]]:
    """Descriptors of files f0, f1, ...; the same for both sides."""
    fds = [os.open(directory / f"f{n}", os.O_CREAT | os.O_RDWR, 0o600) for n in range(TARGETS)]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def both(pair: Pair, files: list[int]) -> Iterator[Both]:
    both = Both(pair, files)
    yield both
    both.clear()


class Both:
    """A pair, and how many descriptors of each file either holds."""

    def __init__(self, pair: Pair, files: list[int]) -> None:
        self.pair = pair
        self.files = files

    def say(self, side: Side, data: bytes, *numbers: int) -> list[Message]:
        """Send bytes with the files of these numbers; the answers, fd numbers left out."""
        fds = [self.files[number] for number in numbers]
        side.monitor.send(data, fds)
        return [masked(message) for message in side.raw(b"")]

    def same(self, data: bytes, *numbers: int) -> list[JSON]:
        """Send the same to both; the answers, on which they agree."""
        answers = self.pair.same(f"{data!r} {numbers}", lambda side: self.say(side, data, *numbers))
        assert isinstance(answers, list)
        return answers

    def command(self, name: str, *numbers: int, **arguments: JSON) -> JSON:
        """Execute a command with descriptors on both; the answer."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        (answer,) = self.same(request(name, given), *numbers)
        return answer

    def held(self) -> dict[str, int]:
        """Which of the files both hold, and how often; they must agree."""

        def of(side: Side) -> Counter[str]:
            names = (Path(name).name for name in descriptors(side.server.pid).elements())
            return Counter(name for name in names if name[:1] == "f" and name[1:].isdigit())

        seen = settle(lambda: self.pair.each(of), lambda both: both[0] == both[1])
        assert seen[1] == seen[0], f"QEMU holds {seen[0]}, memd {seen[1]}"
        return dict(seen[1])

    def clear(self) -> None:
        """Close what is left, so that both are as they were."""
        for name in ("a", "b", "c"):
            self.pair.each(lambda side, name=name: side.ask("closefd", {"fdname": name}))  # type: ignore[misc]

        def remove(side: Side) -> None:
            for fdset in side.ask("query-fdsets")["return"]:
                side.ask("remove-fd", {"fdset-id": fdset["fdset-id"]})

        self.pair.each(remove)


def request(name: str, arguments: dict[str, Any], end: bytes = b"\n") -> bytes:
    return json.dumps({"execute": name, "arguments": arguments}).encode() + end


def masked(value: JSON) -> JSON:
    """A value without the numbers that descriptors have in a process."""
    if isinstance(value, list):
        # They were sorted by these numbers.
        return sorted((masked(item) for item in value), key=exact)
    if isinstance(value, dict):
        return {name: masked(item) for name, item in value.items() if name != "fd"}
    return value


@pytest.mark.parametrize("end", [b"\n", b""])
def test_names(both: Both, end: bytes) -> None:
    assert both.same(request("getfd", {"fdname": "a"}, end), 0) == [{"return": {}}]
    assert both.held() == {"f0": 1}
    # The same name again takes its place.
    assert both.same(request("getfd", {"fdname": "a"}, end), 1) == [{"return": {}}]
    assert both.held() == {"f1": 1}
    both.command("getfd")
    both.command("getfd", fdname="b")
    both.command("closefd", fdname="nope")
    both.command("closefd")
    both.command("closefd", fdname="a")
    assert both.held() == {}


@pytest.mark.parametrize("name", ["1a", "", "0", "-", "a b", "ä", "\u0660", "a" * 300])
def test_names_that_can_be(both: Both, name: str) -> None:
    answer = both.command("getfd", 0, fdname=name)
    if "return" in answer:
        assert both.held() == {"f0": 1}
        both.command("closefd", fdname=name)
    assert both.held() == {}


@pytest.mark.parametrize("end", [b"\n", b""])
def test_sets(both: Both, end: bytes) -> None:
    both.same(request("add-fd", {}, end), 0)
    both.same(request("add-fd", {"fdset-id": 5, "opaque": "five"}, end), 1)
    both.same(request("add-fd", {"fdset-id": 5}, end), 2)
    both.same(request("add-fd", {"opaque": ""}, end), 3)
    assert both.held() == {"f0": 1, "f1": 1, "f2": 1, "f3": 1}
    both.command("query-fdsets")
    both.command("remove-fd", fdset_id=99)
    both.command("remove-fd", fdset_id=5, fd=9999)
    both.command("remove-fd", fdset_id=-1)
    both.command("remove-fd", fdset_id=5)
    both.command("remove-fd", fdset_id=5)
    assert both.held() == {"f0": 1, "f3": 1}
    both.command("query-fdsets")


def test_a_single_one_of_a_set(both: Both) -> None:
    for number in range(3):
        both.command("add-fd", number, fdset_id=1)

    def remove_second(side: Side) -> JSON:
        (fdset,) = side.ask("query-fdsets")["return"]
        by_fd = sorted(each["fd"] for each in fdset["fds"])
        return side.ask("remove-fd", {"fdset-id": 1, "fd": by_fd[1]})

    both.pair.same("remove-fd", remove_second)
    assert both.held() == {"f0": 1, "f2": 1}


@pytest.mark.parametrize("arguments", [{"fdset_id": -1}, {"fdset_id": "1"}, {"x": 1}])
def test_refused_ones_are_not_kept(both: Both, arguments: dict[str, JSON]) -> None:
    assert "error" in both.command("add-fd", 0, **arguments)
    both.command("query-status")
    both.command("query-fdsets")
    # Whatever was not taken is closed when the next ones come.
    both.command("getfd", 1, fdname="a")
    assert both.held() == {"f1": 1}


@pytest.mark.parametrize("command", ["getfd", "add-fd"])
def test_nothing_came_along(both: Both, command: str) -> None:
    arguments = {"fdname": "a"} if command == "getfd" else {}
    answer = both.command(command, **arguments)
    assert answer["error"]["desc"] == "No file descriptor supplied via SCM_RIGHTS"


def test_several_in_a_message(both: Both) -> None:
    both.command("getfd", 0, 1, 2, fdname="a")
    assert both.held() == {"f0": 1}
    both.command("getfd", fdname="b")
    assert both.held() == {"f0": 1}


def test_two_commands_and_two_descriptors_in_a_message(both: Both) -> None:
    data = request("getfd", {"fdname": "a"}) + request("getfd", {"fdname": "b"})
    both.same(data, 0, 1)
    both.held()


def test_sixteen_with_nonsense(both: Both) -> None:
    both.same(b'{"execute": nonsense}\n', *range(TARGETS))
    both.command("getfd", 0, fdname="a")
    assert both.held() == {"f0": 1}
    for _ in range(3):
        both.same(b"]\n", *range(TARGETS))
    both.command("add-fd", 1)
    assert both.held() == {"f0": 1, "f1": 1}


def test_they_stay_with_the_monitor(both: Both) -> None:
    both.command("getfd", 0, fdname="a")
    both.command("add-fd", 1, fdset_id=2, opaque="x")

    def come_again(side: Side) -> JSON:
        side.monitor.close()
        side.monitor = side.server.monitor()
        return None

    both.pair.same("reconnect", come_again)
    assert both.held() == {"f0": 1, "f1": 1}
    both.command("query-fdsets")
    both.command("closefd", fdname="a")
    both.command("remove-fd", fdset_id=2)
    assert both.held() == {}


def test_those_not_taken_go_with_the_connection(both: Both) -> None:
    def leave(side: Side) -> JSON:
        side.monitor.send(b'{"execute": "query-status"}', both.files)
        side.monitor.read_answer()
        side.monitor.close()
        side.monitor = side.server.monitor()
        return None

    both.pair.same("leave", leave)
    both.command("getfd", 0, fdname="a")
    assert both.held() == {"f0": 1}


@pytest.mark.parametrize("more", [{}, {"share": True}, {"readonly": True}])
@pytest.mark.parametrize("name", ["1", "99", "x"])
def test_a_set_is_no_file_for_a_backend(both: Both, name: str, more: dict[str, JSON]) -> None:
    both.command("add-fd", 0, fdset_id=1)
    path = f"/dev/fdset/{name}"
    backend = {"qom-type": "memory-backend-file", "id": "m", "size": 4096, "mem-path": path}
    backend.update(more)
    answer = both.pair.ask("object-add", backend)
    assert "error" in answer
    assert both.held() == {"f0": 1}
