"""The files that a PC would boot from: `-kernel`, `-initrd`, `-dtb`, `-bios`.

Nothing boots: it is only seen that QEMU could read them. Rules and texts were observed on
QEMU 10.0.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from memd.errors import QMPError
from memd.json_types import JSON
from memd.work import Job

DIRECTORIES = ("/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu")
"""Where firmware that comes with distributions is, besides what `-L` names."""

_QEMUS_OWN = {
    *("bios.bin", "bios-256k.bin", "bios-microvm.bin", "qboot.rom"),
    *(f"edk2-{kind}.fd" for kind in ("x86_64-code", "x86_64-secure-code", "x86_64-microvm")),
    *("edk2-i386-code.fd", "edk2-i386-secure-code.fd"),
}
"""Firmware that each QEMU brings along, and that is not there where none is installed."""

_PAGE = 1 << 16
"""Firmware consists of whole such pages (bytes)."""

_HEADER = 8192
_ELF = b"\x7fELF"
_MULTIBOOT = 0x1BADB002
_LINUX = b"HdrS"
_SECTOR = 512


async def check_boot_files(
    kind: str, values: Mapping[str, JSON], has_flash: bool, directories: Iterable[str]
) -> None:
    """See that what a machine boots from can be read.

    Args:
        kind: which machine it is, such as "q35".
        values: the properties that it was given.
        has_flash: whether its firmware is in a flash chip.
        directories: where firmware is looked for, besides the usual ones.

    Raises:
        QMPError: a file can't be read, or is none of those.
    """
    kernel, firmware = values.get("kernel"), values.get("firmware")
    if kind == "none" and kernel is not None:
        raise QMPError(
            "The -kernel parameter is not supported (use the generic 'loader' device instead)."
        )
    if kind not in ("q35", "pc", "isapc", "microvm"):
        return
    if firmware is not None and firmware not in _QEMUS_OWN and not has_flash:
        await Job(lambda: _check_firmware(firmware, (*directories, *DIRECTORIES)))
    if kernel is not None:
        await Job(lambda: _check_kernel(values))


def _check_firmware(name: str, directories: Iterable[str]) -> None:
    for path in (name, *(os.path.join(directory, name) for directory in directories)):
        if os.access(path, os.R_OK):
            size = os.path.getsize(path) if os.path.isfile(path) else 0
            if size > 0 and size % _PAGE == 0:
                return
            break
    raise QMPError(f"could not load PC BIOS '{name}'")


def _check_kernel(values: Mapping[str, JSON]) -> None:
    path, initrd, dtb = values["kernel"], values.get("initrd"), values.get("dtb")
    try:
        with open(path, "rb") as file:
            header, size = file.read(_HEADER), os.fstat(file.fileno()).st_size
    except IsADirectoryError as error:
        raise QMPError(f"could not load kernel '{path}': {error.strerror}") from None
    except OSError as error:
        raise QMPError(f"could not open kernel file '{path}': {error.strerror}") from None
    if not header:
        raise QMPError(f"could not load kernel '{path}': No such file or directory")
    header = header.ljust(_HEADER, b"\0")
    plain = header[0x202:0x206] != _LINUX
    if plain and (header.startswith(_ELF) or _is_multiboot(header)):
        if initrd:
            _read_initrd(initrd)
        return
    protocol = 0 if plain else int.from_bytes(header[0x206:0x208], "little")
    if initrd:
        if protocol < 0x200:
            raise QMPError("linux kernel too old to load a ram disk")
        _read_initrd(initrd)
    setup = ((header[0x1F1] or 4) + 1) * _SECTOR
    if setup > size:
        raise QMPError("invalid kernel header")
    if dtb:
        if protocol < 0x209:
            raise QMPError("Linux kernel too old to load a dtb")
        if not os.path.isfile(dtb) or not os.path.getsize(dtb):
            raise QMPError(f"error reading dtb {dtb}: No such file or directory")


def _is_multiboot(header: bytes) -> bool:
    magic = _MULTIBOOT.to_bytes(4, "little")
    return any(header[at : at + 4] == magic for at in range(0, _HEADER, 4))


def _read_initrd(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        said = f"Failed to open file “{path}”: {error.strerror}"
        raise QMPError(f"error reading initrd {path}: {said}") from None
