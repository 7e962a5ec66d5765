"""What it takes to be there: time to start, and resident memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from benchmarks.client import add
from benchmarks.figures import AT_MOST, PYTHON, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server, environment

MIB = 1 << 20


def start_python() -> float:
    """Seconds until Python has imported asyncio; its end is not counted, as a server's is not."""
    line = [sys.executable, "-c", "import asyncio, os; os.write(1, b'x')"]
    begin = perf_counter()
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, bufsize=0) as process:
        if process.stdout is not None:
            process.stdout.read(1)
        return perf_counter() - begin


def per_backend(server: Server, first: int, last: int) -> float:
    """Bytes of resident memory for each ram backend between these numbers."""
    before = 0
    for number in range(last):
        if number == first:
            before = server.resident()
        server.client.ask(add("ram", f"m{number}", MIB))
    return (server.resident() - before) / (last - first)


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    starts: dict[str, list[float]] = {"memd": [], "qemu": [], "limit": []}
    for _ in range(scale(10, 2)):
        starts["limit"].append(start_python())
        for side in sides:
            with Server(side) as server:
                starts[side].append(server.start)
    for side, times in starts.items():
        if times:
            take("start", side, statistics.median(times) * 1e3)
            take("start-qemu", side, statistics.median(times) * 1e3)
    for side in sides:
        with Server(side) as server:
            take("memory", side, server.resident() / MIB)
            # QEMU takes minutes to make as many.
            last = scale(10000, 1000) if side == "memd" else scale(1500, 300)
            take("memory-backend", side, per_backend(server, last // 10, last) / 1024)


SUBJECT = Subject(
    "footprint",
    (
        Figure(
            "start",
            "start to greeting, to Python alone",
            "ms",
            against="limit",
            limit=PYTHON,
            less=True,
            aim=AT_MOST,
            target=2.0,
        ),
        Figure("start-qemu", "start to greeting", "ms", less=True, limit=PYTHON),
        Figure("memory", "resident memory after the start", "MiB", less=True, target=1.0),
        Figure(
            "memory-backend",
            "resident memory a ram backend, up to 10,000",
            "KiB",
            against="",
            less=True,
            aim=AT_MOST,
            target=4,
            note="QEMU: up to 1,500",
        ),
    ),
    measure,
)
