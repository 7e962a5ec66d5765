"""`memory-backend-file`: memory of a named file, or of one in a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.hostmem.spec import FileAccess, file_access
from memd.qapi.visit import visit_bool, visit_enum, visit_size, visit_str
from memd.qom.property import Guard, Property
from memd.qom.types import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.region import Region
    from memd.hostmem.spec import MapSpec
    from memd.qom.tree import Tree

_READ_ONLY_HINT = (
    "Consider opening the backing store read-only but still creating writable RAM using"
    " '-object memory-backend-file,readonly=on,rom=off...' (see \"VM templating\""
    " documentation)"
)


class FileBackend(WholePagesBackend):
    """Memory of a file.

    Attributes:
        mem_path: the file, or a directory for an unnamed one.
        offset: where in the file the memory begins, in bytes.
        align: of the mapping's address, in bytes; 0 for the file's page size.
        readonly: whether the file is opened read-only.
        rom: whether the memory can't be written: "on", "off" or, before it is
            made, "auto".
        pmem: whether the file is persistent memory.
        discard_data: whether the data goes when the backend does.
    """

    __slots__ = ("align", "discard_data", "mem_path", "offset", "pmem", "readonly", "rom")

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        self.mem_path = ""
        self.offset = 0
        self.align = 0
        self.readonly = False
        self.rom = "auto"
        self.pmem = False
        self.discard_data = False

    @property
    def access(self) -> FileAccess:
        """How the file is opened and mapped; raises `QMPError`."""
        return file_access(self.share, self.readonly, self.rom)

    def check(self) -> None:
        """See `MemoryBackend.check`."""
        file_access(self.share, self.readonly, self.rom)

    def open(self, wait: bool) -> Backing:
        """Open or make the file; see `MemoryBackend.open`."""
        from memd.hostmem.files import open_file

        try:
            return open_file(self.mem_path, self.readonly, self.memory_name, wait, self.tree.roots)
        except OSError as failed:
            raise self.cannot_open(failed, self._readable(wait)) from None

    def cannot_open(self, failed: OSError, readable: Callable[[], bool]) -> QMPError:
        """What is said where the file can't be opened, and what to try instead.

        Args:
            readable: tells whether it could be opened read-only; asked where
                that would help.
        """
        denied = failed.errno == errno.EACCES and not self.share and not self.readonly
        return QMPError(
            f"can't open backing store {self.mem_path} for guest RAM: {failed.strerror}",
            hint=_READ_ONLY_HINT if denied and readable() else None,
        )

    def _readable(self, wait: bool) -> Callable[[], bool]:
        def readable() -> bool:
            from memd.hostmem.files import WouldBlock, open_file

            try:
                open_file(self.mem_path, True, self.memory_name, wait, self.tree.roots).undo()
            except (OSError, WouldBlock):
                return False
            return True

        return readable

    def spec(self, backing: Backing | None) -> MapSpec:
        """See `MemoryBackend.spec`."""
        access = self.access
        return self.fit(backing, self.offset, self.align)._replace(
            protection=access.protection, sync=self.pmem
        )

    def check_mapped(self, region: Region) -> None:
        """See `MemoryBackend.check_mapped`."""
        if self.pmem and self.share and not region.synced:
            from memd.backends.making import log

            path = os.readlink(f"/proc/self/fd/{region.fd}")
            log(
                f"requesting persistence across crashes for backend file {path} failed."
                " Proceeding without persistence, data might become corrupted in case of"
                " host crash."
            )
            log("Using non DAX backing file with 'pmem=on' option is deprecated")
        super().check_mapped(region)

    def adopt(self, region: Region) -> None:
        """See `MemoryBackend.adopt`."""
        self.rom = "on" if self.access.rom else "off"
        super().adopt(region)

    def to_discard(self) -> list[int] | None:
        """What `discard-data` says; see `UserCreatable.to_discard`."""
        region = self.region
        if not self.discard_data or region is None or not region.shared or not region.writable:
            return None
        return [region.offset, region.length]

    def keep_data(self) -> None:
        """See to it that `discard-data` counts for nothing."""
        self.discard_data = False

    @property
    def letting_go(self) -> dict[str, bool]:
        """With its data, if that is told."""
        return {"discard": self.discard_data}


def _unless_made(name: str, end: str) -> Guard:
    """Refuse a change of the property once the memory is made."""

    def guard(backend: FileBackend) -> None:
        if backend.region is not None:
            raise QMPError(f"cannot change property '{name}' of {backend.qom_type.name}{end}")

    return guard


_keep_align = _unless_made("align", "")
_keep_offset = _unless_made("offset", "")
_keep_mem_path = _unless_made("mem-path", "")
_keep_pmem = _unless_made("pmem", ".")
_keep_readonly = _unless_made("readonly", ".")
_keep_rom = _unless_made("rom", ".")


def _set_align(backend: FileBackend, align: int) -> None:
    backend.align = align


def _set_offset(backend: FileBackend, offset: int) -> None:
    backend.offset = offset


def _set_mem_path(backend: FileBackend, path: str) -> None:
    _keep_mem_path(backend)
    backend.mem_path = path


def _set_pmem(backend: FileBackend, pmem: bool) -> None:
    _keep_pmem(backend)
    backend.pmem = pmem


def _set_readonly(backend: FileBackend, readonly: bool) -> None:
    _keep_readonly(backend)
    backend.readonly = readonly


def _set_rom(backend: FileBackend, rom: str) -> None:
    backend.rom = rom


def _set_discard_data(backend: FileBackend, discard_data: bool) -> None:
    backend.discard_data = discard_data


MEMORY_BACKEND_FILE = ObjectType(
    "memory-backend-file",
    MEMORY_BACKEND,
    factory=FileBackend,
    properties=(
        Property("pmem", "bool", visit=visit_bool, get=lambda backend: backend.pmem, set=_set_pmem),
        Property(
            "align",
            "int",
            visit=visit_size,
            guard=_keep_align,
            get=lambda backend: backend.align,
            set=_set_align,
        ),
        Property(
            "offset",
            "int",
            visit=visit_size,
            guard=_keep_offset,
            get=lambda backend: backend.offset,
            set=_set_offset,
            description="Offset into the target file (ex: 1G)",
        ),
        Property(
            "mem-path",
            "string",
            visit=visit_str,
            get=lambda backend: backend.mem_path,
            set=_set_mem_path,
        ),
        Property(
            "rom",
            "OnOffAuto",
            visit=visit_enum(("auto", "on", "off")),
            guard=_keep_rom,
            get=lambda backend: backend.rom,
            set=_set_rom,
            description="Whether to create Read Only Memory (ROM)",
        ),
        Property(
            "discard-data",
            "bool",
            visit=visit_bool,
            get=lambda backend: backend.discard_data,
            set=_set_discard_data,
        ),
        Property(
            "readonly",
            "bool",
            visit=visit_bool,
            get=lambda backend: backend.readonly,
            set=_set_readonly,
        ),
    ),
)
