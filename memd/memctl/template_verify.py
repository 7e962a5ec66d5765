"""`memctl template verify`: whether templates are whole."""

from __future__ import annotations

import argparse

from memd.memctl.context import FAILED, OK, Context
from memd.memctl.progress import Bar


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="the templates; all if none")
    parser.epilog = "The exit status is 1 if something is damaged and could not be fetched anew."


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Verify them."""
    results, lines = {}, []
    with context.connect() as client:
        names = arguments.names or [each["name"] for each in client.execute("x-template-list")]
        for name in names:
            with Bar(name, "verifying", client, left=f"all of '{name}' will be read"):
                results[name] = client.execute("x-template-verify", {"name": name})
    for name, found in results.items():
        line = f"{name}: {found['chunks']} chunks"
        if found["repaired"]:
            line += f", {found['repaired']} damaged and fetched anew"
        if found["damaged"]:
            line += f", {len(found['damaged'])} DAMAGED"
        elif not found["repaired"]:
            line += ", all good"
        lines.append(line)
    context.tell(results, lines)
    return FAILED if any(found["damaged"] for found in results.values()) else OK
