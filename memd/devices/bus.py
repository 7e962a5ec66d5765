"""Buses: which there are in a machine, and the places on those for PCI devices.

Only devices for memory can be plugged in, so most buses are but names. Names,
texts and what stands where from the start were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from memd.errors import QMPError, device_not_found
from memd.json_types import JSON
from memd.qapi.visit import visit_int32
from memd.qom import LinkProperty, ObjectType, Paths, Property, QObject
from memd.qom.builtin_objects import Bus

ANY_PLACE = -1
"""The PCI address that asks for any."""

_SLOTS = 32
_FUNCTIONS = 8
_PLACES = _SLOTS * _FUNCTIONS
_PLACE = r"\s*(?:0x)?([0-9a-fA-F]+)(?:\.(?:0x)?([0-9a-fA-F]+))?"


class PciBus(Bus):
    """A bus for PCI devices.

    Attributes:
        one_slot: whether it is a port's, where only the first slot counts.
        standard: whether its bridge plugs devices in itself, which has no first slot.
    """

    def __init__(
        self,
        qom_type: ObjectType,
        tree: Paths,
        *,
        hotplug: bool,
        one_slot: bool = False,
        standard: bool = False,
    ) -> None:
        super().__init__(qom_type, tree, hotplug=hotplug)
        self.one_slot = one_slot
        self.standard = standard
        # By number: type, id, and whether it goes with others in its slot.
        self._taken: dict[int, tuple[str, str | None, bool]] = {}

    @property
    def express(self) -> bool:
        """Whether it is one of PCI Express."""
        return self.qom_type.name == "PCIE"

    def occupy(self, number: int, kind: str, *, multifunction: bool) -> None:
        """Put something there that goes with any others; raises `QMPError` where it is taken."""
        self._check_free(number, kind)
        self._taken[number] = kind, None, multifunction

    def _check_free(self, number: int, kind: str) -> None:
        if number in self._taken:
            other, its_id, _multifunction = self._taken[number]
            name = "(null)" if its_id is None else its_id
            raise QMPError(
                f"PCI: slot {number // _FUNCTIONS} function {number % _FUNCTIONS} not available"
                f" for {kind}, in use by {other},id={name}"
            )

    def place(
        self,
        number: int,
        kind: str,
        id: str | None,
        *,
        hotplugged: bool,
        multifunction: bool = False,
    ) -> int:
        """Find a place for a device, and take it.

        Args:
            number: eight times the slot, plus the function; or `ANY_PLACE`.
            kind: its type.
            id: its id.
            hotplugged: whether the machine has started.
            multifunction: whether it goes with others in its slot.

        Raises:
            QMPError: it can't go there.
        """
        # Where any place will do, QEMU looks at that of the last slot.
        first = 0 if self.one_slot else (number % _PLACES) // _FUNCTIONS * _FUNCTIONS
        if number == ANY_PLACE:
            number = self._free(kind)
        else:
            self._check_free(number, kind)
        if hotplugged and first in self._taken:
            raise QMPError(
                f"PCI: slot {first // _FUNCTIONS} function 0 already occupied by"
                f" {self._taken[first][0]}, new func {kind} cannot be exposed to guest."
            )
        self._check_functions(number, multifunction)
        if hotplugged and self.standard and number < _FUNCTIONS:
            raise QMPError(
                f"Unsupported PCI slot 0 for standard hotplug controller. Valid slots are between"
                f" 1 and {_SLOTS - 1}."
            )
        self._taken[number] = kind, id, multifunction
        return number

    def _check_functions(self, number: int, multifunction: bool) -> None:
        """Raise `QMPError` where it would not go with others in its slot."""
        slot, function = divmod(number, _FUNCTIONS)
        first = slot * _FUNCTIONS
        if function:
            if first in self._taken and not self._taken[first][2]:
                raise QMPError(
                    "PCI: single function device can't be populated in function"
                    f" {slot:x}.{function:x}"
                )
        elif not multifunction:
            for other in range(1, _FUNCTIONS):
                if first + other in self._taken:
                    raise QMPError(
                        f"PCI: {slot:x}.0 indicates single function, but {slot:x}.{other:x} is"
                        " already populated."
                    )

    def _free(self, kind: str) -> int:
        for number in range(0, _PLACES, _FUNCTIONS):
            if number not in self._taken:
                return number
        raise QMPError(f"PCI: no slot/function available for {kind}, all in use or reserved")

    def vacate(self, number: int) -> None:
        """Give a place back."""
        del self._taken[number]


class Buses:
    """The buses of a machine.

    Attributes:
        pci: the machine's own PCI bus; None where it has none.
        others: the machine's buses that no memory device goes on, by name.
        port_numbers: chassis and slot of each port.
    """

    def __init__(self, pci: PciBus | None, system: Bus) -> None:
        self.pci = pci
        self.others = {"main-system-bus": system}
        # Those that PCI devices go on, by name.
        self._for_pci = {} if pci is None else {pci.name: pci}
        self.port_numbers: set[tuple[JSON, JSON]] = set()
        self._named: dict[str, int] = {}
        if pci is not None and not pci.express:
            # One of PCI Express is given its name.
            self.name_bus(pci.qom_type)

    def open(self, device: QObject, name: str | None, bus: PciBus) -> None:
        """Put the bus of a port or a bridge into it, which can be named from now on.

        Args:
            name: of the bus; None for one that is named after its type.
        """
        if name is None:
            name = self.name_bus(bus.qom_type)
        device.add_child(name, bus)
        # Of two with a name the first is meant.
        self._for_pci.setdefault(name, bus)

    def name_bus(self, kind: ObjectType) -> str:
        """The name of a bus that is given none: its type's, and how many had such a name."""
        number = self._named.get(kind.name, 0)
        self._named[kind.name] = number + 1
        return f"{kind.name.lower()}.{number}"

    def close(self, device: QObject) -> None:
        """The buses of a device are gone with it."""
        for name, bus in device.children.items():
            for named in (self._for_pci, self.others):
                if named.get(name) is bus:
                    del named[name]

    def add_other(self, bus: Bus) -> None:
        """Note a bus of the machine that no memory device goes on."""
        self.others.setdefault(bus.name, bus)
        self.name_bus(bus.qom_type)

    def find(self, name: JSON, kind: str, *, on_pci: bool, virtio: bool) -> PciBus | None:
        """The bus for a device.

        Args:
            name: as the client gave it; None for any that will do.
            kind: the device's type.
            on_pci: whether it goes on a PCI bus; else on none.
            virtio: whether there is a virtio device, and with it a bus.

        Raises:
            QMPError: there is no such bus, or the device can't go on it.
        """
        # A name that is not text is none at all.
        if type(name) is not str:
            if on_pci and self.pci is None:
                raise QMPError(f"No 'PCI' bus found for device '{kind}'")
            return self.pci if on_pci else None
        first, _, rest = name.partition("/")
        if name.startswith("/"):
            raise device_not_found(rest.partition("/")[0])
        bus = self._for_pci.get(first)
        if bus is None and first not in self.others and not (virtio and first == "virtio-bus"):
            raise QMPError(f"Bus '{first}' not found")
        if rest:
            raise device_not_found(rest.partition("/")[0])
        if bus is None and first == "virtio-bus":
            raise QMPError("Bus 'virtio-bus' is full")
        if bus is None or not on_pci:
            there = bus or self.others[first]
            raise QMPError(f"Device '{kind}' can't go on {there.qom_type.name} bus")
        return bus


