"""How long another client waits while memory is preallocated, and while it is deleted."""

from __future__ import annotations

import threading
from time import perf_counter, sleep

from benchmarks.client import Client, add, command, delete
from benchmarks.figures import AT_MOST, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server

MIB = 1 << 20
INTERVAL = 0.001
"""Seconds between two questions of the other client."""

_QUESTION = command("qom-get", {"path": "/objects", "property": "type"})


class Prober:
    """Asks something small all the time, and notes how long each answer took."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self.waits: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = perf_counter()
            self._client.send(_QUESTION)
            # Events of progress are passed over.
            self._client.answer()
            now = perf_counter()
            self.waits.append((begin, now - begin))
            sleep(INTERVAL)

    def end(self) -> list[tuple[float, float]]:
        """Stop asking; when each question was sent, and how long it took, in seconds."""
        self._stop.set()
        self._thread.join()
        return self.waits


def measure(scale: Scale, take: Take, draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    size = scale(4096, 512) * MIB
    for side in sides:
        with Server(side) as server:
            client, other = server.client, server.second()
            points: list[tuple[float, float]] = []
            started = perf_counter()
            for name, request in (
                ("wait-prealloc", add("memfd", "x", size, prealloc=True)),
                ("wait-delete", delete("x")),
            ):
                prober = Prober(other)
                sleep(0.02)
                client.send(request)
                client.answer()
                sleep(0.02)
                waits = prober.end()
                take(name, side, max(wait for _begin, wait in waits) * 1e3)
                points += [(begin - started, wait * 1e3) for begin, wait in waits]
            other.close()
            draw("waits", side, points)


SUBJECT = Subject(
    "waits",
    (
        Figure(
            "wait-prealloc",
            "longest wait of another client: preallocation of 4 GiB",
            "ms",
            against="",
            less=True,
            aim=AT_MOST,
            target=25,
            worst=True,
            note="the worst of all rounds",
        ),
        Figure(
            "wait-delete",
            "longest wait of another client: its `object-del`",
            "ms",
            against="",
            less=True,
            aim=AT_MOST,
            target=25,
            worst=True,
            note="the worst of all rounds",
        ),
    ),
    measure,
)
