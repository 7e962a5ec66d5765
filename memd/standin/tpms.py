"""The register of TPMs (`-tpmdev`): an emulator is connected to, and never asked anything.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.devices.machine import Device
    from memd.standin.chardevs import Chardevs


class Tpms:
    """The TPM of a machine, which may have one.

    Args:
        chardevs: what it is behind.
    """

    def __init__(self, chardevs: Chardevs) -> None:
        self._chardevs = chardevs
        self._options: JSONObject | None = None
        self._device: Device | None = None

    def add(self, options: JSONObject) -> None:
        """`-tpmdev emulator`; raises `QMPError`."""
        if self._options is not None:
            raise QMPError("Only one TPM is allowed.")
        name = options.get("chardev")
        if name is None:
            raise QMPError("tpm-emulator: parameter 'chardev' is missing")
        chardev = self._chardevs.find(name)
        if chardev is None:
            raise QMPError(f"tpm-emulator: tpm chardev '{name}' not found")
        if chardev.qom_type.name != "chardev-socket":
            raise QMPError("tpm-emulator: Failed to send CMD_SET_DATAFD: No such file or directory")
        self._chardevs.use(name, changeable=False)
        self._options = options

    def take(self, owner: str, device: Device, id: str) -> None:
        """A device is the machine's TPM.

        Args:
            owner: the type that complaints name.
            device: it.
            id: of the `-tpmdev`.

        Raises:
            QMPError: there is none of that id, or another device has it.
        """
        if self._options is None or self._options["id"] != id:
            raise QMPError(f"Property '{owner}.tpmdev' can't find value '{id}'")
        if self._device is not None:
            raise QMPError(f"TPM backend '{id}' is already initialized")
        self._device = device

    def release(self, device: Device) -> None:
        """A device is gone."""
        if self._device is device:
            self._device = None

    def query(self, args: object = None) -> JSON:
        """The value of `query-tpm`: of the TPM that a device has."""
        if self._options is None or self._device is None:
            return []
        data = {"chardev": self._options["chardev"]}
        model = self._device.qom_type.name
        options = {"type": "emulator", "data": data}
        return [{"id": self._options["id"], "model": model, "options": options}]
