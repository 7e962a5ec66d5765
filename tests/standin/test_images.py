"""Images and jobs while something else goes on: short writes, and clients that interfere."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from memd.commands.descriptors import FdSets
from memd.compat import Compat
from memd.errors import QMPError
from memd.qom.tree import Tree
from memd.standin.block.blocks import Blocks
from memd.standin.block.node_info import device_info
from memd.standin.block.nodes import PROBED
from memd.work import Command
from tests.standin.layer import Layer
from tests.stepping import Running

SIZE = 1 << 20


def make() -> Layer:
    return Layer(Blocks(Compat.V10_0, Tree(), FdSets(), print))


def done(command: Command[Any]) -> Any:
    return Running(command).finish()


def make_image(layer: Layer, path: Path) -> str | None:
    """Makes a file and an image in it; gives what went wrong."""
    file = {"driver": "file", "filename": str(path)}
    done(layer.images.create({"job-id": "j", "options": {**file, "size": 0}}))
    done(layer.jobs.command("job-dismiss", {"id": "j"}))
    done(layer.blocks.add({**file, "node-name": path.name}))
    options = {"driver": "qcow2", "file": path.name, "size": SIZE, "backing-file": "below"}
    done(layer.images.create({"job-id": "j", "options": options}))
    error: str | None = layer.jobs.query()[0].get("error")
    return error


def test_an_image_is_whole_though_the_kernel_writes_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make()
    blocks = layer.blocks
    assert make_image(layer, tmp_path / "a") is None
    done(layer.jobs.command("job-dismiss", {"id": "j"}))
    write, lengths = os.pwrite, []

    def write_little(fd: int, data: memoryview, offset: int) -> int:
        lengths.append(len(data))
        return write(fd, data[:50], offset)

    monkeypatch.setattr(os, "pwrite", write_little)
    assert make_image(layer, tmp_path / "b") is None
    assert max(lengths) > 50
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    # Its header is written anew.
    done(blocks.add({"driver": "qcow2", "node-name": "q", "file": "b"}))
    node = blocks.named("q")
    assert node.header is not None
    assert node.file is not None
    node.header.set_backing(node.file.fd, "x" * 900, "raw")
    monkeypatch.undo()
    done(blocks.delete({"node-name": "q"}))
    done(blocks.add({"driver": "qcow2", "node-name": "q2", "file": "b"}))
    again = blocks.named("q2").header
    assert again is not None
    assert again.backing == "x" * 900
    done(blocks.close())


def test_an_image_that_can_not_be_written_whole_is_said_to_be_none(tmp_path: Path) -> None:
    layer = make()
    blocks = layer.blocks
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # In the middle of the last write, the table's. Python ignores SIGXFSZ.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 65536 + 4, before[1]))
    try:
        error = make_image(layer, tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error == f"Could not write to '{tmp_path / 'a'}': File too large"
    done(blocks.close())


@pytest.mark.parametrize("dismissed", [True, False])
def test_no_job_is_dismissed_while_its_nodes_are_closed(tmp_path: Path, dismissed: bool) -> None:
    layer = make()
    blocks = layer.blocks
    done(blocks.add({"driver": "null-co", "node-name": "n", "size": SIZE}))
    backup = {"job-id": "j", "device": "n", "target": str(tmp_path / "t"), "sync": "none"}
    done(layer.block_jobs.drive_backup({**backup, "format": "qcow2", "auto-dismiss": dismissed}))
    end = Running(layer.jobs.command("block-job-cancel", {"device": "j"}))
    # It waits for the target's file, which may be on a slow file system.
    assert end.wait is not None
    for verb in ("dismiss", "finalize", "cancel", "pause"):
        with pytest.raises(QMPError, match=f"cannot accept command verb '{verb}'"):
            done(layer.jobs.command(f"job-{verb}", {"id": "j"}))
    end.finish()
    if not dismissed:
        done(layer.jobs.command("job-dismiss", {"id": "j"}))
    assert layer.jobs.query() == []
    assert [each.name for each in blocks.all()] == ["n"]
    done(blocks.close())


def test_alignments(tmp_path: Path) -> None:
    """Under 11.1."""
    blocks = Blocks(Compat.V11_1, Tree(), FdSets(), print)
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    file = {"driver": "file", "filename": str(path)}
    direct = {**file, "cache": {"direct": True}}
    done(blocks.add({"driver": "raw", "node-name": "told", "file": file}))
    done(blocks.add({"driver": PROBED, "node-name": "found", "file": file}))
    done(blocks.add({**direct, "node-name": "direct"}))
    done(blocks.add({"driver": "raw", "node-name": "above", "file": "direct"}))

    def alignments(name: str) -> tuple[int, int]:
        limits = device_info(blocks.named(name), Compat.V11_1)["image"]["limits"]
        return limits["min-mem-alignment"], limits["request-alignment"]

    assert alignments("told") == (1, 1)
    assert alignments("found") == (1, 512)
    memory, requests = alignments("direct")
    assert {memory, requests} <= {512, 4096}
    assert alignments("above") == (memory, 1)
    done(blocks.close())
