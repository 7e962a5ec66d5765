"""Pools: memory that is made before it is asked for, with real memory of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memd import backends
from memd.json_types import JSON, JSONObject
from memd.pages.pools import RESPITE, Pools
from memd.qom import Tree
from tests.conftest import hugepage_state
from tests.differential.harness import settle
from tests.differential.kernel import children, command_of, descriptors, regions, resident
from tests.differential.server import PATIENCE, Message, Monitor, Server
from tests.faults.conftest import ControlGroup, control_group
from tests.manager import ServiceManager

__all__ = ["control_group"]

MIB = 1 << 20
SIZE = 16 * MIB
KINDS: dict[str, dict[str, JSON]] = {
    "memory-backend-memfd": {},
    "memory-backend-shm": {},
    "memory-backend-ram": {},
    "memory-backend-ram,share=on": {"share": True},
    "memory-backend-memfd,share=off": {"share": False},
    "memory-backend-ram,policy=bind,host-nodes=0,merge=off": {
        "policy": "bind",
        "host-nodes": [0],
        "merge": False,
    },
    "memory-backend-memfd,dump=off,seal=off": {"dump": False, "seal": False},
}


def pools(monitor: Monitor) -> list[dict[str, JSON]]:
    found: list[dict[str, JSON]] = monitor.execute("x-pool-query")["return"]
    return found


def settled(monitor: Monitor) -> list[dict[str, JSON]]:
    """The pools once each is full, or has stopped."""

    def done(found: list[dict[str, JSON]]) -> bool:
        return all(each["ready"] == each["count"] or "stopped" in each for each in found)

    found = settle(lambda: pools(monitor), done, PATIENCE)
    assert done(found), found
    return found


def add(monitor: Monitor, kind: str, id: str, **more: JSON) -> Message:
    options = {"size": SIZE, "prealloc": True, **KINDS.get(kind, {}), **more}
    return monitor.execute("object-add", {"qom-type": kind.split(",")[0], "id": id, **options})


def told(monitor: Monitor, command: str, **arguments: JSON) -> JSON:
    """What a command returns."""
    answer = monitor.execute(command, arguments)
    assert "return" in answer, answer
    return answer["return"]


class _StoppedClock(asyncio.SelectorEventLoop):
    """A loop whose time passes when a test says so."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def turn(self, times: int = 20) -> None:
        """Run what can be run at this time."""
        for _ in range(times):
            self.run_until_complete(asyncio.sleep(0))


def test_the_client_has_its_answer_before_a_pool_is_refilled() -> None:
    """What follows an answer in the same turn keeps a processor that its reader may need."""
    tree = Tree()
    backends.register(tree)
    options: JSONObject = {"qom-type": "memory-backend-ram", "size": 65536, "prealloc": True}

    async def in_thread(work: Callable[[], Any]) -> Any:
        return work()

    async def make() -> Pools:
        return Pools(tree, [(options, 1)], 0, in_thread, lambda: None)

    def take() -> None:
        backend = tree.objects.prepare({**options, "id": "m0"})
        region = made.take(backend)
        assert region is not None
        region.close()

    loop = _StoppedClock()
    with closing(loop):
        made = loop.run_until_complete(make())
        for _ in range(2):
            loop.turn()
            loop.now += 1
            loop.turn()
            assert made.status() == "pools: 1 of 1 ready"
            take()
            loop.turn()
            (pool,) = made.describe()
            assert isinstance(pool, dict)
            assert (pool["ready"], pool["filling"]) == (0, 0)
            loop.now += RESPITE
        made.close()
        loop.turn()


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_takes_is_as_any_other(start_memd: Callable[..., Server], kind: str) -> None:
    """To qom-get, x-memdev-stat, query-memdev and to the kernel: name, flags, pages."""
    properties = [f"{name}={spelled(value)}" for name, value in KINDS[kind].items()]
    spec = ",".join([kind.split(",")[0], "size=16M", *properties])
    seen = []
    for options in ((), ("--pool", spec)):
        server = start_memd(*options)
        monitor = server.monitor()
        settled(monitor)
        # The name that memory-backend-ram with share=on gives its memfd.
        assert add(monitor, kind, "pool", **{"prealloc-threads": 2}) == {"return": {}}
        assert [each["taken"] for each in settled(monitor)] == [1] * bool(options)
        names = [each["name"] for each in told(monitor, "qom-list", path="/objects/pool")]
        seen.append(
            (
                [told(monitor, "qom-get", path="/objects/pool", property=each) for each in names],
                told(monitor, "x-memdev-stat"),
                told(monitor, "query-memdev"),
                {each.name.partition("qemu-")[0]: each.flags for each in regions(*of(server))},
                set(resident(server.pid)),
            )
        )
    assert seen[0] == seen[1]


