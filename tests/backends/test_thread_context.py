from __future__ import annotations

import os
import threading

import pytest

from memd.hostmem import libc
from memd.hostmem.host import Host
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here
from tests.backends.doing import MIB, add, change, delete, get, refusal
from tests.conftest import no_more_threads

CPUS = sorted(os.sched_getaffinity(0))


def make(tree: Tree, id: str = "t0", **options: JSON) -> JSON:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return run_here(tree.objects.create({"qom-type": "thread-context", "id": id, **named}))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("TC ")]


def test_a_thread(tree: Tree) -> None:
    make(tree)
    number = get(tree, "thread-id", "t0")
    (thread,) = threads()
    assert thread.native_id == number
    assert os.path.exists(f"/proc/self/task/{number}")
    assert get(tree, "cpu-affinity", "t0") == CPUS
    assert refusal(lambda: change(tree, "thread-id", 3, "t0")) == (
        "Property 'thread-context.thread-id' is not writable"
    )
    assert refusal(lambda: get(tree, "node-affinity", "t0")) == (
        "Property 'thread-context.node-affinity' is not readable"
    )
    assert delete(tree, "t0") == {}
    thread.join(60)
    assert threads() == []


def test_cpus(tree: Tree) -> None:
    make(tree, cpu_affinity=[CPUS[-1], CPUS[-1], 4321])
    assert get(tree, "cpu-affinity", "t0") == [CPUS[-1]]
    number = get(tree, "thread-id", "t0")
    change(tree, "cpu-affinity", [CPUS[0]], "t0")
    assert os.sched_getaffinity(number) == {CPUS[0]}
    # Others may move the thread, too.
    os.sched_setaffinity(number, CPUS)
    assert get(tree, "cpu-affinity", "t0") == CPUS
    # Nobody else is moved.
    assert sorted(os.sched_getaffinity(0)) == CPUS


def test_nodes(tree: Tree) -> None:
    if not os.path.exists("/sys/devices/system/node/node0"):
        pytest.skip("not here: a kernel with NUMA")
    make(tree, node_affinity=[0, 77])
    assert set(get(tree, "cpu-affinity", "t0")) <= set(range(os.cpu_count() or 1))
    change(tree, "cpu-affinity", [CPUS[0]], "t0")
    change(tree, "node-affinity", [0], "t0")
    assert set(get(tree, "cpu-affinity", "t0")) >= set(CPUS[:1])


REFUSALS: list[tuple[dict[str, JSON], str]] = [
    ({"cpu_affinity": []}, "CPU list is empty"),
    ({"cpu_affinity": [4321]}, "Setting CPU affinity failed: Invalid argument"),
    ({"cpu_affinity": [65535]}, "Setting CPU affinity failed: Invalid argument"),
    ({"cpu_affinity": [65536]}, "Parameter 'null' expects uint16_t"),
    ({"cpu_affinity": 0}, "Invalid parameter type for 'cpu-affinity', expected: array"),
    ({"node_affinity": []}, "Node list is empty"),
    ({"node_affinity": [77]}, "The nodes select no CPUs"),
    ({"node_affinity": [65535]}, "The nodes select no CPUs"),
]


@pytest.mark.parametrize(("options", "text"), REFUSALS)
def test_refusals(tree: Tree, options: dict[str, JSON], text: str) -> None:
    assert refusal(lambda: make(tree, **options)) == text
    for thread in threads():
        thread.join(60)
    assert threads() == []
    make(tree)
    ((name, value),) = options.items()
    assert refusal(lambda: change(tree, name.replace("_", "-"), value, "t0")) == text
    assert get(tree, "cpu-affinity", "t0") == CPUS


@pytest.mark.parametrize(
    ("cpus", "nodes", "text"),
    [
        ([0], [0], "Mixing CPU and node affinity not supported"),
        ([4321], [77], "Mixing CPU and node affinity not supported"),
        ([0], [], "Mixing CPU and node affinity not supported"),
        ([], [0], "CPU list is empty"),
    ],
)
def test_mixing(tree: Tree, cpus: JSON, nodes: JSON, text: str) -> None:
    assert refusal(lambda: make(tree, cpu_affinity=cpus, node_affinity=nodes)) == text
    assert refusal(lambda: make(tree, node_affinity=nodes, cpu_affinity=cpus)) == text


def test_no_more_threads(tree: Tree) -> None:
    with no_more_threads():
        assert refusal(lambda: make(tree)) == "cannot create a thread: can't start new thread"


class Populating(Host):
    """A kernel of which is noted on which CPUs memory was populated."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[int]] = []

    def advise(self, address: int, length: int, advice: int) -> int:
        if advice == libc.MADV_POPULATE_WRITE:
            self.seen.append(os.sched_getaffinity(0))
        return super().advise(address, length, advice)


@pytest.fixture
def populating_cpus(tree: Tree) -> list[set[int]]:
    """On which CPUs memory was populated."""
    tree.host = host = Populating()
    return host.seen


def test_preallocation_on_its_cpus(tree: Tree, populating_cpus: list[set[int]]) -> None:
    make(tree, cpu_affinity=[CPUS[-1]])
    add(tree, "ram", size=MIB, prealloc=True, prealloc_context="t0")
    assert get(tree, "prealloc-context") == "/objects/t0"
    assert populating_cpus == [{CPUS[-1]}]
    # Wherever it has been moved since.
    os.sched_setaffinity(get(tree, "thread-id", "t0"), {CPUS[0]})
    add(tree, "ram", "m1", size=MIB, prealloc_context="/objects/t0")
    change(tree, "prealloc", True, "m1")
    assert populating_cpus[1:] == [{CPUS[0]}]
    assert sorted(os.sched_getaffinity(0)) == CPUS


def test_it_may_go_before_those_that_refer_to_it(
    tree: Tree, populating_cpus: list[set[int]]
) -> None:
    make(tree, cpu_affinity=[CPUS[0]])
    add(tree, "ram", size=MIB, prealloc_context="t0")
    assert delete(tree, "t0") == {}
    assert get(tree, "prealloc-context") == ""
    change(tree, "prealloc", True)
    assert populating_cpus == [{CPUS[0]}]
    change(tree, "prealloc-context", "")


def test_only_thread_contexts(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    assert refusal(lambda: change(tree, "prealloc-context", "m0")) == (
        "Invalid parameter type for 'prealloc-context', expected: thread-context"
    )
