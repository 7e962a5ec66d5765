from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.persist.sd_notify import Notifier
from memd.persist.status import Status
from memd.qom import Tree
from tests.backends.doing import add


@pytest.fixture
def manager(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{directory}/notify")
        sock.setblocking(False)
        yield sock


async def test_the_line(tree: Tree, manager: socket.socket) -> None:
    lost: dict[str, object] = {}
    notifier = Notifier(manager.getsockname())
    status = Status(asyncio.get_running_loop(), notifier, tree, lost)
    assert status.line() == "STATUS=0 backends, 0 bytes"
    add(tree, "memfd", size=8 << 20)
    assert status.line() == "STATUS=1 backend, 8 MiB"
    for name in ("a", "b", "x" * 1000):
        lost[name] = None
    assert status.line() == f"STATUS=1 backend, 8 MiB; lost: a, b, {'x' * 60}"
    lost["d"] = lost["e"] = None
    for obj, kept in zip(tree.objects.each(), (False, None), strict=False):
        obj.kept = kept
    assert status.line().startswith("STATUS=1 backend, 8 MiB; not kept: 1; lost: a, ")
    assert status.line().endswith(" and 2 more")
    notifier.close()


class Often(Status):
    """Tells without much delay."""

    interval = 0.01


async def test_many_changes_are_told_once(tree: Tree, manager: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    notifier = Notifier(manager.getsockname())
    status = Often(loop, notifier, tree, {})
    for number in range(5):
        status.changed()
        add(tree, "ram", f"m{number}", size=4096)
    assert await loop.sock_recv(manager, 100) == b"STATUS=5 backends, 20 KiB"
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    status.changed()
    assert await loop.sock_recv(manager, 100) == b"STATUS=5 backends, 20 KiB"
    status.changed()
    status.close()
    notifier.close()


async def test_nobody_listens(
    tree: Tree, manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(manager.getsockname())
    status = Often(asyncio.get_running_loop(), notifier, tree, {})
    manager.close()
    status.changed()
    while not caplog.records:
        await asyncio.sleep(0)
    assert "the service manager can't be reached: Connection refused" in caplog.text
    notifier.close()
