"""`memctl discard`: throw a range of a backend's memory away."""

from __future__ import annotations

import argparse

from memd.hostmem.spec import round_up
from memd.memctl.backends import add_range, stat
from memd.memctl.context import USAGE, Context, Trouble


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_range(parser, "where to begin, in whole pages", "how much, in whole pages")
    parser.add_argument("--all", action="store_true", help="all of it")
    parser.epilog = (
        "The range reads as zeroes afterwards. A file behind it gets a hole, for everybody."
        " Sizes may end in K, M, G."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Discard it."""
    offset, length = arguments.offset, arguments.length
    if arguments.all == (length is not None) or (arguments.all and offset is not None):
        raise Trouble("give OFFSET and LENGTH, or --all", USAGE)
    with context.connect() as client:
        if arguments.all:
            told = stat(client, arguments.id)
            page = told["page-size"]
            offset, length = 0, round_up(told["size"], page)
        client.execute("x-memdev-discard", {"id": arguments.id, "offset": offset, "length": length})
    context.tell({"id": arguments.id, "offset": offset, "length": length})
