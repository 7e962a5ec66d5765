"""Commands a second: one at a time, in flight, with state, with a long answer."""

from __future__ import annotations

import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks import bare
from benchmarks.client import add, command, delete
from benchmarks.figures import EXCHANGE, SOCKET, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server

IN_FLIGHT = 256
MIB = 1 << 20


def measure_limits(scale: Scale, take: Take) -> None:
    """What there is without a server around it."""
    get = command("qom-get", {"path": "/objects/m", "property": "size"})
    done = b'{"return": {}}\r\n'
    take("qom-get", "limit", bare.exchanges(get, b'{"return": 1048576}\r\n', scale(3000, 300)))
    both = [bare.exchanges(each, done, scale(1000, 100)) for each in (add("ram", "x", MIB), get)]
    with TemporaryDirectory(dir="/dev/shm") as directory:
        path = Path(directory) / "file"
        path.write_bytes(bytes(MIB))
        for name, file, flags in (
            ("add-del", "", mmap.MAP_PRIVATE),
            ("add-del-shared", str(path), mmap.MAP_SHARED),
            ("add-del-private", str(path), mmap.MAP_PRIVATE),
        ):
            calls = bare.mappings(MIB, scale(1000, 100), file, flags)
            take(name, "limit", bare.together(*both, calls))
    take("schema", "limit", bare.carried(scale(64, 8) * MIB) / 1e6)


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    measure_limits(scale, take)
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
        Figure("qom-get", "`qom-get`, one at a time", "commands/s", target=4, limit=EXCHANGE),
        Figure("in-flight", "`qom-get`, 256 in flight", "commands/s", target=40),
        *(
            Figure(name, title, "pairs/s", target=3, limit=EXCHANGE)
            for name, title in (
                ("add-del", "`object-add` and `object-del` of ram"),
                ("add-del-shared", "the same of a file on tmpfs, shared"),
                ("add-del-private", "the same of a file on tmpfs, private"),
            )
        ),
        Figure("schema", "`query-qmp-schema`", "MB/s", target=20, limit=SOCKET),
    ),
    measure,
)
