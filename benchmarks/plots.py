"""Plots of the results (extra `bench`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.figures import AT_LEAST, Curve, Samples

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "memd"

from matplotlib import pyplot as plt  # noqa: E402

COLOURS = {"memd": "tab:blue", "qemu": "tab:red"}
LABELS = {"memd": "memd", "qemu": "QEMU"}
CURVES = {
    "many": ("memfd backends that are there", "object-add a second"),
    "waits": ("seconds", "wait of another client, ms"),
}


def draw(folder: Path, results: list[Samples], curves: dict[str, dict[str, Curve]]) -> None:
    """Write every plot for which there is something to see."""
    compared = [
        each
        for each in results
        if each.figure.against == "qemu" and each.figure.aim == AT_LEAST and each.ratio
    ]
    if compared:
        _ratios(folder / "ratios.svg", compared)
    limited = [each for each in results if each.figure.limit and _share(each)]
    if limited:
        _limits(folder / "limits.svg", limited)
    for name, (along, up) in CURVES.items():
        if name in curves:
            _curve(folder / f"{name}.svg", curves[name], along, up, line=name == "many")


def _ratios(path: Path, compared: list[Samples]) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(compared) + 1))
    places = range(len(compared), 0, -1)
    axes.plot([each.ratio or 0 for each in compared], list(places), "o", color=COLOURS["memd"])
    aims = [(each.figure.target, place) for each, place in zip(compared, places, strict=True)]
    found = [(target, place) for target, place in aims if target]
    axes.plot([t for t, _ in found], [p for _, p in found], "k|", markersize=14, label="aim")
    axes.set_yticks(list(places), [each.figure.title.replace("`", "") for each in compared])
    axes.set_xscale("log")
    axes.grid(axis="x", linewidth=0.3)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("times as good as QEMU")
    axes.legend()
    save(figure, path)


def _share(samples: Samples, side: str = "memd") -> float:
    """How much of its limit a side reaches; 0 where that is not known."""
    limit, value = samples.median("limit"), samples.median(side)
    if not limit or not value:
        return 0
    return limit / value if samples.figure.less else value / limit


def _limits(path: Path, limited: list[Samples]) -> None:
    """Bars from zero: what memd and QEMU reach of what the kernel and the hardware give."""
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(limited) + 1))
    places = range(len(limited), 0, -1)
    for side, shift in (("memd", 0.2), ("qemu", -0.2)):
        shares = [100 * _share(each, side) for each in limited]
        up = [place + shift for place in places]
        axes.barh(up, shares, 0.38, color=COLOURS[side], label=LABELS[side])
    titles = [f"{each.figure.title} ({each.figure.limit})" for each in limited]
    axes.set_yticks(list(places), [title.replace("`", "") for title in titles])
    axes.axvline(100, color="grey", linewidth=0.8)
    axes.set_xlabel("percent of the limit")
    axes.legend()
    save(figure, path)


def _curve(path: Path, sides: dict[str, Curve], along: str, up: str, *, line: bool) -> None:
    figure, axes = plt.subplots(figsize=(8, 4))
    for side, points in sides.items():
        across, values = zip(*points, strict=True)
        style = "-" if line else "."
        axes.plot(across, values, style, color=COLOURS[side], label=LABELS[side], markersize=3)
    axes.set_yscale("log")
    axes.set_xlabel(along)
    axes.set_ylabel(up)
    axes.legend()
    save(figure, path)


def draw_soak(path: Path, result: dict[str, Any]) -> None:
    """What a daemon held over time."""
    figure, rows = plt.subplots(3, 1, figsize=(8, 7), sharex=True)
    for axes, what, divisor, label in zip(
        rows,
        ("resident", "descriptors", "mappings"),
        (1 << 20, 1, 1),
        ("resident, MiB", "descriptors", "mappings"),
        strict=True,
    ):
        for name, style in (("samples", "-"), ("quiet", "o")):
            points = [(each["seconds"] / 60, each[what] / divisor) for each in result[name]]
            across, values = zip(*points, strict=True)
            shown = "with everything deleted" if name == "quiet" else "under way"
            axes.plot(across, values, style, markersize=3, linewidth=0.7, label=shown)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    rows[0].legend()
    rows[-1].set_xlabel("minutes")
    save(figure, path)


def draw_clones(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """How soon a machine is how far, by the way in which it begins."""
    ways = {name: row for name, row in rows.items() if "done" in row and "first output" in row}
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(ways) + 1.2))
    marks = (("running", "|"), ("first output", "o"), ("small", "x"), ("done", "s"))
    places = range(len(ways), 0, -1)
    for step, mark in marks:
        at = [max(row[step], 1e-3) * 1000 for row in ways.values()]
        axes.plot(at, places, mark, color=COLOURS["memd"], label=step)
    for place, row in zip(places, ways.values(), strict=True):
        axes.plot([row["running"] * 1000, row["done"] * 1000], [place] * 2, "-", color="lightgrey")
    axes.set_yticks(list(places), list(ways))
    axes.set_xscale("log")
    axes.set_xlabel("ms from the command that lets it begin")
    axes.legend(fontsize="small")
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a plot, the same bytes for the same figures."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
