"""`virtio-pmem-pci`: a backend's memory as persistent memory, flushed on request.

Texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from memd.backends.base import MemoryBackend
from memd.devices.machine import Machine
from memd.devices.pci import check_partners
from memd.devices.virtio_pci import VirtioMemory
from memd.errors import QMPError
from memd.json_types import JSONObject


class VirtioPmem(VirtioMemory):
    """All of the memory is there from the start, and stays."""

    def data(self) -> JSONObject:
        return {
            "memdev": self.get_property("memdev"),
            "memaddr": self.address,
            "size": self.plugged_size,
        }

    def realize(self, machine: Machine, memdev: MemoryBackend) -> None:
        if memdev.mapped_by is not None:
            raise QMPError(f"can't use already busy memdev: {memdev.name}")
        check_partners(self.front)

    def check_removal(self) -> None:
        raise QMPError("this virtio based memory devices cannot be unplugged")
