"""Internal snapshots of images and of the machine, beside a QEMU's: what is told, and the data.

The seed of random steps is in every failure; `MEMD_SEED` repeats one.
"""

from __future__ import annotations

import base64
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.server import qemu_compat, qemu_system_memd, running
from tests.differential.standin import same_messages, standin_pair
from tests.differential.test_persistent_bitmaps import checked, do, need_qemu_img, opened, qemu
from tests.differential.test_snapshots import LAYOUTS, drive, outcome, prepare, typed
from tests.seeds import seed_of_run

MIB = 1 << 20
SIZE = 64 * MIB
MACHINE = ("-machine", "q35", "-m", "16M")

_VARIES = re.compile(
    r"vm-\d{14}|[\d.]+(e\+\d+)? [KMG]?i?B(?= \d{4}-)|\d{4}-\d\d-\d\d [\d:]+|\d{4,}:\d\d:[\d.]+"
)


def said(side: Side, line: str) -> Any:
    """What the human monitor says, but for sizes and times; and the events."""
    answer = side.ask(*typed(line))
    if "return" in answer:
        text = str(answer["return"])
        answer = {"return": re.sub(r" +", " ", _VARIES.sub("X", text))}
    side.ask("query-name")
    return answer, [each for each in side.take_events() if each["event"] != "JOB_STATUS_CHANGE"]


def told(side: Side) -> Any:
    """What is told of the snapshots of each node."""
    found = []
    for each in side.ask("query-named-block-nodes", {"flat": True})["return"]:
        some = each["image"].get("snapshots")
        if some:
            # The harness has sorted them by their dates.
            rows = [(each["id"], each["name"], each["vm-state-size"] > 0) for each in some]
            found.append(sorted((id, _VARIES.sub("X", name), state) for id, name, state in rows))
    return sorted(found)


def say(pair: Pair, *lines: str) -> None:
    for line in lines:
        pair.same(line, lambda side, line=line: said(side, line))  # type: ignore[misc]
        pair.log.append(line)
        pair.same("snapshots", told)


def two(directory: Path) -> None:
    prepare(directory)
    shutil.copy(directory / "q", directory / "r")


LIFE = (
    *("info snapshots", "savevm", "savevm s1", "savevm s1", "info snapshots", "savevm 1"),
    *("snapshot_blkdev_internal d0 disk", "snapshot_blkdev_internal d0 disk", "info snapshots"),
    *("loadvm s1", "info status", "loadvm disk", "cont", "savevm run", "info status"),
    *("loadvm run", "info status", "stop", "loadvm run", "info status", "cont", "loadvm s1"),
    *("info status", "delvm s1", "info snapshots", "delvm nope", "delvm 1", "savevm 1"),
    *("snapshot_delete_blkdev_internal d0 disk", "snapshot_delete_blkdev_internal d0 1"),
    *("info snapshots", f"savevm {'n' * 300}", f"savevm {'n' * 255}", f"loadvm {'n' * 255}"),
    *("stop", f"snapshot_blkdev_internal d0 {'m' * 300}", "info snapshots", "system_reset"),
    *("savevm last", "info status", "loadvm last", "info status"),
)


def test_life(directory: Path) -> None:
    layout = (*drive("q", kind="qcow2"), *drive("r", 1, kind="qcow2"))
    with standin_pair(directory, *MACHINE, *layout, prepare=two) as pair:
        say(pair, *LIFE)


@pytest.mark.parametrize("layout", ["qcow2", "a node", "a filter", "raw on qcow2"])
def test_life_of_one(directory: Path, layout: str) -> None:
    above = "n1" if layout in ("a filter", "raw on qcow2") else "n0"
    # QEMU 10.0.2 crashes where it loads one of a filter.
    load = [] if layout == "a filter" else ["loadvm a"]
    with standin_pair(directory, *MACHINE, *LAYOUTS[layout], prepare=prepare) as pair:
        say(
            pair,
            *("savevm a", f"snapshot_blkdev_internal {above} x", "info snapshots", "loadvm x"),
            *(*load, "savevm b", "delvm a", f"snapshot_delete_blkdev_internal {above} x"),
            *("info snapshots", "delvm b", "info snapshots"),
        )


