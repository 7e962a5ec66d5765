"""Streams: descriptors that come along, hang-ups, standard input and output."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from memd.fd_passing import MOST_FDS
from memd.server.stream import SocketStream, TelnetStream, is_pollable
from tests.descriptors import open_descriptors
from tests.terminal import open_terminal


@pytest.fixture
def pair() -> Iterator[tuple[SocketStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    yield stream, theirs
    stream.close()
    theirs.close()


def send_fds(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_nothing_yet_is_not_the_end(pair: tuple[SocketStream, socket.socket]) -> None:
    stream, theirs = pair
    with pytest.raises(BlockingIOError):
        stream.receive()
    theirs.sendall(b"abc")
    assert stream.receive() == (b"abc", [])
    theirs.shutdown(socket.SHUT_WR)
    assert stream.receive() == (b"", [])
    assert not stream.hung_up()
    theirs.close()
    assert stream.hung_up()


def test_descriptors_come_with_their_bytes(pair: tuple[SocketStream, socket.socket]) -> None:
    stream, theirs = pair
    read, write = os.pipe()
    send_fds(theirs, b"x", [read, write])
    data, fds = stream.receive()
    assert data == b"x"
    assert len(fds) == 2
    os.write(fds[1], b"through")
    assert os.read(read, 10) == b"through"
    for fd in fds:
        assert not os.get_inheritable(fd)
        os.close(fd)
    os.close(read)
    os.close(write)


def test_all_descriptors_of_a_message_are_received(
    pair: tuple[SocketStream, socket.socket],
) -> None:
    """Those that there is no room for the kernel would close."""
    stream, theirs = pair
    before = open_descriptors()
    assert not stream.brings_fds()
    theirs.sendall(b"x")
    assert not stream.brings_fds()
    send_fds(theirs, b"x", [0] * MOST_FDS)
    assert stream.brings_fds()
    _data, fds = stream.receive()
    assert len(fds) == MOST_FDS
    assert not stream.brings_fds()
    for fd in fds:
        os.close(fd)
    assert open_descriptors() == before


def test_descriptors_go_out_with_their_bytes(pair: tuple[SocketStream, socket.socket]) -> None:
    stream, theirs = pair
    assert stream.send(b"answer", (0,)) == 6
    data, ancillary, _flags, _address = theirs.recvmsg(10, socket.CMSG_SPACE(4))
    assert data == b"answer"
    (fd,) = array.array("i", ancillary[0][2])
    assert os.fstat(fd) == os.fstat(0)
    os.close(fd)


STDIO = """
import os
from memd.server.stream import StdioStream
stream = StdioStream()
print("stray")
while True:
    try:
        data, _fds = stream.receive()
    except BlockingIOError:
        continue
    if not data:
        break
    stream.send(data.upper(), ())
stream.close()
"""


def test_a_peer_that_vanishes_is_found_out() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()):
        stream = SocketStream(listener.accept()[0])
        with socket.fromfd(stream.read_fd, socket.AF_INET, socket.SOCK_STREAM) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        stream.close()


def test_standard_input_and_output_are_ours_alone() -> None:
    result = subprocess.run(
        [sys.executable, "-c", STDIO], input=b"hello", capture_output=True, check=True
    )
    assert result.stdout == b"HELLO"


RAW = """
import sys
from memd.server.stream import StdioStream
stream = StdioStream(raw=True)
sys.stderr.write("raw")
sys.stderr.flush()
while True:
    try:
        data, _fds = stream.receive()
        break
    except BlockingIOError:
        continue
stream.send(data + b"\\n", ())
stream.close()
"""


def test_a_raw_terminal_passes_on_each_key_and_is_restored() -> None:
    ours, theirs = open_terminal()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", RAW]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.read(3) == b"raw"
        # No line end has to follow, and no key is echoed or means anything.
        os.write(ours, b"\x04")
    assert process.returncode == 0
    assert os.read(ours, 10) == b"\x04\r\n"
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_a_regular_file_cannot_be_polled() -> None:
    with open(__file__) as file:
        assert not is_pollable(file.fileno())
    with open(os.devnull) as device:
        assert not is_pollable(device.fileno())
    ours, theirs = os.openpty()
    assert is_pollable(theirs)
    os.close(ours)
    os.close(theirs)
    read, write = os.pipe()
    assert is_pollable(read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("cut", range(1, 14))
def test_commands_of_telnet_are_no_data(cut: int) -> None:
    sent, told = b"a\xff\xfd\x01b\xff\xffc\xff\xf3d\xff\xfb\xff", b"ab\xffcde"
    there, here = socket.socketpair()
    with there:
        stream = TelnetStream(here)
        seen = b""
        for part in (sent[:cut], sent[cut:], b"e"):
            there.sendall(part)
            with contextlib.suppress(BlockingIOError):
                seen += stream.receive()[0]
        assert seen == told
        stream.close()
