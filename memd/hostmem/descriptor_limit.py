"""The limit of open descriptors of this process."""

from __future__ import annotations

import errno
import os
import resource


def raise_limit(near: int | None = None) -> None:
    """Let as many descriptors be open as the hard limit allows.

    Args:
        near: a descriptor's number: the soft limit stays unless that comes near it.

    Raises:
        OSError: a sandbox forbids it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if near is not None and near <= soft // 2:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except ValueError:
        # Python's exception for EPERM.
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
