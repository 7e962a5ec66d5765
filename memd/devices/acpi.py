"""Devices that come and go by ACPI: what their guest reports.

Observed on QEMU 10.0.2 and 11.1.3 with Linux 6.1.
"""

from __future__ import annotations

from abc import abstractmethod

from memd.devices.machine import Device, Machine
from memd.json_types import JSONObject
from memd.work import Event

# What a guest reports (ACPI 6.5, section 6.3.5, _OST): of what, and how it went.
_PLUG, _EJECT = 1, 3
_SUCCESS, _BUSY, _IN_PROGRESS = 0, 0x82, 0x84


class AcpiDevice(Device):
    """A device in a slot that ACPI tells the guest of.

    Attributes:
        slot_type: what kind of slot that is.
    """

    slot_type: str

    @property
    @abstractmethod
    def slot(self) -> int:
        """The slot that it is in."""

    @abstractmethod
    def leave(self, machine: Machine) -> None:
        """The guest has released it: it goes."""

    def report_plugged(self, machine: Machine) -> None:
        """Have the guest report that it has it."""
        machine.guest.tell(lambda: self._report(machine, _PLUG, _SUCCESS))

    def removal(self, machine: Machine) -> None:
        """See `Device.removal`; asking again changes nothing."""
        if self.leaving:
            return
        self.leaving = True
        machine.guest.ask(lambda: self._release(machine), lambda: self._keep(machine))

    def _release(self, machine: Machine) -> None:
        self._report(machine, _EJECT, _IN_PROGRESS)
        self.leave(machine)
        # It is unknown by now who was in the slot.
        self.id = None
        self._report(machine, _EJECT, _SUCCESS)

    def _keep(self, machine: Machine) -> None:
        self.leaving = False
        self._report(machine, _EJECT, _IN_PROGRESS)
        self._report(machine, _EJECT, _BUSY)

    def _report(self, machine: Machine, source: int, status: int) -> None:
        info: JSONObject = {} if self.id is None else {"device": self.id}
        info |= {"source": source, "status": status}
        info |= {"slot": str(self.slot), "slot-type": self.slot_type}
        machine.emit((Event("ACPI_DEVICE_OST", {"info": info}),))
