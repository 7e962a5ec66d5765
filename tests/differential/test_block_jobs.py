"""Images, snapshots and block jobs: states, events, errors and the graph, as a paused QEMU's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memd.standin.block.qcow2 import empty_image
from tests import NOT_THERE
from tests.differential.harness import Pair, Side, exact, settle
from tests.differential.server import PATIENCE
from tests.differential.standin import standin_pair

Step = tuple[str, Any]
SIZE = 4 << 20
DISK: Step = ("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "r0"})
NODES: Step = ("query-named-block-nodes", {"flat": True})


def node(driver: str, name: str, **options: Any) -> Step:
    return "blockdev-add", {"driver": driver, "node-name": name, **options}


def run(pair: Pair, steps: Sequence[Step]) -> None:
    """Execute commands on both; jobs of a QEMU may end after the answer, memd's with it."""
    for step in steps:
        _run(pair, *step)


def _run(pair: Pair, command: str, arguments: Any) -> None:
    what = f"{command} {arguments}"
    pair.same(what, lambda side: answer(side.ask(command, arguments)))
    wanted = pair.subject.take_events()
    seen: list[Any] = []

    def come() -> list[Any]:
        pair.reference.ask("query-name")
        seen.extend(pair.reference.take_events())
        return seen

    settle(come, lambda seen: len(seen) >= len(wanted))
    assert seen == wanted, what


_VARIES = ("actual-size", "wr_highest_offset")


def answer(value: Any) -> Any:
    """An answer without names that nodes get by themselves, and what a file system decides.

    How far a file was written to counts in QEMU what it wrote when it made an image.
    """
    if isinstance(value, list):
        answers = [answer(each) for each in value]
        # The harness has sorted objects by the names that vary.
        return sorted(answers, key=exact) if answers and isinstance(answers[0], dict) else answers
    if not isinstance(value, dict):
        return value
    found = {name: answer(each) for name, each in value.items() if name not in _VARIES}
    if str(found.get("node-name", "")).startswith("#block"):
        found["node-name"] = "#block"
    return found


def create(options: dict[str, Any]) -> list[Step]:
    return [("blockdev-create", {"job-id": "c", "options": options}), ("job-dismiss", {"id": "c"})]


def image(name: str, backing: str | None = None, *, stands: bool = True) -> list[Step]:
    """A qcow2 image is made and opened, its protocol node and its own one by name."""
    path = f"@DIR@/{name}"
    named = {} if backing is None else {"backing-file": f"@DIR@/{backing}", "backing-fmt": "qcow2"}
    return [
        *create({"driver": "file", "filename": path, "size": 0}),
        node("file", f"p{name}", filename=path),
        *create({"driver": "qcow2", "file": f"p{name}", "size": SIZE, **named}),
        node("qcow2", name, file=f"p{name}", backing=backing if stands else None),
    ]


RAW: list[Step] = [
    *create({"driver": "file", "filename": "@DIR@/base", "size": SIZE}),
    node("raw", "r0", file={"driver": "file", "node-name": "p0", "filename": "@DIR@/base"}),
    DISK,
]


def test_images_are_made(directory: Path) -> None:
    def job(id: str, driver: str, **options: Any) -> Step:
        return "blockdev-create", {"job-id": id, "options": {"driver": driver, **options}}

    steps: list[Step] = [
        job("c0", "file", filename="@DIR@/i", size=1000),
        job("c0", "file", filename="@DIR@/i", size=1000),
        job("1x", "file", filename="@DIR@/i", size=1000),
        job("c1", "file", filename=f"{NOT_THERE}/i", size=1000),
        ("query-jobs", None),
        ("query-block-jobs", None),
        *((verb, {"id": "c1"}) for verb in ("job-complete", "job-pause", "job-resume")),
        *((verb, {"id": "c1"}) for verb in ("job-cancel", "job-finalize", "job-dismiss")),
        ("job-dismiss", {"id": "c1"}),
        ("block-job-cancel", {"device": "c0"}),
        ("block-job-dismiss", {"id": "c0"}),
        ("job-dismiss", {"id": "c0"}),
        node("file", "f", filename="@DIR@/i"),
        job("c2", "qcow2", file="nope", size=SIZE),
        job("c3", "qcow2", file="f", size=1),
        job("c4", "qcow2", file="f", size=SIZE, **{"cluster-size": 5}),
        job("c5", "qcow2", file="f", size=SIZE),
        ("query-jobs", None),
        node("qcow2", "q", file="f"),
        NODES,
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)
        pair.same("files", lambda side: {n: f.size for n, f in side.files().items()})