def spelled(value: JSON) -> str:
    """A property's value as `--pool` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value[0] if isinstance(value, list) else value)


def of(server: Server) -> tuple[int, Path]:
    return server.pid, server.path.parent


@pytest.mark.parametrize("kind", ["memory-backend-memfd", "memory-backend-ram"])
def test_memory_is_never_handed_on(start_memd: Callable[..., Server], kind: str) -> None:
    server = start_memd("--pool", f"{kind},size=16M,count=2")
    monitor = server.monitor()
    settled(monitor)
    before = descriptors(server.pid), regions(*of(server))
    for _ in range(4):
        assert add(monitor, kind, "m0") == {"return": {}}
        assert told(monitor, "x-memdev-read", id="m0", offset=0, length=3) == {"data": "AAAA"}
        told(monitor, "x-memdev-write", id="m0", offset=0, data="c2Vj")
        told(monitor, "object-del", id="m0")
        settled(monitor)
    assert pools(monitor)[0]["taken"] == 4
    # What it was filled by is closed after it is told to be ready.
    after = settle(
        lambda: (descriptors(server.pid), regions(*of(server))), lambda now: now == before
    )
    assert after == before


def test_what_takes_and_what_does_not(start_memd: Callable[..., Server]) -> None:
    kind = "memory-backend-ram"
    server = start_memd("--pool", '{"qom-type": "memory-backend-ram", "size": 16777216}')
    monitor = server.monitor()
    settled(monitor)
    others: list[dict[str, JSON]] = [
        {"size": SIZE - 1},
        {"prealloc": False},
        {"share": True},
        {"merge": False},
        {"policy": "preferred", "host-nodes": [0]},
    ]
    for number, other in enumerate(others):
        assert add(monitor, kind, f"other{number}", **other) == {"return": {}}
    (pool,) = pools(monitor)
    assert (pool["taken"], pool["missed"]) == (0, 0)
    # Two at once: nothing is refilled in between.
    lines = [
        {"execute": "object-add", "arguments": {"qom-type": kind, "id": id, "size": SIZE}}
        for id in ("a", "b", "b")
    ]
    for line in lines:
        line["arguments"]["prealloc"] = True  # type: ignore[index]
    monitor.send("".join(json.dumps(line) for line in lines).encode())
    answers = [monitor.read_answer() for _ in lines]
    assert answers[:2] == [{"return": {}}] * 2
    assert "duplicate" in answers[2]["error"]["desc"]
    (pool,) = settled(monitor)
    assert (pool["taken"], pool["missed"]) == (1, 1)


def test_several_pools_and_the_same_one_twice(start_memd: Callable[..., Server]) -> None:
    memfd = "memory-backend-memfd,size=16M"
    specs = (memfd, "memory-backend-memfd,size=8M,count=2", f"{memfd},prealloc-threads=4,count=2")
    monitor = start_memd(*(word for each in specs for word in ("--pool", each))).monitor()
    found = settled(monitor)
    assert [(each["properties"]["size"], each["ready"]) for each in found] == [
        (SIZE, 3),
        (8 * MIB, 2),
    ]


def test_max_memory_counts_what_is_ready(start_memd: Callable[..., Server]) -> None:
    kind = "memory-backend-memfd"
    server = start_memd("--max-memory", "40M", "--pool", f"{kind},size=16M,count=3")
    monitor = server.monitor()
    (pool,) = settle(lambda: pools(monitor), lambda found: "stopped" in found[0], PATIENCE)
    assert (pool["ready"], pool["stopped"]) == (2, "--max-memory allows no more")
    # What it takes is counted already, what it has made is not there for others.
    assert "--max-memory allows" in add(monitor, kind, "other", share=False)["error"]["desc"]
    for id in ("m0", "m1"):
        assert add(monitor, kind, id) == {"return": {}}
    assert "--max-memory allows" in add(monitor, kind, "m2")["error"]["desc"]
    for id in ("m0", "m1"):
        told(monitor, "object-del", id=id)
    (pool,) = settle(lambda: pools(monitor), lambda found: found[0]["ready"] == 2, PATIENCE)
    assert pool["bytes"] == 2 * SIZE
    line = "refilling has stopped: --max-memory allows no more"
    assert line in server.stderr(line)


def test_the_last_memory_of_the_host_is_left(start_memd: Callable[..., Server]) -> None:
    server = start_memd("--pool", "memory-backend-ram,size=16M", "--pool-reserve", "1P")
    monitor = server.monitor()
    (pool,) = settled(monitor)
    reason = "the host has no more memory than --pool-reserve leaves free"
    assert (pool["ready"], pool["bytes"], pool["stopped"]) == (0, 0, reason)
    assert regions(*of(server)) == []
    # What is asked for is made as ever.
    assert add(monitor, "memory-backend-ram", "m0") == {"return": {}}
    assert pools(monitor)[0]["missed"] == 1
    line = f"16 MiB: refilling has stopped: {reason}"
    assert line in server.stderr(line)


def test_the_bound_of_a_control_group(
    control_group: Callable[[str], ControlGroup], start_memd: Callable[..., Server]
) -> None:
    group = control_group("memory")
    group.limit(160 * MIB)
    server = start_memd("--pool", "memory-backend-ram,size=64M,count=8")
    group.take(server.pid)
    monitor = server.monitor()
    (pool,) = settle(lambda: pools(monitor), lambda found: "stopped" in found[0], PATIENCE)
    assert pool["stopped"] == "the control group allows no more memory"
    assert 1 <= pool["ready"] < 8
    # What takes makes no room, and what is deleted does.
    options = {"size": 64 * MIB}
    for _ in range(2):
        assert add(monitor, "memory-backend-ram", "m0", **options) == {"return": {}}
        told(monitor, "object-del", id="m0")
        again = settle(lambda: pools(monitor), lambda found: found[0]["ready"] >= 1, PATIENCE)
        assert again[0]["ready"] >= 1
    assert server.alive()


def test_huge_pages(hugepages: Callable[[int], None], start_memd: Callable[..., Server]) -> None:
    kind = "memory-backend-memfd"
    hugepages(8)
    free = hugepage_state()["Free"]
    server = start_memd("--pool", f"{kind},size=16M,hugetlb=on,count=2")
    monitor = server.monitor()
    (pool,) = settle(lambda: pools(monitor), lambda found: "stopped" in found[0], PATIENCE)
    assert (pool["ready"], pool["bytes"]) == (1, SIZE)
    assert pool["stopped"].endswith("Cannot allocate memory")
    assert hugepage_state()["Free"] == free - 8
    # There is none left, but for it.
    options: dict[str, JSON] = {"qom-type": kind, "size": SIZE, "hugetlb": True, "prealloc": True}
    explained = told(monitor, "x-memdev-explain", id="m0", **options)
    assert (explained["verdict"], explained["pool"], explained["warnings"]) == ("works", True, [])
    told(monitor, "object-add", id="m0", **options)
    explained = told(monitor, "x-memdev-explain", id="m1", **options)
    assert (explained["verdict"], explained["pool"]) == ("fails", False)
    assert told(monitor, "x-memdev-stat")[0]["resident"] == SIZE
    told(monitor, "object-del", id="m0")
    (pool,) = settle(lambda: pools(monitor), lambda found: found[0]["ready"] == 1, PATIENCE)
    server.stop()
    assert settle(lambda: hugepage_state()["Free"], lambda now: now == free) == free


def test_the_process_that_populates_is_replaced_and_ends_with_the_daemon(
    start_memd: Callable[..., Server],
) -> None:
    kind = "memory-backend-memfd"
    server = start_memd("--pool", f"{kind},size=16M")
    monitor = server.monitor()
    settled(monitor)
    (filler,) = children(server.pid)
    os.kill(filler, signal.SIGKILL)
    assert add(monitor, kind, "m0") == {"return": {}}
    (pool,) = settle(lambda: pools(monitor), lambda found: found[0]["ready"] == 1, PATIENCE)
    assert "stopped" not in pool
    (last,) = {*children(server.pid)} - {filler}
    server.process.kill()
    assert settle(lambda: command_of(last), lambda command: not command) == b""


def test_a_restart_keeps_what_was_taken_and_makes_the_pool_anew(
    manage: Callable[..., ServiceManager],
) -> None:
    kind = "memory-backend-memfd"
    manager = manage("--pool", f"{kind},size=16M,count=2", capacity=8)
    manager.start_and_wait()
    monitor = Monitor(manager.directory / "qmp.sock")
    settled(monitor)
    settle(lambda: manager.status, lambda line: "2 of 2" in line)
    assert manager.status == "0 backends, 0 bytes; pools: 2 of 2 ready"
    assert add(monitor, kind, "m0") == {"return": {}}
    told(monitor, "x-memdev-write", id="m0", offset=0, data="a2VwdA==")
    settled(monitor)
    assert len(manager.names()) == 2, "the list, and what was taken"
    for end in (manager.end, manager.kill):
        monitor.close()
        end()
        manager.start_and_wait()
        monitor = Monitor(manager.directory / "qmp.sock")
        data = told(monitor, "x-memdev-read", id="m0", offset=0, length=4)
        assert data == {"data": "a2VwdA=="}
        (pool,) = settled(monitor)
        assert (pool["ready"], pool["taken"]) == (2, 0)
    monitor.close()
