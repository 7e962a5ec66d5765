"""What block jobs do to nodes and deny to others, and the filters that they put above them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side, exact, settle
from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import SIZE, Step, answer, image, node

NBD: Step = ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}})
KEEP = {"auto-finalize": False, "auto-dismiss": False}
NULL: dict[str, Any] = {"driver": "null-co", "name": "t", "size": SIZE, "read-zeroes": True}


def unnamed(text: str) -> str:
    """A text without the numbers of nodes that have got their names by themselves."""
    return re.sub(r"#block\d+", "#block", text)


PAUSES = ("paused", "running", "standby", "ready")
"""The states of jobs that a QEMU pauses for a moment while another command is at their nodes."""


def events(side: Side) -> list[str]:
    """What it has told meanwhile."""
    found: list[Any] = side.take_events()
    return [
        unnamed(exact(each))
        for each in found
        if each["event"] != "JOB_STATUS_CHANGE" or each["data"]["status"] not in PAUSES
    ]


def run(pair: Pair, steps: Sequence[Step]) -> None:
    """Execute commands on both; jobs of a QEMU may end after the answer, memd's with it."""
    for command, arguments in steps:
        what = f"{command} {arguments}"
        pair.same(what, lambda side: unnamed(exact(answer(side.ask(command, arguments)))))  # noqa: B023
        same_events(pair, what)


def same_events(pair: Pair, what: str) -> None:
    """Fail unless both tell the same, a moment later at most: of jobs' ends, of devices' ends."""
    seen: tuple[list[str], list[str]] = [], []

    def come() -> tuple[list[str], list[str]]:
        for side, told in zip((pair.reference, pair.subject), seen, strict=True):
            side.ask("query-name")
            told.extend(events(side))
        return seen

    settle(come, lambda seen: seen[0] == seen[1])
    assert seen[0] == seen[1], what


def uses(side: Side) -> list[str]:
    """Who uses which node, does what to it and shares what."""
    graph: Any = side.ask("x-debug-query-block-graph")["return"]
    names = {each["id"]: unnamed(f"{each['type']} {each['name']}") for each in graph["nodes"]}
    return sorted(
        f"{names[each['parent']]} has {names[each['child']]} as {each['name']}: "
        f"{sorted(each['perm'])}, shares {sorted(each['shared-perm'])}"
        for each in graph["edges"]
    )


def told(side: Side) -> list[str]:
    """The nodes, those that jobs have made among them, and the media of drives."""
    nodes: Any = side.ask("query-named-block-nodes", {"flat": True})["return"]
    drives: Any = side.ask("query-block")["return"]
    rows = [*nodes, *(each["inserted"] for each in drives if "inserted" in each)]
    for each in rows:
        for bitmap in each.get("dirty-bitmaps", ()):
            if "name" in bitmap:
                # What a QEMU's jobs write counts in it.
                del bitmap["count"]
    members = ("node-name", "drv", "ro", "file", "backing_file", "dirty-bitmaps")
    return sorted(unnamed(exact([each.get(name) for name in members])) for each in rows)


def same_nodes(pair: Pair, what: str, *, over: bool = False) -> None:
    """Fail unless both have the same nodes, used in the same way, a moment later at most.

    Args:
        over: whether the job is, after which a QEMU tells of uses that are no longer there.
    """
    for observe in [told] if over else [uses, told]:
        wanted = observe(pair.subject)
        seen = settle(lambda: observe(pair.reference), lambda seen: seen == wanted)  # noqa: B023
        assert seen == wanted, f"{what}: {observe.__name__}"