def test_sizes_that_are_odd_or_too_large(directory: Path) -> None:
    steps: list[Step] = [
        *create({"driver": "file", "filename": "@DIR@/odd", "size": 1000}),
        *create({"driver": "file", "filename": "@DIR@/p", "size": 0}),
        node("file", "p", filename="@DIR@/p"),
    ]
    for size in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1):
        told = {"driver": "file", "filename": "@DIR@/large", "size": size}
        steps += [("blockdev-create", {"job-id": "c", "options": told}), ("query-jobs", None)]
        steps.append(("job-dismiss", {"id": "c"}))
    told = {"driver": "qcow2", "file": "p", "size": 1 << 63}
    steps += [("blockdev-create", {"job-id": "c", "options": told}), ("query-jobs", None)]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)
        assert {name: file.size for name, file in pair.subject.files().items()} == {
            "odd": 1000,
            "p": 0,
        }
        # An empty file stays, and it has begun to write into the other one.
        assert pair.reference.files()["odd"].size == 1000
        assert pair.reference.files()["large"].size == 0


def test_parts_of_a_file(directory: Path) -> None:
    steps: list[Step] = create({"driver": "file", "filename": "@DIR@/a", "size": SIZE})
    below = {"driver": "file", "filename": "@DIR@/a"}
    largest = (1 << 63) - 1
    parts: list[dict[str, Any]] = [
        *({"offset": offset} for offset in (-1, 511, SIZE, SIZE + 1, largest)),
        *({"size": size} for size in (-1, 0, 511, 512, SIZE + 512, largest)),
        *({"offset": 1 << 20, "size": size} for size in (3 << 20, 4 << 20)),
    ]
    for part in parts:
        steps += [node("raw", "n", file=below, **part), node("raw", "above", file="n"), NODES]
        steps += [("blockdev-del", {"node-name": name}) for name in ("above", "n")]
    null = {"driver": "null-co", "size": SIZE}
    steps += [node("raw", "n", file=null, offset=512), node("raw", "m", file=null), NODES]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)


def test_resizing(directory: Path) -> None:
    def file(name: str) -> dict[str, Any]:
        return {"driver": "file", "filename": f"@DIR@/{name}"}

    longest = (1 << 63) - (1 << 30)
    steps: list[Step] = [step for name in "abc" for step in create({**file(name), "size": SIZE})]
    steps += [
        node("raw", "whole", offset=1 << 20, file=file("a")),
        node("raw", "part", size=1 << 20, file=file("b")),
        node("raw", "rom", file=file("c"), **{"read-only": True}),
        ("block_resize", {"node-name": "part", "size": 1 << 20}),
        ("block_resize", {"node-name": "rom", "size": 1 << 20}),
    ]
    null = {"driver": "null-co", "size": SIZE}
    steps += [
        ("object-add", {"qom-type": "throttle-group", "id": "g"}),
        node("throttle", "t0", file=null, **{"throttle-group": "g"}),
        node("throttle", "t1", file={"driver": "raw", "file": null}, **{"throttle-group": "g"}),
        *(("block_resize", {"node-name": name, "size": SIZE}) for name in ("t0", "t1")),
    ]
    for size in ((1 << 63) - 1, 1 << 62, longest + 1, longest, longest - (1 << 20), 1000, 0, SIZE):
        steps += [("block_resize", {"node-name": "whole", "size": size}), NODES]

    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)
        pair.same("files", lambda side: {n: f.size for n, f in side.files().items()})


