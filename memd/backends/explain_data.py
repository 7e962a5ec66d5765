"""What `object-add` would do, as data: the members of QAPI's `MemdevExplanation`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.backends.file import FileBackend
from memd.hostmem import kvm, libc
from memd.hostmem.region import map_flags
from memd.hostmem.spec import DENIED, FILE, PRIVATE, READ, READ_WRITE
from memd.json_types import JSON

if TYPE_CHECKING:
    from memd.backends.base import MemoryBackend
    from memd.errors import QMPError
    from memd.hostmem.foresight import Foreseen
    from memd.hostmem.spec import MapSpec

_OPEN_FLAGS = (
    "O_CREAT",
    "O_EXCL",
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "O_CLOEXEC",
)
_MEMFD_FLAGS = ("MFD_CLOEXEC", "MFD_ALLOW_SEALING", "MFD_HUGETLB")
_MAP_FLAGS = ("MAP_SHARED", "MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_NORESERVE")
_HUGE_NAMES = ("KB", "MB", "GB")


class Outlook:
    """What making a backend would come to.

    Attributes:
        backend: its properties are set, and it is not made.
        given: the arguments of object-add.
        error: with which it would fail, or None.
        backing: the file behind it, None for anonymous memory or where it
            failed before.
        spec: what would be mapped, None where it failed before.
        sure: whether that can be told without trying.
        deny_private_discard: whether the daemon refuses to discard memory of a
            private mapping of a file.
    """

    __slots__ = ("backend", "backing", "deny_private_discard", "error", "given", "spec", "sure")

    def __init__(self, backend: MemoryBackend, given: dict[str, JSON]) -> None:
        self.backend = backend
        self.given = given
        self.error: QMPError | None = None
        self.backing: Foreseen | None = None
        self.spec: MapSpec | None = None
        self.sure = True
        self.deny_private_discard = False

    @property
    def verdict(self) -> str:
        """QAPI's `MemdevVerdict`."""
        if self.error is not None:
            return "fails"
        return "works" if self.sure else "unknown"


def describe(outlook: Outlook) -> dict[str, JSON]:
    """The explanation but for advice and words."""
    told: dict[str, JSON] = {"verdict": outlook.verdict}
    if outlook.error is not None:
        told["error"] = error_data(outlook.error)
    if outlook.backing is not None:
        told["file"] = file_data(outlook.backend, outlook.backing)
    if outlook.spec is None:
        return told
    told["mapping"] = mapping_data(outlook.spec, outlook.backing)
    told["writes"] = writes(outlook.spec)
    told["discard"] = discard(outlook, outlook.spec)
    told["file-changes"] = file_changes(outlook, told)
    told["shareable"] = sharing(outlook.backing, told["writes"])
    told["survives-restart"] = survival(outlook.backing, told["writes"])
    return told


def error_data(error: QMPError) -> dict[str, JSON]:
    """QAPI's `MemdevError`."""
    told: dict[str, JSON] = {"class": error.error_class, "desc": error.desc}
    if error.hint is not None:
        told["hint"] = error.hint
    return told


def file_data(backend: MemoryBackend, backing: Foreseen) -> dict[str, JSON]:
    """QAPI's `MemdevFile`."""
    told: dict[str, JSON] = {
        "kind": backing.kind,
        "exists": backing.kind == "directory" or not backing.creates,
        "open-flags": open_flags(backing),
        "creates": backing.creates,
        "page-size": backing.page_size,
    }
    if isinstance(backend, FileBackend):
        told["path"] = backend.mem_path
        if backing.had >= 0:
            told["size"] = backing.had
    else:
        told["size"] = 0
    gets = backing.gets if isinstance(backend, FileBackend) else backing.gets or backing.size
    if gets is not None and not backing.cannot_get:
        told["gets-size"] = gets
    if backing.file_system:
        told["file-system"] = backing.file_system
    if backing.free is not None:
        told["free"] = backing.free
    return told


def open_flags(backing: Foreseen) -> list[str]:
    """The flags with which a file would be opened or made, by name."""
    flags = backing.open_flags
    if backing.kind == "guest-memfd":
        return [name for flag, name in kvm.FLAG_NAMES.items() if flags & flag]
    if backing.kind == "memfd":
        names = [name for name in _MEMFD_FLAGS if flags & getattr(os, name)]
        shift = flags >> os.MFD_HUGE_SHIFT & 0x3F
        if flags & os.MFD_HUGETLB and shift >= 10:
            names.append(f"MFD_HUGE_{1 << shift % 10}{_HUGE_NAMES[shift // 10 - 1]}")
        return names
    access = "O_RDONLY" if flags & os.O_ACCMODE == os.O_RDONLY else "O_RDWR"
    return [access, *(name for name in _OPEN_FLAGS if flags & getattr(os, name))]


def mapping_data(spec: MapSpec, backing: Foreseen | None) -> dict[str, JSON]:
    """QAPI's `MemdevMapping`."""
    flags = map_flags(spec, backing is None)
    names = [name for name in _MAP_FLAGS if flags & getattr(libc, name)]
    if spec.sync and spec.shared and backing is not None and backing.dax:
        names[0:1] = ["MAP_SHARED_VALIDATE", "MAP_SYNC"]
    protection = ["PROT_READ", "PROT_WRITE"] if spec.protection == READ_WRITE else ["PROT_READ"]
    return {
        "protection": protection,
        "flags": names,
        "offset": spec.offset,
        "length": spec.length,
        "page-size": spec.page_size,
        "align": spec.align,
    }


def writes(spec: MapSpec) -> str:
    """QAPI's `MemdevWrites`, whose values are those of the table in `hostmem.spec`."""
    if spec.protection == READ:
        return DENIED
    return FILE if spec.shared else PRIVATE


def discard(outlook: Outlook, spec: MapSpec) -> str:
    """QAPI's `MemdevDiscard`."""
    backing = outlook.backing
    if backing is None:
        return "zeroes"
    private = isinstance(outlook.backend, FileBackend) and not spec.shared
    if backing.read_only or backing.kind == "device" or (private and outlook.deny_private_discard):
        return "refused"
    return "hole"


def file_changes(outlook: Outlook, told: dict[str, JSON]) -> list[str]:
    """QAPI's `MemdevFileChange`s of a file that has a name."""
    backing = outlook.backing
    if backing is None or backing.kind != "file":
        return []
    changes = ["create"] if backing.creates else []
    if backing.gets is not None and not backing.cannot_get:
        changes.append("resize")
    if told["writes"] == FILE:
        changes.append("write")
    if told["discard"] == "hole":
        changes.append("discard")
    return changes


def sharing(backing: Foreseen | None, write: str) -> str:
    """QAPI's `MemdevSharing`."""
    if backing is None or write == PRIVATE or backing.kind == "device":
        return "no"
    return "path" if backing.kind == "file" else "descriptor"


def survival(backing: Foreseen | None, write: str) -> str:
    """QAPI's `MemdevSurvival`."""
    shared = sharing(backing, write)
    return "file" if shared == "path" else shared
