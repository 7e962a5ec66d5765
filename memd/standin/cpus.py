"""CPUs that are plugged in: where each sits, and what QEMU 10.0.2 says where one can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.devices.machine_object import CPU, apic_id, cpu_places, cpus, settle_caches
from memd.errors import QMPError

if TYPE_CHECKING:
    from memd.devices.kinds import MachineKind
    from memd.devices.machine import Machine


def place_cpu(machine: Machine, kind: MachineKind, cpu: CPU) -> None:
    """Give a CPU its place, by its properties.

    Args:
        machine: which it is plugged into.
        kind: of the machine.
        cpu: in the tree, and not in its place yet.

    Raises:
        QMPError: there is no such place, or another has it.
    """
    expected = machine.config.cpu_type or kind.cpu_type
    if cpu.qom_type.name != expected:
        raise QMPError(f"Invalid CPU type, expected cpu type: '{expected}'")
    smp = machine.config.smp
    rare = ("dies", "modules")
    levels = (
        ("socket-id", "sockets"),
        *((f"{plural[:-1]}-id", plural) for plural in rare if plural in kind.cpu_levels),
        *(("core-id", "cores"), ("thread-id", "threads")),
    )
    number = 0
    places = {"die-id": 0, "module-id": 0}
    for name, plural in levels:
        count = smp.get(plural, 1)
        at = cpu.values.get(name, -1)
        if at < 0 and plural in rare and count == 1:
            at = 0
        if at < 0:
            raise QMPError(f"CPU {name} is not set")
        if at >= count:
            raise QMPError(f"Invalid CPU {name}: {at} must be in range 0:{count - 1}")
        number = number * count + at
        places[name] = at
    apic = apic_id(number, smp)
    props = list(cpu_places(kind, machine.config))[number]
    if any(each.number == number for each in cpus(machine.tree)):
        raise QMPError(f"CPU[{number}] with APIC ID {apic} exists")
    node = props.get("node-id", 0)
    if cpu.values.get("node-id", -1) not in (-1, node):
        raise QMPError(f"invalid node-id, must be {node}")
    settle_caches(kind, machine.tree.machine)
    cpu.values |= {**places, **props, "apic-id": apic}
    cpu.number, cpu.props, cpu.realized = number, props, True
    if machine.guest.started:
        # One that came before is there when the guest counts them.
        cpu.report_plugged(machine)
