"""Dirty bitmaps that are kept in images: rules, files and bits, as a QEMU's.

After each end of both, by `quit` or by kill -9, a further QEMU opens both images, and has to
find the same in them. The seed is in every failure; `MEMD_SEED` repeats one.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side, settle
from tests.differential.server import qemu_binary, running
from tests.differential.standin import standin_pair
from tests.differential.test_bitmaps import ABORT, bitmap, merge, transaction
from tests.differential.test_block_jobs import Step, node, run
from tests.seeds import seed_of_run

MIB = 1 << 20
SIZE = 64 * MIB
FLAT: Step = ("query-named-block-nodes", {"flat": True})


def opened(name: str = "i", called: str = "n0", *, read_only: bool = False) -> Step:
    file = {"driver": "file", "filename": f"@DIR@/{name}"}
    return node("qcow2", called, file=file, **{"read-only": read_only})


def reopened(read_only: bool) -> Step:
    told = opened(read_only=read_only)[1]
    return "blockdev-reopen", {"options": [told]}


def add(name: str = "b", **options: Any) -> Step:
    return bitmap("add", name, **{"persistent": True, **options})


CLOSE: Step = ("blockdev-del", {"node-name": "n0"})


def go(pair: Pair, steps: list[Step]) -> None:
    """Execute commands on both; how long the files are is not compared."""
    for step in steps:
        if step is FLAT:
            pair.same("nodes", looked)
        else:
            run(pair, [step])


def looked(side: Side) -> Any:
    nodes = side.ask(*FLAT)["return"]
    assert isinstance(nodes, list)
    rows = [each for each in nodes if each["drv"] != "file"]
    for each in rows:
        if each["drv"] == "raw":
            each["image"].pop("virtual-size", None)
        each["image"].pop("actual-size", None)
        # The names of nodes that are given none, and whether a machine that has gone has them.
        each.pop("children", None)
        each.pop("active", None)
    return rows


@contextmanager
def qemu(directory: Path, scratch: Path) -> Iterator[Side]:
    """A QEMU that works in a directory."""
    directory.mkdir()
    line = [*qemu_binary(), "-S", "-display", "none", "-nodefaults", "-machine", "none"]
    with running("QEMU", line, directory, scratch) as server:
        yield Side(server, scratch)


def do(side: Side, *steps: Step) -> None:
    for command, arguments in steps:
        answer = side.ask(command, arguments)
        assert "error" not in answer, (command, arguments, answer)


def write(*ranges: str) -> list[Step]:
    lines = [f'qemu-io n0 "write {each}"' for each in ranges]
    return [("human-monitor-command", {"command-line": line}) for line in lines]


def make(directory: Path, steps: list[Step], **options: Any) -> Path:
    """A directory with an image of a QEMU's, and what that has done to it."""
    made = directory / "made"
    made.mkdir(parents=True)
    with qemu(directory / "making", made) as side:
        (made / "i").touch()
        do(side, node("file", "p", filename="@DIR@/i"))
        told = {"driver": "qcow2", "file": "p", "size": SIZE, **options}
        do(side, ("blockdev-create", {"job-id": "c", "options": told}))
        settle(
            lambda: side.ask("query-jobs")["return"],
            lambda jobs: jobs[0]["status"] == "concluded",
        )
        do(side, ("job-dismiss", {"id": "c"}), node("qcow2", "n0", file="p"), *steps, CLOSE)
    return made


def found(directory: Path, images: dict[str, Path]) -> dict[str, Any]:
    """What a QEMU finds in images: bitmaps with flags and digests of their bits."""
    outcome: dict[str, Any] = {}
    directory.mkdir()
    with qemu(directory / "server", directory) as side:
        for name, path in images.items():
            shutil.copy(path, directory / name)
            answer = side.ask(*opened(name, name, read_only=True))
            told = [
                row
                for row in side.ask(*FLAT)["return"]
                if row["node-name"] == name and "error" not in answer
            ]
            digests = {}
            for each in told[0].get("dirty-bitmaps", []) if told else []:
                asked = {"node": name, "name": each["name"]}
                digests[each["name"]] = side.ask("x-debug-block-dirty-bitmap-sha256", asked)
            info = told[0]["image"]["format-specific"]["data"].get("bitmaps") if told else None
            bitmaps = told[0].get("dirty-bitmaps") if told else answer
            outcome[name] = (bitmaps, digests, info)
    return outcome


