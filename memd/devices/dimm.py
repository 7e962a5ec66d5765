"""`pc-dimm` and `nvdimm`: a backend's memory as a module in a slot.

Names, defaults, texts and their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from memd.backends.base import MemoryBackend
from memd.compat import Compat
from memd.devices.acpi import AcpiDevice
from memd.devices.area import ANY_SLOT, ANYWHERE, choose_slot
from memd.devices.device import (
    DEVICE,
    alignment,
    deleted,
    is_rom,
    memdev_property,
    need_memdev,
    stored,
)
from memd.devices.machine import Machine, MemoryDevice
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.qapi.numbers import parse_uuid
from memd.qapi.visit import visit_str, visit_uint64
from memd.qom import MemoryRegion, ObjectType, Property
from memd.work import Events

MIN_LABEL = 128 << 10
"""The least bytes of labels that an NVDIMM can have, if it has any."""


class PcDimm(AcpiDevice, MemoryDevice):
    """A DIMM.

    Attributes:
        memdev: the backend, or None.
    """

    kind = "dimm"
    slot_type = "DIMM"
    memdev: MemoryBackend | None = None

    @property
    def address(self) -> int:
        return int(self.values.get("addr", ANYWHERE))

    @property
    def slot(self) -> int:
        """The slot that it is in, or is to be put into."""
        return int(self.values.get("slot", ANY_SLOT))

    @property
    def node(self) -> int:
        """The machine's NUMA node that it belongs to."""
        return int(self.values.get("node", 0))

    def data(self) -> JSONObject:
        return {
            "memdev": self.get_property("memdev"),
            "hotplugged": self.hotplugged,
            "addr": self.address,
            "hotpluggable": self.hotpluggable,
            "size": self.memory_size,
            "slot": self.slot,
            "node": self.node,
        }

    # Life

    def check_machine(self, machine: Machine) -> None:
        """Raise `QMPError` where the machine takes none of the kind."""

    def check_memdev(self, memdev: MemoryBackend) -> None:
        """Raise `QMPError` where the backend does not suit."""

    def realize(self, machine: Machine) -> None:
        if not machine.config.takes_dimms:
            machine.take(self, need_memdev(self))
            self.realized = True
            return
        if not machine.config.acpi:
            raise QMPError("memory hotplug is not enabled: missing acpi device or acpi disabled")
        self.check_machine(machine)
        taken = {each.slot for each in machine.plugged if isinstance(each, PcDimm)}
        slot = choose_slot(machine.config.slots, taken, self.slot)
        area = machine.need_area()
        memdev = need_memdev(self)
        self.check_memdev(memdev)
        align = alignment(memdev)
        address = area.find(machine.plugged, self.memory_size, align, align, self.address)
        nodes = machine.numa_nodes
        if self.node >= nodes:
            raise QMPError(
                f"'DIMM property node has value {self.node}' which exceeds the number of"
                f" numa nodes: {nodes}"
            )
        if memdev.mapped_by is not None:
            raise QMPError(f"can't use already busy memdev: {memdev.name}")
        self.values["slot"] = slot
        self.values["addr"] = address
        machine.take(self, memdev)
        self.ram_block = memdev.memory_name
        self.realized = True

    def found(self, machine: Machine) -> None:
        """See `MemoryDevice.found`: one that was there from the start is not reported."""
        if self.hotplugged:
            self.report_plugged(machine)

    def leave(self, machine: Machine) -> None:
        machine.remove(self)

    def removed(self) -> Events:
        self.realized = False
        return (deleted(self, self.tree.path_of(self)),)


class Nvdimm(PcDimm):
    """A DIMM that keeps its content.

    Attributes:
        label_size: bytes at its end that are set apart for labels.
    """

    kind = "nvdimm"

    label_size = 0

    @property
    def memory_size(self) -> int:
        """The bytes without the labels, in whole pages."""
        memdev = self.memdev
        if memdev is None:
            return 0
        size = memdev.size - self.label_size
        return size - size % alignment(memdev)

    def check_machine(self, machine: Machine) -> None:
        if not machine.config.nvdimm:
            raise QMPError("nvdimm is not enabled: missing 'nvdimm' in '-M'")

    def check_memdev(self, memdev: MemoryBackend) -> None:
        align = alignment(memdev)
        if self.memory_size < align:
            raise QMPError(
                f"the size of memdev {memdev.name} (0x{memdev.size:x}) is too small to contain"
                f" nvdimm label (0x{self.label_size:x}) and aligned PMEM (0x{align:x})"
            )
        if is_rom(memdev) and not self.values.get("unarmed", False):
            raise QMPError(
                f"'unarmed' property must be 'on' since memdev {memdev.name} is read-only"
            )

    def realize(self, machine: Machine) -> None:
        super().realize(machine)
        region = MemoryRegion(self.tree, self.memory_size)
        machine.show_region(region, self.address)
        self.add_child("nvdimm-memory[0]", region)

    def found(self, machine: Machine) -> None:
        """See `MemoryDevice.found`: nothing is reported of an NVDIMM."""

    def removal(self, machine: Machine) -> None:
        raise QMPError("nvdimm device hot unplug is not supported yet.")


def _guard_label(device: Nvdimm) -> None:
    if device.realized:
        raise QMPError("cannot change property value")


def _set_label(device: Nvdimm, size: int) -> None:
    if size < MIN_LABEL:
        raise QMPError(
            f"Property 'nvdimm.label-size' (0x{size:x}) is required at least 0x{MIN_LABEL:x}"
        )
    device.label_size = size


def _set_uuid(device: Nvdimm, text: str) -> None:
    uuid = parse_uuid(text)
    if uuid is None:
        raise QMPError("Property 'nvdimm.uuid' has invalid value")
    device.values["uuid"] = uuid


def _get_uuid(device: Nvdimm) -> str:
    return str(device.values.get("uuid", "00000000-0000-0000-0000-000000000000"))


def dimm_types(compat: Compat) -> tuple[ObjectType, ObjectType]:
    """The types `pc-dimm` and `nvdimm` of a QEMU release."""
    pc_dimm = ObjectType(
        "pc-dimm",
        DEVICE,
        interfaces=("memory-device",),
        properties=(
            stored(("addr", "uint64", ANYWHERE)),
            stored(("node", "uint32", 0)),
            stored(("slot", "int32", ANY_SLOT)),
            Property("size", "uint64", get=lambda device: device.memory_size),
            memdev_property(),
            *((Property("legacy-memdev", "str"),) if compat is Compat.V10_0 else ()),
        ),
    )
    nvdimm = ObjectType(
        "nvdimm",
        pc_dimm,
        properties=(
            Property(
                "label-size",
                "int",
                visit=visit_uint64,
                guard=_guard_label,
                get=lambda device: device.label_size,
                set=_set_label,
            ),
            Property("uuid", "QemuUUID", visit=visit_str, get=_get_uuid, set=_set_uuid),
            stored(("unarmed", "bool", False)),
        ),
    )
    return pc_dimm, nvdimm
