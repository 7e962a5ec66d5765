"""Transactions with backups, options of jobs, thresholds and histograms, as a paused QEMU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.differential.harness import settle
from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import NODES, SIZE, Step, image, node, run
from tests.differential.test_job_nodes import same_events

DISK: Step = ("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "n0"})
STATISTICS: Step = ("query-blockstats", None)


def transaction(*steps: Step, **options: Any) -> Step:
    actions = [{"type": kind, "data": data} for kind, data in steps]
    return "transaction", {"actions": actions, **options}


def backup(id: str = "j", device: str = "n1", target: str = "n2", **options: Any) -> Step:
    told = {"job-id": id, "device": device, "target": target, "sync": "full", **options}
    return "blockdev-backup", {name.replace("_", "-"): value for name, value in told.items()}


def drive_backup(target: str, **options: Any) -> Step:
    return "drive-backup", backup(target=f"@DIR@/{target}", format="qcow2", **options)[1]


def test_backups_in_transactions(directory: Path) -> None:
    grouped = {"properties": {"completion-mode": "grouped"}}
    add: Step = ("block-dirty-bitmap-add", {"node": "n1", "name": "b"})
    snapshot: Step = ("blockdev-snapshot-internal-sync", {"device": "n1", "name": "s"})
    done: list[Step] = [
        transaction(drive_backup("x")),
        transaction(drive_backup("y", sync="top"), **grouped),
        transaction(add, backup(bitmap="b", sync="incremental")),
    ]
    # What is refused sends no events.
    refused: list[Step] = [
        transaction(drive_backup("z"), backup("k", target="nope")),
        transaction(backup(), backup("k", "n3")),
        transaction(backup(), backup("j", "n3", "n4")),
        transaction(backup("k", bitmap="b", sync="incremental"), add),
        transaction(
            backup("k", bitmap="b", sync="incremental"),
            ("block-dirty-bitmap-clear", {"node": "n1", "name": "b"}),
        ),
        transaction(add, ("abort", {}), **grouped),
        transaction(backup(), ("abort", {}), **grouped),
        transaction(snapshot),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [node("null-co", f"n{number}", size=SIZE) for number in range(5)])
        run(pair, [*done, ("query-jobs", None), NODES])
        for step in refused:
            pair.same(f"{step}", lambda side, step=step: side.ask(*step))  # type: ignore[misc]
            settle(lambda: pair.reference.ask("query-jobs")["return"], lambda jobs: not jobs)
            for command in ("query-jobs", "query-block-jobs"):
                pair.same(command, lambda side, command=command: side.ask(command))  # type: ignore[misc]
        pair.each(lambda side: side.take_events())
        run(pair, [*(("blockdev-del", {"node-name": f"n{n}"}) for n in range(5)), NODES])
        pair.same("files", lambda side: sorted(side.files()))


def test_options_of_jobs(directory: Path) -> None:
    mirror = {"job-id": "j", "device": "n1", "target": "n2", "sync": "full"}
    filters: list[Step] = [
        ("blockdev-mirror", mirror),
        backup(),
        ("block-commit", {"job-id": "j", "device": "b"}),
        ("block-stream", {"job-id": "j", "device": "b"}),
    ]
    steps: list[Step] = [
        *((command, {**told, "filter-node-name": "n0"}) for command, told in filters),
        *(backup(compress=True), backup(x_perf={"max-workers": 0})),
        *(backup(x_perf={"max-chunk": -1}), backup(x_perf={"max-workers": 1 << 31})),
        backup(compress=True, device="n1", target="a", filter_node_name="n0"),
        ("block-set-write-threshold", {"node-name": "n1", "write-threshold": 4096}),
        ("block-set-write-threshold", {"node-name": "nope", "write-threshold": 4096}),
        NODES,
        ("block-set-write-threshold", {"node-name": "n1", "write-threshold": 0}),
        NODES,
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [node("null-co", f"n{number}", size=SIZE) for number in range(3)])
        run(pair, [*image("a"), *image("b", "a"), *steps])


def test_histograms(directory: Path) -> None:
    def times(id: str = "/machine/peripheral/vb/virtio-backend", **bounds: list[int]) -> Step:
        told = {name.replace("_", "-"): value for name, value in bounds.items()}
        return "block-latency-histogram-set", {"id": id, **told}

    steps: list[Step] = [
        *(times("nope"), times("vb"), times(boundaries=[]), STATISTICS),
        *(times(boundaries=each) for each in ([20, 10], [10, 10], [0, 10], [10, 20])),
        *(STATISTICS, times(boundaries_read=[5, 1]), times(boundaries_write=[5]), STATISTICS),
        *(times(boundaries_flush=[9], boundaries_zap=[8]), STATISTICS),
        *(times(boundaries=[1], boundaries_write=[3, 2]), STATISTICS),
        *(times(boundaries=[-1], boundaries_read=[]), STATISTICS),
        *(times(boundaries_zap=[7]), STATISTICS, times(boundaries=[1]), times(), STATISTICS),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        run(pair, [node("null-co", "n0", size=SIZE), DISK, *steps])


def above(name: str, below: str) -> Step:
    return node("copy-on-read", name, file=below)


def test_streams_beside_filters(directory: Path) -> None:
    """What has to be copied is what is between the images: filters have no data."""

    def stream(device: str, **options: str) -> list[Step]:
        told = {name.replace("_", "-"): value for name, value in options.items()}
        step: Step = ("block-stream", {"job-id": "j", "device": device, **told})
        names = [f"{kind}{name}" for kind in ("", "p") for name in "edcba"]
        return [step, *(("blockdev-del", {"node-name": name}) for name in names)]

    bottom = [*image("a"), above("b", "a")]
    steps: list[Step] = [
        *(*bottom, *stream("b")),
        *(*bottom, *image("c", "b"), *stream("c", base_node="a")),
        *(*bottom, *image("c", "b"), *stream("c", base_node="b")),
        *(
            *bottom,
            *image("c", "b"),
            above("d", "c"),
            *image("e", "d"),
            *stream("e", base_node="a"),
        ),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        for step in steps:
            run(pair, [step])
            if step[0] == "block-stream":
                same_events(pair, f"{step}")
