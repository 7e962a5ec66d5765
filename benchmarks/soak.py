"""A soak: clients that do anything at all for a long time, and what the daemon comes to hold.

    python -m benchmarks.soak [--minutes N] [--clients N] [--rate N] [--output DIR] [--seed N]

Most clients are sound: they make backends of every kind, some of which a pool has
ready, read, write, discard, save, export and delete them. Some are not: they send
rubbish, leave in the middle of a message or an answer, or read nothing. Every few
seconds the daemon's memory, descriptors, mappings and threads are read; between
rounds everything is deleted and everybody leaves, and what is held then is what is
compared. Ends with status 1 where it has grown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.servers import Server
from memd.client import AsyncClient
from memd.errors import QMPError

KIB, MIB = 1 << 10, 1 << 20

ROUND = 60.0
"""Seconds after which everything is deleted, and what is left is counted."""

SAMPLE = 5.0
"""Seconds between two looks at what is held meanwhile."""

SPARE = {"resident": 16 * MIB, "descriptors": 0, "mappings": 16, "threads": 4}
"""What may have come on from the second quiet moment to the last: an allocator's
memory, which moves by some megabytes from one moment to the next, its mappings,
and threads that wait for work. A leak of 100 bytes a command comes to 160 MiB in
an hour."""

POOLED: tuple[dict[str, Any], ...] = (
    {"qom-type": "memory-backend-memfd", "size": 4 * MIB, "prealloc": True},
    {"qom-type": "memory-backend-ram", "size": 2 * MIB, "prealloc": True},
)
"""What the daemon has pools of, two of each."""

KINDS = ("ram", "file", "memfd", "shm")
RUBBISH = (
    b"{" * 2000,
    b'{"execute":"object-add","arguments":{"qom-type":7}}',
    b"\xff\x00\x1b{}[]]]",
    b'{"execute":"x-memdev-read","arguments":{"id":"m1","offset":-1,"length":1e9}}',
    b'{"execute":"qom-get","arguments":{"path":"/objects/../../x","property":""}}',
    b'[1,2,{"a":"' + b"x" * 70_000,
)

Do = Callable[[AsyncClient], Awaitable[Any]]


class Mix:
    """Commands at random.

    Args:
        rng: where every choice comes from.
        directory: for files.
    """

    def __init__(self, rng: random.Random, directory: Path) -> None:
        self.rng = rng
        self.directory = directory
        self.done: Counter[str] = Counter()

    def id(self) -> str:
        """One of a few, so that clients get into each other's way."""
        return f"m{self.rng.randrange(40)}"

    async def step(self, client: AsyncClient) -> None:
        """One command, or several that belong together; a refusal is as good as success."""
        kinds: list[tuple[int, Do]] = [
            (8, self.add),
            (2, self.take),
            (7, self.delete),
            (4, self.read),
            (4, self.write),
            (2, self.discard),
            (2, self.export),
            (1, self.save),
            (1, self.set),
            (6, self.ask),
        ]
        do = self.rng.choices([do for _, do in kinds], [weight for weight, _ in kinds])[0]
        try:
            await do(client)
            self.done[do.__name__] += 1
        except QMPError:
            self.done[f"{do.__name__}, refused"] += 1

    async def add(self, client: AsyncClient) -> None:
        """object-add."""
        rng, kind = self.rng, self.rng.choice(KINDS)
        size = rng.choice((4 * KIB, 64 * KIB, MIB, 4 * MIB, 5000))
        options: dict[str, Any] = {"share": True} if kind == "shm" else {}
        if kind == "file":
            options["mem-path"] = str(self.directory / f"file{rng.randrange(12)}")
            options["readonly"] = rng.random() < 0.3
            options["rom"] = rng.choice(("auto", "auto", "on", "off"))
            options["share"] = rng.random() < 0.5
            options["discard-data"] = rng.random() < 0.1
        elif kind == "ram":
            options["share"] = rng.random() < 0.3
        if rng.random() < 0.2:
            options["prealloc"] = True
            options["prealloc-threads"] = rng.choice((1, 2))
        if rng.random() < 0.1:
            options |= {"policy": "bind", "host-nodes": [0]}
        if rng.random() < 0.02:
            size = rng.choice((0, 1 << 62))
        options |= {"qom-type": f"memory-backend-{kind}", "id": self.id(), "size": size}
        await client.execute("object-add", options)

    async def take(self, client: AsyncClient) -> None:
        """object-add of what a pool has."""
        await client.execute("object-add", {**self.rng.choice(POOLED), "id": self.id()})

    async def delete(self, client: AsyncClient) -> None:
        """object-del."""
        await client.execute("object-del", {"id": self.id()})

    async def read(self, client: AsyncClient) -> None:
        """x-memdev-read."""
        await client.read(self.id(), self.rng.randrange(0, 8 * KIB), self.rng.randrange(1, 8 * KIB))

    async def write(self, client: AsyncClient) -> None:
        """x-memdev-write."""
        data = self.rng.randbytes(self.rng.choice((1, 100, 4096, 100_000)))
        await client.write(self.id(), self.rng.randrange(0, 8 * KIB), data)

    async def discard(self, client: AsyncClient) -> None:
        """x-memdev-discard."""
        await client.execute("x-memdev-discard", {"id": self.id(), "offset": 0, "length": 4 * KIB})

    async def export(self, client: AsyncClient) -> None:
        """x-memdev-export, and the descriptor closed."""
        (await client.export(self.id())).close()

    async def save(self, client: AsyncClient) -> None:
        """x-memdev-save."""
        name = str(self.directory / f"saved{self.rng.randrange(4)}")
        await client.execute("x-memdev-save", {"id": self.id(), "filename": name})

    async def set(self, client: AsyncClient) -> None:
        """qom-set."""
        name, value = self.rng.choice((("merge", False), ("dump", False), ("prealloc", True)))
        where = {"path": f"/objects/{self.id()}", "property": name, "value": value}
        await client.execute("qom-set", where)

    async def ask(self, client: AsyncClient) -> None:
        """A query, or a command that there is not."""
        name, arguments = self.rng.choice(
            (
                ("query-memdev", None),
                ("x-memdev-stat", None),
                ("qom-list", {"path": "/objects"}),
                ("qom-get", {"path": f"/objects/{self.id()}", "property": "size"}),
                ("human-monitor-command", {"command-line": "info memdev"}),
                ("query-qmp-schema", None),
                ("no-such-command", {"a": [1, 2, 3]}),
            )
        )
        await client.execute(name, arguments)


