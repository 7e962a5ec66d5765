"""`-global DRIVER.PROP=VALUE`: what properties of devices have unless they are told otherwise.

Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from memd.config import Global
from memd.devices.machine import Device
from memd.devices.machine_object import CPU
from memd.devices.parts import parts_of
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom import ObjectType, Tree
from memd.standin.catalogue import Catalogue
from memd.standin.devices import Devices, inner_type
from memd.standin.property_text import read_global, refused
from memd.standin.types import inner_names

Check = Callable[[str, JSON], object]

_MIGRATION = "migration"
_CARDS = "Network devices:"
_MAKING_CARDS = ("pc", "q35")
"""Machines for which a QEMU makes one of each network card, to find out which there are."""


class Globals:
    """The values of a command line's `-global`.

    Args:
        given: those, in their order.
        tree: has the types that they name.
        catalogue: says which devices there are.
        devices: gives the types of those.
        warn: takes a warning and its hint.
    """

    def __init__(
        self,
        given: Sequence[Global],
        tree: Tree,
        catalogue: Catalogue,
        devices: Devices,
        warn: Callable[[str, str | None], None],
    ) -> None:
        self._given = given
        self._drivers = {each.driver for each in given}
        self._tree = tree
        self._catalogue = catalogue
        self._devices = devices
        self._warn = warn
        self._used: set[Global] = set()

    def apply(self, device: Device) -> None:
        """Give a new device its values.

        Raises:
            QMPError: it can't have one. Of a device that is hot-plugged a warning tells of that.
        """
        for kind, each in self._of(device.qom_type.name):
            try:
                value = read_global(kind, each)
                # No feature of a CPU has an effect.
                if not isinstance(device, CPU):
                    try:
                        device.set_property(each.property, value)
                    except QMPError as error:
                        raise refused(each, error) from None
            except QMPError as error:
                if not device.hotplugged:
                    raise
                self._warn(error.desc, error.hint)

    def apply_to_parts(self, machine: str) -> None:
        """The same of what a machine has by itself; raises `QMPError`.

        Args:
            machine: its kind.
        """
        for part in parts_of(self._tree.machine):
            name = part.qom_type.name
            if not any(self._of(name)):
                continue
            if not isinstance(part, CPU):
                # Till now it has the properties only that all devices have.
                part.qom_type = self._devices.type_of(name)
            part.realized = False
            self.apply(part)
            part.realized = True
        if machine in _MAKING_CARDS:
            listed = self._catalogue.section("lists")["device"].partition(_CARDS)[2]
            for name in re.findall(r'name "([^"]+)", bus PCI', listed.partition("\n\n")[0]):
                if self._are_for(name):
                    self._read(name, self._devices.type_of(name).visit)

    def of_migration(self, check: Check) -> JSONObject:
        """The values of capabilities and parameters of migration; raises `QMPError`.

        Args:
            check: raises `QMPError` for a value that the property of that name can't have.
        """
        return self._read(_MIGRATION, check)

    def warn_of_unused(self) -> None:
        """Tell of those for what is no device, and for devices that can't come any more."""
        devices = self._catalogue.section("devices")
        for each in self._given:
            driver, name, value = each
            if each in self._used:
                continue
            kind = self._tree.type_by_name(driver)
            if kind is None or not kind.is_a("device"):
                self._warn(f"global {driver}.{name} has invalid class name", None)
            elif not devices.get(driver, {}).get("hotplug", True):
                self._warn(f"global {driver}.{name}={value} not used", None)

    def _read(self, name: str, check: Check) -> JSONObject:
        values: JSONObject = {}
        for kind, each in self._of(name):
            value = values[each.property] = read_global(kind, each)
            try:
                check(each.property, value)
            except QMPError as error:
                raise refused(each, error) from None
        return values

    def _of(self, name: str) -> Iterator[tuple[ObjectType, Global]]:
        """Those for a type of device, each with the type: those of its inner half first."""
        if not self._are_for(name):
            return
        for half in (inner_type(self._tree, name), self._devices.catalogued(name)):
            for each in self._given:
                if half is not None and half.is_a(each.driver):
                    self._used.add(each)
                    yield half, each

    def _are_for(self, name: str) -> bool:
        """Whether there can be any for a type of device: no type is made to find that out."""
        if not self._given:
            return False
        told = self._catalogue.section("types")
        return name not in told or not all(
            self._drivers.isdisjoint((ancestor, *told[ancestor]["interfaces"]))
            for half in (name, *inner_names(name))
            for ancestor in _ancestors(told, half)
        )


def _ancestors(told: Mapping[str, Any], name: str) -> Iterator[str]:
    """The names of a type of the catalogue's and of all that it derives from."""
    while name in told:
        yield name
        name = told[name]["parent"] or ""