def test_jobs(directory: Path) -> None:
    layout = (*drive("q", kind="qcow2"), *drive("r", 1, kind="qcow2"))
    both: dict[str, Any] = {"devices": ["n0", "n1"]}
    steps: list[tuple[str, dict[str, Any]]] = [
        *(("save", {"vmstate": name, **both}) for name in ("nope", "n1", "n1")),
        *(("load", {"vmstate": name, **both}) for name in ("n1", "n0", "nope")),
        ("save", {"vmstate": "n0", "devices": ["n0"], "tag": "u"}),
        ("load", {"vmstate": "n0", **both, "tag": "u"}),
        ("load", {"vmstate": "n0", "devices": ["n0"], "tag": "u"}),
        *(("delete", {**both, "tag": tag}) for tag in "utt"),
        ("save", {"vmstate": "n0", **both, "tag": "x" * 300}),
    ]
    with standin_pair(directory, *MACHINE, *layout, prepare=two) as pair:
        for runs in (False, True):
            if runs:
                say(pair, "cont")
            for kind, more in steps:
                given = {"job-id": "j", "tag": "t", **more}
                what = f"snapshot-{kind} {given}"
                pair.same(
                    what,
                    lambda side, kind=kind, given=given: outcome(  # type: ignore[misc]
                        side, f"snapshot-{kind}", given
                    ),
                )
                pair.log.append(what)
                pair.same("snapshots", told)


def test_in_transactions(directory: Path) -> None:
    def make(node: str, name: str) -> dict[str, Any]:
        return {"type": "blockdev-snapshot-internal-sync", "data": {"device": node, "name": name}}

    layout = (*drive("q", kind="qcow2"), *drive("r", 1, kind="qcow2"))
    abort = {"type": "abort", "data": {}}
    with standin_pair(directory, *MACHINE, *layout, prepare=two) as pair:
        for actions in (
            [make("d0", "a"), make("d1", "a"), abort],
            [make("d0", "a"), make("d1", "a")],
            [make("d0", "b"), make("d1", "a")],
            [make("d0", "b"), make("d0", "b")],
            [make("d0", "b"), make("n1", "c")],
        ):
            pair.ask("transaction", {"actions": actions})
            pair.same("snapshots", told)


def test_with_bitmaps_none_is_loaded(directory: Path) -> None:
    with standin_pair(directory, *MACHINE, *LAYOUTS["qcow2"], prepare=prepare) as pair:
        for persistent in (True, False):
            bitmap = {"node": "n0", "name": "b"}
            pair.ask("block-dirty-bitmap-add", {**bitmap, "persistent": persistent})
            say(pair, "savevm a", "loadvm a", "info status")
            pair.ask("block-dirty-bitmap-remove", bitmap)
            say(pair, "loadvm a", "delvm a")


def make(directory: Path, *options: str) -> Path:
    made = directory / "made"
    made.mkdir()
    line = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(made / "i"), str(SIZE)]
    subprocess.run(line, check=True)
    return made


@need_qemu_img
@pytest.mark.parametrize(
    ("options", "written"),
    [
        ("refcount_bits=1", True),
        ("refcount_bits=2", False),
        ("refcount_bits=2", True),
        ("compat=0.10", True),
    ],
)
def test_images_that_can_not_have_them(directory: Path, options: str, written: bool) -> None:
    """Or not many; QEMU's words."""

    def prepare(scratch: Path) -> None:
        (directory / scratch.name).mkdir(exist_ok=True)
        made = make(directory / scratch.name, "-o", options)
        if written:
            with qemu(directory / scratch.name / "w", made) as side:
                do(side, opened(), typed('qemu-io n0 "write 0 64k"'))
        shutil.move(made / "i", scratch / "q")

    with standin_pair(directory, *MACHINE, *drive("q", kind="qcow2"), prepare=prepare) as pair:
        for number in range(4):
            say(pair, f"savevm s{number}", f"snapshot_blkdev_internal d0 d{number}")
        say(pair, "info snapshots")


