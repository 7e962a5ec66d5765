"""The picture of a backend as a PNG file, which Pillow writes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from memd.errors import refusing
from memd.memctl.cells import NONE, Cell, Kind, totals
from memd.memctl.context import Trouble, needs_extra
from memd.sizes import rounded

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIDE = 8
"""Pixels of a part, with the line that parts it from the next."""

_LEGEND = 18
_BACKGROUND = (24, 26, 31)
_INK = (220, 223, 228)
_FAINTEST = 0.35
"""The strength of colour of a part of which next to nothing is there."""


def write(path: str, cells: list[Cell]) -> None:
    """Write the picture.

    Args:
        path: the file, which is replaced.

    Raises:
        Trouble: Pillow is not installed, or the file can't be written.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise needs_extra("--png", "Pillow") from None
    # As wide as it is high, or twice that.
    columns = 1 << math.ceil(math.log2(max(1, len(cells))) / 2)
    columns = max(32, columns)
    rows = max(1, -(-len(cells) // columns))
    legend = totals(cells)
    size = columns * SIDE, rows * SIDE + _LEGEND * len(legend)
    image = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for index, cell in enumerate(cells):
        x, y = index % columns * SIDE, index // columns * SIDE
        draw.rectangle((x, y, x + SIDE - 2, y + SIDE - 2), fill=color(cell))
    _write_legend(draw, rows * SIDE, legend)
    with refusing(f"cannot write {path}", Trouble):
        image.save(path, "PNG")


def color(cell: Cell) -> tuple[int, int, int]:
    """A part's colour: fainter where less of it is there."""
    strength = 1.0 if cell.kind is NONE else _FAINTEST + (1 - _FAINTEST) * cell.share
    red, green, blue = (
        round(under + (over - under) * strength)
        for under, over in zip(NONE.color, cell.kind.color, strict=True)
    )
    return red, green, blue


def _write_legend(draw: ImageDraw, top: int, legend: list[tuple[Kind, int]]) -> None:
    for index, (kind, amount) in enumerate(legend):
        y = top + index * _LEGEND
        draw.rectangle((4, y + 4, 14, y + 14), fill=kind.color)
        draw.text((20, y + 3), f"{kind.name} {rounded(amount)}", fill=_INK)
