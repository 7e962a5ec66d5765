from __future__ import annotations

from benchmarks.templating import MIB, PAGE, measure, report
from tests.conftest import need_shm


@need_shm
def test_clones_share_a_template() -> None:
    """Three map it, each copies a tenth of it; the rest is there once."""
    size, clones = 8 * MIB, 3
    figures = measure(clones, size, 10)
    copied = -(-size // PAGE // 10) * PAGE
    # The interpreters take a little more or less than before.
    slack = MIB
    for rss, pss, dirty in figures:
        assert abs(rss - size) < slack
        assert abs(dirty - copied) < slack
        assert abs(pss - (copied + (size - copied) / clones)) < slack
    text = report(clones, size, 10, figures)
    assert "3 clones of a template of 8 MiB" in text
    assert "saved by sharing" in text
