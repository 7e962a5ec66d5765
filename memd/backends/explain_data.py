"""An explanation as data: the members of QAPI's `MemdevExplanation`."""

from __future__ import annotations

import os

from memd.backends.base import MemoryBackend
from memd.backends.plan import Plan
from memd.errors import QMPError
from memd.hostmem import kvm, libc
from memd.hostmem.host import map_flags
from memd.hostmem.planning import PlannedFile
from memd.hostmem.spec import READ, READ_WRITE, MapSpec
from memd.json_types import JSONObject

PRIVATE = "private"
FILE = "file"
DENIED = "denied"
"""What a write to the memory does (QAPI `MemdevWrites`): stays private to the mapping
(copy-on-write), goes to the file, is refused by the kernel."""

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


def describe(backend: MemoryBackend, plan: Plan) -> JSONObject:
    """The explanation but for advice and words; members of QAPI's `MemdevExplanation`."""
    told: JSONObject = {"verdict": plan.verdict}
    if plan.error is not None:
        told["error"] = error_data(plan.error)
    if plan.file is not None:
        told["file"] = file_data(backend.file_path, plan.file)
    if plan.pooled is not None:
        told["pool"] = plan.pooled
    if plan.spec is None:
        return told
    told["mapping"] = mapping_data(plan.spec, plan.file)
    told["writes"] = writes(plan.spec)
    told["discard"] = discard(backend, plan, plan.spec)
    told["file-changes"] = file_changes(plan, told)
    told["shareable"] = sharing(plan.file, told["writes"])
    shared = told["shareable"]
    told["survives-restart"] = "file" if shared == "path" else shared
    return told


def error_data(error: QMPError) -> JSONObject:
    """QAPI's `MemdevError`."""
    told: JSONObject = {"class": error.error_class, "desc": error.desc}
    if error.hint is not None:
        told["hint"] = error.hint
    return told


def file_data(path: str | None, file: PlannedFile) -> JSONObject:
    """QAPI's `MemdevFile`."""
    told: JSONObject = {
        "kind": file.kind,
        "exists": file.kind == "directory" or not file.creates,
        "open-flags": open_flags(file),
        "creates": file.creates,
        "page-size": file.page_size,
    }
    if path is not None:
        told["path"] = path
    if path is None or file.had >= 0:
        told["size"] = max(0, file.had)
    if file.gets is not None and not file.cannot_get:
        told["gets-size"] = file.gets
    if file.file_system:
        told["file-system"] = file.file_system
    if file.free is not None:
        told["free"] = file.free
    return told


def open_flags(file: PlannedFile) -> list[str]:
    """The flags with which a file would be opened or made, by name."""
    flags = file.open_flags
    if file.kind == "guest-memfd":
        return [name for flag, name in kvm.FLAG_NAMES.items() if flags & flag]
    if file.kind == "memfd":
        names = [name for name in _MEMFD_FLAGS if flags & getattr(os, name)]
        shift = flags >> os.MFD_HUGE_SHIFT & 0x3F
        if flags & os.MFD_HUGETLB and shift >= 10:
            names.append(f"MFD_HUGE_{1 << shift % 10}{_HUGE_NAMES[shift // 10 - 1]}")
        return names
    access = "O_RDONLY" if flags & os.O_ACCMODE == os.O_RDONLY else "O_RDWR"
    return [access, *(name for name in _OPEN_FLAGS if flags & getattr(os, name))]


def mapping_data(spec: MapSpec, file: PlannedFile | None) -> JSONObject:
    """QAPI's `MemdevMapping`."""
    flags = map_flags(spec, file is None)
    names = [name for name in _MAP_FLAGS if flags & getattr(libc, name)]
    if spec.sync and spec.shared and file is not None and file.dax:
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
    """QAPI's `MemdevWrites`."""
    if spec.protection == READ:
        return DENIED
    return FILE if spec.shared else PRIVATE


def discard(backend: MemoryBackend, plan: Plan, spec: MapSpec) -> str:
    """QAPI's `MemdevDiscard`."""
    file = plan.file
    if file is None:
        return "zeroes"
    private = backend.file_path is not None and not spec.shared
    if file.read_only or file.kind == "device" or (private and plan.deny_private_discard):
        return "refused"
    return "hole"


def file_changes(plan: Plan, told: JSONObject) -> list[str]:
    """QAPI's `MemdevFileChange`s of a file that has a name."""
    file = plan.file
    if file is None or file.kind != "file":
        return []
    changes = ["create"] if file.creates else []
    if file.gets is not None and not file.cannot_get:
        changes.append("resize")
    if told["writes"] == FILE:
        changes.append("write")
    if told["discard"] == "hole":
        changes.append("discard")
    return changes


def sharing(file: PlannedFile | None, write: str) -> str:
    """QAPI's `MemdevSharing`."""
    if file is None or write == PRIVATE or file.kind == "device":
        return "no"
    return "path" if file.kind == "file" else "descriptor"
