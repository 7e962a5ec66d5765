"""The object `/machine`: a `none-machine`, that is no machine at all.

Its properties read as they do under QEMU's `-machine none` (observed on
10.0.2 and 11.1.3). Those that can be set are stored and have no effect, as
there is nothing that they could act on.
"""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import Visit, visit_bool, visit_int64, visit_str
from memd.qom.object import QObject
from memd.qom.property import LinkProperty, Paths, Property
from memd.qom.topology import NO_CACHES, ONE_CPU
from memd.qom.types import OBJECT, ObjectType

# Name, value at the start, description.
_SWITCHES = (
    ("graphics", False, "Set on/off to enable/disable graphics emulation"),
    ("usb", False, "Set on/off to enable/disable usb"),
    ("dump-guest-core", True, "Include guest memory in a core dump"),
    ("mem-merge", True, "Enable/disable memory merge support"),
    ("suppress-vmdesc", False, "Set on to disable self-describing migration"),
)
_AUX_RAM_SHARE = ("aux-ram-share", False, "Use anonymous shared memory for auxiliary guest RAMs")
_SWITCHES_11_1 = (
    _AUX_RAM_SHARE,
    (
        "x-change-vmfd-on-reset",
        False,
        "Set on/off to enable/disable generating new accelerator guest handle on guest reset."
        " Default: off (used only for testing/debugging).",
    ),
)
_SPCR = (
    "spcr",
    True,
    "Set on/off to enable/disable ACPI Serial Port Console Redirection Table (spcr)",
)
_STRINGS = (
    ("kernel", "Linux kernel image file"),
    ("dt-compatible", 'Overrides the "compatible" property of the dt root node'),
    ("initrd", "Linux initial ramdisk file"),
    ("firmware", "Firmware image"),
    ("shim", "shim.efi file"),
    ("dumpdtb", "Dump current dtb to a file and quit"),
    ("dtb", "Linux kernel device tree file"),
    ("append", "Linux kernel command line"),
)


class MachineObject(QObject):
    """The object `/machine`.

    Attributes:
        values: what the properties that are only stored hold, by name.
        links: the same for links.
        cache_levels: of the topology of its CPUs, what a cache can belong to.
        caches_given: whether `smp-cache` was set.
    """

    __slots__ = ("cache_levels", "caches_given", "links", "values")

    def __init__(self, qom_type: ObjectType, tree: Paths) -> None:
        super().__init__(qom_type, tree)
        self.values: JSONObject = {name: "" for name, _description in _STRINGS}
        for name, value, _description in (*_SWITCHES, *_SWITCHES_11_1, _SPCR):
            self.values[name] = value
        self.values |= {
            "phandle-start": 0,
            "boot": {},
            "memory": {"size": 0},
            "smp": ONE_CPU,
            "smp-cache": NO_CACHES,
        }
        self.links: dict[str, QObject | None] = {}
        self.cache_levels: tuple[str, ...] = ()
        self.caches_given = False


def stored_property(name: str, type: str, visit: Visit, description: str | None) -> Property:
    """A property that is stored among a machine's `values` and has no effect."""

    def setter(machine: MachineObject, value: JSON) -> None:
        machine.values[name] = value

    return Property(
        name,
        type,
        visit=visit,
        get=lambda machine: machine.values[name],
        set=setter,
        description=description,
    )


def _switch(name: str, _value: bool, description: str | None) -> Property:
    return stored_property(name, "bool", visit_bool, description)


def _visit_struct(name: str) -> Visit:
    """The check of a property that is a structure."""

    def visit(value: JSON, path: str) -> JSON:
        # Hardly ever set, so not read at start-up.
        from memd.qom.machine_structs import VISITS

        return VISITS[name](value, path)

    return visit


def _structure(name: str, type: str, description: str) -> Property:
    return stored_property(name, type, _visit_struct(name), description)


def _set_caches(machine: MachineObject, value: JSON) -> None:
    from memd.qom.machine_structs import shared_caches

    values = machine.values
    values["smp-cache"] = shared_caches(values["smp-cache"], value, machine.cache_levels)
    machine.caches_given = True


def _link(name: str, target_type: str, description: str) -> LinkProperty:
    def set_link(machine: MachineObject, target: QObject | None) -> None:
        machine.links[name] = target

    return LinkProperty(
        name,
        target_type,
        follow=lambda machine: machine.links.get(name),
        set=set_link,
        description=description,
    )


def _visit_int32(value: JSON, name: str) -> JSON:
    """A QAPI int that QEMU keeps in 32 bits, cutting off the rest."""
    return (visit_int64(value, name) + 2**31) % 2**32 - 2**31


def _set_encryption(machine: MachineObject, id: str) -> None:
    objects, _ambiguous = machine.tree.lookup("/objects")
    if id not in objects.children:
        raise QMPError(f"No such memory encryption object '{id}'")
    # No object here is of the type that it would have to be.
    raise QMPError(
        "Invalid parameter type for 'confidential-guest-support',"
        " expected: confidential-guest-support"
    )


def machine_types(compat: Compat) -> tuple[ObjectType, ObjectType]:
    """The types `machine` and `none-machine` of a QEMU release."""
    if compat is Compat.V10_0:
        switches: tuple[tuple[str, bool, str | None], ...] = (("aux-ram-share", False, None),)
    else:
        switches = _SWITCHES_11_1
    machine = ObjectType(
        "machine",
        OBJECT,
        abstract=True,
        properties=(
            *(stored_property(name, "string", visit_str, text) for name, text in _STRINGS),
            *(_switch(*each) for each in (*_SWITCHES, *switches)),
            _structure("boot", "BootConfiguration", "Boot configuration"),
            _structure("memory", "MemorySizeConfiguration", "Memory size configuration"),
            _structure("smp", "SMPConfiguration", "CPU topology"),
            Property(
                "smp-cache",
                "SmpCachePropertiesWrapper",
                visit=_visit_struct("smp-cache"),
                get=lambda machine: machine.values["smp-cache"],
                set=_set_caches,
                description="Cache properties list for SMP machine",
            ),
            stored_property(
                "phandle-start",
                "int",
                _visit_int32,
                "The first phandle ID we may generate dynamically",
            ),
            Property(
                "memory-encryption",
                "string",
                visit=visit_str,
                get=lambda machine: "",
                set=_set_encryption,
                description="Set memory encryption object to use",
            ),
            _link(
                "memory-backend",
                "memory-backend",
                "Set RAM backendValid value is ID of hostmem based backend",
            ),
            _link(
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
        properties=(_switch(*_SPCR),),
        interfaces=(
            "target-info-aarch64-machine",
            "target-info-arm-machine",
            "target-info-riscv32-machine",
            "target-info-riscv64-machine",
        ),
    )
