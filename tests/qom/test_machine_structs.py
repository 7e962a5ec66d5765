from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom.machine_structs import VISITS, count_cpus, shared_caches, visit_smp
from memd.qom.topology import NO_CACHES, NO_PROCESSORS, ONE_CPU, Processors

MAXMEM = "invalid value of maxmem: "
PRODUCT = "Invalid CPU topology: product of the hierarchy must match maxcpus: "
TOPOLOGY = "Invalid CPU topology: maxcpus must be equal to or greater than smp: "

ACCEPTED: list[tuple[str, Any, Any]] = [
    ("boot", {}, {}),
    ("boot", {"order": "abcdefghijklmnop", "once": ""}, {"order": "abcdefghijklmnop", "once": ""}),
    ("boot", {"splash-time": -1, "splash": "/x"}, {"splash": "/x", "splash-time": -1}),
    ("memory", {}, {"size": 0}),
    ("memory", {"size": 1}, {"size": 8192}),
    ("memory", {"size": -1}, {"size": 0}),
    ("memory", {"size": 8192, "max-size": 8193}, {"size": 8192}),
    (
        "memory",
        {"size": 100, "max-size": 1 << 30, "slots": 2},
        {"size": 8192, "slots": 2, "max-size": 1 << 30},
    ),
    ("smp", {}, ONE_CPU),
    ("smp", {"cpus": 1, "sockets": 1, "cores": 1, "threads": 1}, ONE_CPU),
    ("smp", {"cpus": 1 << 32}, ONE_CPU),
    ("smp-cache", [], []),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("boot", [], "Invalid parameter type for 'boot', expected: object"),
    ("boot", {"a": 1}, "Parameter 'boot.a' is unexpected"),
    ("boot", {"a": 1, "order": 3}, "Invalid parameter type for 'boot.order', expected: string"),
    ("boot", {"order": "z"}, "Invalid boot device 'z'"),
    ("boot", {"once": "z", "order": "y"}, "Invalid boot device 'y'"),
    ("boot", {"order": "cdc"}, "Boot device 'c' was given twice"),
    ("memory", {"size": "1M"}, "Parameter 'memory.size' expects uint64"),
    ("memory", {"slots": 0}, "slots specified but no max-size"),
    (
        "memory",
        {"size": 5, "max-size": 7},
        MAXMEM + "maximum memory size (0x7) must be at least the initial memory size (0x2000)",
    ),
    (
        "memory",
        {"size": 5, "max-size": 8192, "slots": 1},
        MAXMEM + "memory slots were specified but maximum memory size (0x2000) is equal to"
        " the initial memory size (0x2000)",
    ),
    (
        "smp",
        {"dies": 0, "cpus": 2},
        "Invalid CPU topology: CPU topology parameters must be greater than zero",
    ),
    ("smp", {"dies": 2, "modules": 2}, "modules > 1 not supported by this machine's CPU topology"),
    ("smp", {"books": 2, "dies": 2}, "dies > 1 not supported by this machine's CPU topology"),
    (
        "smp",
        {"cpus": 1, "cores": 2},
        PRODUCT + "sockets (0) * cores (2) * threads (1) != maxcpus (1)",
    ),
    (
        "smp",
        {"threads": 2, "cpus": 1},
        PRODUCT + "sockets (1) * cores (0) * threads (2) != maxcpus (1)",
    ),
    (
        "smp",
        {"cpus": 3, "maxcpus": 2, "cores": 2},
        TOPOLOGY + "sockets (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (3)",
    ),
    (
        "smp",
        {"cpus": -5, "maxcpus": 2},
        TOPOLOGY + "sockets (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (4294967291)",
    ),
    *(
        ("smp", value, f"Invalid SMP CPUs {text} CPUs supported by machine 'none' is 1")
        for value, text in (
            ({"cpus": 2, "maxcpus": 4}, "4. The max"),
            ({"cpus": -1}, "-1. The max"),
            ({"dies": -1}, "-1. The max"),
            ({"cores": 1 << 16, "sockets": 1 << 16}, "0. The min"),
        )
    ),
    ("smp-cache", [{}], "Parameter 'smp-cache[0].cache' is missing"),
    (
        "smp-cache",
        [{"cache": "l2", "topology": "invalid"}],
        "Parameter 'topology' does not accept value 'invalid'",
    ),
]


def take(name: str, value: Any) -> Any:
    taken = VISITS[name](value, name)
    return count_cpus(taken, NO_PROCESSORS) if name == "smp" else taken


@pytest.mark.parametrize(("name", "value", "kept"), ACCEPTED)
def test_taken(name: str, value: Any, kept: Any) -> None:
    assert take(name, value) == kept


@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_refused(name: str, value: Any, text: str) -> None:
    with pytest.raises(QMPError) as caught:
        take(name, value)
    assert caught.value.desc == text


NUMBERS = st.integers(-(2**33), 2**33) | st.integers(-3, 3) | st.sampled_from([2**32, 2**63])


@given(st.dictionaries(st.sampled_from([*ONE_CPU]), NUMBERS))
@example({"drawers": -1, "sockets": -1})
def test_any_topology_is_taken_or_refused(value: Any) -> None:
    """Levels may be more than one where their product, of 32 bits, is one CPU."""
    try:
        counted = take("smp", value)
    except QMPError:
        return
    assert counted.keys() == ONE_CPU.keys()
    assert (counted["cpus"], counted["maxcpus"]) == (1, 1)


@given(st.dictionaries(st.sampled_from([*ONE_CPU]), NUMBERS))
def test_any_topology_of_a_larger_machine_is_counted_or_refused(value: dict[str, int]) -> None:
    processors = Processors("big", 4096, ("dies", "modules"))
    try:
        counted = count_cpus(visit_smp(value, "smp"), processors)
    except QMPError:
        return
    assert set(counted) == set(ONE_CPU)
    assert 1 <= counted["cpus"] <= counted["maxcpus"] <= 4096


def caches(**topology: str) -> list[JSON]:
    return [{"cache": cache, "topology": level} for cache, level in topology.items()]


@pytest.mark.parametrize(
    ("named", "levels", "text"),
    [
        (caches(l1d="core") * 2, (), "Invalid cache properties: l1d. The cache properties are dup"),
        (caches(l3="core", l1i="core"), (), "l1i cache topology not supported by this machine"),
        (caches(l1i="thread"), ("core",), "thread level cache not supported by this machine"),
        (caches(l2="die"), ("core",), "Invalid topology level: die. The topology level is not sup"),
    ],
)
def test_caches_that_can_not_be_shared(named: JSON, levels: tuple[str, ...], text: str) -> None:
    with pytest.raises(QMPError) as caught:
        shared_caches(NO_CACHES, named, levels)
    assert caught.value.desc.startswith(text)


def test_caches_that_are_not_named_stay() -> None:
    held = shared_caches(NO_CACHES, caches(l3="socket", l1d="core"), ("core", "socket"))
    held = shared_caches(held, caches(l3="core"), ("core", "socket"))
    assert held == caches(l1d="core", l1i="default", l2="default", l3="core")
