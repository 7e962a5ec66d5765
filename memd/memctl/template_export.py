"""`memctl template export`: a template as a file that clones map copy-on-write."""

from __future__ import annotations

import argparse

from memd.memctl.context import Context, absolute
from memd.memctl.progress import Bar


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


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Export it."""
    told = {"name": arguments.name, "filename": absolute(arguments.file)}
    if arguments.devices is not None:
        told["devices"] = absolute(arguments.devices)
    left = f"{told['filename']} will be there"
    with context.connect() as client, Bar(arguments.name, "exporting", client, left=left):
        client.execute("x-template-export", told)
    context.tell(told)
