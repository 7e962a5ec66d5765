"""memd beside a real QEMU, measured in turn: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from benchmarks import (
    bulk,
    cold,
    commands,
    crowd,
    footprint,
    large,
    many,
    pools,
    prealloc,
    report,
    waits,
)
from benchmarks.figures import Curve, Samples, Scale, Subject
from benchmarks.servers import QEMU, SIDES, TREE, warm

SUBJECTS: tuple[Subject, ...] = (
    commands.SUBJECT,
    many.SUBJECT,
    cold.SUBJECT,
    bulk.SUBJECT,
    large.SUBJECT,
    crowd.SUBJECT,
    prealloc.SUBJECT,
    waits.SUBJECT,
    pools.SUBJECT,
    footprint.SUBJECT,
)

PAGE = TREE / "docs" / "performance.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"


def run(
    subjects: list[Subject], rounds: int, quick: bool, sides: tuple[str, ...]
) -> tuple[list[Samples], dict[str, dict[str, Curve]]]:
    """Measure; the sides take turns, and the one that begins changes every round."""
    results = {figure.name: Samples(figure) for subject in subjects for figure in subject.figures}
    curves: dict[str, dict[str, Curve]] = {}

    def take(name: str, side: str, value: float) -> None:
        results[name].take(side, value)

    def draw(name: str, side: str, points: Curve) -> None:
        curves.setdefault(name, {})[side] = points

    for turn in range(rounds):
        order = sides if turn % 2 == 0 else sides[::-1]
        for subject in subjects:
            print(f"round {turn + 1}: {subject.name}", file=sys.stderr, flush=True)
            subject.measure(Scale(quick, turn == 0), take, draw, order)
    return list(results.values()), curves


def fill_in(folder: Path, results: list[Samples], curves: dict[str, dict[str, Curve]]) -> None:
    """Take what was not measured now from the last results in this folder."""
    try:
        last = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except OSError:
        return
    for samples in results:
        if not samples.values and samples.figure.name in last["figures"]:
            samples.values = last["figures"][samples.figure.name]["samples"]
    for name, sides in last["curves"].items():
        curves.setdefault(name, {side: list(map(tuple, points)) for side, points in sides.items()})


def renew_page(text: str, folder: Path, path: Path = PAGE) -> None:
    """Put the results into the documentation, with the plots beside it."""
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + "\n" + text + "\n" + END + after, encoding="utf-8")
    for plot in folder.glob("*.svg"):
        shutil.copy(plot, path.parent / f"performance-{plot.name}")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=[subject.name for subject in SUBJECTS], default=[]
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tenth of it: does it all run?")
    parser.add_argument("--page", action="store_true", help="renew docs/performance.md as well")
    options = parser.parse_args()
    sides: tuple[str, ...] = SIDES
    if shutil.which(QEMU) is None:
        print(f"{QEMU} is not on PATH: memd is measured alone", file=sys.stderr)
        sides = ("memd",)
    subjects = [each for each in SUBJECTS if not options.only or each.name in options.only]
    warm(sides)
    measured, curves = run(subjects, options.rounds, options.quick, sides)
    taken = {each.figure.name: each for each in measured}
    figures = [figure for subject in SUBJECTS for figure in subject.figures]
    results = [taken.get(figure.name) or Samples(figure) for figure in figures]
    fill_in(options.output, results, curves)
    results = [each for each in results if each.values]
    text = report.write(options.output, results, curves)
    print(text)
    if options.page:
        renew_page(text, options.output)


if __name__ == "__main__":
    main()
