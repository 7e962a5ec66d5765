"""Keyboards and pointing devices, as `query-mice` tells of them: no guest has chosen one yet.

Names and numbers were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import NamedTuple

from memd.devices.machine import Device
from memd.devices.parts import parts_of
from memd.json_types import JSON
from memd.qom import Tree


class _Pointer(NamedTuple):
    name: str
    absolute: bool = False


_MOUSE = _Pointer("QEMU Virtio Mouse")
_TABLET = _Pointer("QEMU Virtio Tablet", absolute=True)
_KINDS: dict[str, tuple[_Pointer | None, ...]] = {
    "i8042": (None, _Pointer("QEMU PS/2 Mouse")),
    "usb-kbd": (None,),
    "usb-mouse": (_Pointer("QEMU HID Mouse"),),
    "usb-tablet": (_Pointer("QEMU HID Tablet", absolute=True),),
    **{
        f"virtio-{kind}-{end}": (pointer,)
        for kind, pointer in (
            *(("keyboard", None), ("mouse", _MOUSE), ("tablet", _TABLET), ("multitouch", None)),
        )
        for end in ("pci", "device")
    },
}
"""What each type of device brings, None for what does not point anywhere."""


class Inputs:
    """The keyboards and pointing devices of a machine.

    Args:
        tree: where the machine's own are.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last = 0
        self._pointers: list[tuple[Device, int, _Pointer]] = []

    def take(self, device: Device) -> None:
        """A device has come."""
        if device.qom_type.name in _KINDS:
            self._take_parts()
            self._number(device)

    def release(self, device: Device) -> None:
        """A device is gone."""
        self._pointers = [each for each in self._pointers if each[0] is not device]

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-mice`."""
        self._take_parts()
        rows: list[JSON] = []
        for _device, number, (name, absolute) in self._pointers:
            row = {"name": name, "index": number, "current": not rows, "absolute": absolute}
            rows.insert(0, row)
        return rows

    def _take_parts(self) -> None:
        if not self._last:
            for part in parts_of(self._tree.resolve("/machine/unattached")):
                self._number(part)

    def _number(self, device: Device) -> None:
        for each in _KINDS.get(device.qom_type.name, ()):
            self._last += 1
            if each is not None:
                self._pointers.append((device, self._last, each))