def checked(path: Path) -> int:
    """The status of `qemu-img check`: 0 for none, 3 for leaked clusters alone."""
    done = subprocess.run(
        ["qemu-img", "check", "-q", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), (done.returncode, done.stdout, done.stderr)
    return done.returncode


need_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="needs qemu-img(1): it is not on PATH"
)


def end(pair: Pair, *, kill: bool = False) -> dict[str, Path]:
    """End both, and compare what is in their images."""
    for side in (pair.reference, pair.subject):
        if kill:
            side.server.process.kill()
        else:
            side.ask("quit")
        side.server.wait()
    return {"q": pair.reference.scratch / "i", "m": pair.subject.scratch / "i"}


def compare(pair: Pair, directory: Path, images: dict[str, Path]) -> None:
    seen = found(directory, images)
    assert seen["q"] == seen["m"], (pair.note, pair.log)


def test_rules(directory: Path) -> None:
    steps: list[Step] = [
        opened(),
        add("x" * 1024, granularity=5),
        *(add(name) for name in ("", "b", "b", "x" * 1023, "x" * 1023, "x" * 1024, "ä" * 512)),
        *(add(f"g{bits}", granularity=1 << bits) for bits in (8, 9, 20, 31)),
        add("off", disabled=True),
        add("temporary", persistent=False),
        add("temporary"),
        add("b", persistent=False),
        FLAT,
        *(bitmap("remove", name) for name in ("g9", "temporary", "nope")),
        CLOSE,
        opened(),
        FLAT,
        *(bitmap("remove", name) for name in ("off", "b")),
        add("b"),
        FLAT,
        reopened(True),
        FLAT,
        *(bitmap(verb) for verb in ("clear", "enable", "disable", "remove", "add")),
        *(merge("b", "g20"), merge("g20", "b"), add("late"), add("more", persistent=False)),
        *(merge("more", "g20"), merge("late", "g20"), bitmap("clear", "late")),
        FLAT,
        reopened(False),
        FLAT,
        ("block_resize", {"node-name": "n0", "size": 2 * SIZE}),
        FLAT,
        CLOSE,
        opened(read_only=True),
        FLAT,
        add("lost"),
        CLOSE,
        opened(),
        node("null-co", "null", size=2 * SIZE),
        node("raw", "raw", file="n0"),
        *(bitmap("add", node=name, persistent=True) for name in ("null", "raw")),
        *(bitmap("add", "t", node="raw"), merge("t", {"node": "n0", "name": "b"}, node="raw")),
        FLAT,
    ]
    made = make(directory / "m", [])
    with standin_pair(directory, "-machine", "none", prepare=lambda to: copy(made, to)) as pair:
        go(pair, steps)
        images = end(pair)
    compare(pair, directory / "judge", images)


def copy(made: Path, to: Path) -> None:
    shutil.copy(made / "i", to / "i")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cluster-size": 512},
        {"cluster-size": 2 * MIB},
        {"refcount-bits": 1},
        {"refcount-bits": 4, "cluster-size": 4096},
        {"refcount-bits": 64, "cluster-size": 512},
        {"extended-l2": True},
    ],
)
@need_qemu_img
def test_bits_of_a_qemu_are_kept(directory: Path, options: dict[str, Any]) -> None:
    """In images of every kind, each way round."""
    writing = write("0 1", "1M 3k", "33M 70k", "63M 1M", "8M 16M")
    steps = [
        *(add(), add("fine", granularity=512), add("coarse", granularity=MIB)),
        *(*writing, bitmap("disable", "coarse"), add("none"), add("off", disabled=True)),
    ]
    made = make(directory / "m", steps, **options)
    named = {"node": "n0", "target": "merged", "bitmaps": ["fine", "none"]}
    steps = [
        opened(),
        FLAT,
        *(add("merged"), add("m2", granularity=2 * MIB), add("m3", granularity=512)),
        ("block-dirty-bitmap-merge", named),
        *(merge("m2", "fine", "b"), merge("m3", "coarse"), merge("coarse", "m3", "b")),
        transaction(add("t"), merge("t", "b"), bitmap("clear"), bitmap("clear", "fine"), ABORT),
        transaction(add("t"), merge("t", "b"), bitmap("clear"), bitmap("remove", "none")),
        FLAT,
        CLOSE,
        opened(),
        bitmap("clear", "merged"),
        FLAT,
    ]
    with standin_pair(directory, "-machine", "none", prepare=lambda to: copy(made, to)) as pair:
        go(pair, steps)
        images = end(pair)
    compare(pair, directory / "judge", images)
    assert checked(images["m"]) == checked(images["q"]) == 0


