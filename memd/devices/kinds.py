"""The machines that there are: names, limits and properties.

Only the memory side of any of them exists. What else QEMU's machines have is
known by name, so that it can be asked for, set and read. Observed on QEMU
10.0.2 and 11.1.3, `virt` on 10.0.2's qemu-system-aarch64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.compat import Compat
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple
from memd.qom import INTERFACE, ObjectType, Property
from memd.qom.machine import SPCR, Row
from memd.qom.topology import Processors

_OEM_TABLE_ID: Row = (
    "x-oem-table-id",
    "string",
    "BXPC    ",
    "Override the default value of field OEM Table ID in ACPI table header."
    "The string may be up to 8 bytes in size",
)
_OEM_ID: Row = (
    "x-oem-id",
    "string",
    "BOCHS ",
    "Override the default value of field OEMID in ACPI table header."
    "The string may be up to 6 bytes in size",
)
_X86: tuple[Row, ...] = (
    ("smm", "OnOffAuto", "auto", "Enable SMM"),
    ("acpi", "OnOffAuto", "auto", "Enable ACPI"),
    ("pit", "OnOffAuto", "auto", "Enable i8254 PIT"),
    ("pic", "OnOffAuto", "auto", "Enable i8259 PIC"),
    _OEM_TABLE_ID,
    (
        "bus-lock-ratelimit",
        "uint64_t",
        0,
        "Set the ratelimit for the bus locks acquired in VMs",
    ),
    ("sgx-epc", "SgxEPC", [], "SGX EPC device"),
    _OEM_ID,
)
_ENTRY_POINT = ("smbios-entry-point-type", "str", "auto", "SMBIOS Entry Point type [32, 64]")
_PC: tuple[Row, ...] = (
    ("max-fw-size", "size", 8 << 20, "Maximum combined firmware size"),
    ("default-bus-bypass-iommu", "bool", False, None),
    ("sata", "bool", True, "Enable/disable Serial ATA bus"),
    ("vmport", "OnOffAuto", "auto", "Enable vmport (pc & q35)"),
    ("i8042", "bool", True, "Enable/disable Intel 8042 PS/2 controller emulation"),
    ("hpet", "bool", True, "Enable/disable high precision event timer emulation"),
    _ENTRY_POINT,
    ("max-ram-below-4g", "size", 0, "Maximum ram below the 4G boundary (32bit boundary)"),
    ("smbus", "bool", True, "Enable/disable system management bus"),
)
_FD_BOOTCHK: tuple[Row, ...] = (("fd-bootchk", "bool", True, None),)
_PC_11_1: tuple[Row, ...] = (
    (
        "fd-bootchk",
        "bool",
        True,
        "Enable/disable boot signature checking for floppy disks in BIOS",
    ),
)
# What a machine has for itself, and does not tell of its class.
_NVDIMM: tuple[Row, ...] = (
    ("nvdimm", "bool", False, "Set on/off to enable/disable NVDIMM instantiation"),
    (
        "nvdimm-persistence",
        "string",
        "",
        "Set NVDIMM persistenceValid values are cpu, mem-ctrl",
    ),
)
_HMAT: Row = (
    "hmat",
    "bool",
    False,
    "Set on/off to enable/disable ACPI Heterogeneous Memory Attribute Table (HMAT)",
)
_SPEAKER: Row = ("pcspk-audiodev", "str", "", "ID of an audiodev to use as a backend")
_OWN: tuple[Row, ...] = (
    *_NVDIMM,
    ("cxl", "bool", False, "Set on/off to enable/disable CXL instantiation"),
    ("cxl-fmw", "CXLFixedMemoryWindow", [], "CXL Fixed Memory Windows (array)"),
    _SPEAKER,
    _HMAT,
)
_I440FX: tuple[Row, ...] = (
    (
        "x-south-bridge",
        "PCSouthBridgeOption",
        "PIIX3",
        "Use a different south bridge than PIIX3",
    ),
)
_Q35_11_1: tuple[Row, ...] = (
    ("wdat", "bool", False, "Enable WDAT watchdog support. Default: off"),
)
_MICROVM: tuple[Row, ...] = (
    ("ioapic2", "OnOffAuto", "auto", "Enable second IO-APIC"),
    (
        "auto-kernel-cmdline",
        "bool",
        True,
        "Set off to disable adding virtio-mmio devices to the kernel cmdline",
    ),
    ("rtc", "OnOffAuto", "auto", "Enable MC146818 RTC"),
    ("pcie", "OnOffAuto", "auto", "Enable PCIe"),
    ("x-option-roms", "bool", True, "Set off to disable loading option ROMs"),
    (
        "isa-serial",
        "bool",
        True,
        "Set off to disable the instantiation an ISA serial port",
    ),
    _HMAT,
)
_REMOTE: tuple[Row, ...] = (
    ("vfio-user", "bool", False, None),
    ("auto-shutdown", "bool", True, None),
)
_VIRT: tuple[Row, ...] = (
    (
        "mte",
        "bool",
        False,
        "Set on/off to enable/disable emulating a guest CPU which implements the"
        " ARM Memory Tagging Extension",
    ),
    _OEM_TABLE_ID,
    (
        "dtb-randomness",
        "bool",
        True,
        "Set off to disable passing random or non-deterministic dtb nodes to guest",
    ),
    (
        "secure",
        "bool",
        False,
        "Set on/off to enable/disable the ARM Security Extensions (TrustZone)",
    ),
    ("acpi", "OnOffAuto", "auto", "Enable ACPI"),
    (
        "highmem-mmio",
        "bool",
        True,
        "Set on/off to enable/disable high memory region for PCI MMIO",
    ),
    (
        "compact-highmem",
        "bool",
        True,
        "Set on/off to enable/disable compact layout for high memory regions",
    ),
    ("iommu", "string", "none", "Set the IOMMU type. Valid values are none and smmuv3"),
    ("dtb-kaslr-seed", "bool", True, "Deprecated synonym of dtb-randomness"),
    (
        "ras",
        "bool",
        False,
        "Set on/off to enable/disable reporting host memory errors to a KVM guest using ACPI"
        " and guest external abort exceptions",
    ),
    (
        "highmem-ecam",
        "bool",
        True,
        "Set on/off to enable/disable high memory region for PCI ECAM",
    ),
    (
        "highmem-redists",
        "bool",
        True,
        "Set on/off to enable/disable high memory region for GICv3 or GICv4 redistributor",
    ),
    ("highmem-mmio-size", "size", 1 << 39, "Set the high memory region size for PCI MMIO"),
    (
        "highmem",
        "bool",
        True,
        "Set on/off to enable/disable using physical address space above 32 bits",
    ),
    _OEM_ID,
    ("its", "bool", True, "Set on/off to enable/disable ITS instantiation"),
    (
        "virtualization",
        "bool",
        False,
        "Set on/off to enable/disable emulating a guest CPU which implements the"
        " ARM Virtualization Extensions",
    ),
    (
        "default-bus-bypass-iommu",
        "bool",
        False,
        "Set on/off to enable/disable bypass_iommu for default root bus",
    ),
    ("gic-version", "string", "2", "Set GIC version. Valid values are 2, 3, 4, host and max"),
    *_NVDIMM,
    _HMAT,
)


class MachineKind(NamedTuple):
    """A machine that can be asked for.

    Attributes:
        kind: what memd calls it, such as "q35". QEMU knows it by this name, too.
        name: that of a QEMU release, such as "pc-q35-10.0".
        description: what QEMU says it is.
        ram_id: the id of the backend that is made for its memory where none
            is named; "" where none is made.
        most_cpus: how many CPUs it could have.
        cpu_levels: the rarer levels of a CPU's place that it knows.
        cache_levels: the levels that a cache can belong to; none where it knows
            of no caches.
        hotpluggable_cpus: whether CPUs could be added while it runs.
        cpu_type: the class of its CPUs where none is named; "" for no CPUs.
        target: the architecture of the QEMU that has it; "" for each.
        properties: what it has beside the machine `none`'s.
        above: the QOM type that its own derives from.
        values: what else its properties are at the start.
        own_node: whether it has a NUMA node, where none is asked for, as soon as it has
            room for more memory.
        node_sizes: whether the size of a NUMA node can be given without a backend.
        deprecated: whether QEMU warns of it.
        default: whether it is the one of a command line that names none.
        sockets_first: see `Processors`.
        nic: the network device that it makes where no model is named; "" where it makes none.
    """

    kind: str
    name: str
    description: str
    ram_id: str
    most_cpus: int = 1
    cpu_levels: tuple[str, ...] = ()
    cache_levels: tuple[str, ...] = ()
    hotpluggable_cpus: bool = False
    cpu_type: str = ""
    target: str = ""
    properties: tuple[Row, ...] = ()
    above: str = "machine"
    values: JSONObject = {}  # noqa: RUF012
    own_node: bool = True
    node_sizes: bool = False
    deprecated: bool = False
    default: bool = False
    sockets_first: bool = False
    nic: str = ""

    @property
    def type_name(self) -> str:
        """The name of its QOM type."""
        return f"{self.name}-machine"

    @property
    def processors(self) -> Processors:
        """The limits of its CPUs."""
        return Processors(self.name, self.most_cpus, self.cpu_levels, self.sockets_first)


UNLISTED = frozenset(row[0] for row in _OWN)
"""Properties that a machine has and the list of its properties has not."""

FLASH = ("pflash0", "pflash1")
"""Properties of a PC that name what is in its flash chips."""

NONE = MachineKind("none", "none", "empty machine", ram_id="ram")


def machine_kinds(compat: Compat) -> tuple[MachineKind, ...]:
    """The machines of a QEMU release, in the order of their names."""
    later = compat is not Compat.V10_0
    spcr = (SPCR,) if later else ()
    microvm = MachineKind(
        "microvm",
        "microvm",
        "microvm (i386)",
        ram_id="microvm.ram",
        most_cpus=288,
        cpu_type="qemu64-x86_64-cpu",
        target="x86_64",
        properties=(*_X86, *_MICROVM, *spcr),
        above="x86-machine",
        own_node=False,
    )
    remote = MachineKind(
        "x-remote",
        "x-remote",
        "Experimental remote machine",
        ram_id="",
        target="x86_64",
        properties=(*_REMOTE, *spcr),
        own_node=False,
    )
    virt = MachineKind(
        "virt",
        f"virt-{compat.value}",
        f"QEMU {compat.value} ARM Virtual Machine",
        ram_id="mach-virt.ram",
        most_cpus=512,
        cpu_levels=("clusters",),
        cache_levels=("core", "cluster", "socket") if later else (),
        cpu_type="cortex-a15-arm-cpu",
        target="aarch64",
        properties=_VIRT,
    )
    return (microvm, *_pc_kinds(compat.value, later=later, spcr=spcr), NONE, remote, virt)


def _pc_kinds(release: str, *, later: bool, spcr: tuple[Row, ...]) -> tuple[MachineKind, ...]:
    """The PCs of a release: that with PCI, that with PCI Express, and that with ISA alone."""
    x86 = (*_X86, *_PC, *(_PC_11_1 if later else _FD_BOOTCHK))
    pc = (*x86, *_OWN, *spcr)
    q35 = MachineKind(
        "q35",
        f"pc-q35-{release}",
        "Standard PC (Q35 + ICH9, 2009)",
        ram_id="pc.ram",
        most_cpus=4096,
        cpu_levels=("dies", "modules"),
        cache_levels=("core", "module", "die", "socket"),
        hotpluggable_cpus=True,
        cpu_type="qemu64-x86_64-cpu",
        target="x86_64",
        properties=(*pc, *(_Q35_11_1 if later else ())),
        above="generic-pc-machine",
        values={"boot": {"order": "cad"}, "firmware": "bios-256k.bin"},
        nic="e1000e",
    )
    i440fx = q35._replace(
        kind="pc",
        name=f"pc-i440fx-{release}",
        description="Standard PC (i440FX + PIIX, 1996)",
        most_cpus=255,
        properties=(*pc, *_I440FX),
        nic="e1000",
    )
    isapc = i440fx._replace(
        kind="isapc",
        name="isapc",
        description="ISA-only PC",
        most_cpus=1,
        cpu_type="486-x86_64-cpu",
        properties=(*x86, *_NVDIMM, _SPEAKER, _HMAT, *spcr),
        values={"boot": {"order": "cad"}},
        nic="ne2k_isa",
    )
    return i440fx, q35, isapc


_FAMILIES = {"pc-q35-": "q35", "pc-i440fx-": "pc"}
"""The machines that QEMU has of each release, by the beginning of their names."""

_ENTRY_POINTS = (((8, 1), "32"), ((9, 0), "64"))
"""The values of `smbios-entry-point-type` of machines before a release."""


def find_kind(name: str, compat: Compat, listed: Iterable[JSONObject] = ()) -> MachineKind | None:
    """The machine of that name, QEMU's short or long one; None for none such.

    Args:
        name: the name.
        compat: whose machines.
        listed: the answer to `query-machines` of a recorded QEMU, whose machines of other
            releases there are then, too.
    """
    known = machine_kinds(compat)
    for row in listed:
        if name in (row["name"], row.get("alias")):
            found = _recorded(row, known)
            if found is not None:
                return found
    for each in known:
        if name in (each.kind, each.name):
            return each
    return None


def recorded_kinds(compat: Compat, listed: Iterable[JSONObject]) -> list[MachineKind]:
    """The machines of a recorded QEMU that there are; see `find_kind`."""
    known = machine_kinds(compat)
    return [found for row in listed if (found := _recorded(row, known)) is not None]


def _recorded(row: JSONObject, known: Iterable[MachineKind]) -> MachineKind | None:
    name: str = row["name"]
    family = name
    release: tuple[int, ...] = ()
    for begin, kind in _FAMILIES.items():
        if name.startswith(begin):
            family, numbers = kind, name.removeprefix(begin).split(".")
            # Distributions have machines of their own: "pc-q35-noble", "pc-q35-rhel9.6.0".
            if all(each.isdecimal() for each in numbers):
                release = tuple(map(int, numbers))
    for each in known:
        if each.kind == family:
            break
    else:
        return None
    properties = each.properties
    for before, value in _ENTRY_POINTS[::-1]:
        if release and release < before:
            changed = (*_ENTRY_POINT[:2], value, _ENTRY_POINT[3])
            properties = tuple(changed if row is _ENTRY_POINT else row for row in each.properties)
    return each._replace(
        name=name,
        most_cpus=row["cpu-max"],
        properties=properties,
        own_node=each.own_node and (not release or release > (2, 10)),
        node_sizes=row["numa-mem-supported"],
        deprecated=row["deprecated"],
        default=row.get("is-default", False),
        sockets_first=(0,) < release < (6, 2),
        nic="e1000" if each.nic == "e1000e" and release and release < (2, 12) else each.nic,
    )


def pc_types(machine: ObjectType, compat: Compat) -> Iterator[ObjectType]:
    """The base types of PC machines, for clients that list types.

    Args:
        machine: the type `machine`.
        compat: whose types.
    """
    yield ObjectType("nmi", INTERFACE, abstract=True)
    own = _PC_11_1 if compat is not Compat.V10_0 else _FD_BOOTCHK
    above = machine
    for name, interface, rows in (
        ("x86-machine", "nmi", _X86),
        ("generic-pc-machine", "hotplug-handler", (*_PC, *own)),
    ):
        # No object is of these types, so nothing of them has a value.
        properties = [Property(each, type, description=text) for each, type, _value, text in rows]
        above = ObjectType(
            name, above, abstract=True, interfaces=(interface,), properties=properties
        )
        yield above
