"""The machines that there are: names, limits and properties.

Only the memory side of any of them exists. What else QEMU's machines have is
known by name, so that it can be asked for, set and read. Observed on QEMU
10.0.2 and 11.1.3, `virt` on 10.0.2's qemu-system-aarch64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from memd.compat import Compat
from memd.qom import INTERFACE, ObjectType, Property
from memd.qom.machine import Row

_X86: tuple[Row, ...] = (
    ("smm", "OnOffAuto", "auto", "Enable SMM"),
    ("acpi", "OnOffAuto", "auto", "Enable ACPI"),
    ("pit", "OnOffAuto", "auto", "Enable i8254 PIT"),
    ("pic", "OnOffAuto", "auto", "Enable i8259 PIC"),
    (
        "x-oem-table-id",
        "string",
        "BXPC    ",
        "Override the default value of field OEM Table ID in ACPI table header."
        "The string may be up to 8 bytes in size",
    ),
    (
        "bus-lock-ratelimit",
        "uint64_t",
        0,
        "Set the ratelimit for the bus locks acquired in VMs",
    ),
    ("sgx-epc", "SgxEPC", [], "SGX EPC device"),
    (
        "x-oem-id",
        "string",
        "BOCHS ",
        "Override the default value of field OEMID in ACPI table header."
        "The string may be up to 6 bytes in size",
    ),
)
_PC: tuple[Row, ...] = (
    ("max-fw-size", "size", 8 << 20, "Maximum combined firmware size"),
    ("default-bus-bypass-iommu", "bool", False, None),
    ("sata", "bool", True, "Enable/disable Serial ATA bus"),
    ("vmport", "OnOffAuto", "on", "Enable vmport (pc & q35)"),
    ("i8042", "bool", True, "Enable/disable Intel 8042 PS/2 controller emulation"),
    ("hpet", "bool", True, "Enable/disable high precision event timer emulation"),
    ("smbios-entry-point-type", "str", "auto", "SMBIOS Entry Point type [32, 64]"),
    ("max-ram-below-4g", "size", 1 << 32, "Maximum ram below the 4G boundary (32bit boundary)"),
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
_OWN: tuple[Row, ...] = (
    *_NVDIMM,
    ("cxl", "bool", False, "Set on/off to enable/disable CXL instantiation"),
    ("cxl-fmw", "CXLFixedMemoryWindow", [], "CXL Fixed Memory Windows (array)"),
    ("pcspk-audiodev", "str", "", "ID of an audiodev to use as a backend"),
    _HMAT,
)
_BELOW_4G: Row = (*_PC[7][:2], 0xE0000000, _PC[7][3])
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
_VIRT: tuple[Row, ...] = (
    (
        "mte",
        "bool",
        False,
        "Set on/off to enable/disable emulating a guest CPU which implements the"
        " ARM Memory Tagging Extension",
    ),
    _X86[4],
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
    _X86[7],
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
        kind: what memd calls it: "none", "q35", "pc" or "virt". QEMU knows it
            by this name, too.
        name: that of a QEMU release, such as "pc-q35-10.0".
        description: what QEMU says it is.
        ram_id: the id of the backend that is made for its memory where none
            is named.
        most_cpus: how many CPUs it could have.
        cpu_levels: the rarer levels of a CPU's place that it knows.
        cache_levels: the levels that a cache can belong to; none where it knows
            of no caches.
        hotpluggable_cpus: whether CPUs could be added while it runs.
        cpu_type: the class of its CPUs where none is named; "" for no CPUs.
        target: the architecture of the QEMU that has it; "" for each.
        properties: what it has beside the machine `none`'s.
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

    @property
    def type_name(self) -> str:
        """The name of its QOM type."""
        return f"{self.name}-machine"


FLASH = ("pflash0", "pflash1")
"""Properties of a PC that name what is in its flash chips."""

NONE = MachineKind("none", "none", "empty machine", ram_id="ram")


def machine_kinds(compat: Compat) -> tuple[MachineKind, ...]:
    """The machines of a QEMU release, in the order of their names."""
    later = compat is not Compat.V10_0
    release = compat.value
    pc = (*_X86, *_PC, *(_PC_11_1 if later else _FD_BOOTCHK), *_OWN)
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
    )
    i440fx = q35._replace(
        kind="pc",
        name=f"pc-i440fx-{release}",
        description="Standard PC (i440FX + PIIX, 1996)",
        most_cpus=255,
        properties=(*(_BELOW_4G if row[0] == _BELOW_4G[0] else row for row in pc), *_I440FX),
    )
    return (
        NONE,
        i440fx,
        q35,
        MachineKind(
            "virt",
            f"virt-{release}",
            f"QEMU {release} ARM Virtual Machine",
            ram_id="mach-virt.ram",
            most_cpus=512,
            cpu_levels=("clusters",),
            cache_levels=("core", "cluster", "socket") if later else (),
            cpu_type="cortex-a15-arm-cpu",
            target="aarch64",
            properties=_VIRT,
        ),
    )


def find_kind(name: str, compat: Compat) -> MachineKind | None:
    """The machine of that name, QEMU's short or long one; None for none such."""
    for each in machine_kinds(compat):
        if name in (each.kind, each.name):
            return each
    return None


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
