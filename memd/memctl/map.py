"""`memctl map`: a picture of a backend, in the terminal or as a PNG file."""

from __future__ import annotations

import argparse
import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING

from memd.json_types import JSONObject
from memd.memctl.backends import PREFIX, access, add_range, stat
from memd.memctl.cells import KINDS, NONE, Cell, cells_of, totals
from memd.memctl.context import Context
from memd.memctl.tables import console
from memd.sizes import rounded

if TYPE_CHECKING:
    from rich.console import Console


_ROWS = 16
_COLUMNS = 64
"""The picture where there is no terminal."""

_MAX_COLUMNS = 128
_BESIDE = 6
"""Rows of a terminal that are not the picture's: title, legend, prompt."""

_SHADES = "░▒▓█"
"""Signs for how much of a part is there, a quarter each."""

_PNG_CELLS = 4096


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_range(parser, "where to begin", "how much to draw (default: all)")
    parser.add_argument(
        "--cells", metavar="N", type=int, help="into how many parts to divide it, at most"
    )
    parser.add_argument(
        "--png", metavar="FILE", help="write the picture to a PNG file instead (needs Pillow)"
    )
    parser.epilog = (
        "A letter stands for a part: R resident, S shared, C copied on write, H huge pages,"
        " W swapped out, . not in memory; a small letter for a part that is so in part."
        " Of several kinds the rarest is drawn: W, C, H, S, R. Sizes may end in K, M, G."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Draw it."""
    columns, rows = (64, 64) if arguments.png else _terminal_size()
    request = {"id": arguments.id, "offset": arguments.offset or 0, "cells": arguments.cells}
    if arguments.cells is None:
        request["cells"] = _PNG_CELLS if arguments.png else columns * rows
    if arguments.length is not None:
        request["length"] = arguments.length
    with context.connect() as client:
        backend = stat(client, arguments.id)
        told = client.execute("x-memdev-map", request)
    if arguments.png:
        from memd.memctl.png import write

        write(arguments.png, _cells(backend, told))
    context.tell({"id": arguments.id, **told})
    if not context.as_json and not arguments.png:
        _draw(backend, told, columns)


def _terminal_size() -> tuple[int, int]:
    """Columns and rows for the picture."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return _COLUMNS, _ROWS
    width = 1
    # A row of a power of two is a round number of bytes.
    while width * 2 <= min(_MAX_COLUMNS, columns - 14):
        width *= 2
    return width, max(4, min(_ROWS, rows - _BESIDE))


def _cells(backend: JSONObject, told: JSONObject) -> list[Cell]:
    return cells_of(told, backend["share"], backend["qom-type"] == f"{PREFIX}file")


def _draw(backend: JSONObject, told: JSONObject, columns: int) -> None:
    cells = _cells(backend, told)
    title = (
        f"{backend['id']}: {rounded(backend['size'])},"
        f" {backend['qom-type'].removeprefix(PREFIX)}, {access(backend)},"
        f" {'shared' if backend['share'] else 'private'}; a letter is"
        f" {rounded(told['cell-size'])}"
    )
    width = len(f"{told['offset'] + told['length']:x}")
    lines = [
        (f"{told['offset'] + at * told['cell-size']:0{width}x}", cells[at : at + columns])
        for at in range(0, len(cells), columns)
    ]
    rich = console()
    if rich is None:
        print(title)
        for label, row in lines:
            print(f"{label}  {''.join(cell.letter for cell in row)}")
        for kind, amount in totals(cells):
            print(f"{kind.letter} {kind.name} {rounded(amount)}")
    else:
        _draw_in_colour(rich, title.replace("a letter", "a block"), lines, cells)


def _draw_in_colour(
    rich: Console, title: str, lines: list[tuple[str, list[Cell]]], cells: list[Cell]
) -> None:
    from rich.text import Text

    shades = _SHADES if rich.encoding.startswith("utf") else ""
    rich.print(Text(title, "bold"))
    for label, row in lines:
        text = Text(f"{label}  ", "bright_black")
        signs = ((_sign(cell, shades), cell.kind.style) for cell in row)
        # A colour is told once for all that follow each other in it.
        for style, run in groupby(signs, key=lambda sign: sign[1]):
            text.append("".join(sign for sign, _style in run), style)
        rich.print(text, no_wrap=True)
    legend = Text()
    for kind, amount in totals(cells):
        sign = (_SHADES[-1] if kind in KINDS else "·") if shades else kind.letter
        legend.append(sign, kind.style)
        legend.append(f" {kind.name} {rounded(amount)}   ")
    rich.print(legend)


def _sign(cell: Cell, shades: str) -> str:
    """A part's sign on a terminal: a block, fuller for a fuller part, or its letter."""
    if not shades:
        return cell.letter
    if cell.kind is NONE:
        return "·"
    return shades[min(len(shades) - 1, int(cell.share * len(shades)))]
