"""The object `/machine` of a machine that is not `none`, and its CPUs.

What the properties hold is stored and has no effect, as with `none`. The CPUs
are names only: who asks a machine for its CPUs takes one that has none to be
broken. Observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from memd.compat import Compat
from memd.config import MachineConfig, wrong_initiator
from memd.devices.acpi import AcpiDevice
from memd.devices.kinds import MachineKind
from memd.devices.machine import Machine
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.qom import ObjectType, Property, Tree
from memd.qom.machine import MachineObject, stored
from memd.work import Event

More = Callable[[str], Mapping[str, Property]] | None
"""Gives the properties of a type of CPUs that are the same for all of them."""

# What shares the caches l1d, l1i, l2 and l3 of every model of x86.
_CPU_CACHES = ("core", "core", "core", "die")


def machine_type(tree: Tree, kind: MachineKind) -> ObjectType:
    """A machine's QOM type; that of `none` is the tree's own."""
    found = tree.basics().get(kind.type_name)
    if found is not None:
        return found
    return ObjectType(
        kind.type_name,
        tree.basics()[kind.above],
        interfaces=("hotplug-handler",) if kind.above != "generic-pc-machine" else (),
        properties=stored(kind.properties),
    )


def set_machine(tree: Tree, kind: MachineKind, config: MachineConfig, values: JSONObject) -> None:
    """Make `/machine` the machine that was asked for.

    Args:
        tree: its `/machine` is the machine `none`'s.
        kind: which machine it is.
        config: what is known of its memory and CPUs.
        values: the properties that were given, by name.
    """
    machine = tree.machine
    if kind.kind != "none":
        machine.qom_type = machine_type(tree, kind)
        tree.add_type(machine.qom_type)
        machine.values |= {name: value for name, _type, value, _text in kind.properties}
        machine.values |= kind.values
        machine.boot_order = kind.values.get("boot", {})
    for name, value in values.items():
        held = machine.values.get(name)
        if isinstance(held, dict):
            machine.values[name] = {**held, **value}
        elif name in machine.values:
            machine.values[name] = value
    memory: JSONObject = {"size": config.ram_size}
    if config.slots:
        memory |= {"slots": config.slots, "max-size": config.maxmem}
    machine.values["memory"] = memory
    machine.processors = kind.processors
    machine.cache_levels, machine.caches_given = kind.cache_levels, "smp-cache" in values
    if config.smp:
        machine.values["smp"] = config.smp


class CPU(AcpiDevice):
    """A CPU that runs nothing.

    Attributes:
        props: where it sits (QAPI `CpuInstanceProperties`).
        number: of its place among all that there could be; -1 for none yet.
    """

    slot_type = "CPU"

    def __init__(
        self,
        qom_type: ObjectType,
        tree: Tree,
        props: JSONObject,
        number: int,
        id: str | None = None,
    ) -> None:
        super().__init__(qom_type, tree, id)
        self.realized = number >= 0
        self.props = props
        self.number = number

    @property
    def slot(self) -> int:
        return self.number

    def removal(self, machine: Machine) -> None:
        """See `Device.removal`; QEMU 10.0 asks only a guest whose system knows ACPI."""
        kind, config = self.qom_type.name, machine.config
        if config.type == "pc" and not config.acpi:
            raise QMPError("CPU hot unplug not supported without ACPI")
        if self.number == 0:
            raise QMPError("Boot CPU is unpluggable")
        ignored = machine.guest.stands_still or not config.acpi
        if ignored and self.tree.compat is Compat.V10_0:
            raise QMPError(f"acpi: device unplug request for not supported device type: {kind}")
        super().removal(machine)

    def leave(self, machine: Machine) -> None:
        """See `AcpiDevice.leave`; its interrupt controller goes before it."""
        from memd.devices.device import deleted

        path = self.tree.path_of(self)
        self.leave_tree()
        machine.emit((Event("DEVICE_DELETED", {"path": f"{path}/lapic"}), deleted(self, path)))


class _CPUType(ObjectType):
    """The type of CPUs.

    Args:
        name: as clients spell it.
        device: the type of all devices.
        properties: its own, which differ from CPU to CPU.
        more: gives the others, once somebody looks at any.
    """

    __slots__ = ("_known", "_more")

    _known: dict[str, Property]

    def __init__(
        self,
        name: str,
        device: ObjectType,
        properties: Iterable[Property],
        more: More,
    ) -> None:
        self._more: More = None
        super().__init__(name, device, properties=properties)
        self._more = more

    @property
    def all_properties(self) -> dict[str, Property]:
        """See `ObjectType`."""
        more, self._more = self._more, None
        if more is not None:
            self._known = {**more(self.name), **self._known}
        return self._known

    @all_properties.setter
    def all_properties(self, known: dict[str, Property]) -> None:
        self._known = known

    def link(self, name: str) -> Property | None:
        """See `ObjectType`; there is none among those that are looked up."""
        return self._known.get(name)


def _cpu_type(
    kind: MachineKind,
    device: ObjectType,
    name: str,
    more: More,
) -> ObjectType:
    def place(level: str) -> Property:
        return Property(level, "int32", get=lambda cpu: cpu.props.get(level, 0))

    rare = [f"{plural.removesuffix('s')}-id" for plural in kind.cpu_levels]
    properties = [
        Property("unavailable-features", "strList", get=lambda cpu: []),
        *map(place, ("socket-id", *rare, "core-id", "thread-id")),
        Property("node-id", "int32", get=lambda cpu: cpu.props.get("node-id", -1)),
    ]
    if name.endswith("x86_64-cpu"):
        properties.append(Property("apic-id", "uint32", get=lambda cpu: cpu.values["apic-id"]))
    return _CPUType(name, device, properties, more)


def add_cpus(
    tree: Tree,
    kind: MachineKind,
    config: MachineConfig,
    more: More = None,
) -> None:
    """Make the CPUs that the machine begins with; `set_machine` has made it.

    Args:
        more: gives the properties of their type that are the same for all of them.
    """
    if not kind.cpu_type:
        return
    unattached = tree.machine.children["unattached"]
    qom_type = _cpu_type(kind, tree.basics()["device"], config.cpu_type or kind.cpu_type, more)
    tree.add_type(qom_type)
    count = config.smp.get("cpus", 1)
    for number, props in enumerate(cpu_places(kind, config)):
        if number >= count:
            break
        # The first CPU brings another device with it.
        index = number + 1 if number else 0
        cpu = CPU(qom_type, tree, props, number)
        cpu.values["apic-id"] = apic_id(number, config.smp)
        unattached.add_child(f"device[{index}]", cpu)


def apic_id(number: int, smp: Mapping[str, int]) -> int:
    """The number that a CPU's interrupt controller has.

    Args:
        number: of the CPU's place.
        smp: how many there are of each level.
    """
    shift = apic = 0
    for level in ("threads", "cores", "modules", "dies", "sockets"):
        count = smp.get(level, 1)
        number, at = divmod(number, count)
        apic |= at << shift
        # Each level has whole bits.
        shift += (count - 1).bit_length()
    return apic


def cpu_positions(kind: MachineKind, smp: Mapping[str, int]) -> Iterator[JSONObject]:
    """Where every CPU sits that there could be, its node aside, in the order of their numbers.

    QEMU names the rarer levels only where there is more than one of them.
    """
    levels = [("socket-id", smp.get("sockets", 1))]
    for plural in ("dies", "clusters", "modules"):
        count = smp.get(plural, 1)
        if plural in kind.cpu_levels and (count > 1 or plural == "clusters"):
            levels.append((f"{plural[:-1]}-id", count))
    levels += [("core-id", smp.get("cores", 1)), ("thread-id", smp.get("threads", 1))]
    for number in range(smp.get("maxcpus", 1)):
        props: JSONObject = {}
        left = number
        for level, count in reversed(levels):
            props[level] = left % count
            left //= count
        yield props


def cpu_places(kind: MachineKind, config: MachineConfig) -> Iterator[JSONObject]:
    """As `cpu_positions`, with the node that each is in."""
    nodes = {cpu: node.nodeid for node in config.numa_nodes for cpu in node.cpus}
    count_nodes = len(config.numa_nodes) or config.own_node
    for number, props in enumerate(cpu_positions(kind, config.smp)):
        if count_nodes:
            # Where none is named, sockets go round; where some are, the rest are node 0's.
            default = 0 if nodes else props["socket-id"] % count_nodes
            props["node-id"] = nodes.get(number, default)
        yield props


def check_initiators(kind: MachineKind, config: MachineConfig) -> None:
    """Raise `QMPError` where a node's nearest one with CPUs has none, or is none."""
    nodes = {node.nodeid: node for node in config.numa_nodes}
    with_cpus = {}
    if any(node.initiator is not None for node in config.numa_nodes):
        with_cpus = {props["node-id"]: None for props in cpu_places(kind, config)}
    for number in with_cpus:
        initiator = nodes[number].initiator
        if initiator not in (None, number):
            raise QMPError(wrong_initiator(number, initiator))
    for number, node in nodes.items():
        if node.initiator is None or node.initiator in with_cpus:
            continue
        if node.initiator not in nodes:
            raise QMPError(
                f"NUMA node {node.initiator} is missing, use '-numa node' option to declare it"
                " first"
            )
        raise QMPError(f"The initiator of NUMA node {number} is invalid")


