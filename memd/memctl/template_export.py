"""`memctl template export`: a template as a file that clones map copy-on-write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.memctl.context import OK
from memd.memctl.progress import Bar

if TYPE_CHECKING:
    import argparse

    from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument("file", metavar="FILE", help="the file; nothing may be there yet")
    parser.add_argument(
        "--devices", metavar="FILE", help="a file for the machine's devices, to migrate from"
    )
    parser.epilog = (
        "The daemon writes the file, with mode 0600; it is sparse, and appears when it is whole."
        " On one host with pages of 4 KiB, clones that map it start soonest and take the least."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Export it."""
    told = {"name": arguments.name, "filename": os.path.abspath(arguments.file)}
    if arguments.devices is not None:
        told["devices"] = os.path.abspath(arguments.devices)
    with context.connect() as client, Bar(arguments.name, "exporting") as bar:
        client.on_event = bar.see
        client.execute("x-template-export", told)
    if context.as_json:
        context.print_json(told)
    return OK
