"""Throwing a range of a region away: its pages, and those of the file behind it.

What is refused and what the file comes to was observed on QEMU's own
discarding (virtio-balloon, virtio-mem).
"""

from __future__ import annotations

from memd.errors import QMPError, refusing
from memd.hostmem import libc
from memd.hostmem.access import check_range, check_whole_pages
from memd.hostmem.pages import FILE, ZERO, PageMap
from memd.hostmem.region import LARGE, Region

_PIECE = 1 << 20
"""Bytes cleared at once."""


def check(region: Region, name: str, offset: int, length: int) -> None:
    """See that a range can be discarded.

    Args:
        name: of the memory, in messages.
        offset: in bytes, like `length`.

    Raises:
        QMPError: it can't be.
    """
    check_range(name, region.length, offset, length)
    check_whole_pages(region, name, offset, length)
    if region.opened is not None and region.opened.read_only:
        raise QMPError(f"cannot discard memory of '{name}': its file is opened read-only")


def may_wait(region: Region, length: int) -> bool:
    """Whether discarding so many bytes may take long."""
    return length > LARGE or bool(region.locks_on)


def discard(region: Region, name: str, offset: int, length: int) -> None:
    """Discard a range that has been checked.

    Raises:
        QMPError: the kernel would not.
    """
    if not length:
        return
    in_file = region.fd >= 0
    with refusing(f"cannot discard memory of '{name}'"):
        if in_file:
            region.host.punch_hole(region.fd, region.offset + offset, length)
        if region.on_discard is not None:
            region.on_discard(length)
        if in_file and region.shared:
            return
        # A private mapping has pages of its own.
        number = region.host.advise(region.address + offset, length, libc.MADV_DONTNEED)
        # The file has its hole, so there is no way back: what can't be dropped is cleared.
        if number and not (in_file and _clear(region.address + offset, length)):
            raise libc.os_error(number)


def _clear(address: int, length: int) -> bool:
    """Write zeroes to the pages that are a private mapping's own; whether that was done."""
    zeroes = bytes(_PIECE)
    with PageMap() as pages:
        for start, end, kinds in pages.runs(address, length):
            for at in range(start, end if not kinds & (FILE | ZERO) else start, _PIECE):
                piece = zeroes[: end - at]
                if libc.write_memory(address + at, piece) < len(piece):
                    return False
    return True