async def sound(mix: Mix, path: Path, until: float, pause: float) -> None:
    """A client that behaves, and comes back now and then."""
    while time.monotonic() < until:
        async with await AsyncClient.connect(str(path)) as client:
            for _ in range(mix.rng.randrange(1, 200)):
                if time.monotonic() >= until:
                    break
                await mix.step(client)
                while not client.events.empty():
                    client.events.get_nowait()
                await asyncio.sleep(mix.rng.expovariate(1 / pause))


async def unsound(mix: Mix, path: Path, until: float, pause: float) -> None:
    """A client that does not: rubbish, half a message, nothing read, gone in the middle."""
    rng = mix.rng
    while time.monotonic() < until:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 16)
        try:
            await reader.readline()
            writer.write(b'{"execute":"qmp_capabilities"}')
            for _ in range(rng.randrange(1, 30)):
                writer.write(rng.choice(RUBBISH))
                if rng.random() < 0.2:
                    writer.write(b'{"execute":"query-qmp-schema"}' * rng.randrange(1, 20))
                if rng.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        # To half a message there is no answer.
                        await asyncio.wait_for(reader.read(rng.choice((1, 4096))), 0.05)
                mix.done["rubbish"] += 1
                await asyncio.sleep(rng.expovariate(1 / pause))
        except ConnectionError:
            # It had enough of this one.
            mix.done["cut off"] += 1
        finally:
            writer.transport.abort()


