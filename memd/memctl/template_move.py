"""`memctl template push` and `pull`: templates to and from a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.memctl.context import OK
from memd.memctl.progress import Bar

if TYPE_CHECKING:
    import argparse

    from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="which of the daemon's --template-source; the first"
    )
    parser.epilog = "What is there already is not moved again."


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Move it."""
    word = arguments.subcommand.rpartition(" ")[2]
    command = {"name": arguments.name}
    if arguments.url is not None:
        command["url"] = arguments.url
    with context.connect() as client, Bar(arguments.name, f"{word}ing") as bar:
        client.on_event = bar.see
        found = client.execute(f"x-template-{word}", command)
    if context.as_json:
        context.print_json({"name": arguments.name, **found})
    else:
        way = "to" if word == "push" else "from"
        context.print_lines([f"{arguments.name}: {word}ed {way} {found['source']}"])
    return OK
