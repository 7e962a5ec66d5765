"""Migration to and from a descriptor that a client has put into a set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.standin import standin_pair

NAMED = "file:/dev/fdset/1"


def told(side: Side, flags: int, command: str, uri: str) -> Any:
    """The answer to a migration, with a descriptor of a file in set 1."""
    fd = os.open(side.scratch / "stream", flags | os.O_CREAT, 0o600)
    try:
        side.monitor.send(b'{"execute": "add-fd", "arguments": {"fdset-id": 1}}', [fd])
        assert "return" in side.monitor.read_answer()
    finally:
        os.close(fd)
    return side.ask(command, {"uri": uri})


@pytest.mark.parametrize("uri", [NAMED, "file:/dev/fdset/2", "file:/dev/fdset/x"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDONLY, os.O_RDWR])
def test_a_machine_is_sent_to_a_set(directory: Path, flags: int, uri: str) -> None:
    with standin_pair(directory, "-machine", "q35", "-m", "16") as pair:
        pair.same("answer", lambda side: told(side, flags, "migrate", uri))
        if flags == os.O_WRONLY and uri == NAMED:
            for side in (pair.reference, pair.subject):
                while side.ask("query-migrate")["return"]["status"] != "completed":
                    pass
                assert (side.scratch / "stream").stat().st_size > 0
                assert side.ask("query-fdsets")["return"][0]["fds"]


def test_a_machine_is_awaited_from_a_set_that_is_open_for_reading(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35", "-m", "16", "-incoming", "defer") as pair:
        pair.same("answer", lambda side: told(side, os.O_WRONLY, "migrate-incoming", NAMED))
