"""Internal snapshots: what QEMU refuses is refused in its words, and none is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from memd.standin.qcow2 import empty_image
from tests.differential.harness import Pair, Side, settle
from tests.differential.server import qemu_binary, running
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


@pytest.mark.parametrize("layout", ["qcow2", "a node", "a filter", "raw on qcow2"])
def test_none_is_made(directory: Path, layout: str) -> None:
    options = ("-machine", "q35", "-m", "16M", *LAYOUTS[layout])
    with standin_pair(directory, *options, prepare=prepare) as pair:
        memd = pair.subject
        before = (memd.scratch / "q").read_bytes()
        above = "n1" if layout in ("a filter", "raw on qcow2") else "n0"
        for line in ("savevm", "savevm a", f"snapshot_blkdev_internal {above} x"):
            answer = memd.ask(*typed(line))["return"]
            assert answer.startswith("Error: memd makes no internal snapshots"), line
        given = {"job-id": "j", "tag": "t", "vmstate": "n0", "devices": ["n0"]}
        (job,) = outcome(memd, "snapshot-save", given)[0]
        assert job["error"].startswith("memd makes no internal snapshots")
        assert memd.ask(*typed("info snapshots"))["return"] == "There is no snapshot available.\r\n"
        assert (memd.scratch / "q").read_bytes() == before


def test_snapshots_that_are_there(directory: Path) -> None:
    """Of an image that a QEMU has put a machine, and a disk, into."""
    made = directory / "made"
    made.mkdir()
    prepare(made)
    layout = [each.replace("@DIR@", str(made)) for each in drive("q", kind="qcow2")]
    line = [*qemu_binary(), "-S", "-display", "none", "-nodefaults", "-m", "16M", *layout]
    (directory / "server").mkdir()
    with running("QEMU", line, directory / "server", made) as server:
        side = Side(server, made)
        for command in ("savevm a", "snapshot_blkdev_internal d0 disk"):
            assert side.ask(*typed(command)) == {"return": ""}

    def copy(scratch: Path) -> None:
        shutil.copy(made / "q", scratch / "q")

    options = ("-machine", "q35", "-m", "16M", *drive("q", kind="qcow2"))
    with standin_pair(directory, *options, prepare=copy) as pair:
        for line_ in ("loadvm z", "delvm z", "loadvm disk", "snapshot_blkdev_internal d0 a"):
            pair.ask(*typed(line_))
        pair.ask(*typed("snapshot_delete_blkdev_internal d0 a 7"))
        pair.ask("blockdev-snapshot-delete-internal-sync", {"device": "d0", "id": "7"})
        for tag in ("a", "z"):
            compare(pair, "load", tag=tag, vmstate="nope", devices=["n0"])
            compare(pair, "save", tag=tag, vmstate="nope", devices=["n0"])
        compare(pair, "delete", tag="z", devices=["n0"])
        memd = pair.subject
        before = (memd.scratch / "q").read_bytes()
        for command, why in (
            ("loadvm a", "memd loads no internal snapshots"),
            ("delvm a", "memd deletes no internal snapshots"),
            ("delvm disk", "memd deletes no internal snapshots"),
            ("savevm a", "memd makes no internal snapshots"),
            ("info snapshots", "memd lists no internal snapshots"),
            ("snapshot_delete_blkdev_internal d0 a", "memd deletes no internal snapshots"),
        ):
            assert memd.ask(*typed(command))["return"].startswith(f"Error: {why}")
        assert (memd.scratch / "q").read_bytes() == before
