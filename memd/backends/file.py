"""`memory-backend-file`: memory of a named file, or of one in a directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND, unless_made
from memd.backends.plan import Plan, Proposals, Warnings
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.hostmem.spec import READ, READ_WRITE, MapSpec, is_rom
from memd.qapi.visit import visit_enum, visit_size
from memd.qom import ObjectType, attribute
from memd.sizes import size_text

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host
    from memd.hostmem.paths import Entry
    from memd.hostmem.planning import PlannedFile
    from memd.hostmem.region import Region

_READ_ONLY_HINT = (
    "Consider opening the backing store read-only but still creating writable RAM using"
    " '-object memory-backend-file,readonly=on,rom=off...' (see \"VM templating\""
    " documentation)"
)

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

_WITHOUT_FILE = dict.fromkeys(
    ("align", "discard-data", "mem-path", "offset", "pmem", "readonly", "rom")
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
    """

    mem_path = ""
    readonly = False
    rom = "auto"
    _near: Entry | None = None

    def check(self) -> None:
        is_rom(self.share, self.readonly, self.rom)

    def may_block(self) -> bool:
        """See `Memory.may_block`; a directory that never blocks is held open for `open`."""
        if not self.prealloc:
            self._near = self.tree.host.near(self.mem_path)
        return self._near is None

    @property
    def waits_on(self) -> frozenset[int]:
        return self.tree.host.waits_on(self.mem_path)

    def open(self, host: Host) -> Backing:
        """Open or make the file; see `Memory.open`."""
        import memd.hostmem.files as files

        near, self._near = self._near, None
        try:
            return files.open_file(host, self.mem_path, self.readonly, self.memory_name, near)
        except OSError as failed:
            if near is not None and isinstance(failed, BlockingIOError):
                raise
            denied = failed.errno == errno.EACCES and not self.share and not self.readonly
            raise QMPError(
                f"can't open backing store {self.mem_path} for guest RAM: {failed.strerror}",
                hint=_READ_ONLY_HINT if denied and self._readable(host) else None,
            ) from None
        finally:
            if near is not None:
                near.close()

    def _readable(self, host: Host) -> bool:
        """Whether the file could be opened read-only."""
        from memd.hostmem.paths import encode_path

        try:
            fd = host.open(encode_path(self.mem_path), _READ)
        except OSError:
            return False
        try:
            return not stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            host.close(fd)

    @property
    def protection(self) -> int:
        """Of the mapping: ROM is not writable."""
        return READ if is_rom(self.share, self.readonly, self.rom) else READ_WRITE

    def check_mapped(self, region: Region) -> None:
        if self.pmem and self.share and not region.synced:
            path, warn = self.mem_path, region.host.warn
            with suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{region.fd}")
            warn(
                f"requesting persistence across crashes for backend file {path} failed."
                " Proceeding without persistence, data might become corrupted in case of"
                " host crash."
            )
            warn("Using non DAX backing file with 'pmem=on' option is deprecated")
        super().check_mapped(region)

    def adopt(self, region: Region) -> None:
        self.rom = "off" if region.writable else "on"
        super().adopt(region)

    def to_discard(self) -> list[int] | None:
        """The whole range if `discard-data` is set; see `UserCreatable.to_discard`."""
        region = self.region
        if not self.discard_data or region is None or not region.shared or not region.writable:
            return None
        return [region.offset, region.length]

    def keep_data(self) -> None:
        """Ignore `discard-data` from now on."""
        self.discard_data = False

    # For x-memdev-explain

    @property
    def file_path(self) -> str:
        return self.mem_path

    def warnings(self, plan: Plan) -> Warnings:
        file, spec = plan.file, plan.spec
        if file is not None and spec is not None:
            yield from self._warnings_of_opening(file, plan.deny_private_discard)
            yield from self._warnings_of_mapping(file, spec)

    def _warnings_of_opening(self, file: PlannedFile, deny_private_discard: bool) -> Warnings:
        path = self.mem_path
        if self._is_template(file):
            discarding = (
                "" if deny_private_discard else " discarding memory changes it for everybody,"
            )
            yield (
                "template",
                f"{path} has content and is opened for writing although writes stay private:"
                f"{discarding} and a daemon that may not write it can't open it.",
            )
        if self._is_private_new(file):
            yield (
                "private-file",
                f"a file is made at {path}, and with share=off nothing that is written ever gets"
                " into it.",
            )
        if self.readonly and self.rom == "auto" and not self.share:
            yield (
                "rom",
                "readonly=on without rom=off makes read-only memory, as for a read-only NVDIMM; a"
                " guest can't run on it as its RAM.",
            )
        if file.kind == "file" and file.had == 0 and file.cannot_get:
            yield (
                "file-size",
                f"{path} is empty and can't be given its size ({os.strerror(file.cannot_get)}): the"
                " memory is mapped, and every access to it fails.",
            )

    def _warnings_of_mapping(self, file: PlannedFile, spec: MapSpec) -> Warnings:
        path = self.mem_path
        if self.pmem and not self.share:
            yield (
                "pmem",
                "pmem=on has no effect with share=off: what is written never gets to the file.",
            )
        elif self.pmem and not file.dax:
            yield (
                "pmem",
                f"{path} is not on a file system that is mounted for direct access (DAX): what is"
                " written does not survive a crash of the host by itself.",
            )
        if self.discard_data:
            if spec.shared and spec.protection == READ_WRITE:
                yield (
                    "discard-data",
                    "the file's content is thrown away when the backend is deleted.",
                )
            else:
                yield (
                    "discard-data",
                    "discard-data=on has no effect: the memory can't write the file.",
                )
        if self.prealloc and not spec.shared and spec.protection == READ_WRITE and file.had > 0:
            yield (
                "prealloc",
                f"with share=off preallocation copies all {size_text(spec.length)} of {path}:"
                " nothing is shared with others that map it.",
            )
        if self.host_nodes and spec.shared and not file.in_memory:
            yield (
                "host-nodes",
                f"the pages are the page cache's of {path}, which does not follow the NUMA"
                " policy of a mapping.",
            )

    def proposals(self, plan: Plan) -> Proposals:
        file, spec, failed = plan.file, plan.spec, plan.error is not None
        clone = "a clone needs the file only for reading, and can't change it then."
        denied = plan.error is not None and plan.error.hint is not None
        if denied or (file is not None and self._is_template(file)):
            yield {"readonly": True, "rom": "off"}, clone
        if self.rom == "on" and not self.readonly:
            yield {"readonly": True, "rom": None}, "read-only memory needs a file opened read-only."
        elif self.rom == "off" and self.readonly and self.share:
            yield {"share": False}, "what is written can only stay private where the file can't be."
        elif file is not None and self._is_private_new(file):
            yield (
                {"qom-type": "memory-backend-ram", **_WITHOUT_FILE},
                "memory that nobody shares needs no file; share=on would keep it in the file.",
            )
        elif self.readonly and self.rom == "auto" and not self.share and not failed:
            yield {"rom": "off"}, "if it is to be a guest's RAM: writes stay private to it."
        if failed and file is not None and spec is None and file.had > 0:
            fits = (file.had - self.offset) // file.page_size * file.page_size
            if 0 < fits < self.size:
                yield {"size": fits}, f"that is as much as {self.mem_path} has."

    def _is_template(self, file: PlannedFile) -> bool:
        """Whether a file that others may map is opened for writing without need."""
        private = not self.share and not self.readonly
        return private and file.kind == "file" and file.had > 0

    def _is_private_new(self, file: PlannedFile) -> bool:
        """Whether an ordinary file is made, or filled with zeroes, that nothing is written to."""
        if self.share or self.readonly or file.huge:
            return False
        return file.kind in ("file", "directory") and file.had == 0


def _keep(name: str, end: str = "") -> Callable[..., None]:
    """Refuses a change of the property once the memory is made."""
    return unless_made(f"cannot change property '{name}' of {{}}{end}")


MEMORY_BACKEND_FILE = ObjectType(
    "memory-backend-file",
    MEMORY_BACKEND,
    factory=FileBackend,
    properties=(
        attribute("pmem", "bool", check=_keep("pmem", ".")),
        attribute("align", "int", visit_size, guard=_keep("align")),
        attribute(
            "offset",
            "int",
            visit_size,
            guard=_keep("offset"),
            description="Offset into the target file (ex: 1G)",
        ),
        attribute(
            "mem-path",
            "string",
            check=_keep("mem-path"),
        ),
        attribute(
            "rom",
            "OnOffAuto",
            visit_enum(("auto", "on", "off")),
            guard=_keep("rom", "."),
            description="Whether to create Read Only Memory (ROM)",
        ),
        attribute("discard-data", "bool"),
        attribute(
            "readonly",
            "bool",
            check=_keep("readonly", "."),
        ),
    ),
)
