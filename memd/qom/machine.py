"""The object `/machine`: a `none-machine`, that is not a machine at all.

Its properties read as they do under QEMU's `-machine none` (observed on
10.0.2 and 11.1.3). Those that can be set are stored and have no effect, as
there is nothing that they could act on, but for the CPUs of a machine that is yet to
be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memd.compat import Compat
from memd.errors import QMPError, bad_type
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import (
    Visit,
    as_signed,
    visit_bool,
    visit_enum,
    visit_int64,
    visit_size,
    visit_str,
    visit_uint64,
)
from memd.qom.object import OBJECT, LinkProperty, ObjectType, Paths, Property, QObject
from memd.qom.topology import NO_CACHES, NO_PROCESSORS, ONE_CPU

Row = tuple[str, str, JSON, str | None]
"""A property that is only stored: name, type, value at the start, description."""

_TEXTS = {
    "kernel": "Linux kernel image file",
    "dt-compatible": 'Overrides the "compatible" property of the dt root node',
    "initrd": "Linux initial ramdisk file",
    "firmware": "Firmware image",
    "shim": "shim.efi file",
    "dumpdtb": "Dump current dtb to a file and quit",
    "dtb": "Linux kernel device tree file",
    "append": "Linux kernel command line",
}
_SIMPLE: tuple[Row, ...] = (
    *((name, "string", "", text) for name, text in _TEXTS.items()),
    ("graphics", "bool", False, "Set on/off to enable/disable graphics emulation"),
    ("usb", "bool", False, "Set on/off to enable/disable usb"),
    ("dump-guest-core", "bool", True, "Include guest memory in a core dump"),
    ("mem-merge", "bool", True, "Enable/disable memory merge support"),
    ("suppress-vmdesc", "bool", False, "Set on to disable self-describing migration"),
)
_AUX_10_0: tuple[Row, ...] = (("aux-ram-share", "bool", False, None),)
_AUX_11_1: tuple[Row, ...] = (
    (
        "aux-ram-share",
        "bool",
        False,
        "Use anonymous shared memory for auxiliary guest RAMs",
    ),
    (
        "x-change-vmfd-on-reset",
        "bool",
        False,
        "Set on/off to enable/disable generating new accelerator guest handle on guest reset."
        " Default: off (used only for testing/debugging).",
    ),
)
SPCR: Row = (
    "spcr",
    "bool",
    True,
    "Set on/off to enable/disable ACPI Serial Port Console Redirection Table (spcr)",
)
_STRUCTURES: tuple[Row, ...] = (
    ("boot", "BootConfiguration", {}, "Boot configuration"),
    ("memory", "MemorySizeConfiguration", {"size": 0}, "Memory size configuration"),
)
_PHANDLE: Row = ("phandle-start", "int", 0, "The first phandle ID we may generate dynamically")


class MachineObject(QObject):
    """The object `/machine`.

    Attributes:
        values: what the properties that are only stored hold, by name.
        links: the same for links.
        processors: the limits of its CPUs.
        on_topology: is told each `smp` that is set before its devices are there.
        cache_levels: of the topology of its CPUs, what a cache can belong to.
        caches_given: whether `smp-cache` was set.
        boot_order: the members of `boot` that it has where it is not given them.
        is_made: whether its devices are there.
    """

    processors = NO_PROCESSORS
    cache_levels: tuple[str, ...] = ()
    caches_given = False
    is_made = False

    def __init__(self, qom_type: ObjectType, tree: Paths) -> None:
        super().__init__(qom_type, tree)
        self.boot_order: JSONObject = {}
        rows = (*_SIMPLE, *_AUX_11_1, SPCR, *_STRUCTURES, _PHANDLE)
        self.values: JSONObject = {name: value for name, _type, value, _text in rows}
        self.values |= {"smp": ONE_CPU, "smp-cache": NO_CACHES}
        self.on_topology: Callable[[dict[str, int]], None] = lambda smp: None
        self.links: dict[str, QObject | None] = {}


def _visit_struct(name: str) -> Visit:
    """The check of a property that is a structure."""

    def visit(value: JSON, path: str) -> JSON:
        # Hardly ever set, so not read at start-up.
        from memd.qom.machine_structs import VISITS

        return VISITS[name](value, path)

    return visit


def visit_low_half(visit: Visit) -> Visit:
    """A QAPI int that QEMU keeps in 32 bits, cutting off the rest; `visit` reads all of it."""

    def visit_low(value: JSON, path: str) -> JSON:
        return as_signed(visit(value, path), 32)

    return visit_low


_VISITS: dict[str, Visit] = {
    "bool": visit_bool,
    "int": visit_low_half(visit_int64),
    "size": visit_size,
    "uint64_t": visit_uint64,
    "BootConfiguration": _visit_struct("boot"),
    "MemorySizeConfiguration": _visit_struct("memory"),
}

_WORDS = {
    "OnOffAuto": ("on", "off", "auto"),
    "PCSouthBridgeOption": ("PIIX3", "piix4-isa"),
    "smbios-entry-point-type": ("32", "64", "auto"),
}
"""The words that a property takes, by its type, or by its name where that is a string's."""


def words_of(name: str, type: str) -> tuple[str, ...] | None:
    """The words that a property takes, None where it takes no words."""
    return _WORDS.get(type) or _WORDS.get(name)


_MOST_BYTES = {"x-oem-id": 6, "x-oem-table-id": 8}
_MOST_FIRMWARE = 16 << 20


