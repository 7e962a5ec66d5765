"""Commands whose every system call fails once: an error, nothing left, and it works then.

The n-th call to the kernel fails, for each n until the command makes no more of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.errors import QMPError
from memd.faulty.kernel import FaultyHost
from memd.session import Peer
from memd.work import Outcome
from tests.commands.fakes import Console
from tests.descriptors import open_descriptors
from tests.differential.kernel import regions
from tests.stepping import as_user
from tests.users import STRANGER

SIZE = 1 << 20
MOST_CALLS = 200
KINDS = [
    *((kind, share) for kind in ("ram", "memfd", "file", "new-file") for share in (False, True)),
    *(("shm", True), ("directory", True), ("read-only", False)),
]
"""What memory is of, and whether it is shared."""


class Kernel:
    """A kernel whose call of a number fails.

    Attributes:
        at: which one; 0 for none.
        failed: the kind of the one that has failed, "" for none yet.
    """

    def __init__(self) -> None:
        self.at = self.calls = 0
        self.failed = ""

    def refuse(self, kind: str) -> int:
        self.calls += 1
        if self.calls != self.at:
            return 0
        self.failed = kind
        return errno.EIO

    def begin(self, at: int) -> None:
        self.at, self.calls, self.failed = at, 0, ""


class Tried:
    """A daemon whose kernel fails as told, and all that it may leave behind."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.kernel = Kernel()
        self.console = Console()
        self.console.client.peer = Peer(os.getpid(), STRANGER, STRANGER, frozenset())
        tree = self.console.daemon.tree
        tree.host = FaultyHost(self.kernel.refuse)
        self.objects = tree.objects

    def state(self) -> tuple[object, ...]:
        """What there is: all that a failed command leaves as it was."""
        quota, account = self.objects.quota, self.objects.account
        files = {each.name: each.stat().st_size for each in self.place.iterdir()}
        return (
            open_descriptors(),
            regions(os.getpid(), self.place),
            [each.name for each in self.objects.each()],
            (quota.objects, quota.memory, account.places.taken, account.descriptors.taken),
            files,
        )

    def ask(self, name: str, arguments: dict[str, Any]) -> QMPError | None:
        """Have a client of another user run a command; gives its error."""
        try:
            with as_user(STRANGER):
                value = self.console.begin(name, **arguments).finish()
        except QMPError as error:
            return error
        if isinstance(value, Outcome):
            for fd in value.fds:
                os.close(fd)
        return None

    def fail_each(
        self, name: str, arguments: dict[str, Any], undo: Callable[[], None]
    ) -> list[str]:
        """Run a command until none of its calls is left to fail; the kinds of those that did.

        Args:
            undo: what takes back a command that has succeeded.
        """
        failed: list[str] = []
        before = self.state()
        for at in range(1, MOST_CALLS):
            self.kernel.begin(at)
            error = self.ask(name, arguments)
            kind = self.kernel.failed
            self.kernel.begin(0)
            if error is None:
                undo()
            else:
                assert kind, f"{name} failed by itself: {error}"
                assert "internal error" not in error.desc, (kind, at, error.desc)
            assert self.state() == before, (kind, at, error)
            if not kind:
                assert error is None
                return failed
            failed.append(kind)
            # It works at once.
            assert self.ask(name, arguments) is None
            undo()
            assert self.state() == before, (kind, at)
        raise AssertionError(f"{name} makes more than {MOST_CALLS} calls")


@pytest.fixture
def tried(tmp_path: Path) -> Tried:
    return Tried(tmp_path)


def backend(place: Path, kind: str) -> dict[str, Any]:
    """The arguments of object-add for a backend."""
    told: dict[str, Any] = {"id": "m", "size": SIZE}
    if kind in ("ram", "memfd", "shm"):
        return {**told, "qom-type": f"memory-backend-{kind}"}
    path = place / "file"
    if kind == "directory":
        path = place
    elif kind != "new-file":
        path.write_bytes(bytes(SIZE))
    told |= {"qom-type": "memory-backend-file", "mem-path": str(path)}
    return {**told, "readonly": True, "rom": "off"} if kind == "read-only" else told


@pytest.mark.parametrize("policy", ["default", "bind"])
@pytest.mark.parametrize("prealloc", [False, True])
@pytest.mark.parametrize(("kind", "share"), KINDS)
def test_object_add(
    tried: Tried, tmp_path: Path, kind: str, share: bool, prealloc: bool, policy: str
) -> None:
    arguments = backend(tmp_path, kind) | {"share": share, "prealloc": prealloc}
    if policy == "bind":
        arguments |= {"policy": "bind", "host-nodes": [0]}

    def undo() -> None:
        assert tried.ask("object-del", {"id": "m"}) is None
        if kind == "new-file":
            # A file that was made stays, as with QEMU.
            (tmp_path / "file").unlink()

    failed = tried.fail_each("object-add", arguments, undo)
    assert "mmap" in failed
    assert prealloc <= ("populate" in failed)
    assert (policy == "bind") <= ("mbind" in failed)


@pytest.mark.parametrize("kind", ["ram", "memfd", "shm", "file"])
def test_save_export_and_object_del(tried: Tried, tmp_path: Path, kind: str) -> None:
    arguments = backend(tmp_path, kind) | {"share": kind != "ram"}
    saved = tmp_path / "saved"
    assert tried.ask("object-add", arguments) is None
    write = {"id": "m", "offset": 4096, "data": "eHh4"}
    assert tried.ask("x-memdev-write", write) is None
    save = {"id": "m", "filename": str(saved)}
    assert "open" in tried.fail_each("x-memdev-save", save, saved.unlink)
    if kind != "ram":
        tried.fail_each("x-memdev-export", {"id": "m"}, lambda: None)

    def again() -> None:
        assert tried.ask("object-add", arguments) is None
        assert tried.ask("x-memdev-write", write) is None

    tried.fail_each("object-del", {"id": "m"}, again)
    assert tried.ask("object-del", {"id": "m"}) is None
