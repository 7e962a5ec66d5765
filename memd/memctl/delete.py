"""`memctl del`: delete objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.memctl.context import OK

if TYPE_CHECKING:
    import argparse

    from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="the objects' ids")
    parser.epilog = (
        "The memory is given back; a file stays, and exported descriptors stay valid."
        " With several ids, those before one that is refused are deleted."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Delete them, in their order."""
    with context.connect() as client:
        for id in arguments.ids:
            client.execute("object-del", {"id": id})
    if context.as_json:
        context.print_json({"deleted": arguments.ids})
    return OK