def contents(path: Path, names: list[str], scratch: Path) -> dict[str, bytes]:
    """The data of an image, and of its snapshots."""
    found = {}
    for name in ["", *names]:
        raw = scratch / "raw"
        which = ["-l", f"snapshot.name={name}"] if name else []
        line = ["qemu-img", "convert", "-O", "raw", *which, str(path), str(raw)]
        subprocess.run(line, check=True)
        found[name] = raw.read_bytes()
        raw.unlink()
    return found


@need_qemu_img
def test_an_image_whose_data_is_elsewhere(directory: Path) -> None:
    def prepare(scratch: Path) -> None:
        (directory / scratch.name).mkdir(exist_ok=True)
        made = make(directory / scratch.name, "-o", f"data_file={scratch}/data")
        shutil.move(made / "i", scratch / "q")

    with standin_pair(directory, *MACHINE, *drive("q", kind="qcow2"), prepare=prepare) as pair:
        say(pair, "snapshot_blkdev_internal d0 a")
        # QEMU 10.0.2 crashes.
        answer = said(pair.subject, "savevm a")[0]
        assert answer == {"return": "Error: Could not create snapshot 'a' on 'd0'\r\n"}
        assert said(pair.subject, "info snapshots")[0]["return"].startswith("There is no")


@need_qemu_img
@pytest.mark.parametrize("stream", range(2))
def test_random_steps(directory: Path, stream: int) -> None:
    """A QEMU writes to both images in between, and both have the same data in the end."""
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}, stream {stream}")
    rng = random.Random(f"{seed} {stream}")
    cluster = rng.choice([512, 4096, 65536, MIB])
    options = [f"cluster_size={cluster}"]
    if rng.random() < 0.2:
        options.append("compat=0.10")
    else:
        options.append(f"refcount_bits={rng.choice([4, 8, 16, 32, 64])}")
        if cluster >= 65536 and rng.random() < 0.5:
            options.append("extended_l2=on")
    made = make(directory, "-o", ",".join(options))
    images = {"q": made / "i", "m": made / "i"}
    for number in range(3):
        here = directory / str(number)
        here.mkdir()
        some = []
        for _ in range(4):
            at, length = rng.randrange(SIZE // 512 - 4096), rng.randrange(1, 4096)
            compress = "-c " if rng.random() < 0.3 else ""
            if compress:
                at, length = at * 512 // cluster * cluster // 512, cluster // 512
            kind = rng.choice(["write -z", "discard", *["write -P 7"] * 4])
            kind = f"write {compress}-P 9" if compress else kind
            some.append(typed(f'qemu-io n0 "{kind} {at * 512} {length * 512}"'))
        for name, path in images.items():
            (here / name).mkdir()
            shutil.copy(path, here / name / "q")
            with qemu(here / f"{name}w", here / name) as side:
                do(side, opened("q"), *some)

        def take(to: Path, here: Path = here) -> None:
            shutil.copy(here / ("q" if to.name.startswith("QEMU") else "m") / "q", to / "q")

        with standin_pair(here, *MACHINE, *drive("q", kind="qcow2"), prepare=take) as pair:
            pair.note = f"MEMD_SEED={seed}, stream {stream}, part {number}, {options}"
            for _ in range(12):
                tag = rng.choice("abcd")
                word = rng.choice(
                    ["savevm", "delvm", "snapshot_blkdev_internal d0", "loadvm"]
                    + ["snapshot_delete_blkdev_internal d0"]
                )
                if word != "loadvm" or number == 0:
                    say(pair, f"{word} {tag}")
            names = [each[1] for each in (pair.same("snapshots", told) or [[]])[0]]
            for side in (pair.reference, pair.subject):
                side.ask("quit")
                side.server.wait()
            images = {"q": pair.reference.scratch / "q", "m": pair.subject.scratch / "q"}
        assert checked(images["q"]) == checked(images["m"]) == 0, pair.note
        both = [contents(images[name], names, here) for name in "qm"]
        assert both[0] == both[1], (pair.note, pair.log)


def test_the_memory_comes_back(directory: Path) -> None:
    """Byte for byte, also after a restart and a kill -9, and with a size of a virtio-mem device."""
    prepare(directory)
    memory = [f"{kind},id=m{number},size=4M" for number, kind in enumerate(KINDS)]
    line = [
        *(*qemu_system_memd(qemu_compat()), "-S", "-display", "none", "-nodefaults"),
        *("-machine", "q35", "-m", "16M,slots=8,maxmem=1G"),
        *(part for each in memory for part in ("-object", each)),
        *(part for n in range(len(KINDS)) for part in ("-device", f"pc-dimm,id=d{n},memdev=m{n}")),
        *(each.replace("@DIR@", str(directory)) for each in drive("q", kind="qcow2")),
    ]
    rng = random.Random(1)
    content = {f"m{n}": rng.randbytes(70000) for n in range(len(KINDS))}
    for number in range(4):
        place = directory / str(number)
        place.mkdir()
        options = ["-loadvm", "s"] if number == 3 else []
        with running("memd", [*line, *options], place, directory) as server:
            side = Side(server, directory)
            if number == 0:
                for id, part in content.items():
                    write(side, id, 4096, part)
                assert said(side, "savevm s")[0] == {"return": ""}
            if number != 3:
                for id in content:
                    write(side, id, 0, rng.randbytes(4 * MIB))
                assert said(side, "loadvm s")[0] == {"return": ""}
            for id, part in content.items():
                wanted = bytes(4096) + part
                assert read(side, id, 0, 4 * MIB) == wanted.ljust(4 * MIB, b"\0"), (number, id)
            if number == 1:
                server.process.kill()
                server.wait()


KINDS = ("memory-backend-ram", "memory-backend-memfd", "memory-backend-memfd,share=off")


def write(side: Side, id: str, offset: int, data: bytes) -> None:
    for at in range(0, len(data), MIB):
        text = base64.b64encode(data[at : at + MIB]).decode()
        told = {"id": id, "offset": offset + at, "data": text}
        assert side.ask("x-memdev-write", told) == {"return": {}}


def read(side: Side, id: str, offset: int, length: int) -> bytes:
    found = b""
    for at in range(0, length, MIB):
        told = {"id": id, "offset": offset + at, "length": min(MIB, length - at)}
        found += base64.b64decode(side.ask("x-memdev-read", told)["return"]["data"])
    return found


def test_the_states_of_others(directory: Path) -> None:
    """A QEMU's is refused, and so is that of another machine; nothing has changed then."""
    with standin_pair(directory, *MACHINE, *drive("q", kind="qcow2"), prepare=prepare) as pair:
        say(pair, "savevm a")
        paths = [pair.reference.scratch / "q", pair.subject.scratch / "q"]
        for side in (pair.reference, pair.subject):
            side.ask("quit")
            side.server.wait()
    for number, (path, machine, why) in enumerate(
        (
            (paths[0], MACHINE, ": the stream is QEMU's, and memd loads its own"),
            (paths[1], ("-machine", "pc", "-m", "16M"), ""),
        )
    ):
        place = directory / str(number)
        place.mkdir()
        layout = [each.replace("@DIR@/q", str(path)) for each in drive("q", kind="qcow2")]
        line = [*qemu_system_memd(qemu_compat()), "-S", "-display", "none", "-nodefaults"]
        with running("memd", [*line, *machine, *layout], place, directory) as server:
            side = Side(server, directory)
            before = path.read_bytes()
            for status in ("prelaunch", "restore-vm"):
                answer = side.ask(*typed("loadvm a"))["return"]
                assert answer == f"Error: Error -22 while loading VM state{why}\r\n"
                assert path.read_bytes() == before
                assert side.ask("query-status")["return"]["status"] == status
                side.ask("cont")
            side.ask(*typed("delvm a"))
            assert side.ask(*typed("info snapshots"))["return"] == (
                "There is no snapshot available.\r\n"
            )


@pytest.mark.parametrize(
    "options",
    [(), (*drive("q", kind="qcow2"),), (*drive("q", kind="qcow2"), "-incoming", "defer")],
)
def test_what_a_machine_can_not_start_from(directory: Path, options: tuple[str, ...]) -> None:
    prepare(directory)
    given = [each.replace("@DIR@", str(directory)) for each in options]
    same_messages("-machine", "q35", *given, "-loadvm", "nope")
