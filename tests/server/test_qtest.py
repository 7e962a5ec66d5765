"""The qtest protocol on real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memd.places import Places
from memd.server.qtest import LINE_LIMIT, QTest, QTestLog, answer

OK = b"OK " + sys.byteorder.encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"endianness", OK),
        (b"endianness x", OK),
        (b"foo bar", b"FAIL Unknown command 'foo'"),
        (b"ENDIANNESS", b"FAIL Unknown command 'ENDIANNESS'"),
        (b"endianness\r", b"FAIL Unknown command 'endianness\r'"),
        (b" endianness", b"FAIL Unknown command ''"),
        (b"", b"FAIL Unknown command ''"),
        (b"\xff", b"FAIL Unknown command '\xff'"),
        (b"f\0oo", b"FAIL Unknown command 'f'"),
    ],
)
def test_answers(line: bytes, said: bytes) -> None:
    assert answer(line) == said


class Harness:
    """A harness's end of a connection."""

    def __init__(self, path: Path | None = None) -> None:
        self.changes: list[bool] = []
        loop = asyncio.get_running_loop()
        log, self.places = QTestLog(str(path) if path else None), Places(2, apart=())
        self.qtest = QTest(loop, log, self.places, self.changes.append)
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.loop = loop
        self.qtest.adopt(theirs)

    async def say(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.socket, data)

    async def hear(self, size: int = 1 << 16) -> bytes:
        return await asyncio.wait_for(self.loop.sock_recv(self.socket, size), 60)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    harness = Harness(tmp_path / "log")
    yield harness
    harness.qtest.close()
    harness.socket.close()


async def test_lines_come_in_pieces_and_together(harness: Harness) -> None:
    await harness.say(b"endian")
    await asyncio.sleep(0)
    await harness.say(b"ness\nx\nendianness\nend")
    expected = OK + b"\nFAIL Unknown command 'x'\n" + OK + b"\n"
    heard = b""
    while len(heard) < len(expected):
        heard += await harness.hear()
    assert heard == expected


async def test_it_is_noticed_who_comes_and_goes(harness: Harness) -> None:
    assert harness.changes == [True]
    harness.socket.shutdown(socket.SHUT_WR)
    assert await harness.hear() == b""
    assert harness.changes == [True, False]


async def test_a_line_without_an_end(harness: Harness) -> None:
    await harness.say(b"x" * (LINE_LIMIT + 1))
    try:
        assert await harness.hear() == b""
    except ConnectionResetError:
        pass
    assert harness.changes == [True, False]


async def test_it_can_be_cut(harness: Harness) -> None:
    harness.qtest.cut()
    assert await harness.hear() == b""
    harness.qtest.cut()
    assert harness.changes == [True, False]


async def test_harnesses_take_the_places_of_their_user(harness: Harness) -> None:
    ends = [socket.socketpair() for _ in range(2)]
    for _ours, theirs in ends:
        harness.qtest.adopt(theirs)
    assert harness.places.of(os.geteuid()) == 2
    assert ends[1][0].recv(1) == b""
    harness.qtest.cut()
    assert harness.places.taken == 0
    for ours, _theirs in ends:
        ours.close()


async def test_the_log(harness: Harness, tmp_path: Path) -> None:
    await harness.say(b"endianness\nfoo\n")
    await harness.hear()
    harness.qtest.close()
    rows = (tmp_path / "log").read_text().splitlines()
    assert rows[0] == "[I 0.000000] OPENED"
    assert [re.sub(r"\+\d+\.\d{6}", "+", row) for row in rows[1:]] == [
        "[R +] endianness",
        f"[S +] {OK.decode()}",
        "[R +] foo",
        "[S +] FAIL Unknown command 'foo'",
        "[I +] CLOSED",
    ]


def test_a_log_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        QTestLog(str(tmp_path / "no" / "log"))


def test_a_full_disk_is_no_reason_to_stop() -> None:
    log = QTestLog("/dev/full")
    log.opened()
    log.write(b"R", b"x")
    log.close()
    log.close()
