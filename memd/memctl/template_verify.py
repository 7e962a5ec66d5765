"""`memctl template verify`: whether templates are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.memctl.context import FAILED, OK
from memd.memctl.progress import Bar

if TYPE_CHECKING:
    import argparse

    from memd.memctl.context import Context


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="the templates; all if none")
    parser.epilog = "The exit status is 1 if something is damaged and could not be fetched anew."


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Verify them."""
    results = {}
    with context.connect() as client:
        names = arguments.names or [each["name"] for each in client.execute("x-template-list")]
        for name in names:
            with Bar(name, "verifying") as bar:
                client.on_event = bar.see
                results[name] = client.execute("x-template-verify", {"name": name})
    if context.as_json:
        context.print_json(results)
    for name, found in results.items():
        if context.as_json:
            break
        line = f"{name}: {found['chunks']} chunks"
        if found["repaired"]:
            line += f", {found['repaired']} damaged and fetched anew"
        if found["damaged"]:
            line += f", {len(found['damaged'])} DAMAGED"
        elif not found["repaired"]:
            line += ", all good"
        context.print_lines([line])
    return FAILED if any(found["damaged"] for found in results.values()) else OK
