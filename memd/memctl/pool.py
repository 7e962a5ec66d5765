"""`memctl pool`: memory that is made before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memd.errors import printable
from memd.memctl.sizes import short
from memd.memctl.tables import Cell, Column, tell_table

if TYPE_CHECKING:
    import argparse

    from memd.json_types import JSONObject
    from memd.memctl.context import Context

_COUNTS = ("ready", "count", "taken", "missed")
_COLUMNS: Sequence[Column] = (
    ("MEMORY", False),
    *((name, True) for name in ("READY", "OF", "TAKEN", "MISSED", "BYTES")),
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
    empty = "There is no pool; memd needs --pool SPEC to have one."
    tell_table(context, found, _COLUMNS, _row, empty)


def _row(pool: JSONObject) -> list[Cell]:
    from memd.backends.explain_words import spelled

    return [
        spelled({"qom-type": pool["qom-type"], **pool["properties"]}),
        *(str(pool[name]) for name in _COUNTS),
        short(pool["bytes"]),
        printable(pool.get("stopped", "goes on" if pool["filling"] else "-")),
    ]
