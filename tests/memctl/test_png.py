from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from memd.memctl.cells import COPIED, KINDS, NONE, SHARED, Cell, Kind
from memd.memctl.context import Trouble
from memd.memctl.png import SIDE, color, write
from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv


def of(kind: Kind, amount: int) -> Cell:
    amounts = [0] * len(KINDS)
    if amount:
        amounts[KINDS.index(kind)] = amount
    return Cell(100, tuple(amounts))


def test_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cells = [of(NONE, 0)] * 1024
    cells[33] = of(COPIED, 100)
    write(str(path), cells)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 32 * SIDE
        assert image.height > 32 * SIDE
        assert image.getpixel((0, 0)) == NONE.color
        assert image.getpixel((SIDE, SIDE)) == COPIED.color
        assert image.getpixel((2 * SIDE, SIDE)) == NONE.color
        # The legend's first entry, below the picture.
        assert image.getpixel((8, 32 * SIDE + 8)) == COPIED.color


@pytest.mark.parametrize("count", [0, 1, 100, 4096])
def test_any_number_of_parts(tmp_path: Path, count: int) -> None:
    path = tmp_path / "picture.png"
    write(str(path), [of(SHARED, 50)] * count)
    with Image.open(path) as image:
        assert image.width * image.height >= count * SIDE * SIDE


def test_colours_are_fainter_for_less() -> None:
    assert color(of(SHARED, 100)) == SHARED.color
    assert color(of(NONE, 0)) == NONE.color
    blues = [color(of(SHARED, amount))[2] for amount in (1, 50, 100)]
    assert NONE.color[2] < blues[0] < blues[1] < blues[2]


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    path = f"{tmp_path}/none/picture.png"
    with pytest.raises(Trouble) as refused:
        write(path, [of(NONE, 0)])
    assert refused.value.text == f"cannot write {path}: No such file or directory"


def test_without_pillow(memctl: Memctl, tmp_path: Path) -> None:
    memctl.out("add", "ram,id=m,size=4k")
    done = subprocess.run(
        argv(memctl.path, "map", "m", "--png", f"{tmp_path}/picture.png", without="PIL"),
        capture_output=True,
        check=False,
        cwd=TREE,
    )
    memctl.out("del", "m")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == (
        b"memctl: --png needs Pillow, which is not installed\n"
        b"The extra memctl brings it: in memd's source tree, pip install '.[memctl]'\n"
    )
    assert list(tmp_path.iterdir()) == []
