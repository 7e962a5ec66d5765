"""What a figure is: a quantity, who it is compared with, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

AT_LEAST, AT_MOST = "at least", "at most"

EXCHANGE, SOCKET, LOOP, CP, MEMCPY, PYTHON = (
    *("exchange", "socket", "bare loop", "cp", "memcpy", "Python"),
)
LIMITS = {
    EXCHANGE: "a process that only receives such requests and sends such answers, by the same"
    " client; with the system calls of a backend where one is made",
    SOCKET: "as many bytes through a UNIX socket from one process to another",
    LOOP: "madvise(2) alone, in as many threads",
    CP: "cp(1) from one file on tmpfs to a new one",
    MEMCPY: "memcpy(3) in one thread, between pages that are there",
    PYTHON: "`python -c 'import asyncio'`",
}
"""What memd and QEMU can't do better than, by its name in the table."""


@dataclass(frozen=True)
class Figure:
    """A quantity that is measured.

    Attributes:
        name: short, of its own.
        title: for the table.
        unit: of the values.
        against: whose value memd's is divided by: "qemu", or "limit"; "" where the
            value itself is looked at.
        less: whether less is better: the ratio is turned round then, so that
            more than one is better, but where it is to be at most something.
        aim: `AT_LEAST` or `AT_MOST`.
        target: of the ratio, or of the value; None where nothing is aimed at.
        worst: whether the worst round counts, not the median one.
        note: for the table.
        limit: what the side "limit" is, one of `LIMITS`; "" where there is none.
    """

    name: str
    title: str
    unit: str
    against: str = "qemu"
    less: bool = False
    aim: str = AT_LEAST
    target: float | None = None
    worst: bool = False
    note: str = ""
    limit: str = ""


@dataclass
class Samples:
    """What was measured of a figure, by side."""

    figure: Figure
    values: dict[str, list[float]] = field(default_factory=dict)

    def take(self, side: str, value: float) -> None:
        """Add a value."""
        self.values.setdefault(side, []).append(value)

    def median(self, side: str) -> float | None:
        """The median of a side's values, or None where there are none.

        The worst of them where that is what the figure is about.
        """
        values = self.values.get(side)
        if not values:
            return None
        if self.figure.worst:
            return max(values) if self.figure.less else min(values)
        return median(values)

    @property
    def ratio(self) -> float | None:
        """memd's median compared with the other one's; None where there is no other."""
        ours, theirs = self.median("memd"), self.median(self.figure.against)
        if not ours or not theirs:
            return None
        return theirs / ours if self.figure.less and self.figure.aim == AT_LEAST else ours / theirs

    @property
    def reached(self) -> bool | None:
        """Whether what is aimed at was reached, to one decimal; None where it can't be told."""
        figure = self.figure
        found = self.ratio if figure.against else self.median("memd")
        if found is None or figure.target is None:
            return None
        if figure.aim == AT_LEAST:
            return round(found, 1) >= figure.target
        return round(found, 1) <= figure.target


Take = Callable[[str, str, float], None]
"""Takes a measured value: (the figure's name, the side, the value)."""

Curve = list[tuple[float, float]]
Draw = Callable[[str, str, Curve], None]
"""Takes points for a plot: (the plot's name, the side, the points)."""


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        quick: a tenth or so, to see that everything runs.
        first: whether this is the first round: what takes QEMU minutes is done
            once.
    """

    quick: bool
    first: bool = True

    def __call__(self, count: int, quick: int) -> int:
        """`count`, or `quick`."""
        return quick if self.quick else count


@dataclass(frozen=True)
class Subject:
    """Figures that are measured together.

    Attributes:
        name: for `--only`.
        figures: what it gives.
        measure: one round of it: (scale, take, draw, sides in the order of this round).
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Scale, Take, Draw, tuple[str, ...]], None]
