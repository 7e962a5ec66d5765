"""Dirty bitmaps: rules, texts and what is told of them, as a paused QEMU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import KEEP, NODES, SIZE, Step, image, node, run

QUERY: Step = ("query-block", None)


def bitmap(verb: str, name: str = "b", node: str = "n0", **options: Any) -> Step:
    return f"block-dirty-bitmap-{verb}", {"node": node, "name": name, **options}


def merge(target: str, *sources: Any, node: str = "n0") -> Step:
    told = {"node": node, "target": target, "bitmaps": [*sources]}
    return "block-dirty-bitmap-merge", told


def transaction(*steps: Step, **options: Any) -> Step:
    actions = [{"type": kind, "data": data} for kind, data in steps]
    return "transaction", {"actions": actions, **options}


def backup(device: str = "n0", **options: Any) -> Step:
    told = {name.replace("_", "-"): value for name, value in options.items()}
    told = {"job-id": "j", "device": device, "target": "n1", "sync": "full", **told}
    return "blockdev-backup", told


ABORT: Step = ("abort", {})
JOB = {"id": "j"}


def test_rules_of_bitmaps(directory: Path) -> None:
    steps: list[Step] = [
        *(bitmap(verb) for verb in ("remove", "clear", "enable", "disable")),
        *(bitmap(verb, node="nope") for verb in ("add", "remove", "clear", "enable", "disable")),
        *(bitmap("add", name) for name in ("", "b", "b", "ä" * 511, "x" * 1023, "x" * 1024)),
        *(bitmap("add", "g", granularity=each) for each in (0, 1, 511, 513, 1 << 31, 1 << 32)),
        *(bitmap("add", f"g{each}", granularity=each) for each in (512, 1 << 20, 1 << 31)),
        bitmap("add", "d", disabled=True),
        *(bitmap("add", "p", name, persistent=True) for name in ("n0", "t", "p0")),
        bitmap("add", node="q"),
        bitmap("add", node="pq"),
        bitmap("add", node="t"),
        bitmap("add", node="small"),
        NODES,
        QUERY,
        *(bitmap(verb, name) for verb in ("disable", "enable", "clear") for name in "bd"),
        NODES,
        bitmap("disable"),
        *(merge("nope", "b"), merge("b", "nope"), merge("b", "d"), merge("b", "b")),
        merge("b", {"node": "nope", "name": "b"}),
        merge("b", {"node": "q", "name": "b"}, "d"),
        merge("b", {"node": "q", "name": "nope"}),
        merge("b", {"node": "small", "name": "b"}),
        merge("b", "d", node="nope"),
        ("block_resize", {"node-name": "pq2", "size": SIZE}),
        bitmap("remove", "d"),
        bitmap("remove", "d"),
        ("blockdev-del", {"node-name": "small"}),
        node("null-co", "small", size=SIZE // 2),
        NODES,
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, [node("null-co", f"n{n}", size=SIZE) for n in (0, 1)])
        run(pair, [node("null-co", "small", size=SIZE // 2), *image("q")])
        run(pair, [("object-add", {"qom-type": "throttle-group", "id": "g"})])
        run(pair, [node("throttle", "t", file="n1", **{"throttle-group": "g"})])
        run(pair, [("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "n0"})])
        run(pair, steps)


def test_bitmaps_in_transactions(directory: Path) -> None:
    some = [bitmap(verb, "c") for verb in ("add", "clear", "disable", "enable")]
    steps: list[Step] = [
        bitmap("add"),
        bitmap("add", "off", disabled=True),
        transaction(*some, merge("c", "b"), ABORT),
        NODES,
        transaction(bitmap("disable"), bitmap("enable", "off"), bitmap("remove"), ABORT),
        NODES,
        transaction(bitmap("remove"), bitmap("add")),
        transaction(bitmap("remove"), bitmap("clear")),
        transaction(bitmap("remove"), bitmap("remove")),
        NODES,
        transaction(bitmap("disable"), bitmap("enable", "off"), *some, merge("c", "b")),
        NODES,
        transaction(bitmap("add", "b"), ABORT),
        transaction(bitmap("remove", "c"), bitmap("add", "e", granularity=512)),
        NODES,
        transaction(bitmap("add", "f"), ("blockdev-backup", backup(bitmap="f", **KEEP)[1]), ABORT),
        NODES,
        ("query-jobs", None),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [node("null-co", f"n{n}", size=SIZE) for n in (0, 1)])
        run(pair, steps)


def test_backups_with_bitmaps(directory: Path) -> None:
    syncs = ("full", "top", "none", "incremental", "bitmap")
    modes = ("on-success", "never", "always")
    steps: list[Step] = [bitmap("add"), bitmap("add", "off", disabled=True)]
    for sync in syncs:
        steps += [backup(sync=sync)] * (sync != "none")
        steps.append(backup(sync=sync, bitmap="nope"))
        steps.append(backup(sync=sync, bitmap_mode="never"))
        steps.append(backup(sync=sync, bitmap="b"))
        steps += [backup(sync=sync, bitmap="b", bitmap_mode=mode) for mode in modes]
    for mode in modes:
        for end in ("finalize", "cancel"):
            for name in ("b", "off"):
                steps += [
                    backup(sync="bitmap", bitmap=name, bitmap_mode=mode, **KEEP),
                    ("query-block-jobs", None),
                    *(bitmap(verb, name) for verb in ("remove", "clear", "enable", "disable")),
                    *(merge("b", "off"), merge("off", "b"), bitmap("add", name)),
                    ("blockdev-del", {"node-name": "n0"}),
                    (f"job-{end}", JOB),
                    ("job-dismiss", JOB),
                    NODES,
                ]
    steps += [
        transaction(
            bitmap("add", "c", disabled=True),
            merge("c", "b"),
            ("blockdev-backup", backup(sync="incremental", bitmap="c", **KEEP)[1]),
        ),
        bitmap("remove", "c"),
        ("job-finalize", JOB),
        ("job-dismiss", JOB),
        bitmap("remove", "c"),
        NODES,
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [node("null-co", f"n{n}", size=SIZE) for n in (0, 1)])
        run(pair, steps)


def test_exports_of_bitmaps(directory: Path) -> None:
    def export(*bitmaps: Any, node: str = "n0", **options: Any) -> Step:
        told = {"type": "nbd", "id": "e", "node-name": node, "bitmaps": [*bitmaps], **options}
        return "block-export-add", told

    drop: Step = ("block-export-del", {"id": "e"})
    other = {"node": "n1", "name": "b"}
    steps: list[Step] = [
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
        bitmap("add"),
        bitmap("add", "off", disabled=True),
        bitmap("add", node="n1"),
        bitmap("add", node="rom"),
        *(export("nope"), export({"node": "n1", "name": "nope"}), export({**other, "node": "x"})),
        *(export("b"), export(other), export("b", writable=True), NODES),
        *(bitmap(verb) for verb in ("remove", "clear", "enable", "disable")),
        *(merge("b", "off"), merge("off", "b"), drop, NODES),
        *(export("off", "off", other, writable=True), NODES, export("off", id="e2", name="x")),
        *(drop, NODES, export("b", node="rom"), drop),
        ("nbd-server-add", {"device": "n0", "bitmap": "nope"}),
        ("nbd-server-add", {"device": "n0", "bitmap": "off"}),
        *(NODES, ("nbd-server-stop", None), NODES),
        *image("a"),
        *image("o", "a"),
        bitmap("add", node="a"),
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
        *(export("b", node="o"), NODES, drop, NODES),
        *(("blockdev-del", {"node-name": name}) for name in ("o", "a")),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [node("null-co", f"n{n}", size=SIZE) for n in (0, 1)])
        run(pair, [node("null-co", "rom", size=SIZE, **{"read-only": True})])
        run(pair, steps)