def bus_types(bus: ObjectType) -> Iterator[ObjectType]:
    """The types of buses that memory devices may go on; `bus` is the one of all buses."""
    own = (
        Property("realized", "bool", get=lambda bus: True),
        LinkProperty("hotplug-handler", "hotplug-handler", follow=lambda bus: None),
    )
    pci = ObjectType("PCI", bus, interfaces=("fw_cfg-data-generator",), properties=own)
    yield pci
    yield ObjectType("PCIE", pci)
    virtio = ObjectType("virtio-bus", bus, abstract=True)
    yield virtio
    yield ObjectType("virtio-pci-bus", virtio, properties=own)


def visit_place(value: JSON) -> int | None:
    """A PCI address: a number, or slot and function as "06.0" or "06", in hex.

    Returns:
        None for a text that is no such address.

    Raises:
        QMPError: it is of another type, or out of range.
    """
    if type(value) in (int, float):
        number: int = visit_int32(value, "addr")
        if not ANY_PLACE <= number < _PLACES:
            raise QMPError(
                f"Parameter 'addr' expects a value between {ANY_PLACE} and {_PLACES - 1}"
            )
        return number
    if type(value) is not str:
        raise QMPError("Invalid parameter type for 'addr', expected int or str")
    found = re.fullmatch(_PLACE, value)
    if found is None:
        return None
    slot, function = [int(each or "0", 16) for each in found.groups()]
    return slot * _FUNCTIONS + function if slot < _SLOTS and function < _FUNCTIONS else None
