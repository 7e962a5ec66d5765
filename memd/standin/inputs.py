"""Keyboards and pointing devices: no guest has chosen one yet, or reads what it is sent.

Names and numbers were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable

from memd.devices.machine import Device
from memd.devices.parts import parts_of
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qom import Tree


class _Input(NamedTuple):
    takes: tuple[str, ...]
    name: str = ""
    """Of what points somewhere."""


_KEYBOARD = _Input(("key",))
_MOUSE, _TABLET = ("btn", "rel"), ("btn", "abs")
_KINDS: dict[str, tuple[_Input, ...]] = {
    "i8042": (_KEYBOARD, _Input(_MOUSE, "QEMU PS/2 Mouse")),
    "usb-kbd": (_KEYBOARD,),
    "usb-mouse": (_Input(_MOUSE, "QEMU HID Mouse"),),
    "usb-tablet": (_Input(_TABLET, "QEMU HID Tablet"),),
    **{
        f"virtio-{kind}-{end}": (brought,)
        for kind, brought in (
            ("keyboard", _KEYBOARD),
            ("mouse", _Input(_MOUSE, "QEMU Virtio Mouse")),
            ("tablet", _Input(_TABLET, "QEMU Virtio Tablet")),
            ("multitouch", _Input(("btn", "mtt"))),
        )
        for end in ("pci", "device")
    },
}
"""What each type of device brings."""


class Inputs:
    """The keyboards and pointing devices of a machine.

    Args:
        tree: where the machine's own are.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last = 0
        self._inputs: list[tuple[Device, int, _Input]] = []

    def take(self, device: Device) -> None:
        """A device has come."""
        if device.qom_type.name in _KINDS:
            self._take_parts()
            self._number(device)

    def release(self, device: Device) -> None:
        """A device is gone."""
        self._inputs = [each for each in self._inputs if each[0] is not device]

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-mice`."""
        self._take_parts()
        rows: list[JSON] = []
        for _device, number, (takes, name) in self._inputs:
            if name:
                absolute = "abs" in takes
                row = {"name": name, "index": number, "current": not rows, "absolute": absolute}
                rows.insert(0, row)
        return rows

    def check_events(self, events: Iterable[JSONObject], console: str | None) -> None:
        """Raise `QMPError` where nothing takes one of the events of `input-send-event`.

        Args:
            events: as of the command.
            console: the id of the display that they are for, None for any.
        """
        self._take_parts()
        taken = {
            kind
            for device, _number, (takes, _name) in self._inputs
            for kind in takes
            if device.values.get("display", console) == console
        }
        for event in events:
            if event["type"] not in taken:
                raise QMPError(f"Input handler not found for event type {event['type']}")

    def _take_parts(self) -> None:
        if not self._last:
            for part in parts_of(self._tree.resolve("/machine/unattached")):
                self._number(part)

    def _number(self, device: Device) -> None:
        for each in _KINDS.get(device.qom_type.name, ()):
            self._last += 1
            self._inputs.append((device, self._last, each))
