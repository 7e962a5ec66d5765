"""Allocating, populating, changing and freeing a backend's memory.

Everything that may take the kernel long is a `Job`. A failure leaves no descriptor,
no mapping and no file behind.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from memd.backends.memory import Memory
from memd.errors import QMPError, refusing
from memd.hostmem.files import Backing
from memd.hostmem.host import Host, Unsupported
from memd.hostmem.libc import PAGE_SIZE, os_error
from memd.hostmem.region import LARGE, Region, job_on
from memd.hostmem.spec import MapSpec
from memd.work import Event, Job

if TYPE_CHECKING:
    from memd.hostmem.ledger import Ledger
    from memd.hostmem.populate import Population

PATIENCE = 1.0
"""Seconds that an `object-del` waits for a file system or device; the job goes on after
that."""

GIVEN_UP = os_error(errno.ECANCELED)
"""The error of populating memory that is deleted meanwhile."""


async def allocate(backend: Memory) -> None:
    """Take a backend's memory from a pool, or allocate it, and have it adopted.

    Raises:
        QMPError: it can't be made.
    """
    # What is refused opens nothing, not even the directory that `may_block` looks at.
    backend.check()
    host, pools = backend.tree.host, backend.tree.objects.pools
    if pools is not None:
        ready = pools.take(backend)
        if ready is not None:
            backend.adopt(ready)
            return
    if not backend.may_block():
        try:
            backend.adopt(realize(backend, host))
            return
        except BlockingIOError:
            # A lease on the file has to be broken, or the path leads elsewhere by now.
            pass
    preallocation = Preallocation(backend)
    backend.cancel = preallocation.cancel
    work = partial(realize, backend, host, preallocation)
    job = Job(work, on=backend.waits_on, heavy=backend.prealloc, progress=preallocation.progress)
    backend.adopt(await job)


class Preallocation:
    """The population of memory in a thread: its progress, and cancelling it.

    Args:
        backend: whose memory.
    """

    _cancelled = False
    _population: Population | None = None

    def __init__(self, backend: Memory) -> None:
        context = backend.prealloc_context
        self._backend = backend
        self._affinity = None if context is None else context.affinity()

    def cancel(self) -> None:
        """Have `populate` and `check` raise; on the event loop."""
        self._cancelled = True
        if self._population is not None:
            self._population.cancel()

    def check(self) -> None:
        """Raise `QMPError` if it was given up."""
        if self._cancelled:
            raise cannot_populate(GIVEN_UP)

    def populate(self, region: Region) -> None:
        """Populate, in the worker thread.

        Raises:
            QMPError: a page is not available, or it was given up.
        """
        from memd.hostmem.populate import Cancelled, Population

        backend = self._backend
        population = Population(
            region, backend.prealloc_threads, self._affinity, backend.host_nodes
        )
        self._population = population
        # Seen by the first of the two: `cancel` or this.
        self.check()
        try:
            region.host.populate(population)
        except OSError as failed:
            raise cannot_populate(failed) from None
        except Cancelled:
            raise cannot_populate(GIVEN_UP) from None

    def progress(self) -> Event | None:
        """How far it is; None before it has begun."""
        population = self._population
        if population is None:
            return None
        return progress_of(self._backend.name, population.done, population.total)


def progress_of(id: str, done: int, total: int) -> Event:
    """The event that so many bytes of a backend are done."""
    data = {"id": id, "qom-path": f"/objects/{id}", "done": done, "total": total}
    return Event("X_MEMDEV_PROGRESS", data)


def realize(backend: Memory, host: Host, preallocation: Preallocation | None = None) -> Region:
    """Open, map, advise, bind, populate: QEMU's order, and so its order of complaints.

    Args:
        backend: which has been checked (`Memory.check`).
        host: does all that; a `PlanningHost` only predicts it.
        preallocation: with which it can be cancelled and its progress seen.

    Raises:
        QMPError: it can't be made. Nothing of it is left.
    """
    region = None
    backing = backend.open(host)
    try:
        spec = backend.spec(backing)
        region = _map(backend, host, spec, backing, check=True)
        backend.check_mapped(region)
        region.prepare(backend.merge, backend.dump)
        _bind(backend, region)
        if backend.prealloc:
            preallocation = preallocation or Preallocation(backend)
            preallocation.populate(region)
        if preallocation is not None:
            preallocation.check()
    except BaseException:
        if region is not None:
            region.disown()
            region.close()
        if backing is not None:
            backing.undo()
        raise
    if backing is not None:
        backing.take()
    return region


def map_again(backend: Memory, spec: MapSpec, fd: int) -> Region:
    """Map existing memory, as an earlier daemon had mapped it.

    Args:
        fd: its file, the region's once this returns.

    Raises:
        QMPError: it can't be mapped.
    """
    host = backend.tree.host
    region = _map(backend, host, spec, None if fd < 0 else Backing(host, fd))
    try:
        region.prepare(backend.merge, backend.dump)
        _bind(backend, region)
    except BaseException:
        region.disown()
        region.close()
        raise
    return region


def _map(
    backend: Memory, host: Host, spec: MapSpec, backing: Backing | None, *, check: bool = False
) -> Region:
    try:
        if backing is None:
            return Region(host, spec)
        if spec.page_size == PAGE_SIZE:
            return Region(host, spec, backing.fd, backing.opened)
        return _map_huge(backend, host, spec, backing, check)
    except OSError as failed:
        raise QMPError(f"{backend.map_failure()}: {failed.strerror}") from None
    except Unsupported as refusal:
        host.warn(str(refusal))
        raise QMPError(backend.map_failure()) from None


def _map_huge(backend: Memory, host: Host, spec: MapSpec, backing: Backing, check: bool) -> Region:
    """Map huge pages, of which there may be too few later."""
    ledger: Ledger = backend.tree.ledger
    fd = backing.fd
    policy, bound = backend.binding
    nodes = frozenset(bound if policy == "bind" else ())
    make = partial(Region, host, spec, fd, backing.opened)
    if not host.plans:
        return ledger.map(spec, fd, nodes, make, check=check)
    if not host.ready:
        ledger.check(spec, fd, nodes)
    return make()


def _bind(backend: Memory, region: Region) -> None:
    policy, nodes = backend.binding
    if not nodes and policy != "default":
        raise QMPError(f"host-nodes must be set for policy {policy}")
    if nodes and policy == "default":
        raise QMPError(
            "host-nodes must be empty for policy default, or you should explicitly"
            " specify a policy other than default"
        )
    if nodes:
        with refusing("cannot bind memory to host NUMA nodes"):
            region.host.bind(region.address, region.length, policy, nodes)


def cannot_populate(failed: OSError) -> QMPError:
    """The error for a page that is not available."""
    return QMPError(f"qemu_prealloc_mem: preallocating memory failed: {failed.strerror}")


async def populate_made(backend: Memory, region: Region) -> None:
    """Populate memory that is already there (`qom-set` of prealloc).

    The property changes once every page is there.
    """
    preallocation = Preallocation(backend)
    work, progress = partial(preallocation.populate, region), preallocation.progress
    await job_on((region,), work, on=region.locks_on, heavy=True, progress=progress)
    backend.prealloc = True


async def set_merge(backend: Memory, region: Region, merge: bool) -> None:
    """Allow or forbid merging of memory that is already there."""
    if merge or region.length <= LARGE:
        region.set_merge(merge)
    else:
        # Pages that were merged are copied apart, which may take long.
        await job_on((region,), lambda: region.set_merge(merge), heavy=True)
    backend.merge = merge


def free(region: Region, discard: bool) -> Job[bool] | None:
    """Unmap memory and close its file.

    Args:
        discard: whether the range is punched out of the file first.

    Returns:
        None where that is done; else a job that does it, which comes to None where its file
        system or device does not answer.
    """
    if region.pinned:
        from memd.hostmem import populate

        populate.cancel(region)
        if not discard and region.close_when_unpinned():
            return None
    on = region.locks_on
    # With a guest_memfd its virtual machine goes.
    if not (region.length > LARGE or region.only_mapped or on or region.pinned):
        _release(region, discard)
        return None
    # What is unmapped alone comes to an end.
    patience = PATIENCE if region.waits_on or (discard and on) else None
    return Job(partial(_release, region, discard), on=on, patience=patience, release=True)


def _release(region: Region, discard: bool) -> bool:
    if discard:
        region.discard()
    region.close()
    return True
