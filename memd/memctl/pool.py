"""`memctl pool`: memory that is made before it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memd.errors import printable
from memd.memctl.sizes import short
from memd.memctl.tables import Column, on_terminal, print_table

if TYPE_CHECKING:
    import argparse

    from memd.json_types import JSON, JSONObject
    from memd.memctl.context import Context

_COLUMNS: Sequence[Column] = (
    ("TYPE", False),
    *((name, True) for name in ("SIZE", "READY", "OF", "TAKEN", "MISSED", "BYTES")),
    ("PROPERTIES", False),
    ("REFILLING", False),
)


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "TAKEN is how many objects took their memory from the pool, MISSED how many would have,"
        " had one been ready; REFILLING says why it has stopped."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """List them."""
    with context.connect() as client:
        found = client.execute("x-pool-query")
    context.tell(found)
    if context.as_json:
        return
    print_table(_COLUMNS, [_row(each) for each in found])
    if not found and on_terminal():
        print("There is no pool; memd needs --pool SPEC to have one.", file=sys.stderr)


def _row(pool: JSONObject) -> list[str]:
    more = dict(pool["properties"])
    more.pop("prealloc")
    size = more.pop("size")
    state = "goes on" if pool["filling"] else "-"
    return [
        pool["qom-type"].removeprefix("memory-backend-"),
        short(size),
        *(str(pool[member]) for member in ("ready", "count", "taken", "missed")),
        short(pool["bytes"]),
        " ".join(f"{name}={_spell(value)}" for name, value in more.items()) or "-",
        printable(pool.get("stopped", state)),
    ]


def _spell(value: JSON) -> str:
    """A property's value as `--pool` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
