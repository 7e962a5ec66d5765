"""Descriptors from a service manager (sd_listen_fds(3)): sockets, and kept memory."""

from __future__ import annotations

import os

from memd.config import Chardev, Config, MonitorSpec
from memd.errors import is_identifier

_FIRST = 3
"""The first of the descriptors that are passed."""


def take_passed(config: Config, first: int = _FIRST) -> list[MonitorSpec]:
    """Take the descriptors that a service manager has passed (sd_listen_fds(3)).

    Args:
        config: what they go to.
        first: the first of them.

    Returns:
        monitors on the sockets. Kept descriptors go to `config.stored`.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    from memd.persist.fdstore import is_stored, let_more_be_opened

    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    sockets: dict[int, str] = {}
    for number in range(int(count) if count.isdecimal() else 0):
        fd = first + number
        name = names[number] if number < len(names) else ""
        if is_stored(name, fd):
            config.stored[name] = fd
        else:
            sockets[fd] = name
    # Before anything else is opened.
    let_more_be_opened(config.stored)
    return [
        _passed_monitor(config, number, fd, list(sockets.values()))
        for number, fd in enumerate(sockets)
    ]


def _passed_monitor(config: Config, number: int, fd: int, names: list[str]) -> MonitorSpec:
    """A monitor on a socket, by the socket's name if that is an id and nothing else's."""
    id = names[number]
    taken = [each.id for each in config.chardevs]
    taken += [each.chardev.id for each in config.monitors]
    if not is_identifier(id) or names.count(id) > 1 or id in taken:
        id = f"activated{number}"
    return MonitorSpec(id, Chardev(id, "fd", fd=fd, server=True))