def test_bitmaps_go_with_the_machine(directory: Path) -> None:
    """They are in the image once it is another machine's, and are read when this one goes on."""
    made = make(directory / "m", [add(), *write("1M 3k")])
    with standin_pair(directory, "-machine", "none", prepare=lambda to: copy(made, to)) as pair:
        go(pair, [opened(), add("new"), add("t", persistent=False), merge("new", "b"), FLAT])
        pair.ask("migrate", {"uri": "file:@DIR@/gone"})
        pair.each(
            lambda side: settle(
                lambda: side.ask("query-migrate")["return"],
                lambda now: now.get("status") == "completed",
            )
        )
        pair.each(lambda side: side.take_events())
        go(pair, [FLAT])
        images = {"q": pair.reference.scratch / "i", "m": pair.subject.scratch / "i"}
        compare(pair, directory / "between", images)
        go(pair, [("cont", None), FLAT, bitmap("clear", "new")])
        images = end(pair)
    compare(pair, directory / "judge", images)


def test_an_image_without_a_place_for_bitmaps(directory: Path) -> None:
    made = make(directory / "m", [], version="v2")
    with standin_pair(directory, "-machine", "none", prepare=lambda to: copy(made, to)) as pair:
        go(pair, [opened(), add(), add("x" * 1024), add("t", persistent=False), add("t"), FLAT])