def cpus(tree: Tree) -> list[CPU]:
    """The machine's CPUs, in the order of their numbers."""
    holders = tree.machine.children.values()
    children = [child for each in holders for child in each.children.values()]
    found = [child for child in children if isinstance(child, CPU) and child.number >= 0]
    return sorted(found, key=lambda cpu: cpu.number)


def check_limits(kind: MachineKind, config: MachineConfig) -> None:
    """Raise `QMPError` where the machine can't have as much memory as it may come to have."""
    if not config.takes_dimms or config.maxmem <= config.ram_size:
        return
    if kind.kind == "isapc":
        raise QMPError(f"\"-memory 'slots|maxmem'\" is not supported by: {kind.name}")
    if config.slots > 256:
        what = "number" if kind.kind == "virt" else "amount"
        raise QMPError(f"unsupported {what} of memory slots: {config.slots}")
    if kind.kind != "virt" and config.maxmem % 4096:
        raise QMPError("maximum memory size must by aligned to multiple of 4096 bytes")


_GIB = 1 << 30
_HOLE = {"pc": 0xC000_0000, "q35": 0xB000_0000}
"""Up to where memory is below 4 GiB, unless less is asked for (bytes)."""


def warning_of_low_memory(kind: MachineKind, size: int, below: int) -> str | None:
    """What is said of memory that goes on above 4 GiB sooner than it has to, and at a bad place.

    Args:
        kind: which machine it is.
        size: bytes of its memory.
        below: bytes that may be below 4 GiB; 0 where it was not told.
    """
    if not below or below % _GIB == 0 or below > _HOLE.get(kind.kind, 0):
        return None
    if kind.kind == "pc":
        if size < below:
            return None
        return (
            f"Large machine and max_ram_below_4g ({below}) not a multiple of 1G;"
            " possible bad performance."
        )
    lowest = 0x8000_0000 if size >= _HOLE["q35"] else _HOLE["q35"]
    # QEMU counts without a sign.
    if below >= lowest or (size - below) % (1 << 64) <= below:
        return None
    return (
        f"There is possibly poor performance as the ram size  ({size:#x}) is more then twice the"
        f" size of max-ram-below-4g ({below}) and max-ram-below-4g is not a multiple of 1G."
    )


