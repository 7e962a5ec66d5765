"""The locks by which processes that have the same image open keep out of each other's way.

They are a QEMU's: bytes of the image's file, read-locked by the open file. One in 100
to 103 says what its holder does, one in 200 to 203 what it lets nobody else do: read,
write, write what is there already, resize. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Set

from memd.errors import QMPError

Locks = Set[int]
"""Bytes of a file that are locked."""

READ, WRITE, REWRITE, RESIZE = 100, 101, 102, 103
NO_READ, NO_WRITE, NO_RESIZE = 200, 201, 203
UNSHARED = 100
"""How far the byte that denies something to others is behind the one that does it."""

NAMES = {
    READ: "consistent read",
    WRITE: "write",
    REWRITE: "write unchanged",
    RESIZE: "resize",
}
_FLOCK = struct.Struct("hhqqi4x")


def _call(fd: int, command: int, kind: int, byte: int) -> int:
    """Lock or unlock a byte, or look who has it locked; gives the kind of lock that is told."""
    told = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    return int(_FLOCK.unpack(told)[0])


def change_locks(fd: int, held: Locks, wanted: Locks, checked: Locks, path: str) -> None:
    """Hold other locks of a file; may wait for its file system.

    Args:
        fd: the file.
        held: those that it has; of them those that are not checked stay where the change is
            refused.
        wanted: those that it is to have.
        checked: those for which it is an error that another process is in the way.
        path: how the file is told.

    Raises:
        QMPError: another process is.
    """
    added = wanted - held
    try:
        for byte in added:
            _call(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, byte)
        _check(fd, checked, path)
    except QMPError:
        _unlock(fd, added | checked)
        raise
    except OSError:
        # The file system has no such locks, or another program holds the byte for itself.
        pass
    _unlock(fd, held - wanted)


def _unlock(fd: int, locks: Locks) -> None:
    for byte in locks:
        try:
            _call(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, byte)
        except OSError:
            # It was never locked, on such a file system.
            return


def _check(fd: int, locks: Locks, path: str) -> None:
    """Raise `QMPError` where another process has a lock that is against one of these."""
    for shared, own, others in (("", 0, UNSHARED), ("shared ", UNSHARED, 0)):
        for does, name in NAMES.items():
            byte, against = does + own, does + others
            if byte in locks and (
                _call(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, against) != fcntl.F_UNLCK
            ):
                hint = f"Is another process using the image [{path}]?"
                raise QMPError(f'Failed to get {shared}"{name}" lock', hint=hint)
