"""What goes wrong here is put right again: file systems, control groups, limits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import prefork
from tests.conftest import NOT_HERE
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, TREE, Message, Server

MIB = 1 << 20


def arguments(kind: str = "ram", **options: Any) -> Message:
    """object-add's arguments; underscores stand for dashes."""
    chosen: Message = {"qom-type": f"memory-backend-{kind}", "id": "m", "size": MIB}
    chosen.update((name.replace("_", "-"), value) for name, value in options.items())
    return chosen


def error(answer: Message) -> str:
    """The text of an answer that has to be an error."""
    return str(answer["error"]["desc"])


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def without_descriptors(server: Server, free: int = 0) -> Iterator[None]:
    """A process that can open nothing more, or only `free` things, in a `with` block."""
    used = {int(name) for name in os.listdir(f"/proc/{server.pid}/fd")}
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    unused = [number for number in range(len(used) + free + 1) if number not in used]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (unused[free], limits[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def executed() -> Iterator[None]:
    """What a daemon holds and has yet to load is its own, not of what it was forked from."""
    with prefork.executed():
        yield


class Broken:
    """A mounted file system, and what goes wrong in it."""

    def __init__(self, path: Path, control: Path) -> None:
        self.path = path
        self._control = control

    def fail(self, call: str, number: int) -> None:
        """Have a call fail from now on."""
        (self._control / call).write_text(str(number))

    def stall(self, call: str) -> None:
        """Have a call take until `mend`."""
        (self._control / call).write_text("stall")

    def mend(self) -> None:
        """Have every call work again."""
        for each in self._control.iterdir():
            each.unlink()


@pytest.fixture
def broken(directory: Path) -> Iterator[Broken]:
    """A FUSE file system whose calls fail as told."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip(f"{NOT_HERE}root and /dev/fuse")
    try:
        import mfusepy
    except (ImportError, OSError) as lack:
        pytest.skip(f"needs mfusepy and libfuse: {lack}")
    assert mfusepy
    path, control = directory / "broken", directory / "control"
    path.mkdir()
    control.mkdir()
    command = [sys.executable, "-m", "tests.faults.broken_fs", str(path), str(control)]
    process = subprocess.Popen(command, cwd=TREE, stderr=subprocess.PIPE)
    try:
        ready = settle(lambda: os.path.ismount(path) or process.poll() is not None, bool, PATIENCE)
        if not ready or process.poll() is not None:
            process.kill()
            pytest.skip(f"{NOT_HERE}FUSE: {process.communicate()[1]!r}")
        yield Broken(path, control)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class ControlGroup:
    """A control group with a limit.

    Args:
        path: its directory.
        name: the file that the limit stands in.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def limit(self, value: int) -> None:
        """Allow so much, in bytes, or so many."""
        (self._path / self._name).write_text(str(value))

    def refuse_swap(self) -> None:
        """Have its pages stay in memory."""
        for name in ("memory.swappiness", "memory.swap.max"):
            self.set(name, 0)

    def set(self, name: str, value: int) -> bool:
        """Write a file of the group's; gives whether there is one of that name."""
        there = (self._path / name).exists()
        if there:
            (self._path / name).write_text(str(value))
        return there

    def take(self, pid: int) -> None:
        """Put a process into the group."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> bool:
        """Remove the group; gives whether that could be done, its processes being gone."""
        try:
            self._path.rmdir()
        except OSError:
            return not self._path.exists()
        return True


_CONTROLLERS = {
    "memory": (("memory", "memory.limit_in_bytes"), ("", "memory.max")),
    "pids": (("pids", "pids.max"), ("", "pids.max")),
}
"""Where a controller's groups are, in version 1 and 2, and what their limit is called."""


@pytest.fixture
def control_group() -> Iterator[Callable[[str], ControlGroup]]:
    """Makes a control group: control_group("memory").

    To be asked for before `start_memd`: its processes have to be gone when it ends.
    """
    made: list[ControlGroup] = []

    def make(controller: str) -> ControlGroup:
        for below, name in _CONTROLLERS[controller]:
            path = Path("/sys/fs/cgroup", below, f"memd-test-{os.getpid()}-{controller}")
            try:
                path.mkdir()
            except OSError:
                continue
            made.append(ControlGroup(path, name))
            if (path / name).exists():
                return made[-1]
        pytest.skip(f"{NOT_HERE}control groups that limit {controller}")

    yield make
    left = [group for group in made if not settle(group.remove, bool)]
    assert left == [], "control groups that still have processes"


@pytest.fixture
def limited(
    control_group: Callable[[str], ControlGroup], start_memd: Callable[..., Server]
) -> Server:
    """A daemon that may use 128 MiB, and no swap."""
    group = control_group("memory")
    group.limit(128 * MIB)
    group.refuse_swap()
    server = start_memd()
    group.take(server.pid)
    return server
