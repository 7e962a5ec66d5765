"""The table, for readers and for programs, and the plots."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.figures import AT_LEAST, LIMITS, Curve, Figure, Samples
from benchmarks.servers import QEMU


def number(value: float | None) -> str:
    """A value with as many digits as say something."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def aim(figure: Figure) -> str:
    """What is aimed at, in words."""
    if figure.target is None:
        return ""
    sign = "≥" if figure.aim == AT_LEAST else "≤"
    return f"{sign} {figure.target:g}{'x' if figure.against else ' ' + figure.unit}".rstrip()


def row(samples: Samples) -> list[str]:
    """A figure's cells."""
    figure = samples.figure
    ratio = samples.ratio
    reached = samples.reached
    return [
        figure.title + (f", {figure.unit}" if figure.unit else ""),
        number(samples.median("memd")),
        number(samples.median("qemu")),
        number(samples.median("limit")) + (f" ({figure.limit})" if figure.limit else ""),
        "" if ratio is None else f"{number(ratio)}x",
        aim(figure),
        "" if reached is None else "yes" if reached else "**no**",
    ]


def table(results: list[Samples]) -> str:
    """The results in Markdown."""
    head = ["figure", "memd", "QEMU", "limit", "ratio", "aim", "reached"]
    rows = [head, ["---"] + ["---:"] * 4 + ["---", "---"], *(row(each) for each in results)]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    notes = [f"- {each.figure.title}: {each.figure.note}." for each in results if each.figure.note]
    shown = [name for name in LIMITS if any(each.figure.limit == name for each in results)]
    limits = [f"- limit, {name}: {LIMITS[name]}." for name in shown]
    return "\n".join([*lines, "", *limits, *notes]).rstrip() + "\n"


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    qemu = "none"
    if shutil.which(QEMU):
        told = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
        qemu = told.stdout.partition("\n")[0].removeprefix("QEMU emulator version ")
    return {
        "processors": f"{os.cpu_count()} of {model}",
        "memory": f"{total / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "Python": platform.python_version(),
        "QEMU": qemu,
        "load at its end": f"{os.getloadavg()[0]:.1f}",
    }


def markdown(results: list[Samples]) -> str:
    """The whole report."""
    lines = [f"- {name}: {value}" for name, value in machine().items()]
    counts = [len(each.values.get("memd", ())) for each in results]
    least, most = min(counts), max(counts)
    rounds = f"{most}" if least == most else f"{least} to {most}"
    ran = "One round." if most == 1 else f"Medians of {rounds} rounds."
    return "\n".join([ran, "", table(results), *lines, ""])


def as_json(results: list[Samples], curves: dict[str, dict[str, Curve]]) -> dict[str, Any]:
    """The same for programs, with every sample."""
    return {
        "machine": machine(),
        "figures": {
            each.figure.name: {
                "title": each.figure.title,
                "unit": each.figure.unit,
                "samples": each.values,
                "ratio": each.ratio,
                "aim": aim(each.figure),
                "reached": each.reached,
            }
            for each in results
        },
        "curves": curves,
    }


def write(folder: Path, results: list[Samples], curves: dict[str, dict[str, Curve]]) -> str:
    """Write table, data and, where matplotlib is installed, plots; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (folder / "results.md").write_text(text, encoding="utf-8")
    data = json.dumps(as_json(results, curves), indent=1)
    (folder / "results.json").write_text(data + "\n", encoding="utf-8")
    try:
        from benchmarks import plots
    except ImportError:
        print("no plots: matplotlib is not installed (extra `bench`)")
    else:
        plots.draw(folder, results, curves)
    return text
