"""A network link of a given speed, to a server on this machine: a process that passes bytes on.

`python -m benchmarks.link PORT BYTES-PER-SECOND` prints the port that it listens on.
All connections share the speed; a byte that is sent takes its time before it arrives.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]

GIGABIT = 125_000_000
"""Bytes per second of a link of 1 Gbit/s."""

_PIECE = 64 << 10


class Link:
    """Such a process, for a `with` block.

    Args:
        port: of the server, on the loopback.
        rate: bytes per second.

    Attributes:
        port: where it is reached.
    """

    def __init__(self, port: int, rate: int = GIGABIT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link", str(port), str(rate)],
            cwd=TREE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()


async def _serve(port: int, rate: int) -> None:
    # When the link has sent all that it was given; for each direction.
    free = [0.0, 0.0]

    async def pass_on(way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_PIECE):
                free[way] = max(free[way], time.monotonic()) + len(data) / rate
                await asyncio.sleep(free[way] - time.monotonic())
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(0, reader, back), pass_on(1, there, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
