"""What is probably not meant by the arguments of `object-add`, and what would suit better."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from memd.backends.explain_data import Outlook
from memd.backends.explain_words import about, size_text
from memd.backends.file import FileBackend
from memd.backends.guest_memfd import GuestMemfdBackend
from memd.backends.memfd import MemfdBackend
from memd.backends.ram import RamBackend
from memd.backends.shm import ShmBackend
from memd.hostmem import capacity, foresight, libc
from memd.hostmem.foresight import Foreseen
from memd.hostmem.spec import READ_WRITE, MapSpec, round_up
from memd.json_types import JSON

Works = Callable[[dict[str, JSON]], bool]
"""Tells whether object-add with these arguments would work."""

_Warning = tuple[str, str]
_Proposal = tuple[dict[str, JSON], str]
"""What to change of the arguments (None takes one out), and why."""

_FILE_ONLY = ("align", "discard-data", "mem-path", "offset", "pmem", "readonly", "rom")
_MEMFD_ONLY = ("hugetlb", "hugetlbsize", "seal")
_WITHOUT_FILE: dict[str, Any] = dict.fromkeys(_FILE_ONLY)
_WITHOUT_MEMFD: dict[str, Any] = dict.fromkeys(_MEMFD_ONLY)


def advise(outlook: Outlook, works: Works) -> tuple[list[dict[str, JSON]], dict[str, JSON] | None]:
    """Warnings, and the first suggestion that would work.

    Returns:
        QAPI's `MemdevWarning`s and `MemdevSuggestion`, or None.
    """
    warnings = [{"about": subject, "text": text} for subject, text in _warnings(outlook)]
    for changes, why in _proposals(outlook):
        changed = {**outlook.given, **changes}
        options = {name: value for name, value in changed.items() if value is not None}
        if works(options):
            return warnings, {"qom-type": options["qom-type"], "options": options, "why": why}
    return warnings, None


def _warnings(outlook: Outlook) -> Iterator[_Warning]:
    backend, backing, spec = outlook.backend, outlook.backing, outlook.spec
    if isinstance(backend, FileBackend):
        yield from _of_file(outlook, backend)
    elif isinstance(backend, MemfdBackend):
        yield from _of_memfd(backend, spec)
    elif isinstance(backend, GuestMemfdBackend):
        yield (
            "guest-memfd",
            "another process can map a guest_memfd, but its KVM can't take it as a guest's memory:"
            " it belongs to the virtual machine that it was made with.",
        )
    elif backend.share and isinstance(backend, RamBackend):
        yield (
            "share",
            "memory-backend-ram with share=on is a memfd whose size is not sealed; a process with"
            " its descriptor can shrink it.",
        )
    if spec is not None:
        if backing is not None and backing.huge:
            yield from _of_huge_pages(spec, backing)
        yield from _of_room(outlook, spec)
        yield from _without_effect(outlook, spec)
        yield from _of_reserve(outlook, spec)


def _of_file(outlook: Outlook, backend: FileBackend) -> Iterator[_Warning]:
    backing, spec = outlook.backing, outlook.spec
    if backing is None or spec is None:
        return
    path = backend.mem_path
    if _template(backend, backing):
        discarding = (
            "" if outlook.deny_private_discard else " discarding memory changes it for everybody,"
        )
        yield (
            "template",
            f"{path} has content and is opened for writing although writes stay private:"
            f"{discarding} and a daemon that may not write it can't open it.",
        )
    if _private_new(backend, backing):
        yield (
            "private-file",
            f"a file is made at {path}, and with share=off nothing that is written ever gets"
            " into it.",
        )
    if backend.readonly and backend.rom == "auto" and not backend.share:
        yield (
            "rom",
            "readonly=on without rom=off makes read-only memory, as for a read-only NVDIMM; a"
            " guest can't run on it as its RAM.",
        )
    if backing.kind == "file" and backing.had == 0 and backing.cannot_get:
        yield (
            "file-size",
            f"{path} is empty and can't be given its size ({os.strerror(backing.cannot_get)}): the"
            " memory is mapped, and every access to it fails.",
        )
    if backend.pmem and not backend.share:
        yield (
            "pmem",
            "pmem=on has no effect with share=off: what is written never gets to the file.",
        )
    elif backend.pmem and not backing.dax:
        yield (
            "pmem",
            f"{path} is not on a file system that is mounted for direct access (DAX): what is"
            " written does not survive a crash of the host by itself.",
        )
    if backend.discard_data:
        if spec.shared and spec.protection == READ_WRITE:
            yield "discard-data", "the file's content is thrown away when the backend is deleted."
        else:
            yield "discard-data", "discard-data=on has no effect: the memory can't write the file."
    if backend.prealloc and not spec.shared and spec.protection == READ_WRITE and backing.had > 0:
        yield (
            "prealloc",
            f"with share=off preallocation copies all {size_text(spec.length)} of {path}: nothing"
            " is shared with others that map it.",
        )
    if backend.host_nodes and spec.shared and not backing.in_memory:
        yield (
            "host-nodes",
            f"the pages are the page cache's of {path}, which does not follow the NUMA policy of a"
            " mapping.",
        )


def _of_memfd(backend: MemfdBackend, spec: MapSpec | None) -> Iterator[_Warning]:
    if not backend.share and not backend.hugetlb:
        yield (
            "private-memfd",
            "share=off takes the memory twice: a page that is written is in the memfd, and copied"
            f" for the mapping, {size_text(backend.size * 2)} in the end; nobody else sees it.",
        )
    if backend.hugetlbsize and not backend.hugetlb:
        yield "hugetlbsize", "hugetlbsize has no effect without hugetlb=on."
    elif backend.hugetlbsize & 1:
        yield (
            "hugetlbsize",
            f"hugetlbsize={backend.hugetlbsize} is odd, which stands for the default size.",
        )
    if backend.hugetlb and spec is None:
        sizes = " and ".join(size_text(size) for size in capacity.huge_page_sizes())
        yield "hugetlb", f"the kernel has huge pages of {sizes or 'no size'}."
    if not backend.seal:
        yield (
            "seal",
            "with seal=off a process with the descriptor can shrink the memory, and accesses past"
            " its end fail.",
        )


def _of_huge_pages(spec: MapSpec, backing: Foreseen) -> Iterator[_Warning]:
    pool = capacity.huge_pool(spec.page_size)
    wanted = foresight.huge_pages_wanted(spec, backing)
    left = 0 if pool is None else pool.left
    if wanted <= left:
        return
    numbers = (
        f"{wanted} huge pages of {size_text(spec.page_size)} are wanted, and {left} of"
        f" {0 if pool is None else pool.total} are free"
    )
    if spec.reserve:
        yield "huge-pages", f"{numbers}."
    else:
        yield "huge-pages", f"{numbers}: with reserve=off it is mapped, and touching more fails."


def _of_room(outlook: Outlook, spec: MapSpec) -> Iterator[_Warning]:
    """Where there is not enough of the file system, or of memory."""
    backing = outlook.backing
    if backing is not None and backing.free is not None:
        wanted = foresight.space_wanted(spec, backing)
        if wanted > backing.free:
            path = outlook.backend.mem_path if isinstance(outlook.backend, FileBackend) else ""
            yield (
                "space",
                f"the file system of {path or '/dev/shm'} has {about(backing.free)} left, and the"
                f" memory may need {about(wanted)}: pages that do not fit can't be had.",
            )
    wanted = foresight.memory_wanted(spec, backing)
    left = capacity.left_to_use()
    if wanted > left:
        yield (
            "memory",
            f"all of it in use takes {about(wanted)} of memory, and {about(left)} are available,"
            " swap included: the kernel may end the daemon for it.",
        )


def _without_effect(outlook: Outlook, spec: MapSpec) -> Iterator[_Warning]:
    backend, given = outlook.backend, outlook.given
    if given.get("merge") and spec.shared:
        yield "merge", "merge=on has no effect: only private memory is merged."
    elif given.get("merge") and not capacity.merging():
        yield "merge", "merge=on has no effect while the kernel does not merge: KSM is off."
    if not backend.prealloc:
        for name in ("prealloc-threads", "prealloc-context"):
            if given.get(name):
                yield name, f"{name} has no effect without prealloc=on."


def _of_reserve(outlook: Outlook, spec: MapSpec) -> Iterator[_Warning]:
    if outlook.given.get("reserve") is not False or spec.page_size > libc.PAGE_SIZE:
        return
    if spec.shared or spec.protection != READ_WRITE:
        yield "reserve", "reserve=off has no effect: nothing is set aside for such memory anyway."
    else:
        yield (
            "reserve",
            "with reserve=off more may be promised than there is, and the kernel may end the"
            " daemon when it is used.",
        )


def _proposals(outlook: Outlook) -> Iterator[_Proposal]:
    backend, backing = outlook.backend, outlook.backing
    if isinstance(backend, FileBackend):
        yield from _for_file(outlook, backend)
    elif isinstance(backend, MemfdBackend):
        yield from _for_memfd(outlook, backend)
    elif isinstance(backend, ShmBackend | GuestMemfdBackend) and not backend.share:
        yield (
            {"qom-type": "memory-backend-ram"},
            "memory that nobody shares needs no file behind it.",
        )
    elif isinstance(backend, GuestMemfdBackend) and outlook.error is not None and backing is None:
        yield (
            {"qom-type": "memory-backend-memfd"},
            "a memfd is shared by descriptor just so, and needs no KVM.",
        )
    elif isinstance(backend, ShmBackend) and _lacks_space(outlook):
        yield (
            {"qom-type": "memory-backend-memfd"},
            "a memfd is the same without the limit of /dev/shm.",
        )
    elif isinstance(backend, RamBackend) and backend.share:
        yield (
            {"qom-type": "memory-backend-memfd"},
            "it is the same memory with its size sealed, and can have huge pages.",
        )
    page_size = libc.PAGE_SIZE if backing is None else backing.page_size
    if outlook.error is not None and backend.size % page_size:
        size = round_up(backend.size, page_size)
        yield {"size": size}, f"the size has to be whole pages of {size_text(page_size)}."


def _for_file(outlook: Outlook, backend: FileBackend) -> Iterator[_Proposal]:
    backing, spec, failed = outlook.backing, outlook.spec, outlook.error is not None
    clone = "a clone needs the file only for reading, and can't change it then."
    denied = outlook.error is not None and outlook.error.hint is not None
    if denied or (backing is not None and _template(backend, backing)):
        yield {"readonly": True, "rom": "off"}, clone
    if backend.rom == "on" and not backend.readonly:
        yield {"readonly": True, "rom": None}, "read-only memory needs a file opened read-only."
    elif backend.rom == "off" and backend.readonly and backend.share:
        yield {"share": False}, "what is written can only stay private where the file can't be."
    elif backing is not None and _private_new(backend, backing):
        yield (
            {"qom-type": "memory-backend-ram", **_WITHOUT_FILE},
            "memory that nobody shares needs no file; share=on would keep it in the file.",
        )
    elif backend.readonly and backend.rom == "auto" and not backend.share and not failed:
        yield {"rom": "off"}, "if it is to be a guest's RAM: writes stay private to it."
    if failed and backing is not None and spec is None and backing.had > 0:
        fits = (backing.had - backend.offset) // backing.page_size * backing.page_size
        if 0 < fits < backend.size:
            yield {"size": fits}, f"that is as much as {backend.mem_path} has."


def _for_memfd(outlook: Outlook, backend: MemfdBackend) -> Iterator[_Proposal]:
    backing, spec = outlook.backing, outlook.spec
    if backend.hugetlbsize and not backend.hugetlb:
        yield {"hugetlb": True}, "hugetlbsize is about the huge pages that hugetlb=on asks for."
    if not backend.share and not backend.hugetlb:
        yield (
            {"qom-type": "memory-backend-ram", **_WITHOUT_MEMFD},
            "memory that nobody shares takes half as much without a file behind it.",
        )
    if not backend.hugetlb or outlook.error is None:
        return
    page_size = _huge_page_size(backend)
    if backing is None and spec is None and page_size and backend.size % page_size:
        size = round_up(backend.size, page_size)
        yield {"size": size}, f"the size has to be whole pages of {size_text(page_size)}."
    yield (
        {"hugetlb": None, "hugetlbsize": None},
        "there are not the huge pages for it; ordinary ones need no setting up.",
    )


def _huge_page_size(backend: MemfdBackend) -> int:
    asked = backend.hugetlbsize
    return asked if asked and not asked & (asked - 1) else capacity.default_huge_page_size()


def _template(backend: FileBackend, backing: Foreseen) -> bool:
    """Whether a file that others may map is opened for writing without need."""
    private = not backend.share and not backend.readonly
    return private and backing.kind == "file" and backing.had > 0


def _private_new(backend: FileBackend, backing: Foreseen) -> bool:
    """Whether an ordinary file is made, or filled with zeroes, that nothing is written to."""
    if backend.share or backend.readonly or backing.huge:
        return False
    return backing.kind in ("file", "directory") and backing.had == 0


def _lacks_space(outlook: Outlook) -> bool:
    backing, spec = outlook.backing, outlook.spec
    if backing is None or spec is None or backing.free is None:
        return False
    return foresight.space_wanted(spec, backing) > backing.free
