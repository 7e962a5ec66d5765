"""The mapping that a backend asks for; no system calls.

Which combinations of `memory-backend-file`'s share, readonly and rom there are is here
and nowhere else.
"""

from __future__ import annotations

import errno
import os

from memd.errors import QMPError
from memd.named_tuple import NamedTuple

UINT64 = (1 << 64) - 1

OFF_T_MAX = (1 << 63) - 1
"""Bytes of a file at most."""

READ = 1
READ_WRITE = 3
"""Protections, as mmap(2) counts them."""

POLICIES = ("default", "preferred", "bind", "interleave")
"""NUMA policies by QAPI's names (HostMemPolicy)."""

MAX_NODES = 128
"""One more than the highest host node that can be named (observed on QEMU 10.0.2)."""


class MapSpec(NamedTuple):
    """A mapping to be made.

    Attributes:
        size: bytes that were asked for.
        length: bytes to map: `size` rounded up to whole pages.
        page_size: of the memory, in bytes.
        align: the address is a multiple of it; a power of two, in bytes.
        offset: where in the file the mapping begins, in bytes.
        protection: READ or READ_WRITE.
        shared: shared with others that map the file, or private.
        reserve: whether swap space (huge pages) is set aside.
        sync: whether writes are to survive a crash without fsync(2), which
            only a DAX file can give.
    """

    size: int
    length: int
    page_size: int
    align: int
    offset: int = 0
    protection: int = READ_WRITE
    shared: bool = True
    reserve: bool = True
    sync: bool = False

    def area(self, page_size: int) -> int:
        """Bytes of address space that are set aside, so that the alignment fits.

        Args:
            page_size: of an ordinary page, to which every mapping is aligned.

        Raises:
            OSError: there can't be so many.
        """
        both = self.length + self.align
        if both == 1 << 64:
            # QEMU sets aside both together, which is nothing at 64 bits.
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.align <= page_size:
            return self.length
        if both > 1 << 64:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return both


def is_rom(share: bool, readonly: bool, rom: str) -> bool:
    """Whether a file's memory can't be written.

    Args:
        rom: "on", "off" or "auto", which takes the value of `readonly`.

    Raises:
        QMPError: the options contradict each other.
    """
    if rom == "on" and not readonly:
        raise QMPError("property 'rom' = 'on' is not supported with 'readonly' = 'off'")
    if rom == "off" and readonly and share:
        raise QMPError(
            "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'"
        )
    return readonly if rom == "auto" else rom == "on"


def round_up(value: int, multiple: int) -> int:
    """`value` rounded up to whole `multiple`s, a power of two."""
    return (value + multiple - 1) & -multiple
