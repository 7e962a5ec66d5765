from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.memctl.conftest import Memctl, in_terminal
from tests.memctl.fakes import Talk
from tests.memctl.test_show import old

PAGE = 4096


@pytest.fixture
def clone(memctl: Memctl, tmp_path: Path) -> Iterator[None]:
    """A backend `c` on a file of 1 MiB, of which the pages 2 to 4 are written."""
    path = tmp_path / "template"
    path.write_bytes(bytes(1 << 20))
    data = tmp_path / "data"
    data.write_bytes(b"x" * 3 * PAGE)
    memctl.out("add", f"file,id=c,size=1M,mem-path={path},readonly=on,rom=off")
    memctl.out("write", "c", "8k", str(data))
    yield
    memctl.out("del", "c")


def test_a_picture(memctl: Memctl, clone: None) -> None:
    title, *rows = memctl.out("map", "c", "--cells", "256").splitlines()
    assert title == "c: 1 MiB, file, copy-on-write, private; a letter is 4 KiB"
    first = rows[0].split()
    assert first[0] == "000000"
    assert first[1][:5].upper()[2:] == "CCC"
    assert set(first[1][5:] + first[1][:2]) <= set(".R")
    assert [row.split()[0] for row in rows[1:4]] == ["040000", "080000", "0c0000"]
    assert rows[4] == "C copied on write 12 KiB"


def test_a_part_of_it(memctl: Memctl, clone: None) -> None:
    _title, row, *_legend = memctl.out("map", "c", "4k", "32k", "--cells", "4").splitlines()
    assert row.split()[0] == "1000"
    assert row.split()[1][:2] == "cC"


def test_shared_memory(memctl: Memctl) -> None:
    memctl.out("add", "memfd,id=m,size=2M,prealloc=on")
    lines = memctl.out("map", "m").splitlines()
    memctl.out("del", "m")
    assert lines[1] == f"000000  {'S' * 64}"
    assert lines[-1] == "S shared 2 MiB"
    assert len(lines) == 1 + 8 + 1


def test_json(memctl: Memctl, clone: None) -> None:
    found = memctl.data("map", "c", "--cells", "2")
    assert found["id"] == "c"
    assert found["cell-size"] == 512 << 10
    assert [each["private-dirty"] for each in found["cells"]] == [3 * PAGE, 0]
    assert len(found["mapping"]) == 1


def test_png(memctl: Memctl, clone: None, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    assert memctl.out("map", "c", "--png", str(path)) == ""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    found = memctl.data("map", "c", "--png", str(path))
    assert len(found["cells"]) == 256


def test_what_is_refused(memctl: Memctl, clone: None) -> None:
    assert memctl.error("map", "x") == "Device 'x' not found"
    text = memctl.error("map", "c", "--cells", "5000")
    assert text == "Parameter 'cells' expects a number from 1 to 4096"
    assert "multiple of the page size" in memctl.error("map", "c", "1")


def test_an_older_daemon(fake: Callable[[Talk], Memctl]) -> None:
    status, out, err = fake(old)("map", "m0")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "memctl: The command x-memdev-map has not been found",
        "The daemon is of another version than this memctl, or it is not memd.",
    ]


def test_in_a_terminal(memctl: Memctl, clone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, shown = in_terminal(memctl.path, "map", "c", columns=80)
    assert status == 0
    assert "█" in shown
    assert "a block is 4 KiB" in shown
    # A terminal that can't show blocks has letters.
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    status, shown = in_terminal(memctl.path, "map", "c", columns=30)
    assert status == 0
    assert "█" not in shown
    assert "C" in shown
    # A row is no longer than a line of it.
    for columns in (20, 30):
        _status, shown = in_terminal(memctl.path, "map", "c", columns=columns, without="rich")
        rows = [line for line in shown.splitlines() if line[:6].isalnum() and line[6:8] == "  "]
        assert len(rows) >= 4
        assert max(map(len, rows)) <= columns
        assert len({len(row) for row in rows}) == 1
    status, shown = in_terminal(memctl.path, "map", "c", without="rich rich.console")
    assert (status, "\x1b[" in shown) == (0, False)
