"""Block nodes as many and as deep as a client likes: what is told of them has an end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memd.commands.descriptors import FdSets
from memd.commands.hmp_info import info_block
from memd.compat import Compat
from memd.errors import QMPError
from memd.places import Places
from memd.qom.tree import Tree
from memd.session.descriptor import Descriptor
from memd.standin.block.blocks import Blocks
from memd.standin.block.drives import Drives
from memd.standin.block.exports import Exports
from memd.standin.block.nodes import PROBED, Node
from memd.work import Command, Encoded, Job, Turn
from tests.descriptors import open_descriptors
from tests.standin.layer import Layer
from tests.stepping import Running


class Counted(Blocks):
    """Block nodes that count how often all of them are gone through."""

    rounds = 0

    async def relock(self, *, refuse: bool = True) -> None:
        self.rounds += 1
        await super().relock(refuse=refuse)


class Listening:
    """A server that listens, as far as exports know."""

    def has(self, name: str) -> bool:
        return True

    async def end(self, name: str) -> None:
        pass


def done(command: Command[Any]) -> Any:
    return Running(command).finish()


def make() -> Counted:
    return Counted(Compat.V10_0, Tree(), FdSets(), print)


def add(blocks: Blocks, name: str, below: str | None = None) -> Node:
    args = {"driver": "null-co"} if below is None else {"driver": "raw", "file": below}
    node: Node = done(blocks.add({**args, "node-name": name}))
    return node


def add_chain(blocks: Blocks, count: int) -> None:
    add(blocks, "n0")
    for number in range(1, count):
        add(blocks, f"n{number}", f"n{number - 1}")


def test_nodes_are_so_many_one_below_another_and_no_more() -> None:
    blocks = make()
    add_chain(blocks, 256)
    with pytest.raises(QMPError, match="no more than 256 block nodes one below another"):
        add(blocks, "more", "n255")
    layer = Layer(blocks)
    overlay = add(blocks, "overlay")
    overlay.driver = "qcow2"
    with pytest.raises(QMPError, match="no more than 256 block nodes one below another"):
        done(layer.transactions.snapshot({"node": "n100", "overlay": "overlay"}))
    assert overlay.backing is None
    assert not blocks.named("n255").above


def test_who_stands_on_a_node_is_known_after_each_change() -> None:
    blocks = make()
    layer = Layer(blocks)
    add_chain(blocks, 4)
    overlay = add(blocks, "overlay")
    overlay.driver = "qcow2"
    done(layer.transactions.snapshot({"node": "n2", "overlay": "overlay"}))
    with pytest.raises(QMPError, match="Duplicate nodes"):
        add(blocks, "n1", "n0")
    done(blocks.delete({"node-name": "n3"}))
    for node in blocks.all():
        above = [each for each in blocks.all() if node in (each.child, each.backing)]
        assert node.parents == above
    assert [each.name for each in blocks.named("n2").parents] == ["overlay"]


def test_what_is_told_of_all_nodes_has_so_many_bytes_and_no_more() -> None:
    blocks = make()
    add_chain(blocks, 3)
    told = done(blocks.nodes({}))
    assert isinstance(told, Encoded)
    assert [each["node-name"] for each in json.loads(told.text)] == ["n2", "n1", "n0"]
    for node in blocks.all():
        node.filename = "x" * (6 << 20)
    with pytest.raises(QMPError, match="the answer has more than 16777216 bytes"):
        done(blocks.nodes({"flat": True}))


def test_what_a_person_is_told_of_all_nodes_has_an_end() -> None:
    blocks = make()
    add_chain(blocks, 3)
    register = SimpleNamespace(blocks=blocks, drives=Drives(blocks, Tree(), "none"))
    daemon: Any = SimpleNamespace(standin=register)
    assert len(done(info_block(daemon, {"nodes": True}))) == 8
    for node in blocks.all():
        node.filename = "x" * (1 << 21)
    with pytest.raises(QMPError, match="there are more than 4194304 characters to tell"):
        done(info_block(daemon, {"nodes": True}))


def test_a_node_that_two_stand_on_is_told_of_a_bounded_number_of_times() -> None:
    blocks = make()
    add_chain(blocks, 12)
    drives = Drives(blocks, Tree(), "none")
    for number in range(1, 12):
        node = blocks.named(f"n{number}")
        node.backing = node.child
    done(drives.add({"if": "none", "id": "d"}, lambda args: args, hotplugged=True))
    drive = blocks.drive("d")
    assert drive is not None
    drive.insert(blocks.named("n4"))
    assert done(drives.statistics({})).text.count(b'"node-name": "n0"') == 2**4
    drive.insert(blocks.named("n11"))
    with pytest.raises(QMPError, match="more than 1024 nodes would be told of below 'n11'"):
        done(drives.statistics({}))


def test_what_goes_together_is_looked_at_together() -> None:
    blocks = make()
    exports: Any = Exports(blocks, Listening())  # type: ignore[arg-type]
    add(blocks, "n")
    for number in range(9):
        done(
            exports.add({"id": f"e{number}", "type": "nbd", "node-name": "n", "name": str(number)})
        )
    blocks.rounds = 0
    assert len(done(exports.stop())) == 9
    assert blocks.rounds == 1
    layer = Layer(blocks)
    add_chain(blocks, 9)
    overlays = [add(blocks, f"o{number}") for number in range(8)]
    for each in overlays:
        each.driver = "qcow2"
    actions: list[Any] = [
        {"type": "blockdev-snapshot", "data": {"node": below, "overlay": f"o{number}"}}
        for number, below in enumerate(["n8", *(f"o{number}" for number in range(7))])
    ]
    blocks.rounds = 0
    with pytest.raises(QMPError, match="aborted"):
        done(layer.transactions.run({"actions": [*actions, {"type": "abort", "data": {}}]}))
    assert blocks.rounds == 1
    assert not any(each.backing for each in overlays)


def test_what_uses_a_file_is_work_for_its_file_system(tmp_path: Path) -> None:
    blocks = make()
    layer = Layer(blocks)
    (tmp_path / "a").write_bytes(bytes(4096))
    file = {"driver": "file", "filename": str(tmp_path / "a")}
    done(blocks.add({"driver": "raw", "node-name": "r", "file": file}))
    top = add(blocks, "top", "r")
    top.backing = blocks.named("r")
    running = Running(layer.block_jobs.stream({"device": "top", "job-id": "j"}))
    while not isinstance(running.wait, Job):
        running.step()
    assert running.job.on == {os.stat(tmp_path).st_dev}
    done(blocks.close())


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        ("qcow2", "Could not read qcow2 header"),
        (PROBED, "Could not read image for determining its format"),
    ],
)
def test_an_image_that_can_not_be_read(driver: str, why: str) -> None:
    before = open_descriptors()
    # Nothing is mapped at its beginning.
    file = {"driver": "file", "filename": "/proc/self/mem", "read-only": True}
    image = {"driver": driver, "node-name": "n", "file": file, "read-only": True}
    with pytest.raises(QMPError, match=f"{why}: Input/output error"):
        done(make().add(image))
    assert open_descriptors() == before


@pytest.mark.parametrize("command", ["nodes", "drives", "statistics", "statistics of nodes"])
def test_others_have_their_turn_while_nodes_are_told_of(command: str) -> None:
    blocks = make()
    add_chain(blocks, 200)
    drives = Drives(blocks, Tree(), "none")
    for number in range(200):
        done(drives.add({"if": "none", "id": f"d{number}"}, lambda args: args, hotplugged=True))
        drive = blocks.drive(f"d{number}")
        assert drive is not None
        drive.insert(blocks.named(f"n{number}"))
    running = Running(
        {
            "nodes": lambda: blocks.nodes({}),
            "drives": lambda: drives.query(),
            "statistics": lambda: drives.statistics({}),
            "statistics of nodes": lambda: drives.statistics({"query-nodes": True}),
        }[command]()
    )
    assert isinstance(running.wait, Turn)


def test_a_descriptor_of_a_set_is_given_back_where_its_job_is_not_begun() -> None:
    sets, places = FdSets(), Places()
    kept = Descriptor(os.memfd_create("kept"), places, 1000)
    sets.add(kept, 7, None)
    blocks = Blocks(Compat.V10_0, Tree(), sets, print)
    before = len(open_descriptors())
    args = {"driver": "file", "filename": "/dev/fdset/7", "node-name": "n0"}
    adding = Running(blocks.add(args))
    # It is the file's own file system that may be waited for, not the path's.
    assert adding.job.on == {os.fstat(kept.fd).st_dev}
    adding.fail(QMPError("too many"))
    with pytest.raises(QMPError, match="too many"):
        adding.finish()
    assert len(open_descriptors()) == before
    kept.close()
