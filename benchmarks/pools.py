"""Pools: how long an object-add of much memory takes, and what others have of the refilling."""

from __future__ import annotations

from time import perf_counter, sleep

from benchmarks.client import Client, add, command, delete
from benchmarks.figures import AT_MOST, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server
from benchmarks.waits import Prober

MIB = 1 << 20
SIZES = {"memfd": 4096, "ram": 1024}
"""MiB; private memory is refilled slowly."""

_QUESTION = command("qom-get", {"path": "/objects", "property": "type"})


def ready(client: Client) -> bool:
    """Whether the pool is full."""
    return all(each["ready"] == each["count"] for each in client.execute("x-pool-query"))


def wait_until_ready(client: Client) -> None:
    """Wait until it is."""
    while not ready(client):
        sleep(0.05)


def answer_time(client: Client, kind: str, size: int) -> float:
    """Seconds until an object-add with prealloc=on is answered."""
    begin = perf_counter()
    client.send(add(kind, "x", size, prealloc=True))
    client.answer()
    return perf_counter() - begin


def rounds(client: Client, seconds: float) -> tuple[float, float]:
    """Seconds that a question takes, and that making and deleting a small backend takes."""
    took = {"ask": 0.0, "make": 0.0}
    count = 0
    end = perf_counter() + seconds
    while (now := perf_counter()) < end:
        for _ in range(20):
            client.ask(_QUESTION)
        between = perf_counter()
        for number in range(5):
            client.ask(add("ram", f"s{number}", MIB))
            client.ask(delete(f"s{number}"))
        took["ask"] += between - now
        took["make"] += perf_counter() - between
        count += 1
    return took["ask"] / count / 20, took["make"] / count / 5


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    for kind, most in SIZES.items():
        size = scale(most, 512) * MIB
        for side in sides:
            pool = f"memory-backend-{kind},size={size}"
            with Server(side, *(("--pool", pool) if side == "memd" else ())) as server:
                client, other = server.client, server.second()
                if side == "memd":
                    wait_until_ready(client)
                prober = Prober(other)
                sleep(0.02)
                took = answer_time(client, kind, size)
                if side == "memd":
                    wait_until_ready(client)
                waits = sorted(wait for _begin, wait in prober.end())
                take(f"pool-{kind}", side, took * 1e3)
                take(f"pool-wait-{kind}", side, waits[int(len(waits) * 0.999)] * 1e3)
                other.close()
        if "memd" in sides:
            with Server("memd") as plain, Server("memd", "--pool", pool) as server:
                wait_until_ready(server.client)
                before = rounds(plain.client, 1.0)
                answer_time(server.client, kind, size)
                during = []
                while not ready(server.client):
                    during.append(rounds(server.client, 0.2))
                after = rounds(plain.client, 1.0)
                for at, name in enumerate(("ask", "make")):
                    usual = (before[at] + after[at]) / 2
                    mean = sum(each[at] for each in during) / len(during)
                    take(f"pool-{name}-{kind}", "memd", mean / usual)


def _figure(name: str, title: str, unit: str, target: float, note: str = "") -> Figure:
    return Figure(
        name, title, unit, "", less=True, aim=AT_MOST, target=target, worst=True, note=note
    )


def _figures(kind: str) -> tuple[Figure, ...]:
    size = SIZES[kind] >> 10
    refilled = f"while a pool of {kind} is refilled"
    return (
        _figure(f"pool-{kind}", f"`object-add` of {size} GiB {kind}, `prealloc=on`", "ms", 3),
        _figure(
            f"pool-wait-{kind}",
            f"another client's wait {refilled}, 99.9th percentile",
            "ms",
            25,
            "QEMU: while it preallocates",
        ),
        _figure(f"pool-ask-{kind}", f"`qom-get` {refilled}, to that without pools", "", 1.2),
        _figure(
            f"pool-make-{kind}",
            f"`object-add` and `-del` of 1 MiB {refilled}, to that without pools",
            "",
            1.2,
        ),
    )


SUBJECT = Subject("pools", tuple(each for kind in SIZES for each in _figures(kind)), measure)
