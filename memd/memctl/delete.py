"""`memctl del`: delete objects."""

from __future__ import annotations

import argparse

from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="the objects' ids")
    parser.epilog = (
        "The memory is given back; a file stays, and exported descriptors stay valid."
        " With several ids, those before one that is refused are deleted."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Delete them, in their order."""
    with context.connect() as client:
        for id in arguments.ids:
            client.execute("object-del", {"id": id})
    context.tell({"deleted": arguments.ids})
