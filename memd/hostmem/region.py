"""A region: a mapping and the descriptor behind it, owned and closed explicitly."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from memd.hostmem import closing, libc
from memd.hostmem.host import Host
from memd.hostmem.opened import Opened
from memd.hostmem.spec import MapSpec, round_up
from memd.work import MEMORY, SHARED_MEMORY, Command, Event, Job

T = TypeVar("T")

ANONYMOUS_ALIGN = 2 << 20
"""Anonymous memory and `memory-backend-ram`'s with share=on begin at a multiple
of this, in bytes, so that huge pages fit (observed on QEMU 10.0.2)."""

LARGE = 64 << 20
"""Bytes of a mapping from which on an operation on all its pages is done in a
thread: it takes the kernel milliseconds."""

UNMAP_PIECE = 64 << 20
"""Bytes unmapped by one system call; more where that would be over a thousand calls."""


class Region:
    """Memory of this process, mapped from a file or anonymous.

    A function that uses the memory in another thread pins it, so that it stays
    mapped meanwhile.

    Attributes:
        host: what it is mapped by.
        fd: the file's descriptor, or -1.
        opened: what was noted of the file, or None.
        address: where it begins.
        spec: as it was to be mapped.
        length: bytes that are mapped.
        page_size: of its memory, in bytes.
        offset: in the file, in bytes.
        shared: whether writes are seen by others that map the file.
        synced: whether writes survive a crash without fsync(2) (MAP_SYNC).
        writable: whether writes are allowed by the mapping.
        exports: how many descriptors of it were handed out.
        on_discard: told how many bytes were discarded, in whatever thread.
        on_release: called once it is unmapped and its file closed, in whatever thread.
    """

    __slots__ = (
        "_area",
        "_area_length",
        "_lock",
        "_pins",
        "address",
        "closed",
        "exports",
        "fd",
        "host",
        "length",
        "offset",
        "on_discard",
        "on_release",
        "opened",
        "page_size",
        "shared",
        "spec",
        "synced",
        "writable",
    )

    def __init__(
        self, host: Host, spec: MapSpec, fd: int = -1, opened: Opened | None = None
    ) -> None:
        """Map it.

        Args:
            host: maps it, and does all else with it.
            spec: what to map.
            fd: the file, owned by the region once this returns; -1 for
                anonymous memory.
            opened: what was noted of it; None has it looked at.

        Raises:
            OSError: the kernel refused; the descriptor is still the caller's.
            Unsupported: the kernel would not leave swap space unreserved.
        """
        self.host = host
        self.spec = spec
        self.length = spec.length
        self.page_size = spec.page_size
        self.offset = spec.offset
        self.shared = spec.shared
        self.writable = bool(spec.protection & libc.PROT_WRITE)
        self.exports = 0
        self.opened = host.look(fd) if opened is None and fd >= 0 else opened
        self.on_discard: Callable[[int], None] | None = None
        self.on_release: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._pins = 0
        self.closed = False
        self.address, self._area, self._area_length, self.synced = host.map(spec, fd)
        self.fd = fd

    def prepare(self, merge: bool, dump: bool) -> None:
        """Advise the kernel as QEMU does; what it can't do is passed over.

        Args:
            merge: whether equal pages may be merged (KSM).
            dump: whether the memory goes into core dumps.
        """
        address, length = self.address, self.length
        # Anonymous memory is marked as mergeable whatever `merge` says, and
        # shared memory can't be merged (both observed on QEMU 10.0.2).
        if not self.shared and (merge or self.fd < 0):
            self.host.advise(address, length, libc.MADV_MERGEABLE)
        self.host.advise(address, length, libc.MADV_HUGEPAGE)
        self.host.advise(address, length, libc.MADV_DONTFORK)
        if not dump:
            self.host.advise(address, length, libc.MADV_DONTDUMP)

    def set_merge(self, merge: bool) -> None:
        """Allow or forbid that equal pages are merged."""
        if not self.shared:
            advice = libc.MADV_MERGEABLE if merge else libc.MADV_UNMERGEABLE
            self.host.advise(self.address, self.length, advice)

    def set_dump(self, dump: bool) -> None:
        """Put the memory into core dumps, or leave it out."""
        advice = libc.MADV_DODUMP if dump else libc.MADV_DONTDUMP
        self.host.advise(self.address, self.length, advice)

    def discard(self) -> None:
        """Punch the whole range out of the file, where a write would reach it."""
        if self.shared and self.writable and self.fd >= 0:
            self.host.advise(self.address, self.length, libc.MADV_REMOVE)

    @property
    def anonymous(self) -> bool:
        """Whether there is no file that anything of it could be in."""
        opened = self.opened
        return opened is None or (opened.zero_device and not self.shared)

    def job(self, work: Callable[[], T], **options: Any) -> Command[T]:
        """See `job_on`, of this region alone."""
        return job_on((self,), work, **options)

    @property
    def waits_on(self) -> frozenset[int]:
        """`Job.on` for work on it."""
        opened = self.opened
        if opened is None or opened.in_memory or opened.zero_device or not opened.inode:
            return MEMORY
        return frozenset((opened.number,))

    @property
    def locks_on(self) -> frozenset[int]:
        """`Job.on` for all work but reading the file.

        What changes it, looks for holes or unmaps it takes locks of a file in memory, and its
        pages are waited for while another process takes some out: a second, where that has
        half a million mappings of them.
        """
        opened = self.opened
        if self.waits_on or opened is None or not (opened.others_write or self.exports):
            return self.waits_on
        return SHARED_MEMORY

    @property
    def reads_as_file(self) -> bool:
        """Whether its file can be read in place of a shared mapping."""
        return self.opened is not None and self.opened.reads_as_mapped

    @property
    def only_mapped(self) -> bool:
        """Whether its file is memory that can't be read as a file (guest_memfd)."""
        opened = self.opened
        return opened is not None and opened.size < 0 and stat.S_ISREG(opened.mode)

    @property
    def pinned(self) -> bool:
        """Whether somebody works on the memory."""
        return self._pins > 0

    def pin(self) -> None:
        """Keep the memory mapped, even past `close`, until `unpin`."""
        with self._lock:
            self._pins += 1

    def unpin(self) -> None:
        """The counterpart of `pin`; the last one does what `close` put off."""
        with self._lock:
            self._pins -= 1
            last = self.closed and not self._pins
        if last:
            self._release()

    def disown(self) -> None:
        """Leave the descriptor to the caller again."""
        self.fd = -1

    def close(self) -> None:
        """Unmap and close, once nobody works on it; does nothing the second time."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            now = not self._pins
        if now:
            self._release()

    def close_when_unpinned(self) -> bool:
        """Have who works on it unmap and close it in the end; False where nobody does."""
        with self._lock:
            pinned = self._pins > 0
            self.closed |= pinned
        return pinned

    def _release(self) -> None:
        opened = self.opened
        if opened is not None and self.fd >= 0 and self.shared and not opened.local:
            # What others have written by mappings of theirs is sent to its server. Unmapping
            # would wait for that, and keep the address space meanwhile.
            with suppress(OSError):
                self.host.sync(self.fd)
        begin, end = self._area, self._area + self._area_length
        if self._area_length > UNMAP_PIECE:
            # Piece by piece: other threads map nothing while one piece goes.
            part = round_up(self._area_length >> 10, self.page_size)
            piece = max(UNMAP_PIECE, self.page_size, part)
            while end - begin > piece:
                self.host.unmap(begin, piece)
                begin += piece
        self.host.unmap(begin, end - begin)
        if self.fd >= 0:
            if opened is None or opened.local:
                self.host.close(self.fd)
            else:
                closing.close_in_thread(self.fd, opened.number, self.on_release)
                self.on_release = None
            self.fd = -1
        if self.on_release is not None:
            self.on_release()


async def job_on(
    regions: Iterable[Region],
    work: Callable[[], T],
    *,
    on: frozenset[int] | None = None,
    heavy: bool = False,
    progress: Callable[[], Event | None] | None = None,
    copies: int = 0,
) -> T:
    """Have a job work on memory, which stays mapped until its end.

    Args:
        regions: that `work` touches.
        on: what `work` may wait for, see `Job.on`; None for the regions' files.
        work, heavy, progress, copies: of the `Job`.
    """
    held = tuple(regions)
    for region in held:
        region.pin()
    begun = False

    def unpin() -> None:
        # In a thread, since what was closed meanwhile is unmapped now, which may take long.
        for region in held:
            region.unpin()

    def pinned() -> T:
        nonlocal begun
        begun = True
        try:
            return work()
        finally:
            unpin()

    if on is None:
        on = MEMORY.union(*(region.waits_on for region in held))
    try:
        return await Job(pinned, on=on, heavy=heavy, progress=progress, copies=copies)
    except Exception:
        if not begun:
            await Job(unpin, on=on, release=True)
        raise
