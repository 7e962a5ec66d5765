"""What takes several commands: this process and the server work at the same time."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Iterator

import pytest

from memd.client.transfers import PIECE, Transfers
from memd.json_types import JSON

Steps = list[str]


@pytest.fixture
def steps() -> Steps:
    return []


@pytest.fixture
def transfers(steps: Steps) -> Iterator[Transfers]:
    """Those of a server that answers when it is waited for."""

    async def answer(number: int) -> JSON:
        steps.append(f"answer {number}")
        return {}

    def begin(_name: str, arguments: dict[str, JSON], fds: tuple[int, ...]) -> Awaitable[JSON]:
        number = arguments["offset"] // PIECE
        if "descriptor" in arguments:
            os.pwrite(fds[0], b"%d" % number, 0)
            steps.append(f"ask {number}")
        else:
            steps.append(f"ask {number} {os.pread(fds[0], 1, 0).decode()}")
        return answer(number)

    one, other = socket.socketpair()
    with one, other:
        found = Transfers(one, begin)
        yield found
        found.close()


async def test_a_piece_is_made_while_another_is_written(transfers: Transfers, steps: Steps) -> None:
    left = iter("abc")

    def fill(buffer: memoryview) -> int:
        letter = next(left, "")
        steps.append(f"fill {letter}")
        buffer[: len(letter)] = letter.encode()
        return len(buffer) if letter else 0

    assert await transfers.write_each("m", 0, fill) == 3 * PIECE
    assert steps == [
        *("fill a", "ask 0 a"),
        *("fill b", "answer 0", "ask 1 b"),
        *("fill c", "answer 1", "ask 2 c"),
        *("fill ", "answer 2"),
    ]


async def test_a_piece_is_taken_while_another_is_read(transfers: Transfers, steps: Steps) -> None:
    await transfers.read(
        "m", 0, 3 * PIECE, lambda data: steps.append(f"take {bytes(data[:1]).decode()}")
    )
    assert steps == [
        *("ask 0", "answer 0"),
        *("ask 1", "take 0", "answer 1"),
        *("ask 2", "take 1", "answer 2"),
        "take 2",
    ]
