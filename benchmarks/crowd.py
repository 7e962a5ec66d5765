"""A thousand clients connected to one socket, each asking in its turn."""

from __future__ import annotations

import statistics
from time import perf_counter

from benchmarks.client import Client, command
from benchmarks.figures import Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server, allow_descriptors

CLIENTS = 1000
_ONE_A_SOCKET = "QEMU serves one client a socket: the second is not even greeted"


def measure(scale: Scale, take: Take, _draw: Draw, _sides: tuple[str, ...]) -> None:
    """One round."""
    allow_descriptors()
    with Server("memd") as server:
        begin = perf_counter()
        clients = [Client(server.paths[0]) for _ in range(scale(CLIENTS, 100))]
        take("crowd-connect", "memd", (perf_counter() - begin) / len(clients) * 1e6)
        get = command("qom-get", {"path": "/objects", "property": "type"})
        waits = []
        for _ in range(scale(5, 1)):
            for client in clients:
                begin = perf_counter()
                client.ask(get)
                waits.append(perf_counter() - begin)
        shares = statistics.quantiles(waits, n=100)
        take("crowd-p50", "memd", shares[49] * 1e6)
        take("crowd-p99", "memd", shares[98] * 1e6)
        for client in clients:
            client.close()


SUBJECT = Subject(
    "crowd",
    (
        Figure(
            "crowd-connect",
            "1,000 clients: connecting and negotiating",
            "µs each",
            against="",
            note=_ONE_A_SOCKET,
        ),
        Figure("crowd-p50", "1,000 clients: an answer, median", "µs", against=""),
        Figure("crowd-p99", "1,000 clients: an answer, 99th percentile", "µs", against=""),
    ),
    measure,
)