def check_addresses(kind: MachineKind, config: MachineConfig, below: int, compat: Compat) -> None:
    """Raise `QMPError` where an `isapc` has memory that its CPU, a 486, can't address.

    Since QEMU 11.1 it is the same for all of its CPUs.

    Args:
        below: bytes of memory that may be below 4 GiB.
    """
    if kind.kind != "isapc":
        return
    if compat is not Compat.V10_0:
        size, most = config.ram_size >> 20, 3584
        if config.ram_size > most << 20:
            raise QMPError(f"Too much memory for this machine: {size} MiB, maximum {most} MiB")
        return
    if not (config.cpu_type or kind.cpu_type).startswith("486-"):
        return
    limit, above = (1 << 32) - 1, config.ram_size - below
    if above > 0:
        raise QMPError(
            f"Address space limit {limit:#x} < {limit + above:#x} phys-bits too low (32)"
        )


def settle_caches(kind: MachineKind, machine: MachineObject) -> None:
    """A CPU comes: where `smp-cache` was set it tells what shares the other caches.

    Raises:
        QMPError: a cache would belong to less than one that is nearer to the CPU.
    """
    if machine.caches_given and kind.hotpluggable_cpus:
        from memd.qom.machine_structs import check_caches

        machine.values["smp-cache"] = caches = [
            {**each, "topology": own if each["topology"] == "default" else each["topology"]}
            for each, own in zip(machine.values["smp-cache"], _CPU_CACHES, strict=True)
        ]
        check_caches(caches)