def test_an_image_below_a_filter_is_not_cut(directory: Path) -> None:
    """It grows, with further tables where it needs them, and does not shrink."""
    steps: list[Step] = [
        *image("a"),
        ("object-add", {"qom-type": "throttle-group", "id": "g"}),
        node("throttle", "t", file="a", **{"throttle-group": "g"}),
        node("raw", "r", file="t"),
    ]
    for name, size in (("t", SIZE * 2), ("a", SIZE * 3), ("t", SIZE * 3 + 1), ("t", SIZE * 4)):
        steps += [("block_resize", {"node-name": name, "size": size}), NODES]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)
        for size in (1 << 40, 1 << 45, 1 << 62):
            pair.ask("block_resize", {"node-name": "t", "size": size})
        pair.same("size", lambda side: (side.scratch / "a").read_bytes()[24:40].hex())
        memd = pair.subject
        before = (memd.scratch / "a").read_bytes()
        for size in (0, SIZE):
            answer = memd.ask("block_resize", {"node-name": "t", "size": size})
            assert "memd only grows qcow2 images" in answer["error"]["desc"]
        assert (memd.scratch / "a").read_bytes() == before


def test_headers_of_wrong_lengths(directory: Path) -> None:
    image = empty_image({"size": SIZE})
    with standin_pair(directory, "-machine", "none") as pair:
        for length in (0, 72, 100, 104, 108, 70000, 112):
            for side in (pair.reference, pair.subject):
                with (side.scratch / "h").open("wb") as made:
                    for offset, data in image.items():
                        made.seek(offset)
                        made.write(data)
                    made.seek(100)
                    made.write(length.to_bytes(4, "big"))
            below = {"driver": "file", "filename": "@DIR@/h"}
            run(pair, [node("qcow2", "h", file=below), ("blockdev-del", {"node-name": "h"})])


def test_an_image_of_memds_is_one_for_qemu(directory: Path) -> None:
    """What memd makes, and what it writes into a header, is what QEMU reads there."""
    chain = [*image("a"), *image("b", "a"), *image("d", "b")]
    steps = [*chain, ("block-stream", {"device": "d", "job-id": "j", "base-node": "a"})]
    with standin_pair(directory, "-machine", "none") as pair:
        for command, arguments in steps:
            assert "return" in pair.subject.ask(command, arguments)
        there = str(pair.subject.scratch)
        for name in "abd":
            below = {"driver": "file", "filename": f"{there}/{name}", "locking": "off"}
            told = {"driver": "qcow2", "node-name": name, "file": below, "backing": None}
            assert "return" in pair.reference.ask("blockdev-add", told)
        images = {
            each["node-name"]: each["image"]
            for each in pair.reference.ask("query-named-block-nodes")["return"]
        }
        assert images["b"]["full-backing-filename"] == f"{there}/a"
        assert images["d"]["full-backing-filename"] == f"{there}/a"
        assert images["d"]["backing-filename-format"] == "qcow2"
        assert images["a"]["virtual-size"] == SIZE


def test_snapshots(directory: Path) -> None:
    def sync(name: str | None = "r0", file: str = "@DIR@/s", **options: Any) -> Step:
        named = {} if name is None else {"node-name": name}
        told = {name.replace("_", "-"): value for name, value in options.items()}
        return "blockdev-snapshot-sync", {**named, "snapshot-file": file, **told}

    steps: list[Step] = [
        *RAW,
        node("null-co", "n", size=SIZE),
        sync(),
        sync(None),
        sync(None, device="vb"),
        sync("nope", snapshot_node_name="s"),
        sync(snapshot_node_name="n"),
        sync(snapshot_node_name="s", format="nope"),
        sync(snapshot_node_name="s", format="raw"),
        sync(snapshot_node_name="s", format="null-co"),
        sync(snapshot_node_name="s", mode="existing"),
        sync(file=f"{NOT_THERE}/s", snapshot_node_name="s"),
        sync(snapshot_node_name="s"),
        ("query-block", None),
        NODES,
        ("query-named-block-nodes", None),
        sync(snapshot_node_name="t"),
        ("blockdev-del", {"node-name": "s"}),
        ("blockdev-del", {"node-name": "r0"}),
        *image("over", "s", stands=False),
        ("blockdev-snapshot", {"node": "nope", "overlay": "over"}),
        ("blockdev-snapshot", {"node": "s", "overlay": "nope"}),
        ("blockdev-snapshot", {"node": "s", "overlay": "n"}),
        ("blockdev-snapshot", {"node": "r0", "overlay": "over"}),
        (
            "transaction",
            {"actions": [{"type": "blockdev-snapshot", "data": {"node": "s", "overlay": "over"}}]},
        ),
        NODES,
        ("query-block", None),
        ("query-blockstats", None),
        ("query-blockstats", {"query-nodes": True}),
        ("blockdev-snapshot", {"node": "over", "overlay": "s"}),
        ("blockdev-del", {"node-name": "over"}),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, steps)


