"""Many backends: making them one after another, listing them, deleting among them."""

from __future__ import annotations

from time import perf_counter

from benchmarks import bare
from benchmarks.client import Client, add, command, delete
from benchmarks.figures import AT_LEAST, EXCHANGE, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server, allow_descriptors

MIB = 1 << 20
STEP = 250
"""Backends between two points of the curve."""


def grow(client: Client, begin: int, end: int) -> list[tuple[float, float]]:
    """Make memfd backends number `begin` to `end`; how many a second, step by step."""
    points = []
    for start in range(begin, end, STEP):
        stop = min(start + STEP, end)
        before = perf_counter()
        for number in range(start, stop):
            client.ask(add("memfd", f"m{number}", MIB))
        points.append((float(stop), (stop - start) / (perf_counter() - before)))
    return points


def measure(scale: Scale, take: Take, draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    few, more = scale(1500, 150), scale(4000, 400)
    # Each takes a descriptor, and memd keeps an eighth for connections.
    most = min(scale(20000, 2000), allow_descriptors() * 7 // 8 - 100)
    made = bare.exchanges(add("memfd", "m1", MIB), b'{"return": {}}\r\n', few)
    for name, number in (("memfd-1500", few), ("memfd-4000", more)):
        take(name, "limit", bare.together(made, bare.memfds(MIB, number)))
    # The answer with 1,500 has some 152 bytes for each.
    listed = bare.exchanges(command("query-memdev"), bytes(152 * few), scale(50, 5))
    take("query-memdev", "limit", listed)
    for side in sides:
        with Server(side) as server:
            client = server.client
            begin = perf_counter()
            points = grow(client, 0, few)
            first = perf_counter() - begin
            take("memfd-1500", side, few / first)

            count = scale(50, 5)
            query = command("query-memdev")
            client.execute("query-memdev")
            begin = perf_counter()
            for _ in range(count):
                client.send(query)
                client.line()
            take("query-memdev", side, count / (perf_counter() - begin))

            count = scale(300, 30)
            begin = perf_counter()
            for number in range(count):
                client.ask(delete(f"m{number}"))
            take("object-del", side, count / (perf_counter() - begin))
            for number in range(count):
                client.ask(add("memfd", f"m{number}", MIB))

            if side == "qemu" and not scale.first:
                continue
            begin = perf_counter()
            points += grow(client, few, more)
            take("memfd-4000", side, more / (first + perf_counter() - begin))
            if side == "memd":
                points += grow(client, more, most)
                early = [rate for _count, rate in points[: len(points) // 4]]
                late = [rate for _count, rate in points[-(len(points) // 4) :]]
                take("memfd-20000", side, sum(late) / len(late) / (sum(early) / len(early)))
            draw("many", side, points)


SUBJECT = Subject(
    "many",
    (
        Figure(
            "memfd-1500",
            "`object-add` of 1,500 memfd",
            "backends/s",
            target=25,
            limit=EXCHANGE,
        ),
        Figure(
            "memfd-4000",
            "`object-add` of 4,000 memfd",
            "backends/s",
            target=100,
            limit=EXCHANGE,
            note="QEMU: one round, it takes minutes",
        ),
        Figure(
            "memfd-20000",
            "rate of the last of 20,000 to that of the first",
            "",
            against="",
            aim=AT_LEAST,
            target=0.8,
            note="the last quarter to the first one: constant is 1"
            " (fewer where descriptors are limited)",
        ),
        Figure(
            "query-memdev", "`query-memdev` with 1,500", "commands/s", target=15, limit=EXCHANGE
        ),
        Figure("object-del", "`object-del` with 1,500 there", "commands/s", target=2.5),
    ),
    measure,
)
