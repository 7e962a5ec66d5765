"""What `object-add` would do: the steps of making memory, taken in thought.

Every rule is asked where it is kept: the objects set and check their own
properties, `spec` works the mapping out, and the texts of refusals are those
that making uses. Only the kernel's part is foreseen (`hostmem.foresight`).
"""

from __future__ import annotations

import errno

from memd.backends.base import MemoryBackend
from memd.backends.explain_advice import advise
from memd.backends.explain_data import Outlook, describe, error_data
from memd.backends.explain_words import words
from memd.backends.file import FileBackend
from memd.backends.guest_memfd import GuestMemfdBackend
from memd.backends.making import cannot_bind, cannot_map, cannot_populate, check_nodes
from memd.backends.memfd import MemfdBackend
from memd.backends.shm import ShmBackend
from memd.backends.thread_context import ThreadContext, cannot_run_there
from memd.errors import QMPError
from memd.hostmem import capacity, foresight, kvm, libc
from memd.hostmem.files import (
    cannot_create_memfd,
    cannot_create_shm,
    cannot_resize,
    memfd_flags,
)
from memd.hostmem.foresight import Foreseen
from memd.hostmem.region import reserves_anyway
from memd.hostmem.spec import round_up
from memd.json_types import JSON
from memd.qom.object import UserCreatable
from memd.qom.tree import Tree
from memd.work import Job

Explanation = dict[str, JSON]


async def explain(
    tree: Tree,
    options: dict[str, JSON],
    deny_private_discard: bool = False,
    *,
    owner: int | None = None,
) -> Explanation:
    """`x-memdev-explain`, after the schema's checks.

    Args:
        options: the arguments of object-add.
        deny_private_discard: whether the daemon refuses to discard memory of a
            private mapping of a file.
        owner: the user for whom it would be made.
    """
    try:
        obj = tree.objects.prepare(options)
        tree.objects.reserve(obj, owner)
        tree.objects.release(obj)
    except QMPError as error:
        return refused(error)
    if not isinstance(obj, MemoryBackend):
        return _explain_other(obj)

    def works(others: dict[str, JSON]) -> bool:
        # Without what leads elsewhere in the tree, which is the event loop's.
        alone = {name: value for name, value in others.items() if name != "prealloc-context"}
        try:
            other = tree.objects.prepare(alone)
        except QMPError:
            return False
        return isinstance(other, MemoryBackend) and foresee(other, alone).verdict == "works"

    def work() -> Explanation:
        outlook = foresee(obj, options)
        outlook.deny_private_discard = deny_private_discard
        told = describe(outlook)
        warnings, suggestion = advise(outlook, works)
        told["warnings"] = warnings
        if suggestion is not None:
            told["suggestion"] = suggestion
        told["text"] = words(outlook, told)
        return told

    # Looking at a file may wait for its file system.
    return await Job(work)


def refused(error: QMPError) -> Explanation:
    """The explanation of arguments that are refused before memory comes into it."""
    return {
        "verdict": "fails",
        "error": error_data(error),
        "warnings": [],
        "text": [f"It would fail: {error.desc}"],
    }


def _explain_other(obj: UserCreatable) -> Explanation:
    """The explanation of what is no memory."""
    if not isinstance(obj, ThreadContext):
        told = f"It may work, which only trying tells: {obj.qom_type.name}, which is no memory."
        return {"verdict": "unknown", "warnings": [], "text": [told]}
    cpus = obj.wanted
    if cpus is not None and not cpus & capacity.online_cpus():
        return refused(cannot_run_there(libc.os_error(errno.EINVAL)))
    where = "where the daemon runs" if cpus is None else f"on CPUs {sorted(cpus)}"
    text = [
        "It would work: thread-context, which is no memory.",
        f"A thread that does nothing is started; what is preallocated with"
        f" prealloc-context={obj.name} is so {where}, or where the thread is moved to.",
    ]
    return {"verdict": "works", "warnings": [], "text": text}


def foresee(backend: MemoryBackend, given: dict[str, JSON]) -> Outlook:
    """What making a backend would come to.

    Args:
        backend: its properties are set, and it is not made.
        given: the arguments of object-add that set them.
    """
    outlook = Outlook(backend, given)
    try:
        _make(outlook)
    except QMPError as error:
        outlook.error = error
    return outlook


def _make(outlook: Outlook) -> None:
    """The steps of `making`, in its order, and so its order of complaints."""
    backend = outlook.backend
    backend.check()
    backing = outlook.backing = _open(backend)
    spec = outlook.spec = backend.spec(backing)
    if backing is not None and not backing.sure:
        outlook.sure = False
        return
    if reserves_anyway(spec):
        raise QMPError(backend.map_failure())
    number = foresight.map_error(spec, backing)
    if number:
        raise cannot_map(backend, libc.os_error(number))
    backend.check_pages(spec.page_size)
    check_nodes(backend)
    if backend.host_nodes:
        number = foresight.bind_error(backend.policy, backend.host_nodes)
        if number:
            raise cannot_bind(libc.os_error(number))
    if backend.prealloc:
        # Of a file system in memory and memory itself, which ends first can't
        # be told; and what the kernel does then is not always an error.
        if foresight.memory_wanted(spec, backing) > capacity.left_to_use():
            outlook.sure = False
            return
        number = foresight.populate_error(spec, backing)
        if number:
            raise cannot_populate(libc.os_error(number))


def _open(backend: MemoryBackend) -> Foreseen | None:
    """The file that the backend would open or make.

    Raises:
        QMPError: it would fail.
    """
    if isinstance(backend, FileBackend):
        return _open_file(backend)
    if isinstance(backend, MemfdBackend):
        return _open_memfd(backend)
    if isinstance(backend, ShmBackend):
        return _open_shm(backend)
    if isinstance(backend, GuestMemfdBackend):
        size = round_up(backend.size, libc.PAGE_SIZE)
        kvm.foresee(size)
        found = Foreseen("guest-memfd", size)
        found.creates = True
        found.open_flags = kvm.MMAP | kvm.INIT_SHARED
        return found
    if not backend.share:
        return None
    flags = memfd_flags(hugetlb=False, hugetlbsize=0, seal=False)
    return _memfd(backend.memory_name, flags, 0)


def _open_file(backend: FileBackend) -> Foreseen:
    path, name, roots = backend.mem_path, backend.memory_name, backend.tree.roots

    def readable() -> bool:
        try:
            foresight.file(path, True, name, roots)
        except OSError:
            return False
        return True

    try:
        return foresight.file(path, backend.readonly, name, roots)
    except OSError as failed:
        raise backend.cannot_open(failed, readable) from None


def _open_memfd(backend: MemfdBackend) -> Foreseen:
    flags = memfd_flags(backend.hugetlb, backend.hugetlbsize, backend.seal)
    found = _memfd("memory-backend-memfd", flags, backend.size)
    odd = backend.hugetlb and backend.size % found.page_size
    number = errno.EINVAL if odd else foresight.truncate_error(backend.size)
    if number:
        raise cannot_resize("memfd", backend.size, libc.os_error(number))
    return found


def _memfd(label: str, flags: int, size: int) -> Foreseen:
    try:
        return foresight.memfd(label, flags, size)
    except OSError as failed:
        raise cannot_create_memfd(flags, failed) from None


def _open_shm(backend: ShmBackend) -> Foreseen:
    try:
        found = foresight.posix_shm(backend.size)
    except OSError as failed:
        raise cannot_create_shm(failed) from None
    number = foresight.truncate_error(backend.size)
    if number:
        raise cannot_resize("POSIX shared memory", backend.size, libc.os_error(number))
    return found