def held(pid: int) -> dict[str, int]:
    """What a process holds: bytes resident, descriptors, mappings, threads."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = {row.partition(":")[0]: row.partition(":")[2].split() for row in status}
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    return {
        "resident": int(fields["VmRSS"][0]) << 10,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "mappings": maps.count("\n"),
        "threads": int(fields["Threads"][0]),
    }


async def sampled(pid: int, start: float, samples: list[dict[str, float]]) -> None:
    """Look again and again, until cancelled."""
    while True:
        samples.append({"seconds": round(time.monotonic() - start, 1), **held(pid)})
        await asyncio.sleep(SAMPLE)


async def emptied(path: Path) -> None:
    """Delete every object, and wait until the pools are full; nobody else is there."""
    async with await AsyncClient.connect(str(path)) as client:
        for each in await client.execute("qom-list", {"path": "/objects"}):
            if each["type"].startswith("child<"):
                await client.execute("object-del", {"id": each["name"]})
        while any(pool["ready"] < pool["count"] for pool in await client.execute("x-pool-query")):
            await asyncio.sleep(0.1)


async def soak(options: argparse.Namespace, server: Server, directory: Path) -> dict[str, Any]:
    """Run; what was seen."""
    mix = Mix(random.Random(options.seed), directory)
    path, start = server.paths[0], time.monotonic()
    end = start + options.minutes * 60
    samples: list[dict[str, float]] = []
    quiet: list[dict[str, float]] = []
    pause = options.clients / options.rate
    sampling = asyncio.ensure_future(sampled(server.pid, start, samples))
    while time.monotonic() < end:
        until = min(end, time.monotonic() + ROUND)
        bad = max(1, options.clients // 5)
        tasks = [sound(mix, path, until, pause) for _ in range(options.clients - bad)]
        tasks += [unsound(mix, path, until, pause) for _ in range(bad)]
        await asyncio.gather(*tasks)
        await emptied(path)
        # Threads that idle end, and connections are seen to be gone.
        await asyncio.sleep(1)
        now = held(server.pid)
        quiet.append({"seconds": round(time.monotonic() - start, 1), **now})
        print(f"{quiet[-1]['seconds']:7.0f} s: {sum(mix.done.values()):,} done, {now}", flush=True)
    sampling.cancel()
    async with await AsyncClient.connect(str(path)) as client:
        for pool in await client.execute("x-pool-query"):
            mix.done[f"taken from a pool of {pool['qom-type']}"] = pool["taken"]
    return {
        "seed": options.seed,
        "clients": options.clients,
        "done": dict(mix.done.most_common()),
        "samples": samples,
        "quiet": quiet,
    }


def grown(quiet: list[dict[str, float]]) -> list[str]:
    """What is more at the last quiet moment than at the second: the first warms up."""
    if len(quiet) < 3:
        return []
    before, after = quiet[1], quiet[-1]
    return [
        f"{what}: {before[what]:.0f}, then {after[what]:.0f}"
        for what, spare in SPARE.items()
        if after[what] > before[what] + spare
    ]


def main() -> int:
    """Run, write, print; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500, help="commands a second, all together")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--output", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    directory = Path(tempfile.mkdtemp(prefix="memd-soak-", dir="/dev/shm"))
    try:
        pools: list[str] = []
        for each in POOLED:
            pools += ["--pool", f"{each['qom-type']},size={each['size']},prealloc=on,count=2"]
        with Server("memd", *pools) as server:
            result = asyncio.run(soak(options, server, directory))
    finally:
        shutil.rmtree(directory)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "soak.json").write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")
    from benchmarks.plots import draw_soak

    draw_soak(options.output / "soak.svg", result)
    print(json.dumps(result["done"], indent=1))
    more = grown(result["quiet"])
    print("\n".join(more) or "nothing has grown")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
