"""Tables: in colour on a terminal, where rich is installed; else plain text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from memd.json_types import JSON
    from memd.memctl.context import Context

Cell = str | tuple[str, str]
"""A text, or a text and the style that rich gives it."""

Column = tuple[str, bool]
"""A title, and whether the column is of numbers and so aligned to the right."""

GAP = "  "

_MOST_IN_COLOUR = 1000
"""Rows beyond which a table is plain: rich takes 0.4 s for each thousand (measured)."""


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def console() -> Console | None:
    """rich's console, or None where output is plain: no terminal, or no rich.

    rich takes 40 ms to import, and so is not imported for what nobody sees.
    """
    if not on_terminal():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False)


def tell_table(
    context: Context,
    data: list[JSON],
    columns: Sequence[Column],
    row_of: Callable[[Any], Sequence[Cell]],
    empty: str,
) -> None:
    """Print data for scripts, or a table with a row of titles for people.

    Args:
        data: what the rows are of.
        row_of: makes the row of each.
        empty: what a person is told where there are none.
    """
    context.tell(data)
    if context.as_json:
        return
    rows = [row_of(each) for each in data]
    rich = console() if len(rows) <= _MOST_IN_COLOUR else None
    if rich is not None:
        # What is wider than the terminal goes on in the next line: nothing is left out.
        rich.print(rich_table(columns, rows), soft_wrap=True)
    else:
        print("\n".join(plain(columns, rows)))
    if not rows and on_terminal():
        print(empty, file=sys.stderr)


def print_line(text: str, style: str = "") -> None:
    """Print a line, in a colour where there is one; its markup is text."""
    rich = console()
    if rich is None:
        print(text)
    else:
        rich.print(text, style=style, markup=False, soft_wrap=True)


def plain(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """A table's lines, without colour."""
    texts = _texts(columns, rows)
    widths = _widths(texts)
    lines = []
    for row in texts:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, (_title, right) in zip(row, widths, columns, strict=True)
        ]
        lines.append(GAP.join(cells).rstrip())
    return lines


def _texts(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    titles = [title for title, _right in columns]
    return [titles, *([cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows)]


def _widths(texts: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*texts, strict=True)]


def rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table as rich draws it; its columns are never narrower than what is in them."""
    from rich.table import Table
    from rich.text import Text

    widths = _widths(_texts(columns, rows))
    table = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    table.width = sum(widths) + len(GAP) * (len(widths) - 1)
    for title, right in columns:
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            *(Text(cell) if isinstance(cell, str) else Text(cell[0], cell[1]) for cell in row)
        )
    return table
