"""The parts of a backend, by the kinds that `memctl map` draws."""

from __future__ import annotations

from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple


class Kind(NamedTuple):
    """A kind of memory.

    Attributes:
        letter: stands for a part that is of this kind as a whole; a small one
            for a part that is so in part.
        name: in the legend.
        style: rich's colour.
        color: red, green and blue, for a picture.
    """

    letter: str
    name: str
    style: str
    color: tuple[int, int, int]


NONE = Kind(".", "not in memory", "bright_black", (38, 41, 48))
RESIDENT = Kind("R", "resident", "green", (76, 175, 80))
SHARED = Kind("S", "shared", "blue", (66, 133, 244))
COPIED = Kind("C", "copied on write", "yellow", (255, 193, 7))
HUGE = Kind("H", "huge pages", "magenta", (186, 85, 211))
SWAPPED = Kind("W", "swapped out", "red", (229, 57, 53))

KINDS = (SWAPPED, COPIED, HUGE, SHARED, RESIDENT)
"""The kinds, the most telling first: a part with several of them is drawn as that."""


class Cell(NamedTuple):
    """A part of a backend.

    Attributes:
        length: in bytes, as is what there is of each kind.
        amounts: how much of it is of each of `KINDS`.
    """

    length: int
    amounts: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        """The kind that it is drawn as."""
        return next(
            (kind for kind, amount in zip(KINDS, self.amounts, strict=True) if amount), NONE
        )

    @property
    def share(self) -> float:
        """The share of it that is in memory or swapped out, from 0 to 1."""
        return min(1.0, sum(self.amounts) / self.length) if self.length else 0.0

    @property
    def letter(self) -> str:
        """Its letter: a capital where all of it is of its kind."""
        kind = self.kind
        whole = kind is NONE or max(self.amounts) >= self.length
        return kind.letter if whole else kind.letter.lower()


def cells_of(told: JSONObject, share: bool, of_file: bool) -> list[Cell]:
    """The parts of a backend.

    Args:
        told: the answer to x-memdev-map.
        share: whether the backend is mapped shared.
        of_file: whether what is private in it is a copy of a file's page. Other
            memory has nothing that it could be a copy of.
    """
    size, end = told["cell-size"], told["offset"] + told["length"]
    found = []
    for index, cell in enumerate(told["cells"]):
        length = min(size, end - told["offset"] - index * size)
        copied = cell["private-dirty"] if of_file and not share else 0
        rest = cell["resident"] - copied
        huge = min(cell["huge"], rest)
        rest -= huge
        shared, own = (rest, 0) if share else (0, rest)
        found.append(Cell(length, (cell["swapped"], copied, huge, shared, own)))
    return found


def totals(cells: list[Cell]) -> list[tuple[Kind, int]]:
    """The bytes of each kind that occurs, and of what is not in memory."""
    sums = [sum(amounts) for amounts in zip(*(cell.amounts for cell in cells), strict=True)]
    found = [(kind, amount) for kind, amount in zip(KINDS, sums, strict=False) if amount]
    nothing = sum(cell.length for cell in cells) - sum(sums)
    return [*found, (NONE, nothing)] if nothing > 0 else found
