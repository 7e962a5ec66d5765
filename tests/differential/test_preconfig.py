"""`-preconfig`: what clients may say of a machine before it is made, and when it is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.server import Died
from tests.differential.standin import standin_pair, tell
from tests.differential.test_cli import release
from tests.differential.test_machine import compare

__all__ = ["release"]

Step = tuple[str, Any]

EXIT: Step = ("x-exit-preconfig", None)
CPUS: Step = ("query-hotpluggable-cpus", None)
MACHINE = ("-machine", "q35", "-m", "64M", "-smp", "4", "-preconfig")
BACKENDS = tuple(
    word for id in ("r0", "r1") for word in ("-object", f"memory-backend-ram,id={id},size=32M")
)


def node(number: int | None = None, **more: Any) -> Step:
    told = {} if number is None else {"nodeid": number}
    return "set-numa-node", {"type": "node", **told, **more}


def cpu(**place: int) -> Step:
    told = {level.replace("_", "-"): at for level, at in place.items()}
    return "set-numa-node", {"type": "cpu", **told}


def distance(source: int, target: int, value: int) -> Step:
    return "set-numa-node", {"type": "dist", "src": source, "dst": target, "val": value}


def cpus(side: Side) -> Any:
    """The CPUs, less their threads."""
    return [{**each, "thread-id": 0} for each in side.ask("query-cpus-fast")["return"]]


def compare_machines(pair: Pair) -> None:
    pair.same("cpus", cpus)
    tell(
        pair,
        [
            *(("query-memdev", None), CPUS, ("query-status", None), EXIT, node(3)),
            *(("query-memory-devices", None), ("query-memory-size-summary", None)),
            ("human-monitor-command", {"command-line": "info numa"}),
        ],
    )


def test_nodes_are_told_before_the_machine_is_made(directory: Path) -> None:
    steps: list[Step] = [
        *(("query-memdev", None), ("query-status", None), ("query-cpus-fast", None), CPUS),
        *(node(0, memdev="r0"), node(0, memdev="r0"), node(200), node(1, memdev="nope")),
        *(node(1, cpus=[9]), node(1, initiator=0), ("set-numa-node", {"type": "nope"})),
        *(distance(0, 1, 20), distance(0, 0, 20), distance(0, 300, 20), distance(0, 0, 5)),
        *(cpu(), cpu(node_id=5), cpu(node_id=0, thread_id=77), cpu(node_id=0, cluster_id=0)),
        *(
            cpu(node_id=0, core_id=1),
            CPUS,
            node(memdev="r1", cpus=[0, 2]),
            cpu(node_id=1, core_id=1),
        ),
        *(distance(0, 1, 20), CPUS, EXIT),
    ]
    with standin_pair(directory, *MACHINE, *BACKENDS) as pair:
        tell(pair, steps)
        compare_machines(pair)


def test_a_node_of_the_command_line_and_a_backend_of_a_client(directory: Path) -> None:
    backend = {"qom-type": "memory-backend-ram", "id": "late", "size": 32 << 20}
    options = (*MACHINE, *BACKENDS, "-numa", "node,nodeid=1,memdev=r1")
    steps = [CPUS, ("object-add", backend), node(1), node(memdev="late"), node(0, memdev="late")]
    with standin_pair(directory, *options) as pair:
        tell(pair, [*steps, EXIT])
        compare_machines(pair)


def test_what_is_not_taken_leaves_no_trace(directory: Path) -> None:
    with standin_pair(directory, *MACHINE) as pair:
        tell(pair, [node(200), cpu(node_id=0), CPUS])
        # QEMU keeps what it came by before it refused.
        for command, arguments in (node(1, cpus=[0, 9]), node(1, memdev="nope")):
            assert "error" in pair.subject.ask(command, arguments)
        tell(pair, [CPUS, EXIT])
        compare_machines(pair)


@pytest.mark.parametrize(
    "steps",
    [
        [node(0)],
        [node(0, memdev="r0")],
        [node(1, memdev="r0"), node(2, memdev="r1")],
        [node(0, memdev="r0"), node(1, memdev="r1"), node(2), distance(0, 1, 20)],
        [node(0, memdev="r0"), node(1, memdev="r0")],
    ],
)
def test_a_machine_that_can_not_be_made_is_the_end(directory: Path, steps: list[Step]) -> None:
    def end(side: Side) -> Any:
        try:
            # QEMU does not answer any more.
            assert "error" in side.ask(*EXIT)
        except Died:
            pass
        status = side.server.wait()
        return status, re.sub("^qemu-system-[a-z0-9_]+: ", "", side.server.stderr(), flags=re.M)

    with standin_pair(directory, *MACHINE, *BACKENDS) as pair:
        tell(pair, steps)
        pair.same("end", end)


def test_devices_come_with_the_machine(directory: Path) -> None:
    options = ("-object", "memory-backend-ram,id=d0,size=32M", "-device", "pc-dimm,memdev=d0")
    room = ("-machine", "q35", "-m", "64M,slots=2,maxmem=256M", "-preconfig")
    with standin_pair(directory, *room, *options) as pair:
        tell(pair, [("query-memory-devices", None), ("query-memdev", None), CPUS, EXIT])
        compare_machines(pair)


def test_a_machine_that_migrates(directory: Path) -> None:
    await_it: Step = ("migrate-incoming", {"uri": "unix:@DIR@/x"})
    steps = [("query-status", None), await_it, EXIT, await_it, ("query-migrate", None)]
    with standin_pair(directory, "-machine", "q35", "-preconfig", "-incoming", "defer") as pair:
        tell(pair, steps)


@pytest.mark.parametrize("more", [(), ("-machine", "nope"), ("-incoming", "nope")])
def test_what_is_awaited_has_to_wait(release: tuple[str, ...], more: tuple[str, ...]) -> None:
    compare(release, "-preconfig", "-incoming", "tcp:127.0.0.1:0", *more)


def test_no_machine_has_no_nodes(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none", "-preconfig") as pair:
        tell(pair, [node(0), ("query-status", None), EXIT, node(0), ("query-status", None)])


# More than one would abort a QEMU that has a thread for each.
ONE_THREAD = ("-preconfig", "-accel", "tcg,thread=single")
SMP: Step = ("qom-get", {"path": "/machine", "property": "smp"})


def smp(**counts: int) -> Step:
    return "qom-set", {"path": "/machine", "property": "smp", "value": counts}


@pytest.mark.parametrize("machine", ["pc", "q35", "isapc", "microvm"])
def test_what_cpus_a_machine_can_not_have(directory: Path, machine: str) -> None:
    steps = [
        *(smp(cpus=number) for number in (0, 256, 5000)),
        *(smp(**{level: 2}) for level in ("clusters", "books", "drawers")),
        *(smp(cpus=4, sockets=3), smp(cpus=4, maxcpus=2), smp(cpus=1, cores=2)),
        *(smp(), SMP, smp(cpus=1, threads=1), SMP),
    ]
    if machine == "isapc":
        steps = [smp(cpus=2), smp(dies=2), smp(modules=2), *steps]
    with standin_pair(directory, "-machine", machine, *ONE_THREAD) as pair:
        tell(pair, steps)


@pytest.mark.parametrize(
    ("machine", "counts"),
    [
        *(("pc", {"cpus": 2}), ("pc", {"cpus": 1, "maxcpus": 4, "sockets": 2})),
        *(("q35", {"cpus": 4, "dies": 2}), ("q35", {"cpus": 3, "maxcpus": 4, "modules": 2})),
        *(("q35", {"sockets": 2, "threads": 2}), ("microvm", {"cpus": 2})),
    ],
)
def test_cpus_are_told_before_the_machine_is_made(
    directory: Path, machine: str, counts: dict[str, int]
) -> None:
    with standin_pair(directory, "-machine", machine, *ONE_THREAD) as pair:
        tell(pair, [smp(cpus=3), smp(**counts), SMP, CPUS, EXIT, CPUS, SMP])
        pair.same("cpus", cpus)
        first = {"path": "/machine/unattached/device[0]"}
        tell(pair, [("qom-get", {**first, "property": name}) for name in ("apic-id", "phys-bits")])
        # It is too late for that; of another `maxcpus` a QEMU would abort.
        tell(pair, [smp(cpus=1, maxcpus=4), SMP] if "maxcpus" in counts else [])
        pair.same("cpus", cpus)


def test_fewer_cpus_and_their_nodes(directory: Path) -> None:
    steps = [
        *(smp(cpus=2, maxcpus=3), node(0, memdev="r0", cpus=[2])),
        *(node(1, cpus=[3]), node(1, memdev="r1", cpus=[0]), cpu(node_id=1, core_id=3)),
        *(cpu(node_id=1, core_id=1), CPUS, SMP, EXIT),
    ]
    with standin_pair(directory, *MACHINE, *BACKENDS) as pair:
        tell(pair, steps)
        compare_machines(pair)
