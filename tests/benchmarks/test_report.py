from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.figures import AT_LEAST, AT_MOST, CP, LIMITS, Figure, Samples


def samples(figure: Figure, **values: list[float]) -> Samples:
    return Samples(figure, dict(values))


@pytest.mark.parametrize(
    ("figure", "values", "ratio", "reached"),
    [
        (Figure("f", "F", "1/s", target=4), {"memd": [8.0, 9, 1], "qemu": [2.0]}, 4.0, True),
        (Figure("f", "F", "1/s", target=4), {"memd": [7.8], "qemu": [2.0]}, 3.9, False),
        # One decimal is what an aim is worth.
        (Figure("f", "F", "1/s", target=1), {"memd": [0.96], "qemu": [1.0]}, 0.96, True),
        (Figure("f", "F", "MiB", less=True, target=1), {"memd": [2.0], "qemu": [4.0]}, 2.0, True),
        (
            Figure("f", "F", "ms", against="limit", less=True, aim=AT_MOST, target=2),
            {"memd": [30.0], "limit": [20.0], "qemu": [90.0]},
            1.5,
            True,
        ),
        (Figure("f", "F", "ms", against="", aim=AT_MOST, target=25), {"memd": [26.0]}, None, False),
        (Figure("f", "F", "", against="", aim=AT_LEAST, target=0.8), {"memd": [1.0]}, None, True),
        (Figure("f", "F", "1/s", target=4), {"memd": [8.0]}, None, None),
        (Figure("f", "F", "1/s"), {"memd": [8.0], "qemu": [2.0]}, 4.0, None),
    ],
)
def test_ratio_and_aim(
    figure: Figure, values: dict[str, list[float]], ratio: float | None, reached: bool | None
) -> None:
    found = samples(figure, **values)
    assert found.ratio == ratio
    assert found.reached is reached


def test_the_worst_round_counts_where_it_is_the_worst_that_is_asked_for() -> None:
    figure = Figure("f", "F", "ms", against="", less=True, aim=AT_MOST, target=25, worst=True)
    found = samples(figure, memd=[1.0, 67.0, 2.0])
    assert found.median("memd") == 67.0
    assert found.reached is False


def test_the_table() -> None:
    figure = Figure("f", "F", "commands/s", target=4, note="by hand")
    text = report.table([samples(figure, memd=[12345.6], qemu=[100.0])])
    assert "| F, commands/s | 12,346 | 100 | – | 123x | ≥ 4x | yes |" in text
    assert text.endswith("- F: by hand.\n")
    figure = Figure("f", "F", "GB/s", "limit", limit=CP)
    text = report.table([samples(figure, memd=[1.0], limit=[4.0])])
    assert "| F, GB/s | 1.00 | – | 4.00 (cp) | 0.25x |  |  |" in text
    assert f"- limit, cp: {LIMITS[CP]}." in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.123, "0.12"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_what_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    figure = Figure("f", "F", "1/s", target=4)
    curves = {"many": {"memd": [(1.0, 2.0), (2.0, 3.0)]}}
    text = report.write(folder, [samples(figure, memd=[8.0], qemu=[2.0])], curves)
    assert (folder / "results.md").read_text(encoding="utf-8") == text
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert data["figures"]["f"]["samples"] == {"memd": [8.0], "qemu": [2.0]}
    assert data["figures"]["f"]["reached"] is True
    assert data["curves"]["many"]["memd"] == [[1.0, 2.0], [2.0, 3.0]]
