"""Answers that were not asked for before: what memory takes, and the first after a change."""

from __future__ import annotations

import random
from statistics import median
from time import perf_counter

from benchmarks.client import Client, add, command, delete
from benchmarks.figures import AT_MOST, Draw, Figure, Scale, Subject, Take
from benchmarks.many import grow
from benchmarks.servers import Server

MIB = 1 << 20
PAGE = 4096
KINDS = {"ram": "ram", "memfd": "memfd"}


def milliseconds(client: Client, request: bytes, count: int) -> float:
    """The median time of an answer."""
    times = []
    for _ in range(count):
        begin = perf_counter()
        client.send(request)
        client.line()
        times.append(perf_counter() - begin)
    return median(times) * 1e3


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    for side in sides:
        with Server(side) as server:
            grow(server.client, 0, scale(1500, 150))
            query = command("query-memdev")
            take("first-query", side, 1e3 / milliseconds(server.client, query, 1))
    size, count = scale(1024, 64) * MIB, scale(15, 3)
    for kind in KINDS:
        with Server("memd") as server:
            client = server.client
            client.send(add(kind, "m", size, prealloc=True))
            client.answer()
            stat, map = (command(f"x-memdev-{name}", {"id": "m"}) for name in ("stat", "map"))
            take(f"stat-{kind}", "memd", milliseconds(client, stat, count))
            take(f"map-{kind}", "memd", milliseconds(client, map, count))
            # Half of it goes, in runs of 1 to 512 pages.
            runs, at = random.Random(17), 0
            while at < size:
                length = min(size - at, runs.randint(1, 512) * PAGE)
                client.execute("x-memdev-discard", {"id": "m", "offset": at, "length": length})
                at += length + runs.randint(1, 512) * PAGE
            take(f"stat-{kind}-mixed", "memd", milliseconds(client, stat, count))
            take(f"map-{kind}-mixed", "memd", milliseconds(client, map, count))
            client.ask(delete("m"))


SUBJECT = Subject(
    "cold",
    (
        Figure("first-query", "the first `query-memdev` with 1,500", "commands/s", target=15),
        *(
            Figure(
                f"{name}-{kind}{mixed}",
                f"`x-memdev-{name}` of 1 GiB of {kind}, {'a mixture' if mixed else 'all resident'}",
                "ms",
                against="",
                less=True,
                aim=AT_MOST,
                target=most,
            )
            for kind in KINDS
            for mixed in ("", "-mixed")
            for name, most in (("stat", 2), ("map", 5))
        ),
    ),
    measure,
)
