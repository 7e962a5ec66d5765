"""Options about access: directories for clients' files, the audit."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from memd.errors import StartError
from memd.hostmem.deadline import at_start

if TYPE_CHECKING:
    from memd.commands.audit import Sink
    from memd.hostmem.paths import Roots

JOURNAL = "/run/systemd/journal/socket"
"""Where the journal takes entries in its native protocol."""


def open_roots(directories: Sequence[str]) -> Roots:
    """Open the directories of `--mem-root`.

    Raises:
        StartError: one can't be opened, or the kernel can't confine to it.
    """
    from memd.hostmem.paths import Roots

    roots = Roots()
    for directory in directories:
        try:
            roots.add(directory)
        except OSError as error:
            roots.close()
            text = error.strerror or ""
            if error.errno == errno.ENOSYS:
                text = "openat2(2) is not available: nothing can be confined to it"
            raise StartError(text, f"--mem-root {directory}") from None
    return roots


def open_audit(where: str | None, journal: str = JOURNAL) -> Sink | None:
    """Open what `--audit` names: "journal", "off" or a file.

    Args:
        where: None for the journal if this process's standard error is in it.
        journal: its socket.

    Raises:
        StartError: it can't be opened, or its file system does not answer.
    """
    if where == "off" or (where is None and not _under_the_journal()):
        return None
    from memd.server.audit_sinks import FileSink, JournaldSink

    try:
        if where is None or where == "journal":
            return JournaldSink(journal)
        return at_start(partial(FileSink, where))
    except OSError as error:
        if where is None:
            return None
        text = error.strerror or ""
        if where == "journal":
            text = f"cannot reach the journal: {text}"
        raise StartError(text, f"--audit {where}") from None


def _under_the_journal() -> bool:
    """Whether standard error is the stream that the service manager made (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
