"""Descriptors that were handed over, by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.session import Session

if TYPE_CHECKING:
    from memd.standin.chardevs import TakeFd


def take_fd(session: Session) -> TakeFd:
    """Takes what was named by getfd; it stays on its client's account until it is closed."""
    return lambda name: session.monitor.fds.pop(name, None)


class _Inherited:
    """A descriptor that was there when the daemon started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def inherited(name: str) -> _Inherited | None:
    """The descriptor that a number names, once: memd's own can't be had like this."""
    try:
        number = int(name)
        # Whatever memd itself opens, or receives, is not inheritable.
        if number <= 2 or not os.get_inheritable(number):
            return None
        os.set_inheritable(number, False)
    except (ValueError, OSError):
        return None
    return _Inherited(number)
