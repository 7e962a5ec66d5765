"""Commands a second: one at a time, in flight, with state, with a long answer."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.client import add, command, delete
from benchmarks.figures import Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server

IN_FLIGHT = 256
MIB = 1 << 20


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    for side in sides:
        with Server(side) as server:
            client = server.client
            client.execute("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": MIB})
            get = command("qom-get", {"path": "/objects/m", "property": "size"})

            count = scale(3000, 300)
            client.ask(get)
            begin = perf_counter()
            for _ in range(count):
                client.ask(get)
            take("qom-get", side, count / (perf_counter() - begin))

            bursts = scale(40, 4)
            begin = perf_counter()
            for _ in range(bursts):
                client.burst(get * IN_FLIGHT, IN_FLIGHT)
            take("in-flight", side, bursts * IN_FLIGHT / (perf_counter() - begin))

            count = scale(1000, 100)
            with TemporaryDirectory(dir="/dev/shm") as directory:
                path = Path(directory) / "file"
                path.write_bytes(bytes(MIB))
                for name, make in (
                    ("add-del", add("ram", "x", MIB)),
                    ("add-del-shared", add("file", "x", MIB, mem_path=str(path), share=True)),
                    ("add-del-private", add("file", "x", MIB, mem_path=str(path), share=False)),
                ):
                    drop = delete("x")
                    begin = perf_counter()
                    for _ in range(count):
                        client.ask(make)
                        client.ask(drop)
                    take(name, side, count / (perf_counter() - begin))

            count = scale(20, 3)
            schema = command("query-qmp-schema")
            client.execute("query-qmp-schema")
            length = 0
            begin = perf_counter()
            for _ in range(count):
                client.send(schema)
                length += len(client.line())
            take("schema", side, length / (perf_counter() - begin) / 1e6)


SUBJECT = Subject(
    "commands",
    (
        Figure("qom-get", "`qom-get`, one at a time", "commands/s", target=4),
        Figure("in-flight", "`qom-get`, 256 in flight", "commands/s", target=40),
        Figure("add-del", "`object-add` and `object-del` of ram", "pairs/s", target=3),
        Figure("add-del-shared", "the same of a file on tmpfs, shared", "pairs/s", target=3),
        Figure("add-del-private", "the same of a file on tmpfs, private", "pairs/s", target=3),
        Figure("schema", "`query-qmp-schema`", "MB/s", target=20),
    ),
    measure,
)
