"""`memctl ls`: every backend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memd.memctl.backends import COLUMNS, row
from memd.memctl.context import OK
from memd.memctl.tables import on_terminal, print_table

if TYPE_CHECKING:
    import argparse

    from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print the ids alone, one in a line"
    )
    parser.epilog = (
        "RESIDENT is what is in memory, PRIVATE what was written and is this backend's alone"
        " (of a private mapping), EXPORTS how many descriptors were handed out."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """List them."""
    with context.connect() as client:
        if arguments.quiet and not context.as_json:
            context.print_lines(each["id"] for each in client.execute("query-memdev"))
            return OK
        found = client.execute("x-memdev-stat")
    if context.as_json:
        context.print_json(found)
        return OK
    print_table(COLUMNS, [row(each) for each in found])
    if not found and on_terminal():
        print("There is no backend yet: memctl add ram,id=m0,size=64M", file=sys.stderr)
    return OK
