"""Types that no object of memd is of, for clients that ask what there is.

libvirt takes its picture of a QEMU from `qom-list-types` and
`qom-list-properties`, and gives up on one that lacks the accelerators or the
common parent of PC machines. Names, types and descriptions are those of QEMU
10.0.2 and 11.1.3. Nothing here has a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.compat import Compat
from memd.qom.monitor import CHARDEV_TYPES, MONITOR_TYPES
from memd.qom.object import INTERFACE, OBJECT, ObjectType, Property

# Name, type and, where there is one, description.
_Row = tuple[str, str] | tuple[str, str, str]

_TCG: tuple[_Row, ...] = (
    ("one-insn-per-tb", "bool", "Only put one guest insn in each translation block"),
    ("thread", "string"),
    ("tb-size", "int", "TCG translation block cache size"),
    ("split-wx", "bool", "Map jit pages into separate RW and RX regions"),
)
_KVM: tuple[_Row, ...] = (
    (
        "notify-window",
        "uint32",
        "Clock cycles without an event window after which a notification VM exit occurs",
    ),
    (
        "dirty-ring-size",
        "uint32",
        "Size of KVM dirty page ring buffer (default: 0, i.e. use bitmap)",
    ),
    ("device", "string", "Path to the device node to use (default: /dev/kvm)"),
    (
        "rapl-helper-socket",
        "string",
        "Socket Path for comminucating with the Virtual MSR helper daemon",
    ),
    (
        "xen-version",
        "uint32",
        "Xen version to be emulated (in XENVER_version form e.g. 0x4000a for 4.10)",
    ),
    ("kvm-shadow-mem", "int", "KVM shadow MMU size"),
    ("notify-vmexit", "NotifyVMexitOption", "Enable notify VM exit"),
    ("xen-gnttab-max-frames", "uint16", "Maximum number of grant table frames"),
    ("kernel-irqchip", "on|off|split", "Configure KVM in-kernel irqchip"),
    ("rapl", "bool", "Allow energy related MSRs for RAPL interface in Guest"),
    ("xen-evtchn-max-pirq", "uint16", "Maximum number of Xen PIRQs"),
)
_KVM_11_1: tuple[_Row, ...] = (
    (
        "honor-guest-pat",
        "OnOffAuto",
        "Disable KVM quirk that ignores guest PAT memory type settings (default: auto)",
    ),
)
_NITRO: tuple[_Row, ...] = (
    ("enclave-cid", "uint64", "Enclave CID (0 = auto-assigned by Nitro)"),
    ("debug-mode", "bool", "Start enclave in debug mode (enables console output)"),
)


def _properties(rows: Iterable[_Row]) -> list[Property]:
    return [Property(row[0], row[1], description=row[2] if len(row) == 3 else None) for row in rows]


def catalogue(known: dict[str, ObjectType], compat: Compat) -> Iterator[ObjectType]:
    """The types that QEMU has and memd has no objects of.

    Args:
        known: the types of the tree, `machine` being one of them.
        compat: whose types.
    """
    later = compat is not Compat.V10_0
    yield from CHARDEV_TYPES
    yield ObjectType("confidential-guest-support", OBJECT, abstract=True)

    accel = ObjectType("accel", OBJECT, abstract=True)
    yield accel
    yield ObjectType("tcg-accel", accel, properties=_properties(_TCG))
    kvm = _KVM + _KVM_11_1 if later else _KVM
    yield ObjectType("kvm-accel", accel, properties=_properties(kvm))

    if later:
        yield ObjectType("mshv-accel", accel)
        yield ObjectType("nitro-accel", accel, properties=_properties(_NITRO))
        yield ObjectType("qtest-accel", accel)
        for name in sorted(known["none-machine"].interfaces):
            yield ObjectType(name, INTERFACE, abstract=True)
        yield from MONITOR_TYPES
