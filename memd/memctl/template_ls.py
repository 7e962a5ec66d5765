"""`memctl template ls`: the templates of the store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from memd.errors import printable
from memd.json_types import JSONObject
from memd.memctl.context import Context
from memd.memctl.sizes import short
from memd.memctl.tables import Cell, Column, tell_table

_COLUMNS: Sequence[Column] = (
    ("NAME", False),
    ("SIZE", True),
    ("DATA", True),
    ("STORED", True),
    ("HERE", True),
    ("WORKING SET", True),
    ("MACHINE", False),
    ("SOURCE", False),
)


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print the names alone, one in a line"
    )
    parser.epilog = (
        "DATA is what is not zeroes, STORED what that takes compressed, HERE how much of that is"
        " in the store and need not be fetched."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """List them."""
    with context.connect() as client:
        found = client.execute("x-template-list")
    if arguments.quiet:
        context.tell(found, (each["name"] for each in found))
        return
    empty = "There is no template yet; memd needs --templates DIR to keep some."
    tell_table(context, found, _COLUMNS, _row, empty)


def _row(template: JSONObject) -> list[Cell]:
    return [
        (template["name"], "bold"),
        *(short(template[member]) for member in ("size", "data", "stored")),
        f"{100 * template['present'] // max(template['stored'], 1)} %",
        short(template["working-set"]) if template["working-set"] else "-",
        printable(template.get("machine", "-")),
        template.get("source", "-"),
    ]
