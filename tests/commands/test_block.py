"""`blockdev-add`, which reads a file and adds nothing."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from memd.errors import QMPError
from tests import NOT_THERE
from tests.commands.fakes import Console
from tests.descriptors import open_descriptors
from tests.stepping import Running

NOTHING = "memd has no block devices"


def blkdebug(config: object, **more: Any) -> dict[str, Any]:
    image = {"driver": "null-co"}
    return {"driver": "blkdebug", "node_name": "n", "image": image, "config": str(config), **more}


def ending(running: Running) -> str:
    """Run a command to its end; the text of its refusal."""
    with pytest.raises(QMPError) as caught:
        running.finish()
    return caught.value.desc


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"driver": "null-co"}, "'node-name' must be specified for the root node"),
        ({"driver": "null-co", "node_name": "1x"}, "Invalid node-name: '1x'"),
        ({"driver": "null-co", "node_name": "a#"}, "Invalid node-name: 'a#'"),
        ({"driver": "null-co", "node_name": "a" * 32}, "Node name too long"),
        ({"driver": "null-co", "node_name": "a-b.c_1"}, NOTHING),
        ({"driver": "null-co", "node_name": "a"}, NOTHING),
        ({"driver": "x"}, "Parameter 'driver' does not accept value 'x'"),
    ],
)
def test_what_is_refused_at_once(arguments: dict[str, Any], text: str) -> None:
    assert Console().refusal("blockdev-add", **arguments) == ("GenericError", text)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (f"{NOT_THERE}/x", "Could not read blkdebug config file: No such file or directory"),
        ("", "Could not read blkdebug config file: No such file or directory"),
        ("a\0b", "Could not read blkdebug config file: No such file or directory"),
        ("/", "Cannot read config file: Is a directory"),
        ("/dev/null", NOTHING),
        # One that never ends.
        ("/dev/zero", NOTHING),
    ],
)
def test_how_reading_ends(config: str, text: str) -> None:
    console = Console()
    before = open_descriptors()
    for _ in range(2):
        assert ending(console.begin("blockdev-add", **blkdebug(config))) == text
    assert open_descriptors() == before
    assert not console.daemon.reading_config


def test_a_fifo_blocks_until_its_writer_is_gone(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    console = Console()
    job = console.begin("blockdev-add", **blkdebug(fifo))
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(ending(job)))
    thread.start()
    with fifo.open("wb") as writer:
        writer.write(b"[inject-error]\n")
        writer.flush()
        assert texts == []
        # QEMU would not even read this one.
        assert "still reads" in console.refusal("blockdev-add", **blkdebug("/dev/null"))[1]
    thread.join(60)
    assert texts == [NOTHING]
    assert ending(console.begin("blockdev-add", **blkdebug("/dev/null"))) == NOTHING