def snapshot(below: str, name: str) -> dict[str, str]:
    return {"node-name": below, "snapshot-file": f"@DIR@/{name}", "snapshot-node-name": name}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_snapshots_go_with_the_device(directory: Path, depth: int) -> None:
    disk: Step = ("device_add", {"driver": "scsi-hd", "id": "hd", "drive": "r0", "bus": "scsi.0"})
    snapshots = [*pairwise(["r0", "s", "t"])][:depth]
    steps: list[Step] = [
        *RAW[:-1],
        disk,
        *(("blockdev-snapshot-sync", snapshot(*names)) for names in snapshots),
        NODES,
        *(("blockdev-del", {"node-name": name}) for name in ("s", "r0")),
    ]
    deletions: list[Step] = [("blockdev-del", {"node-name": name}) for name in ("t", "s", "r0")]
    options = ("-machine", "q35", "-device", "virtio-scsi-pci,id=scsi")
    with standin_pair(directory, *options) as pair:
        run(pair, steps)
        for side in (pair.reference, pair.subject):
            assert side.monitor.execute("device_del", {"id": "hd"}) == {"return": {}}
            side.monitor.read_event("DEVICE_DELETED")
        # QEMU closes a device a little after the event that says so.
        nodes = answer(pair.subject.ask(*NODES))
        assert settle(lambda: answer(pair.reference.ask(*NODES)), nodes.__eq__, PATIENCE) == nodes
        run(pair, [*deletions, NODES])


def test_snapshots_of_what_no_device_uses(directory: Path) -> None:
    actions = [
        {"type": "blockdev-snapshot-sync", "data": snapshot(*names)}
        for names in (("r0", "s"), ("s", "t"))
    ]
    deletions = [("blockdev-del", {"node-name": name}) for name in ("s", "r0")]
    steps: list[Step] = [
        *RAW[:-1],
        ("blockdev-snapshot-sync", snapshot("r0", "s")),
        NODES,
        ("transaction", {"actions": actions}),
        NODES,
        *deletions,
        NODES,
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)


def test_a_transaction_is_whole_or_nothing(directory: Path) -> None:
    def action(type: str, **data: Any) -> dict[str, Any]:
        return {"type": type, "data": {n.replace("_", "-"): v for n, v in data.items()}}

    taken = action(
        "blockdev-snapshot-sync",
        node_name="r0",
        snapshot_file="@DIR@/t",
        snapshot_node_name="t",
    )
    backup = {"device": "n0", "target": "n1", "sync": "none", "job_id": "b"}
    rom = action("blockdev-snapshot", node="rom", overlay="over")
    steps: list[Step] = [
        *RAW,
        *image("over", stands=False),
        node("null-co", "rom", size=SIZE, **{"read-only": True}),
        ("transaction", {"actions": [rom, action("abort")]}),
        NODES,
        node("null-co", "n0", size=SIZE),
        node("null-co", "n1", size=SIZE),
        ("transaction", {"actions": []}),
        ("transaction", {"actions": [taken, action("abort")]}),
        ("transaction", {"actions": [taken, taken]}),
        NODES,
        ("query-jobs", None),
        ("transaction", {"actions": [taken, action("blockdev-backup", **backup)]}),
        ("query-jobs", None),
        ("job-cancel", {"id": "b"}),
        NODES,
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, steps)


KEEP: dict[str, Any] = {"auto-finalize": False, "auto-dismiss": False}


