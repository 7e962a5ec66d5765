"""Starting a module of this room in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys


def start(
    module: str, *arguments: str, kind: int = socket.SOCK_STREAM
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start one; gives this end of a socket pair, and the process.

    Args:
        module: its name in this room; its first argument is the descriptor of the other end.
        arguments: that follow.
        kind: the sockets' type.

    Raises:
        OSError: there can be no process.
    """
    here, there = socket.socketpair(socket.AF_UNIX, kind)
    with there:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", f"memd.pages.{module}", str(there.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(there.fileno(),),
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            here.close()
            raise
    return here, process
