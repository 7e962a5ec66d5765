"""Cleans up after a kill -9: files of unfinished objects, data half discarded."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from memd.hostmem import libc
from memd.hostmem.paths import Entry, new_entry
from memd.json_types import JSONObject
from memd.persist.object_log import LogEntry, ObjectLog

if TYPE_CHECKING:
    from memd.hostmem.host import Host

CLOCKS = 1.0
"""Seconds by which a file system's times may be behind the clock."""

_OPEN = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

log = logging.getLogger("memd")


def remove_half_made(object_log: ObjectLog, objects: Iterable[JSONObject], host: Host) -> None:
    """Remove the files that were created for unfinished objects.

    Args:
        objects: the descriptions of those that there are.
        host: removes them, below its roots if it has some.

    Raises:
        OSError: that it is done can't be noted.
    """
    kept = {(each["file"]["dev"], each["file"]["ino"]) for each in objects if "file" in each}
    for number, creation in list(object_log.state.creations.items()):
        try:
            _remove(creation, kept, host)
        except OSError:
            # It does not exist, or can't be removed.
            pass
        object_log.write({"settled": number})


def _remove(creation: LogEntry, kept: set[tuple[int, int]], host: Host) -> None:
    """Remove one, if it is still the one that was made, no object's, and nobody else's."""
    # One directory throughout, whatever becomes of its path meanwhile.
    entry = new_entry(os.fsencode(creation["path"]), host.roots)
    try:
        # What has replaced it is not opened: it may be a device.
        found = entry.stat()
        if (found.st_dev, found.st_ino) in kept or not _is_it(creation, found):
            return
        if not stat.S_IMODE(found.st_mode):
            _let_owner_open(entry, found)
        fd = entry.open(_OPEN)
        try:
            if os.path.samestat(os.fstat(fd), found) and host.remove_unused(fd, entry):
                log.warning("removed '%s', which was being made for an object", creation["path"])
        finally:
            os.close(fd)
    finally:
        entry.close()


def _let_owner_open(entry: Entry, found: os.stat_result) -> None:
    """Let its owner open a file, which the mode of shared memory does not; raises `OSError`."""
    fd = entry.open(os.O_PATH | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(fd), found):
            # There is no fchmod(2) of such a descriptor.
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRUSR | stat.S_IWUSR)
    finally:
        os.close(fd)


def _is_it(creation: LogEntry, there: os.stat_result) -> bool:
    """Whether a file is the one that was being made."""
    if not stat.S_ISREG(there.st_mode):
        return False
    if "made" in creation:
        return (there.st_dev, there.st_ino) == (creation["dev"], creation["ino"])
    # The daemon was killed between making it and taking note of it: it is empty.
    return (
        there.st_size == 0
        and there.st_uid == os.geteuid()
        and there.st_ctime >= creation["time"] - CLOCKS
    )


def discard_rest(fd: int, span: list[int]) -> None:
    """Finish a deletion with `discard-data=on`.

    Args:
        fd: of the file; -1 where that was done, and its descriptor given up.
        span: offset and length, in bytes.
    """
    if fd < 0:
        return
    try:
        libc.punch_hole(fd, *span)
    except OSError as failed:
        log.warning("cannot discard the data of a deleted object: %s", failed.strerror)