def others(name: str) -> list[Step]:
    """What others want of a node that a job uses; a job is refused, or given up."""
    jobs: list[Step] = [
        ("blockdev-mirror", {"device": name, "target": "t", "sync": "none"}),
        ("blockdev-mirror", {"device": "t", "target": name, "sync": "none"}),
        ("blockdev-backup", {"device": name, "target": "t", "sync": "none"}),
        ("blockdev-backup", {"device": "t", "target": name, "sync": "none"}),
        ("block-commit", {"device": name}),
        ("block-stream", {"device": name, "auto-finalize": False}),
    ]
    snapshot = {"node-name": name, "snapshot-file": "@DIR@/s", "snapshot-node-name": "s"}
    steps: list[Step] = [
        ("block_resize", {"node-name": name, "size": SIZE}),
        ("device_add", {"driver": "scsi-hd", "id": "hd", "drive": name}),
        ("device_del", {"id": "hd"}),
        *(
            ("block-export-add", {"type": "nbd", "id": "e", "node-name": name, "writable": writes})
            for writes in (True, False)
        ),
        ("block-export-del", {"id": "e"}),
        node("raw", "above", file=name),
        ("blockdev-del", {"node-name": "above"}),
        ("blockdev-del", {"node-name": name}),
        ("change-backing-file", {"device": name, "image-node-name": name, "backing-file": "x"}),
        ("blockdev-snapshot", {"node": "t", "overlay": name}),
    ]
    for command, arguments in jobs:
        steps += [(command, {**arguments, "job-id": "k"}), ("job-cancel", {"id": "k"})]
    return [*steps, ("blockdev-snapshot-sync", snapshot)]


CHAIN = [*image("a"), *image("b", "a"), *image("c", "b"), *image("d", "c")]
DISK: Step = ("device_add", {"driver": "scsi-hd", "id": "disk", "drive": "d"})
COMPLETE: list[Step] = [("job-complete", {"id": "j"})]
FINALIZE: list[Step] = [("job-finalize", {"id": "j"})]


def job(command: str, **arguments: Any) -> Step:
    return command, {"job-id": "j", "device": "d", **KEEP, **arguments}


JOBS: dict[str, tuple[Step, list[Step], str]] = {
    "mirror": (job("blockdev-mirror", target="to", sync="full"), COMPLETE, "abcd"),
    "backup": (job("blockdev-backup", target="to", sync="none"), [], "cd"),
    "active-commit": (job("block-commit", **{"base-node": "b"}), COMPLETE, "abcd"),
    "commit": (job("block-commit", **{"top-node": "c", "base-node": "b"}), [], "abcd"),
    # A QEMU ends when it is asked for the nodes of a stream that is over and not dismissed.
    "stream": (job("block-stream", **{"base-node": "a", "auto-dismiss": True}), [], "abcd"),
}
"""By a name: a job, what it needs before it is finalized, and the nodes that others want."""


@pytest.mark.parametrize("named", [False, True], ids=["filter", "named-filter"])
@pytest.mark.parametrize("kind", JOBS)
def test_what_a_job_lets_others_do(directory: Path, kind: str, named: bool) -> None:
    (command, arguments), before_end, names = JOBS[kind]
    filters = {"filter-node-name": "f"} if named else {}
    with standin_pair(directory, "-machine", "pc", "-device", "virtio-scsi-pci") as pair:
        run(pair, [NBD, *CHAIN, DISK, node(**NULL), node(**{**NULL, "name": "to"})])
        same_nodes(pair, "before")
        run(pair, [(command, {**arguments, **filters})])
        same_nodes(pair, "while it runs")
        for name in (*names, "to", *filters.values()):
            for step in others(name):
                run(pair, [step])
                same_nodes(pair, str(step))
        run(pair, [*before_end, *FINALIZE])
        same_nodes(pair, "at the end", over=True)
        run(pair, [("job-dismiss", {"id": "j"}), ("query-jobs", None)])
        same_nodes(pair, "afterwards", over=True)


def test_a_job_that_may_not_have_its_nodes(directory: Path) -> None:
    """It is told of where it was made, and nothing stays of it."""
    rom: dict[str, Any] = {**NULL, "name": "rom", "read-only": True}
    steps: list[Step] = [
        node(**rom),
        *(("block-export-add", {"type": "nbd", "id": f"e{n}", "node-name": n}) for n in "bt"),
        job("blockdev-mirror", target="rom", sync="none"),
        job("blockdev-mirror", target="t", sync="none"),
        job("blockdev-backup", target="rom", sync="none"),
        job("block-commit"),
        job("block-commit", **{"top-node": "c"}),
        job("block-stream"),
        ("query-jobs", None),
    ]
    with standin_pair(directory, "-machine", "pc", "-device", "virtio-scsi-pci") as pair:
        run(pair, [NBD, *CHAIN, DISK, node(**NULL)])
        for step in steps:
            run(pair, [step])
            same_nodes(pair, str(step))
