"""What a kill -9 leaves outside of the daemon: files half made, data half thrown away."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from typing import Any

from memd.hostmem import libc
from memd.json_types import JSON
from memd.server.store import Store

CLOCKS = 1.0
"""Seconds by which a file system's times may be behind the clock."""

log = logging.getLogger("memd")


def remove_half_made(store: Store, objects: Iterable[dict[str, Any]]) -> None:
    """Remove the files that were made for objects that never were.

    Args:
        objects: the descriptions of those that there are.
    """
    kept = {(each["file"]["dev"], each["file"]["ino"]) for each in objects if "file" in each}
    for number, making in list(store.ledger.makings.items()):
        try:
            _remove(making, kept)
        except OSError:
            # It is not there; or not to be removed, which nobody can help.
            pass
        store.write({"settled": number})


def _remove(making: dict[str, JSON], kept: set[tuple[int, int]]) -> None:
    """Remove one, if it is still the one that was made, and no object's."""
    directory, name = os.path.split(making["path"])
    # One directory throughout, whatever becomes of its path meanwhile.
    there = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.stat(name, dir_fd=there, follow_symlinks=False)
        if (found.st_dev, found.st_ino) not in kept and _is_it(making, found):
            os.unlink(name, dir_fd=there)
            log.warning("removed '%s', which was being made for an object", making["path"])
    finally:
        os.close(there)


def _is_it(making: dict[str, JSON], there: os.stat_result) -> bool:
    """Whether a file is the one that was being made."""
    if "made" in making:
        return (there.st_dev, there.st_ino) == (making["dev"], making["ino"])
    # The daemon was killed between making it and taking note of it: it is empty.
    return (
        stat.S_ISREG(there.st_mode)
        and there.st_size == 0
        and there.st_uid == os.geteuid()
        and there.st_ctime >= making["time"] - CLOCKS
    )


def throw_away(fd: int, span: list[int]) -> None:
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
