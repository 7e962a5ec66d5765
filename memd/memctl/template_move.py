"""`memctl template push` and `pull`: templates to and from a source."""

from __future__ import annotations

import argparse

from memd.memctl.context import Context
from memd.memctl.progress import Bar


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="which of the daemon's --template-source; the first"
    )
    parser.epilog = "Chunks that exist there already are not sent again."


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Move it."""
    word = arguments.subcommand.rpartition(" ")[2]
    command = {"name": arguments.name}
    if arguments.url is not None:
        command["url"] = arguments.url
    left = f"'{arguments.name}' will be {word}ed"
    with context.connect() as client, Bar(arguments.name, f"{word}ing", client, left=left):
        found = client.execute(f"x-template-{word}", command)
    way = "to" if word == "push" else "from"
    lines = [f"{arguments.name}: {word}ed {way} {found['source']}"]
    context.tell({"name": arguments.name, **found}, lines)
