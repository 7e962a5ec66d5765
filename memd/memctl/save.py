"""`memctl save`: a backend's content as a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memd.memctl.backends import add_id, size_of
from memd.memctl.context import USAGE, Trouble, absolute
from memd.memctl.progress import Bar
from memd.memctl.read import spare_terminal

if TYPE_CHECKING:
    import argparse

    from memd.client import Client
    from memd.memctl.context import Context


STDOUT = "-"


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_id(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="the file; one that is there is replaced when the new is whole (-: standard output)",
    )
    parser.epilog = (
        "The daemon writes the file, with mode 0600. It is sparse: pages of zeroes are holes."
        " To standard output it goes as it is read, with all zeroes."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Save it."""
    if arguments.file == STDOUT:
        if context.as_json:
            raise Trouble("--json and standard output exclude each other", USAGE)
        spare_terminal("Send them to a file or through a pipe.")
        with context.connect() as client:
            size = size_of(client, arguments.id)
            client.read_each(arguments.id, 0, size, sys.stdout.buffer.write)
        return
    path = absolute(arguments.file)
    with context.connect() as client:
        save(client, arguments.id, path)
    context.tell({"id": arguments.id, "filename": path})


def save(client: Client, id: str, path: str, *, given_up: str = "") -> None:
    """Have a backend saved, with a progress bar.

    Args:
        path: an absolute one: the daemon's directory is another.
        given_up: what becomes of it where this is interrupted, for standard error.
    """
    with Bar(id, "saving", client, left=given_up or f"{path} will be there"):
        client.execute("x-memdev-save", {"id": id, "filename": path})
