"""`memctl read`: a backend's bytes, as a hexdump or as they are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.backends import add_range, size_of
from memd.memctl.context import USAGE, Trouble
from memd.memctl.hexdump import Hexdump

if TYPE_CHECKING:
    import argparse

    from memd.client import Client
    from memd.memctl.context import Context


_A_LOOK = 256
"""Bytes of a hexdump of which nobody said how long it is to be."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    length = f"how much (default: {_A_LOOK} bytes of a hexdump, with --raw all to the end)"
    add_range(parser, "where to begin", length)
    parser.add_argument("-r", "--raw", action="store_true", help="write the bytes as they are")
    parser.add_argument(
        "-f", "--force", action="store_true", help="with --raw: even if that is to a terminal"
    )
    parser.epilog = (
        "Sizes may end in K, M, G. With --json the bytes are in base64, in the member 'data'."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Read them."""
    if arguments.raw and context.as_json:
        raise Trouble("--raw and --json exclude each other", USAGE)
    if arguments.raw and not arguments.force:
        spare_terminal("Send them to a file or through a pipe, or give --force.")
    with context.connect() as client:
        offset, length = arguments.offset or 0, arguments.length
        size = size_of(client, arguments.id)
        if length is None:
            left = max(0, size - offset)
            length = left if arguments.raw else min(left, _A_LOOK)
        if offset + length > size:
            # In the daemon's words, and before anything is printed.
            raise QMPError(
                f"{length} bytes at offset {offset} are not within the {size} bytes of"
                f" '{arguments.id}'"
            )
        if context.as_json:
            context.tell(_data(client, arguments.id, offset, length))
        elif arguments.raw:
            client.read_each(arguments.id, offset, length, sys.stdout.buffer.write)
        else:
            dump = Hexdump(offset)
            client.read_each(
                arguments.id,
                offset,
                length,
                lambda data: context.tell((), dump.feed(bytes(data))),
            )
            context.tell((), dump.finish())


def spare_terminal(hint: str) -> None:
    """Raise `Trouble` where standard output is a terminal, which raw bytes would confuse."""
    if sys.stdout.isatty():
        raise Trouble("raw bytes would confuse this terminal", USAGE, hint)


def _data(client: Client, id: str, offset: int, length: int) -> JSONObject:
    import base64

    data = client.read(id, offset, length)
    return {
        "id": id,
        "offset": offset,
        "length": length,
        "data": base64.b64encode(data).decode("ascii"),
    }
