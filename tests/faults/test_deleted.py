"""The memory of a deleted region is gone: no mapping, no descriptor, no page.

Where 128 MiB are allowed, one region of 64 MiB after another fits only if all
of those before are gone.
"""

from __future__ import annotations

import os
import socket

import pytest

from tests.differential.kernel import descriptors, regions
from tests.differential.server import Monitor, Server
from tests.faults.conftest import MIB, arguments, error

SIZE = 64 * MIB


def export(monitor: Monitor) -> int:
    """Have a region's descriptor."""
    monitor.send(b'{"execute": "x-memdev-export", "arguments": {"id": "m"}}')
    data, fds, _flags, _address = socket.recv_fds(monitor.socket, 65536, 1)
    assert b"return" in data
    return fds[0]


@pytest.mark.parametrize(
    ("kind", "share"),
    [("ram", False), ("ram", True), ("memfd", True), ("shm", True), ("file", True)],
)
def test_one_after_another(limited: Server, kind: str, share: bool) -> None:
    monitor = limited.monitor()
    before = descriptors(limited.pid)
    options = arguments(kind, size=SIZE, share=share, prealloc=True)
    if kind == "file":
        # A file without a name, in memory.
        options["mem-path"] = "/dev/shm"
    for _ in range(4):
        assert monitor.execute("object-add", options) == {"return": {}}
        assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
        assert regions(limited.pid, limited.path) == []
        assert descriptors(limited.pid) == before


@pytest.mark.parametrize("kind", ["ram", "memfd", "shm"])
def test_what_was_handed_out_is_the_takers(limited: Server, kind: str) -> None:
    """It is there as long as anybody has it, and then gone."""
    monitor = limited.monitor()
    options = arguments(kind, size=SIZE, share=True, prealloc=True)
    assert monitor.execute("object-add", options) == {"return": {}}
    descriptor = export(monitor)
    try:
        assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
        assert os.fstat(descriptor).st_blocks * 512 == SIZE
        larger = {**options, "size": SIZE + 16 * MIB}
        assert "preallocating memory failed" in error(monitor.execute("object-add", larger))
    finally:
        os.close(descriptor)
    assert monitor.execute("object-add", larger) == {"return": {}}
    assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}


def test_a_message_that_was_refused(limited: Server) -> None:
    """What it held is let go with it."""
    monitor = limited.monitor()
    for _ in range(5):
        data = b"A" * (16 * MIB)
        monitor.send(b'{"execute": "x-memdev-write", "arguments": {"data": "%s"}}' % data)
        assert "id" in error(monitor.read_answer())
    assert monitor.execute("query-status")["return"]["running"]