def test_commit_and_stream(directory: Path) -> None:
    def commit(id: str = "j", **options: Any) -> Step:
        told = {name.replace("_", "-"): value for name, value in options.items()}
        return "block-commit", {"job-id": id, "device": "e", **told}

    def stream(id: str = "j", device: str = "e", **options: Any) -> Step:
        return "block-stream", {"job-id": id, "device": device, **options}

    steps: list[Step] = [
        *image("a"),
        *image("b", "a"),
        *image("c", "b"),
        *image("d", "c"),
        *image("e", "d"),
        ("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "e"}),
        node("null-co", "n0", size=SIZE),
        commit(device="nope"),
        commit(device="c", top_node="b", base_node="a"),
        commit(top_node="nope"),
        commit(top_node="a", base_node="b"),
        commit(top_node="n0", base_node="b"),
        commit(top_node="b", base_node="n0"),
        commit(top_node="b", base_node="b"),
        commit(top="x"),
        commit(base="x"),
        commit(base="x", base_node="a"),
        commit("1x"),
        commit(top_node="d", base_node="c"),
        NODES,
        commit(top="@DIR@/c", base="@DIR@/b", **KEEP),
        ("query-block-jobs", None),
        ("job-finalize", {"id": "j"}),
        ("query-jobs", None),
        ("block-job-dismiss", {"id": "j"}),
        NODES,
        stream(base="x"),
        stream(base="x", **{"base-node": "b"}),
        stream(device="nope"),
        stream(**{"base-node": "nope"}),
        stream(**{"base-node": "e"}),
        stream(**{"base-node": "b"}),
        stream(**{"base-node": "a"}),
        NODES,
        ("query-named-block-nodes", None),
        commit(**KEEP),
        commit(),
        commit("k"),
        stream("k"),
        ("query-block-jobs", None),
        ("query-jobs", None),
        ("blockdev-del", {"node-name": "a"}),
        ("blockdev-del", {"node-name": "e"}),
        ("job-pause", {"id": "j"}),
        ("job-pause", {"id": "j"}),
        ("query-block-jobs", None),
        ("job-complete", {"id": "j"}),
        ("block-job-cancel", {"device": "j"}),
        ("job-resume", {"id": "j"}),
        ("job-resume", {"id": "j"}),
        ("query-block-jobs", None),
        ("job-dismiss", {"id": "j"}),
        ("job-finalize", {"id": "j"}),
        ("job-dismiss", {"id": "j"}),
        ("query-block", None),
        *(("blockdev-del", {"node-name": name}) for name in ("e", "pe", "pc", "a")),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, steps)


def test_mirror_and_backup(directory: Path) -> None:
    def mirror(id: str = "m", device: str = "n0", target: str = "n1", **options: Any) -> Step:
        told = {name.replace("_", "-"): value for name, value in options.items()}
        told = {"sync": "full", **told}
        return "blockdev-mirror", {"job-id": id, "device": device, "target": target, **told}

    def backup(id: str = "b", device: str = "n1", target: str = "n0", **options: Any) -> Step:
        told = {"sync": "full", **options}
        return "blockdev-backup", {"job-id": id, "device": device, "target": target, **told}

    def job(verb: str, id: str = "m", **options: Any) -> Step:
        named = "device" if verb.startswith("block-job-") else "id"
        named = "id" if verb.endswith(("finalize", "dismiss", "change")) else named
        return verb, {named: id, **options}

    errors = [
        mirror(device="nope"),
        mirror(target="nope"),
        mirror(target="n0"),
        mirror("1x"),
        mirror("", target="n1"),
        mirror(sync="incremental"),
        mirror(granularity=5),
        mirror(granularity=513),
        mirror(buf_size=-5),
        mirror(replaces="nope"),
        mirror(target="n2"),
        backup(device="nope"),
        backup(target="nope"),
        backup(target="n1"),
        backup(target="n2"),
        backup(sync="incremental"),
        backup(bitmap="x"),
        backup("1x"),
        *(job(verb, "nope") for verb in ("job-pause", "job-complete", "job-cancel")),
        *(job(f"block-job-{verb}", "nope") for verb in ("pause", "complete", "cancel")),
        *(job(f"block-job-{verb}", "nope") for verb in ("resume", "finalize", "dismiss")),
        job("block-job-set-speed", "nope", speed=1),
        job("block-job-change", "nope", type="mirror", **{"copy-mode": "background"}),
    ]
    ready = [
        mirror(**KEEP),
        ("query-jobs", None),
        ("query-block-jobs", None),
        mirror(),
        mirror("m2", "n1", "n0"),
        job("job-finalize"),
        job("block-job-set-speed", speed=-1),
        job("block-job-set-speed", speed=7),
        job("block-job-change", type="mirror", **{"copy-mode": "write-blocking"}),
        job("block-job-change", type="mirror", **{"copy-mode": "background"}),
        ("blockdev-del", {"node-name": "n0"}),
        ("blockdev-del", {"node-name": "n1"}),
        ("block_resize", {"node-name": "n0", "size": 5 << 20}),
        ("block-stream", {"device": "n0", "job-id": "x"}),
    ]
    ends = [
        [job("job-cancel"), ("query-jobs", None), job("job-dismiss")],
        [job("block-job-cancel"), ("query-block-jobs", None), job("block-job-set-speed", speed=1)]
        + [job(verb) for verb in ("job-pause", "job-resume", "job-complete")]
        + [job("block-job-cancel"), ("query-jobs", None), job("block-job-dismiss")],
        [job("block-job-cancel", force=True), job("block-job-dismiss")],
        [job("block-job-pause"), job("block-job-cancel", force=True), job("block-job-dismiss")],
        [job("block-job-cancel"), job("block-job-finalize"), job("block-job-dismiss"), NODES],
        [job("job-complete"), job("job-finalize"), job("job-dismiss"), NODES],
    ]
    backups = [
        backup(),
        backup(**KEEP),
        *(job(verb, "b") for verb in ("job-pause", "job-resume", "job-complete")),
        job("job-finalize", "b"),
        job("job-dismiss", "b"),
        backup(sync="none"),
        *(job(verb, "b") for verb in ("job-complete", "job-finalize", "job-dismiss")),
        *(job(verb, "b") for verb in ("job-resume", "job-pause", "job-pause")),
        ("query-block-jobs", None),
        job("job-complete", "b"),
        job("job-resume", "b"),
        ("blockdev-del", {"node-name": "n0"}),
        ("blockdev-del", {"node-name": "n1"}),
        job("block-job-cancel", "b"),
    ]
    targets: list[Step] = [
        ("drive-backup", {"device": "n0", "target": "@DIR@/b", "sync": "full", "job-id": "b"}),
        (
            "drive-backup",
            {"device": "n0", "target": "@DIR@/b", "sync": "top", "job-id": "b", "format": "qcow2"},
        ),
        ("drive-backup", {"device": "nope", "target": "@DIR@/b", "sync": "full", "job-id": "b"}),
        (
            "drive-mirror",
            {"device": "n0", "target": "@DIR@/m", "sync": "full", "job-id": "m", "format": "x"},
        ),
        (
            "drive-mirror",
            {"device": "n0", "target": "@DIR@/m", "sync": "full", "job-id": "m", "format": "raw"},
        ),
        job("job-complete"),
        NODES,
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, [node("null-co", f"n{n}", size=SIZE) for n in (0, 1)])
        run(pair, [node("null-co", "n2", size=SIZE // 2), *errors])
        run(pair, [("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "n0"})])
        for end in ends:
            run(pair, [*ready, *end])
        run(pair, [*backups, *targets])


def test_jobs_below_a_filter(directory: Path) -> None:
    """The data of a filter is that of what it filters, and the filter stays above it."""
    mirror = {"job-id": "j", "device": "t", "target": "c", "sync": "full", "replaces": "b"}
    commit = {"job-id": "j", "device": "t", "top-node": "o", "base-node": "c"}
    below = {"driver": "qcow2", "node-name": "b", "file": {"driver": "file", "filename": "@DIR@/b"}}
    complete: Step = ("job-complete", {"id": "j"})
    steps: list[Step] = [
        *image("b"),
        *(("blockdev-del", {"node-name": name}) for name in ("b", "pb")),
        ("object-add", {"qom-type": "throttle-group", "id": "g"}),
        node("throttle", "t", file=below, **{"throttle-group": "g"}),
        ("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "t"}),
        *image("c")[:-1],
        node("qcow2", "c", file="pc", discard="unmap"),
        ("blockdev-mirror", mirror),
        *(complete, ("query-block", None), ("blockdev-del", {"node-name": "b"})),
        *image("o"),
        ("blockdev-snapshot", {"node": "c", "overlay": "o"}),
        *(("query-block", None), ("block-commit", commit), complete, ("query-block", None)),
        *(("blockdev-del", {"node-name": name}) for name in ("o", "po", "c")),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, steps)


def test_zeroes_of_a_mirror(directory: Path) -> None:
    """Where blocks are not given up, as many are written as there are bytes.

    QEMU 11.1 writes none to a target that is zero already.
    """
    size = 1 << 20
    written = {
        "hole": (0, b""),
        "begin": (0, bytes(128 << 10)),
        "long": (0, bytes(132 << 10)),
        "later": (512 << 10, bytes(4096)),
        "data": (0, b"x"),
    }

    def prepare(at: Path) -> None:
        for name, (offset, data) in written.items():
            with (at / name).open("wb") as file:
                file.truncate(size)
                file.seek(offset)
                file.write(data)
        for name in "soq":
            with (at / name).open("wb") as file:
                for offset, data in empty_image({"size": size}).items():
                    file.seek(offset)
                    file.write(data)

    def qcow2(name: str, **options: Any) -> Step:
        file = {"driver": "file", "filename": f"@DIR@/{name}"}
        return node("qcow2", name, file=file, **options)

    targets = [
        *(node("file", name, filename=f"@DIR@/{name}") for name in written),
        *(node("null-co", f"n{on}", size=size, **{"read-zeroes": on}) for on in (False, True)),
        *(qcow2("o", backing="nTrue"), qcow2("q", backing="nFalse")),
    ]

    def limits(side: Side) -> Any:
        nodes = side.ask(*NODES)["return"]
        return [each["image"].get("limits") for each in nodes if each["node-name"] == "q"]

    with standin_pair(directory, "-machine", "none", prepare=prepare) as pair:
        run(pair, [qcow2("s"), *targets[:-2]])
        for command, target in targets:
            name = target["node-name"]
            if name in ("o", "q"):
                run(pair, [(command, target)])
            told = {"job-id": "j", "device": "s", "sync": "full", "target": name}
            run(pair, [("blockdev-mirror", told), ("block-job-cancel", {"device": "j"})])
        # What an image stands on no more does not count for its alignment.
        run(pair, [("block-stream", {"job-id": "j", "device": "q"})])
        pair.same("limits", limits)


def test_data_is_not_left_behind_silently(directory: Path) -> None:
    """memd copies no data: a job that would have to is refused, and nothing has changed."""
    with standin_pair(directory, "-machine", "none") as pair:
        memd = pair.subject
        (memd.scratch / "full").write_bytes(b"x" * SIZE)
        for command, arguments in (
            node("raw", "r0", file={"driver": "file", "filename": "@DIR@/full"}),
            node("null-co", "n0", size=SIZE),
        ):
            assert "return" in memd.ask(command, arguments)
        for command in ("blockdev-mirror", "blockdev-backup"):
            told = {"device": "r0", "target": "n0", "sync": "full", "job-id": "j"}
            assert "copies no data" in memd.ask(command, told)["error"]["desc"]
        # Nor has a file that would be made anew.
        there = memd.scratch / "there"
        there.write_bytes(b"y" * SIZE)
        for command in ("drive-mirror", "drive-backup"):
            told = {"device": "r0", "target": str(there), "sync": "full", "job-id": "j"}
            assert "copies no data" in memd.ask(command, told)["error"]["desc"]
        assert there.read_bytes() == b"y" * SIZE
        assert memd.ask("query-jobs")["return"] == []
        assert "return" in memd.ask("blockdev-del", {"node-name": "r0"})