def check_value(name: str, value: JSON) -> None:
    """Raise `QMPError` where a machine's property can't have a value, which is of its type."""
    most = _MOST_BYTES.get(name)
    if most is not None and len(value.encode()) > most:
        raise QMPError(f"User specified {name} value is bigger than {most} bytes in size")
    if name == "max-ram-below-4g" and value > 1 << 32:
        raise QMPError(
            f"Machine option 'max-ram-below-4g={value}' expects size less than or equal to 4G"
        )
    if name == "max-fw-size" and value > _MOST_FIRMWARE:
        raise QMPError(
            f"User specified max allowed firmware size {value} is greater than 16MiB. If combined"
            " firmware size exceeds 16MiB the system may not boot, or experience intermittent"
            "stability issues."
        )
    if name == "nvdimm-persistence" and value not in ("cpu", "mem-ctrl"):
        raise QMPError(f"-machine nvdimm-persistence={value}: unsupported option")


def stored(rows: Iterable[Row]) -> list[Property]:
    """Properties that are stored among a machine's `values` and have no effect."""
    return [_stored(*row) for row in rows]


def _stored(name: str, type: str, _value: JSON, description: str | None) -> Property:
    def setter(machine: MachineObject, value: JSON) -> None:
        check_value(name, value)
        if name == "vfio-user" and machine.is_made:
            raise QMPError("Error enabling vfio-user - machine already created")
        machine.values[name] = {**machine.boot_order, **value} if name == "boot" else value

    def guard(machine: MachineObject) -> None:
        if name == "pcspk-audiodev" and machine.is_made:
            raise QMPError(
                "Attempt to set property 'audiodev' on anonymous device (type 'isa-pcspk') after"
                " it was realized"
            )

    words = words_of(name, type)
    return Property(
        name,
        type,
        visit=_VISITS.get(type, visit_str) if words is None else visit_enum(words),
        get=lambda machine: machine.values[name],
        set=setter,
        guard=guard,
        description=description,
    )


def _set_topology(machine: MachineObject, given: dict[str, int]) -> None:
    from memd.qom.machine_structs import count_cpus

    machine.values["smp"] = smp = count_cpus(given, machine.processors)
    if not machine.is_made:
        machine.on_topology(smp)


def _set_caches(machine: MachineObject, value: JSON) -> None:
    from memd.qom.machine_structs import shared_caches

    values = machine.values
    values["smp-cache"] = shared_caches(values["smp-cache"], value, machine.cache_levels)
    machine.caches_given = True


def extend(machine: MachineObject, *properties: Property) -> None:
    """Give a machine properties that are its own and not of its type."""
    _set_properties(machine, (*machine.qom_type.properties, *properties))


def withdraw(machine: MachineObject, name: str) -> None:
    """Take a property from a machine that `extend` has given it."""
    left = [each for each in machine.qom_type.properties if each.name != name]
    _set_properties(machine, left)


def _set_properties(machine: MachineObject, properties: Iterable[Property]) -> None:
    kind = machine.qom_type
    machine.qom_type = ObjectType(
        kind.name, kind.parent, interfaces=kind.interfaces, properties=properties
    )


def machine_link(name: str, target_type: str, description: str | None = None) -> LinkProperty:
    """A link among a machine's `links`, which can be set and has no effect."""

    def set_link(machine: MachineObject, target: QObject | None) -> None:
        machine.links[name] = target

    return LinkProperty(
        name,
        target_type,
        follow=lambda machine: machine.links.get(name),
        set=set_link,
        description=description,
    )


def _set_encryption(machine: MachineObject, id: str) -> None:
    objects, _ambiguous = machine.tree.lookup("/objects")
    if id not in objects.children:
        raise QMPError(f"No such memory encryption object '{id}'")
    # No object here is of the type that it would have to be.
    raise bad_type("confidential-guest-support", "confidential-guest-support")


def machine_types(compat: Compat) -> tuple[ObjectType, ObjectType]:
    """The types `machine` and `none-machine` of a QEMU release."""
    aux = _AUX_10_0 if compat is Compat.V10_0 else _AUX_11_1
    machine = ObjectType(
        "machine",
        OBJECT,
        abstract=True,
        properties=(
            *stored((*_SIMPLE, *aux, *_STRUCTURES)),
            Property(
                "smp",
                "SMPConfiguration",
                visit=_visit_struct("smp"),
                get=lambda machine: machine.values["smp"],
                set=_set_topology,
                description="CPU topology",
            ),
            Property(
                "smp-cache",
                "SmpCachePropertiesWrapper",
                visit=_visit_struct("smp-cache"),
                get=lambda machine: machine.values["smp-cache"],
                set=_set_caches,
                description="Cache properties list for SMP machine",
            ),
            *stored((_PHANDLE,)),
            Property(
                "memory-encryption",
                "string",
                get=lambda machine: "",
                set=_set_encryption,
                description="Set memory encryption object to use",
            ),
            machine_link(
                "memory-backend",
                "memory-backend",
                "Set RAM backendValid value is ID of hostmem based backend",
            ),
            machine_link(
                "confidential-guest-support",
                "confidential-guest-support",
                "Set confidential guest scheme to support",
            ),
        ),
    )
    if compat is Compat.V10_0:
        return machine, ObjectType("none-machine", machine)
    return machine, ObjectType(
        "none-machine",
        machine,
        properties=stored((SPCR,)),
        interfaces=(
            "target-info-aarch64-machine",
            "target-info-arm-machine",
            "target-info-riscv32-machine",
            "target-info-riscv64-machine",
        ),
    )
