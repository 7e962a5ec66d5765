"""`memctl template del`: delete templates."""

from __future__ import annotations

import argparse

from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="the templates")
    parser.epilog = "What other templates share with them stays. A source keeps what it has."


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Delete them, one after the other; the first that can't be ends it."""
    with context.connect() as client:
        for name in arguments.names:
            client.execute("x-template-delete", {"name": name})
    context.tell(arguments.names)
