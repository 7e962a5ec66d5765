"""Bulk data into and out of a backend, beside cp(1) between files in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from benchmarks import bare
from benchmarks.client import add
from benchmarks.figures import CP, MEMCPY, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server
from memd.client import Client

MIB = 1 << 20


def rate(size: int, work: Callable[[], object]) -> float:
    """GB/s at which so many bytes are moved."""
    begin = perf_counter()
    work()
    return size / (perf_counter() - begin) / 1e9


def run(*words: str | Path, out: Path | None = None) -> None:
    """Run a command; its output may go to a file."""
    if out is None:
        subprocess.run(words, check=True)
        return
    with out.open("wb") as file:
        subprocess.run(words, check=True, stdout=file)


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round; QEMU has nothing to read and write memory with."""
    size = scale(1024, 32) * MIB
    memctl = Path(sys.executable).with_name("memctl")
    with tempfile.TemporaryDirectory(prefix="memd-bench-", dir="/dev/shm") as name:
        source, target = Path(name) / "source", Path(name) / "target"
        block = os.urandom(MIB)
        with source.open("wb") as file:
            for _ in range(size // MIB):
                file.write(block)

        def copy(name: str) -> None:
            # To a new file, as memctl's output goes.
            take(f"memctl-{name}", "limit", rate(size, lambda: run("cp", source, target)))
            target.unlink()

        for name in ("client-write", "client-read"):
            take(name, "limit", bare.copied(scale(256, 32) * MIB) / 1e9)
        with Server("memd") as server, Client(server.paths[1]) as client:
            server.client.send(add("memfd", "m", size, prealloc=True))
            server.client.answer()
            server.client.ask(add("memfd", "new", size))
            words = (memctl, "-s", server.paths[0])
            server.client.close()
            copy("write")
            into = rate(size, lambda: run(*words, "write", "new", "0", source))
            take("memctl-write", "memd", into)
            for name, line in (("read", ("read", "--raw", "m")), ("save", ("save", "m", "-"))):
                copy(name)
                taken = rate(size, lambda line=line: run(*words, *line, out=target))  # type: ignore[misc]
                take(f"memctl-{name}", "memd", taken)
                target.unlink()
            data = block * (scale(256, 32) * MIB // MIB)
            take("client-write", "memd", rate(len(data), lambda: client.write("m", 0, data)))
            take("client-read", "memd", rate(len(data), lambda: client.read("m", 0, len(data))))


SUBJECT = Subject(
    "bulk",
    (
        *(
            Figure(f"memctl-{name}", f"`memctl {line}", "GB/s", "limit", target=0.5, limit=CP)
            for name, line in (
                ("write", "write` of 1 GiB into fresh memory"),
                ("read", "read --raw` of 1 GiB to a file"),
                ("save", "save ID -` of 1 GiB to a file"),
            )
        ),
        Figure("client-write", "`Client.write` of 256 MiB", "GB/s", "limit", limit=MEMCPY),
        Figure("client-read", "`Client.read` of 256 MiB", "GB/s", "limit", limit=MEMCPY),
    ),
    measure,
)
