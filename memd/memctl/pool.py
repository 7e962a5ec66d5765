"""`memctl pool`: memory that is made before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memd.errors import printable
from memd.memctl.sizes import short
from memd.memctl.tables import Column, print_table

if TYPE_CHECKING:
    import argparse

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
    context.tell(found)
    if context.as_json:
        return
    from memd.backends.explain_words import spelled

    rows = [
        [
            spelled({"qom-type": each["qom-type"], **each["properties"]}),
            *(str(each[name]) for name in _COUNTS),
            short(each["bytes"]),
            printable(each.get("stopped", "goes on" if each["filling"] else "-")),
        ]
        for each in found
    ]
    print_table(_COLUMNS, rows, "There is no pool; memd needs --pool SPEC to have one.")
