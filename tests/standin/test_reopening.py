"""Nodes that are reopened: their files' descriptors, and clients that interfere."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from memd.commands.descriptors import FdSets
from memd.compat import Compat
from memd.errors import QMPError
from memd.qom.tree import Tree
from memd.standin.block.blocks import Blocks
from memd.standin.block.nodes import Node
from memd.standin.block.reopening import Reopening
from memd.work import Command
from tests.descriptors import open_descriptors
from tests.stepping import Running


def done(command: Command[Any]) -> Any:
    return Running(command).finish()


def make(path: Path) -> tuple[Blocks, Reopening, dict[str, Any]]:
    path.write_bytes(bytes(4096))
    blocks = Blocks(Compat.V10_0, Tree(), FdSets(), print)
    options = {"driver": "file", "node-name": "f", "filename": str(path)}
    done(blocks.add({**options, "read-only": True}))
    return blocks, Reopening(blocks, None), options


def mode(node: Node) -> int:
    return fcntl.fcntl(node.fd, fcntl.F_GETFL) & os.O_ACCMODE


def test_a_node_keeps_one_descriptor_and_what_it_is_open_for_changes(tmp_path: Path) -> None:
    blocks, reopening, options = make(tmp_path / "f")
    node, before = blocks.named("f"), open_descriptors()
    for read_only, wanted in ((False, os.O_RDWR), (True, os.O_RDONLY), (True, os.O_RDONLY)):
        done(reopening.reopen({"options": [{**options, "read-only": read_only}]}))
        assert mode(node) == wanted
        assert not os.get_inheritable(node.fd)
        assert open_descriptors() == before
    gone = {"driver": "file", "node-name": "g", "filename": str(tmp_path / "g")}
    (tmp_path / "g").touch()
    done(blocks.add({**gone, "read-only": True}))
    (tmp_path / "g").unlink()
    before = open_descriptors()
    with pytest.raises(QMPError, match="No such file or directory"):
        done(reopening.reopen({"options": [options, gone]}))
    assert open_descriptors() == before
    assert node.read_only
    assert mode(node) == os.O_RDONLY
    done(blocks.close())


def test_a_node_stays_while_its_file_is_opened_once_more(tmp_path: Path) -> None:
    blocks, reopening, options = make(tmp_path / "f")
    before = open_descriptors()
    first = Running(reopening.reopen({"options": [options]}))
    with pytest.raises(QMPError, match="is in use"):
        done(blocks.delete({"node-name": "f"}))
    # Another one is quicker.
    done(reopening.reopen({"options": [options]}))
    with pytest.raises(QMPError, match="have changed meanwhile"):
        first.finish()
    assert open_descriptors() == before
    assert mode(blocks.named("f")) == os.O_RDWR
    done(blocks.delete({"node-name": "f"}))
