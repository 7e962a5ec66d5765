"""`memctl write`: bytes from a file or standard input into a backend."""

from __future__ import annotations

import os
import stat as modes
import sys
from io import BufferedReader
from typing import TYPE_CHECKING, cast

from memd.memctl.backends import add_id, size_of
from memd.memctl.context import Trouble
from memd.memctl.progress import Bar
from memd.memctl.sizes import size

if TYPE_CHECKING:
    import argparse

    from memd.client import Client
    from memd.memctl.context import Context

STDIN = "-"

CHUNK = 4 << 20
"""Bytes from which on it may take long."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_id(parser)
    parser.add_argument("offset", metavar="OFFSET", type=size, help="where to begin")
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default=STDIN,
        help="where the bytes come from (default: -, standard input)",
    )
    parser.epilog = (
        "OFFSET may end in K, M, G. A file that does not fit is refused before anything is"
        " written; standard input of more than 4 MiB is written piece by piece as it comes."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Write them."""
    with opened(arguments.file) as source, context.connect() as client:
        room = size_of(client, arguments.id) - arguments.offset
        length = length_of(source)
        if length is not None and length > room:
            raise Trouble(
                f"{arguments.file} has {length} bytes, and from offset {arguments.offset}"
                f" '{arguments.id}' has {max(0, room)}"
            )
        written = _write(client, source, arguments.id, arguments.offset, length)
    context.tell({"id": arguments.id, "offset": arguments.offset, "length": written})


def _write(client: Client, source: BufferedReader, id: str, offset: int, length: int | None) -> int:
    done = 0
    with Bar(id, "writing") as bar:

        def fill(buffer: memoryview) -> int:
            nonlocal done
            # What was read before is being written.
            if done and length is not None and length > CHUNK:
                bar.at(done, length)
            count = source.readinto(buffer)
            done += count
            return count

        return client.write_each(id, offset, fill)


def opened(name: str) -> BufferedReader:
    """A file to read, or standard input.

    Raises:
        Trouble: it can't be opened.
    """
    if name == STDIN:
        if sys.stdin is None:
            raise Trouble("standard input is closed")
        return cast(BufferedReader, sys.stdin.buffer)
    try:
        return open(name, "rb")
    except OSError as failed:
        raise Trouble(f"cannot read {name}: {failed.strerror}") from None


def length_of(source: BufferedReader) -> int | None:
    """How many bytes are to be read of a file; None where only reading tells."""
    try:
        there = os.fstat(source.fileno())
        if modes.S_ISREG(there.st_mode) and there.st_size:
            return max(0, there.st_size - source.tell())
    except OSError:
        # Not a file of the system's.
        pass
    return None