def header_of(data: bytes) -> int:
    """Where the header tells of the bitmaps."""
    (at,) = struct.unpack_from(">I", data, 100)
    while True:
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0x23852875:
            return int(at) + 8
        assert kind
        at += 8 + -(-length // 8) * 8


BROKEN = (
    *(("header", 0, ">I", value) for value in (0, 2, 65536)),
    ("header", 4, ">I", 1),
    *(("header", 8, ">Q", value) for value in (0, 24, 40, (64 << 20) + 8)),
    *(("header", 16, ">Q", value) for value in (8, 1 << 40)),
    ("header", -4, ">I", 16),
    *(("directory", 0, ">Q", value) for value in (0, 8)),
    *(("directory", 8, ">I", value) for value in (0, 2, (1 << 27) + 1)),
    *(("directory", 12, ">I", value) for value in (1, 3, 4, 8)),
    *(("directory", 16, ">B", value) for value in (0, 2)),
    *(("directory", 17, ">B", value) for value in (8, 20, 32)),
    *(("directory", 18, ">H", value) for value in (0, 1024)),
    ("directory", 20, ">I", 8),
    ("directory", 24, ">B", 255),
    *(("table", 0, ">Q", value) for value in (1, 2, 0x1200, 1 << 63, 1 << 56)),
    *(("image", 36, ">I", value) for value in ((32 << 17) + 1,)),
    *(("image", 40, ">Q", value) for value in (512, 1 << 63)),
    *(("image", 48, ">Q", value) for value in (513, 1 << 63)),
    *(("image", 56, ">I", value) for value in (0, 1000)),
    ("image", 60, ">I", 65537),
    ("image", 64, ">Q", 100),
    *(("image", 72, ">Q", value) for value in (2, 1 << 40)),
    ("image", 88, ">Q", 0),
    ("image", 96, ">I", 7),
)


def test_broken_images(directory: Path) -> None:
    """What can't be is refused, or told, as by a QEMU."""
    made = make(directory / "m", [add(), *write("1M 3k")])
    data = (made / "i").read_bytes()
    header = header_of(data)
    (place,) = struct.unpack_from(">Q", data, header + 16)
    (table,) = struct.unpack_from(">Q", data, place)
    starts = {"image": 0, "header": header, "directory": place, "table": table}
    names = []

    def prepare(to: Path) -> None:
        for number, (where, at, form, value) in enumerate(BROKEN):
            changed = bytearray(data)
            struct.pack_into(form, changed, starts[where] + at, value)
            for name in (f"r{number}", f"w{number}"):
                (to / name).write_bytes(changed)
                names.append(name)

    with standin_pair(directory, "-machine", "none", prepare=prepare) as pair:
        for name in dict.fromkeys(names):
            number = int(name[1:])
            pair.note = str(BROKEN[number])
            steps = [
                opened(name, read_only=name[0] == "r"),
                FLAT,
                bitmap("remove"),
                CLOSE,
            ]
            # How the clusters of a table that is elsewhere are freed is not compared.
            go(pair, steps if name[0] == "r" or BROKEN[number][0] != "table" else steps[:2])
            if BROKEN[number][0] == "table":
                pair.each(lambda side: side.ask(*CLOSE))


class Words:
    """Steps that are told by a random number generator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = ["a", "b", "c", "d"]
        self.size = SIZE

    def name(self) -> str:
        return self.rng.choice(self.names)

    def action(self, *more: str) -> Step:
        rng = self.rng
        kind = rng.choice(["add", "add", "add", "merge", "merge", "merge", "clear", *more])
        if kind == "add":
            grain = rng.choice([None, None, 512, 4096, 65536, MIB, 1 << 31])
            grained = {} if grain is None else {"granularity": grain}
            persistent = rng.random() < 0.8
            return add(self.name(), persistent=persistent, disabled=rng.random() < 0.2, **grained)
        if kind == "merge":
            return merge(self.name(), *(self.name() for _ in range(rng.randrange(1, 3))))
        return bitmap(kind, self.name())

    def step(self) -> list[Step]:
        rng = self.rng
        chance = rng.random()
        if chance < 0.55:
            return [self.action("enable", "disable")]
        if chance < 0.67:
            return [bitmap("remove", self.name())]
        if chance < 0.75:
            # QEMU 10.0.2 crashes where one of the others is refused there.
            some = [self.action() for _ in range(rng.randrange(1, 4))]
            return [transaction(*some, *[ABORT] * rng.randrange(2))]
        if chance < 0.85:
            return [reopened(rng.random() < 0.4)]
        if chance < 0.9:
            return [CLOSE, opened(read_only=rng.random() < 0.2)]
        if chance < 0.92:
            self.size += rng.randrange(9) * MIB
            return [("block_resize", {"node-name": "n0", "size": self.size})]
        return [FLAT]


@need_qemu_img
@pytest.mark.parametrize("stream", range(2))
def test_random_steps(directory: Path, stream: int) -> None:
    """With ends by `quit` and by kill -9 in between."""
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}, stream {stream}")
    rng = random.Random(f"{seed} {stream}")
    words = Words(rng)
    options: dict[str, Any] = {
        "cluster-size": rng.choice([512, 4096, 65536, 65536, MIB]),
        "refcount-bits": rng.choice([1, 2, 8, 16, 16, 32, 64]),
    }
    at = [f"{rng.randrange(0, 60)}M {rng.randrange(1, 4 * MIB)}" for _ in range(4)]
    steps = [add("a"), *write(*at[:2]), add("b", granularity=512), *write(*at[2:])]
    made = make(directory / "m", steps, **options)
    images = {"q": made / "i", "m": made / "i"}
    leaked = False
    for number in range(4):
        here = directory / str(number)
        here.mkdir()

        def prepare(to: Path, images: dict[str, Path] = images) -> None:
            shutil.copy(images["q" if to.name.startswith("QEMU") else "m"], to / "i")

        with standin_pair(here, "-machine", "none", prepare=prepare) as pair:
            pair.note = f"MEMD_SEED={seed}, stream {stream}, part {number}, {options}"
            go(pair, [opened(), FLAT])
            for _ in range(30):
                go(pair, words.step())
            kill = rng.random() < 0.4
            images = end(pair, kill=kill)
        leaked = leaked or kill
        compare(pair, here / "judge", images)
        assert checked(images["m"]) in ((0, 3) if leaked else (0,)), pair.note
