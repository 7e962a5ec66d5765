"""What the process that holds monitors' connections holds, and for how long."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.pages.fd_holder import Holder
from tests.differential.server import TREE

SCRIPT = """
import sys
from pathlib import Path
from memd.pages.fd_holder import Holder
Holder(Path(sys.argv[1])).keep(1, sys.stdin)
# Else it would stay a zombie if it were killed.
assert not Path("/proc/thread-self/children").read_text()
print("kept", flush=True)
"""

KILLED = """
import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path
from memd.pages.fd_holder import Holder
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
holder = Holder(Path(sys.argv[1]))
holder.keep(1, sys.stdin)
with socket.socket(fileno=os.dup(0)) as closed:
    holder.keep(2, closed)
pid = int(Path("/proc/thread-self/children").read_text())
os.kill(pid, 9)
os.waitpid(pid, 0)
def fork():
    raise OSError
os.fork, fork = fork, os.fork
# This one finds that out, and can't start another.
with contextlib.suppress(OSError):
    holder.take(1)
os.fork = fork
# This one has a new process hold both.
holder.keep(3, sys.stdin)
print("kept", flush=True)
"""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    yield pair
    for each in pair:
        each.close()


def other_process(directory: Path, fd: int, script: str = SCRIPT, said: str = "") -> None:
    """Another process has its standard input held, and ends."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        stdin=fd,
        capture_output=True,
        cwd=TREE,
        check=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("kept\n", said)


def test_held_beyond_the_process_that_gave_it(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """Also where the directory's name is longer than a socket's may be."""
    directory = tmp_path / ("long" * 30) / "serving"
    directory.parent.mkdir()
    ours, theirs = ends
    other_process(directory, theirs.fileno())
    theirs.close()
    ours.sendall(b"meanwhile")
    holder = Holder(directory)
    with socket.socket(fileno=holder.take(1)) as taken:
        assert taken.recv(9) == b"meanwhile"
        taken.sendall(b"here")
    assert ours.recv(4) == b"here"
    assert holder.take(2) == -1
    holder.drop(1)
    assert holder.take(1) == -1
    # Nobody has it any more.
    assert ours.recv(1) == b""
    holder.close()


def test_where_nobody_is_told_of_the_ends_of_children(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The process that starts a daemon may ignore them, which the daemon inherits."""
    ours, theirs = ends
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        other_process(tmp_path, theirs.fileno())
    finally:
        signal.signal(signal.SIGCHLD, before)
    theirs.close()
    holder = Holder(tmp_path)
    os.close(holder.take(1))
    holder.drop(1)
    holder.close()
    ours.close()


def test_what_is_closed_is_held_no_more(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """And a process that holds nothing for nobody ends; the next one is another."""
    ours, theirs = ends
    other_process(tmp_path, theirs.fileno())
    theirs.close()
    ours.close()
    holder = Holder(tmp_path)
    while (held := holder.take(1)) >= 0:
        os.close(held)
    holder.close()
    again = Holder(tmp_path)
    assert again.take(1) == -1
    again.close()


def test_the_process_that_holds_is_killed(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    said = "the process that holds machines' monitors has ended: another one does\n"
    other_process(tmp_path, theirs.fileno(), KILLED, 2 * said)
    theirs.close()
    holder = Holder(tmp_path)
    assert holder.take(2) < 0
    for number in (1, 3):
        with socket.socket(fileno=holder.take(number)) as taken:
            taken.sendall(b"here")
            assert ours.recv(4) == b"here"
    holder.close()
    ours.close()


def test_one_takes_the_place_of_another(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    more, last = socket.socketpair()
    other_process(tmp_path, theirs.fileno())
    other_process(tmp_path, last.fileno())
    theirs.close()
    assert ours.recv(1) == b""
    more.close()
    last.close()
