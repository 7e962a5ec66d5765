"""Internal snapshots that can't be made, loaded or deleted: QEMU's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memd.standin.block.qcow2 import empty_image
from tests.differential.harness import Pair, Side, settle
from tests.differential.standin import standin_pair

Step = tuple[str, dict[str, Any]]


def typed(line: str) -> Step:
    return "human-monitor-command", {"command-line": line}


def prepare(directory: Path) -> None:
    (directory / "raw").write_bytes(bytes(1 << 20))
    with (directory / "q").open("wb") as file:
        for at, data in empty_image({"size": 1 << 20}).items():
            file.seek(at)
            file.write(data)


def drive(name: str, number: int = 0, *, kind: str, more: str = "") -> tuple[str, ...]:
    node = f"if=none,id=d{number},file=@DIR@/{name},format={kind},node-name=n{number}{more}"
    return ("-drive", node)


FILE = ("-blockdev", "driver=file,filename=@DIR@/q,node-name=f0")
QCOW2 = (*FILE, "-blockdev", "driver=qcow2,file=f0,node-name=n0")
GROUP = ("-object", "throttle-group,id=g")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "an empty drive": ("-device", "ide-cd,id=c0"),
    "raw": drive("raw", kind="raw"),
    "raw, read-only": drive("raw", kind="raw", more=",readonly=on"),
    "a file": ("-blockdev", "driver=file,filename=@DIR@/raw,node-name=n0"),
    "no name": ("-drive", "if=virtio,file=@DIR@/raw,format=raw"),
    "null-co": ("-drive", "if=none,id=d0,driver=null-co,node-name=n0"),
    "qcow2": (*drive("q", kind="qcow2"), "-device", "virtio-blk-pci,drive=d0"),
    "qcow2, read-only": drive("q", kind="qcow2", more=",readonly=on"),
    "both": (*drive("q", kind="qcow2"), *drive("raw", 1, kind="raw")),
    "a node": QCOW2,
    "a filter": (
        *QCOW2,
        *GROUP,
        "-blockdev",
        "driver=throttle,throttle-group=g,file=n0,node-name=n1",
    ),
    "raw on qcow2": (*QCOW2, "-blockdev", "driver=raw,file=n0,node-name=n1"),
}

NOTHING_TO_STORE = ("nothing", "an empty drive", "raw, read-only", "qcow2, read-only")
NONE_CAN = ("raw", "a file", "null-co", "no name", "both")


def outcome(side: Side, command: str, arguments: dict[str, Any]) -> Any:
    """What becomes of a job, and of its events."""
    answer = side.ask(command, arguments)
    if "error" in answer:
        return answer
    jobs = settle(
        lambda: side.ask("query-jobs")["return"],
        lambda now: all(each["status"] == "concluded" for each in now),
    )
    side.ask("job-dismiss", {"id": arguments["job-id"]})
    return jobs, side.take_events()


def compare(pair: Pair, kind: str, **arguments: Any) -> None:
    given = {"job-id": "j", "tag": "t", **arguments}
    what = f"snapshot-{kind} {given}"
    pair.same(what, lambda side: outcome(side, f"snapshot-{kind}", given))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_there_and_what_can_not_be(directory: Path, layout: str) -> None:
    options = ("-machine", "q35", "-m", "16M", *LAYOUTS[layout])
    with standin_pair(directory, *options, prepare=prepare) as pair:
        for line in ("info snapshots", "loadvm a", "delvm a", "info snapshots x", "loadvm"):
            pair.ask(*typed(line))
        if layout in NOTHING_TO_STORE + NONE_CAN:
            for line in ("savevm", "savevm a", "savevm a b"):
                pair.ask(*typed(line))
        writes = "qcow2" in layout or layout in ("both", "a node", "a filter")
        for device in ("d0", "n0", "d1", "nope"):
            if not writes or device in ("d1", "nope") or layout == "qcow2, read-only":
                pair.ask(*typed(f"snapshot_blkdev_internal {device} x"))
            pair.ask(*typed(f"snapshot_delete_blkdev_internal {device} x"))
            pair.ask(*typed(f"snapshot_delete_blkdev_internal {device} x 1"))
            named = {"device": device}
            pair.ask("blockdev-snapshot-internal-sync", {**named, "name": ""})
            for more in ({}, {"id": "1"}, {"name": ""}):
                pair.ask("blockdev-snapshot-delete-internal-sync", {**named, **more})
        for devices in ([], ["n0"], ["n1"], ["d0"], ["nope"], ["n0", "nope"]):
            for state in ("n0", "nope"):
                compare(pair, "load", vmstate=state, devices=devices)
            compare(pair, "save", vmstate="nope", devices=devices)
            compare(pair, "delete", devices=devices)
        compare(pair, "load", vmstate="n0", devices=["n0"], **{"job-id": "1"})
        pair.ask("query-status")
