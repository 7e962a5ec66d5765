"""The properties of `/machine` that are structures: what they take and refuse.

memd has no machine to boot and no CPU, so the checks are all there is. Texts
and their order were observed on QEMU 10.0.2. Where QEMU refuses a CPU topology
and keeps half of it all the same, memd keeps none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from memd.errors import QMPError, bad_type, missing, unexpected
from memd.hostmem.spec import UINT64, round_up
from memd.json_types import JSON
from memd.qapi.visit import (
    Visit,
    as_signed,
    visit_bool,
    visit_enum,
    visit_int64,
    visit_list,
    visit_size,
    visit_str,
    visit_uint64,
)
from memd.qom.topology import CACHES, ONE_CPU, Processors

_LEVELS = ("thread", "core", "module", "cluster", "die", "socket", "book", "drawer", "default")
_SIZE_STEP = 8192
# Levels that not every machine has, in the order in which they are refused.
_RARE = ("modules", "clusters", "dies", "books", "drawers")


def visit_struct(members: dict[str, Visit], *, mandatory: bool = False) -> Visit:
    """An object.

    Args:
        members: the visits of what it may have.
        mandatory: whether it has to have all of it.
    """

    def visit(value: JSON, path: str) -> JSON:
        if type(value) is not dict:
            raise bad_type(path, "object")
        taken = {}
        for name, visit_member in members.items():
            if name in value:
                taken[name] = visit_member(value[name], f"{path}.{name}")
            elif mandatory:
                raise missing(f"{path}.{name}")
        for name in value:
            if name not in members:
                raise unexpected(f"{path}.{name}")
        return taken

    return visit


_boot = visit_struct(
    {
        "order": visit_str,
        "once": visit_str,
        "menu": visit_bool,
        "splash": visit_str,
        "splash-time": visit_int64,
        "reboot-timeout": visit_int64,
        "strict": visit_bool,
    }
)
_memory = visit_struct({"size": visit_size, "max-size": visit_size, "slots": visit_uint64})
visit_smp = visit_struct(dict.fromkeys(ONE_CPU, visit_int64))


def visit_cache(string: Visit = visit_str) -> Visit:
    """A cache and the level of the topology that shares it; `string` reads the names."""
    members = {"cache": visit_enum(CACHES, string), "topology": visit_enum(_LEVELS, string)}
    return visit_struct(members, mandatory=True)


def visit_boot(value: JSON, path: str) -> JSON:
    """A `BootConfiguration`; boot devices are letters from a to p, each once."""
    taken = _boot(value, path)
    for member in ("order", "once"):
        seen = set()
        for device in taken.get(member, ""):
            if not "a" <= device <= "p":
                raise QMPError(f"Invalid boot device '{device}'")
            if device in seen:
                raise QMPError(f"Boot device '{device}' was given twice")
            seen.add(device)
    return taken


def visit_memory(value: JSON, path: str) -> JSON:
    """A `MemorySizeConfiguration`; the size, in bytes, is rounded up."""
    taken = _memory(value, path)
    if "slots" in taken and "max-size" not in taken:
        raise QMPError("slots specified but no max-size")
    size = round_up(taken.get("size", 0), _SIZE_STEP) & UINT64
    largest = taken.get("max-size", size)
    slots = taken.get("slots", 0)
    if largest < size:
        raise QMPError(
            f"invalid value of maxmem: maximum memory size (0x{largest:x}) must be at least"
            f" the initial memory size (0x{size:x})"
        )
    if slots and largest == size:
        raise QMPError(
            "invalid value of maxmem: memory slots were specified but maximum memory size"
            f" (0x{largest:x}) is equal to the initial memory size (0x{size:x})"
        )
    if not slots:
        return {"size": size}
    return {"size": size, "slots": slots, "max-size": largest}


def count_cpus(given: Mapping[str, int], processors: Processors) -> dict[str, int]:
    """An `SMPConfiguration` with all that follows from what is given.

    Args:
        given: some of its members.
        processors: what the machine can have.

    Raises:
        QMPError: it contradicts itself, or the machine can't have it.
    """
    if 0 in given.values():
        raise QMPError("Invalid CPU topology: CPU topology parameters must be greater than zero")
    for level in _RARE:
        if given.get(level, 1) > 1 and level not in processors.levels:
            raise QMPError(f"{level} > 1 not supported by this machine's CPU topology")

    # QEMU counts in 32 bits without sign.
    count = {name: number % 2**32 for name, number in given.items()}
    between = prod(count.get(level) or 1 for level in _RARE)
    sockets, cores, threads = _outer_levels(count, between, processors.sockets_first)
    total = sockets * between * cores * threads % 2**32
    maxcpus = count.get("maxcpus") or count.get("cpus") or total
    cpus = count.get("cpus") or maxcpus

    named = {"sockets": sockets, **{each: count.get(each) or 1 for each in processors.levels}}
    named |= {"cores": cores, "threads": threads}
    levels = " * ".join(f"{name} ({number})" for name, number in named.items())
    if total != maxcpus:
        raise QMPError(
            "Invalid CPU topology: product of the hierarchy must match maxcpus:"
            f" {levels} != maxcpus ({maxcpus})"
        )
    if maxcpus < cpus:
        raise QMPError(
            "Invalid CPU topology: maxcpus must be equal to or greater than smp:"
            f" {levels} == maxcpus ({maxcpus}) < smp_cpus ({cpus})"
        )
    if not 1 <= maxcpus <= processors.largest:
        bound, limit = ("max", processors.largest) if maxcpus else ("min", 1)
        raise QMPError(
            f"Invalid SMP CPUs {as_signed(maxcpus, 32)}. The {bound} CPUs supported by machine"
            f" '{processors.machine}' is {limit}"
        )
    return {**ONE_CPU, **named, "cpus": cpus, "maxcpus": maxcpus}


def _outer_levels(
    count: Mapping[str, int], between: int, sockets_first: bool
) -> tuple[int, int, int]:
    """Sockets, cores and threads: what is not given follows from the rest, as cores where it can.

    Args:
        count: what is given; zero counts as nothing.
        between: the product of the levels between sockets and cores.
        sockets_first: whether it follows as sockets.
    """
    sockets, cores, threads = (count.get(name, 0) for name in ("sockets", "cores", "threads"))
    maxcpus = count.get("maxcpus") or count.get("cpus")
    if not maxcpus:
        return sockets or 1, cores or 1, threads or 1
    if not sockets and (cores or sockets_first):
        cores, threads = cores or 1, threads or 1
        sockets = maxcpus // (between * cores * threads)
    elif not cores:
        sockets, threads = sockets or 1, threads or 1
        cores = maxcpus // (sockets * between * threads)
    return sockets, cores, threads or maxcpus // (sockets * between * cores)


def shared_caches(held: JSON, given: JSON, levels: tuple[str, ...]) -> JSON:
    """The level that shares each cache, once some of them are set.

    Args:
        held: what shares each now.
        given: those that are set.
        levels: of a topology, what a cache can belong to in this machine; none
            where it knows of no caches.

    Raises:
        QMPError: one is given twice, or can't belong to what it is to.
    """
    topology = {each["cache"]: each["topology"] for each in held}
    seen = set()
    for each in given:
        cache = each["cache"]
        if cache in seen:
            raise QMPError(
                f"Invalid cache properties: {cache}. The cache properties are duplicated"
            )
        seen.add(cache)
        topology[cache] = each["topology"]
    for cache, level in topology.items():
        if level == "default":
            continue
        if not levels:
            raise QMPError(f"{cache} cache topology not supported by this machine")
        if level == "thread":
            raise QMPError("thread level cache not supported by this machine")
        if level not in levels:
            raise QMPError(
                f"Invalid topology level: {level}. The topology level is not supported by this"
                " machine"
            )
    return [{"cache": cache, "topology": level} for cache, level in topology.items()]


def check_caches(caches: JSON) -> None:
    """Raise `QMPError` where a cache belongs to less than one that is nearer to the CPU."""
    l1d, l1i, l2, l3 = (_LEVELS.index(each["topology"]) for each in caches)
    for lower, higher, name in ((max(l1d, l1i), l2, 2), (l2, l3, 3)):
        if lower > higher:
            raise QMPError(
                f"Invalid smp cache topology. L{name} cache topology level shouldn't be lower"
                f" than L{name - 1} cache"
            )


VISITS: dict[str, Visit] = {
    "boot": visit_boot,
    "memory": visit_memory,
    "smp": visit_smp,
    "smp-cache": visit_list(visit_cache()),
}
"""The check of each such property: returns what it holds from then on."""
