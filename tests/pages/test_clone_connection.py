"""All that a source has for a clone goes over its connection, in order."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.hostmem.window import Window
from memd.pages.clone_connection import CloneConnection
from memd.pages.postcopy import Buffer, Sender, Span
from tests.descriptors import lingering, wait_for_closing

SIZE = 4 << 20


class Pieces(Sender):
    """Sends pieces, and then has nothing more to send."""

    def __init__(self, pieces: list[list[Buffer]]) -> None:
        self.pieces = pieces
        self.ended = False

    def receive(self, data: bytes, now: float = 0.0) -> None:
        self.ended = True

    def next(self, now: float = 0.0) -> list[Buffer]:
        return self.pieces.pop(0) if self.pieces else []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Span]:
    """All of a file."""
    (tmp_path / "file").write_bytes(random.Random(1).randbytes(SIZE))
    fd = os.open(tmp_path / "file", os.O_RDWR)
    window = Window(fd, SIZE)
    yield Span(fd, window.view, 0, SIZE)
    window.close()
    os.close(fd)


async def read(sock: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < count:
        data += await asyncio.wait_for(loop.sock_recv(sock, 100_000), 60)
    return bytes(data)


async def test_bytes_and_parts_of_a_file(file: Span) -> None:
    """Short ones and long ones, many more than the socket holds."""
    chance = random.Random(2)
    pieces: list[list[Buffer]] = []
    expected = bytearray()
    for _ in range(60):
        some: list[Buffer] = []
        for _ in range(chance.randint(1, 40)):
            start = chance.randrange(SIZE - 100_000)
            end = start + chance.choice((1, 8, 4096, 4104, 12312, 99_999))
            part = bytes(file.view[start:end])
            some.append(part if chance.random() < 0.4 else file[start:end])
            expected += part
        pieces.append(some)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = CloneConnection(Pieces(pieces), ours)
    assert await read(theirs, len(expected)) == expected
    theirs.send(b"all of it")
    await connection.ended
    connection.close()
    theirs.close()


async def test_a_file_that_is_cut(file: Span) -> None:
    """An end, and not an endless wait for what is not there."""
    os.truncate(file.fd, SIZE - 65536)
    ours, theirs = socket.socketpair()
    connection = CloneConnection(Pieces([[file[SIZE - 65536 :]]]), ours)
    with pytest.raises(QMPError, match="the template's unpacked copy is cut short"):
        await asyncio.wait_for(connection.ended, 60)
    connection.close()
    theirs.close()


@pytest.mark.parametrize("flags", [0, socket.MSG_OOB])
async def test_a_peer_that_sends_descriptors(flags: int) -> None:
    """It is served no further, and nobody waits for their last close."""
    ours, theirs = socket.socketpair()
    connection = CloneConnection(Pieces([]), ours)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with lingering(listening) as sent:
            socket.send_fds(theirs, [b"x"], [sent.fileno()] * 20, flags)
        with lingering(listening) as sent:
            socket.send_fds(theirs, [b"x"], [sent.fileno()], flags)
        with pytest.raises(OSError, match="the peer sends descriptors"):
            await connection.ended
        connection.close()
    theirs.close()
    wait_for_closing()
