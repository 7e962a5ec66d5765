"""The descriptors of this process, once those that are being closed are closed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading


def wait_for_closing() -> None:
    """Wait until what memd closes in threads of their own is closed (`memd.hostmem.closing`)."""
    for thread in threading.enumerate():
        if thread.name == "memd-close":
            thread.join()


def open_descriptors() -> list[str]:
    """Their numbers, sorted as texts."""
    wait_for_closing()
    return sorted(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    """Whether a number is a descriptor's."""
    wait_for_closing()
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def lingering(listening: socket.socket, seconds: int = 60) -> socket.socket:
    """A socket whose last close waits for its peer, for so long at most."""
    sock = socket.create_connection(listening.getsockname())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16))
    return sock
