"""`memctl ls`: every backend."""

from __future__ import annotations

import argparse

from memd.memctl.backends import COLUMNS, row
from memd.memctl.context import Context
from memd.memctl.tables import tell_table


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print the ids alone, one in a line"
    )
    parser.epilog = (
        "RESIDENT is what is in memory, PRIVATE what was written and is this backend's alone"
        " (of a private mapping), EXPORTS how many descriptors were handed out."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """List them."""
    with context.connect() as client:
        if arguments.quiet and not context.as_json:
            context.tell((), (each["id"] for each in client.execute("query-memdev")))
            return
        found = client.execute("x-memdev-stat")
    empty = "There is no backend yet: memctl add ram,id=m0,size=64M"
    tell_table(context, found, COLUMNS, row, empty)
