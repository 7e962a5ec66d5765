"""`memctl pool`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.differential.harness import settle
from tests.differential.server import PATIENCE, Server
from tests.memctl.conftest import Memctl


def test_the_table(start_memd: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    server = start_memd(
        *("--pool", "memory-backend-memfd,size=2M,dump=off,count=2"),
        *("--pool", "memory-backend-ram,size=32M", "--max-memory", "8M"),
    )
    memctl = Memctl(server.path, capsys)

    def done(found: list[dict[str, object]]) -> bool:
        return found[0]["ready"] == 2 and "stopped" in found[1]

    found = settle(lambda: memctl.data("pool"), done, PATIENCE)
    assert done(found)
    titles, memfd, ram = memctl.out("pool").splitlines()
    head = "MEMORY READY OF TAKEN MISSED BYTES REFILLING"
    assert " ".join(titles.split()) == head
    spec = "memory-backend-memfd,size=2M,dump=off,prealloc=on"
    assert " ".join(memfd.split()) == f"{spec} 2 2 0 0 4 MiB -"
    assert ram.startswith("memory-backend-ram,size=32M,prealloc=on ")
    assert ram.endswith("  --max-memory allows no more")


def test_none(memctl: Memctl) -> None:
    assert memctl.data("pool") == []
    assert memctl.out("pool").startswith("MEMORY")
