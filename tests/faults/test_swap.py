"""A control group's limit where there is swap: what its pages may take of it counts, no more."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import NOT_HERE, alone
from tests.differential.server import Server
from tests.faults.conftest import MIB, ControlGroup, arguments, error
from tests.faults.test_memory_limit import NO_MEMORY

LIMIT = 128 * MIB
SIZE = 160 * MIB


@pytest.fixture
def swap(directory: Path) -> Iterator[None]:
    """Swap space of 128 MiB."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    if shutil.which("mkswap") is None or shutil.which("swapon") is None:
        pytest.skip("needs mkswap(8) and swapon(8): they are not on PATH")
    path = directory / "swap"
    path.touch(0o600)
    with path.open("wb") as file:
        # It may have no holes.
        for _ in range(128):
            file.write(bytes(MIB))
    with alone("swap"):
        subprocess.run(["mkswap", str(path)], check=True, capture_output=True)
        done = subprocess.run(["swapon", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{NOT_HERE}swap: {done.stderr.strip()}")
        try:
            yield
        finally:
            subprocess.run(["swapoff", str(path)], check=True)


# Pages of zeroes in anonymous memory the kernel may give up instead of swapping them out.
@pytest.mark.parametrize(
    ("kind", "step"), [("ram", 3 * MIB), ("memfd", 48 * MIB), ("shm", 48 * MIB)]
)
def test_what_fits_with_swap_is_made(
    swap: None,
    control_group: Callable[[str], ControlGroup],
    start_memd: Callable[..., Server],
    kind: str,
    step: int,
) -> None:
    group = control_group("memory")
    group.limit(LIMIT)
    server = start_memd()
    group.take(server.pid)
    monitor = server.monitor()
    made = arguments(kind, size=SIZE, prealloc=True)
    assert monitor.execute("object-add", made) == {"return": {}}
    for offset in range(0, SIZE, step):
        there = {"id": "m", "offset": offset, "data": "QUJD" * min(MIB, (SIZE - offset) // 3)}
        assert monitor.execute("x-memdev-write", there) == {"return": {}}
    [row] = monitor.execute("x-memdev-stat", {"id": "m"})["return"]
    assert row["swapped"] >= SIZE - LIMIT
    for offset in range(0, SIZE, 48 * MIB):
        there = {"id": "m", "offset": offset, "length": 6}
        assert monitor.execute("x-memdev-read", there) == {"return": {"data": "QUJDQUJD"}}
    # What is swapped is not free: there is no room for as much again.
    again = arguments(kind, id="n", size=SIZE, prealloc=True)
    assert error(monitor.execute("object-add", again)) == NO_MEMORY
    assert server.alive()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory.memsw.limit_in_bytes", LIMIT),
        ("memory.swappiness", 0),
        ("memory.swap.max", 0),
    ],
)
def test_swap_that_the_group_may_not_use_does_not_count(
    swap: None,
    control_group: Callable[[str], ControlGroup],
    start_memd: Callable[..., Server],
    name: str,
    value: int,
) -> None:
    group = control_group("memory")
    group.limit(LIMIT)
    if not group.set(name, value):
        pytest.skip(f"{NOT_HERE}control groups with {name}")
    server = start_memd()
    group.take(server.pid)
    monitor = server.monitor()
    answer = monitor.execute("object-add", arguments("memfd", size=SIZE, prealloc=True))
    assert error(answer) == NO_MEMORY
    fits = arguments("memfd", size=LIMIT // 2, prealloc=True)
    assert monitor.execute("object-add", fits) == {"return": {}}
    assert server.alive()
