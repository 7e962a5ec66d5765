"""The backends, in this process, beside a real QEMU: options, texts, mappings, files.

After every case memd holds what it held before, and QEMU's process nothing
that matters: each case uses an id of its own, because QEMU finds the
descriptor of a failed backend again by its id. Cases are deleted together where
that does not matter to them, because QEMU takes 50 ms to unmap.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.json_types import JSON
from tests.differential.harness import Pair, Side
from tests.differential.kernel import resident
from tests.differential.local import LocalSide
from tests.seeds import seed_of_run

MIB = 1 << 20
Options = dict[str, JSON]


@pytest.fixture
def local() -> Iterator[LocalSide]:
    side = LocalSide()
    before = side.holdings()
    yield side
    for name in side.objects():
        side.ask("object-del", {"id": name})
    after = side.holdings()
    side.clear()
    assert after.regions == before.regions == []
    assert after.descriptors == before.descriptors
    assert after.objects == before.objects == []


@pytest.fixture
def pair(qemu: Side, local: LocalSide) -> Pair:
    return Pair(qemu, local)


_ids = itertools.count()


def new_id() -> str:
    """An id that no other case has used."""
    return f"b{next(_ids)}x"


def names(directory: Path) -> list[str]:
    """The files in a directory, and in those below."""
    return sorted(str(path) for path in directory.rglob("*"))


def restore_files(pair: Pair) -> None:
    """Give the reference's files the content that memd's have."""
    there = pair.reference.files()
    for name, file in pair.subject.files().items():
        if file.kind == "-" and there[name].content != file.content:
            shutil.copyfile(pair.subject.scratch / name, pair.reference.scratch / name)


class Case:
    """One backend, made with the same options on both sides."""

    def __init__(self, pair: Pair, kind: str, options: Options) -> None:
        self.pair = pair
        self.id = new_id()
        self.arguments = {"qom-type": f"memory-backend-{kind}", "id": self.id, **options}
        subject = pair.subject
        before = subject.objects(), names(subject.scratch)
        self.answer = pair.ask("object-add", self.arguments)
        self.made = "return" in self.answer
        if not self.made:
            assert (subject.objects(), names(subject.scratch)) == before
            assert len(subject.regions()) == len(before[0])
            # QEMU leaves a file behind that it made and then could not use.
            for name in pair.reference.files().keys() - subject.files().keys():
                (pair.reference.scratch / name).unlink()
            if options.get("discard-data") and options.get("share"):
                # QEMU has punched out what a file had that it refused late.
                restore_files(pair)
            pair.expect_same_files()

    @property
    def path(self) -> str:
        return f"/objects/{self.id}"

    def compare(self) -> None:
        """Every property, the regions and the files, then delete."""
        compare([self])

    def compare_properties(self) -> None:
        """Every property of it and of its memory."""
        pair = self.pair
        for prop in pair.ask("qom-list", {"path": self.path})["return"]:
            pair.ask("qom-get", {"path": self.path, "property": prop["name"]})
            if str(prop["type"]).startswith("child<"):
                memory = f"{self.path}/{prop['name']}"
                for inner in pair.ask("qom-list", {"path": memory})["return"]:
                    pair.ask("qom-get", {"path": memory, "property": inner["name"]})


def compare(cases: list[Case]) -> None:
    """Every property of what was made, the regions and the files, then delete all."""
    made = [case for case in cases if case.made]
    if not made:
        return
    pair = made[0].pair
    for case in made:
        case.compare_properties()
    pair.expect_same_regions(len(made))
    pair.expect_same_files()
    for case in made:
        pair.ask("object-del", {"id": case.id})
    pair.expect_nothing_mapped()


def both_files(pair: Pair, name: str, size: int, mode: int = 0o644) -> None:
    """The same file with content in both scratch directories."""
    for side in (pair.reference, pair.subject):
        path = side.scratch / name
        path.write_bytes(b"memd" * (size // 4))
        path.chmod(mode)


ABSENT = object()


def given(**options: Any) -> Options:
    return {name.replace("_", "-"): value for name, value in options.items() if value is not ABSENT}


@pytest.mark.parametrize("readonly", [ABSENT, True, False])
@pytest.mark.parametrize("share", [ABSENT, True, False])
def test_the_table(pair: Pair, share: Any, readonly: Any) -> None:
    both_files(pair, "f", MIB)
    cases = []
    for rom in (ABSENT, "auto", "on", "off"):
        options = {"size": MIB, **given(share=share, readonly=readonly, rom=rom)}
        new = f"@DIR@/new {rom}"
        for path in ("@DIR@/f", new, "@DIR@"):
            cases.append(Case(pair, "file", {"mem-path": path, **options}))
    compare(cases)


KINDS: list[tuple[str, Options]] = [
    ("ram", {}),
    ("ram", {"share": True}),
    ("memfd", {}),
    ("memfd", {"share": False, "seal": False}),
    ("shm", {}),
    ("file", {"mem-path": "@DIR@/f"}),
    ("file", {"mem-path": "@DIR@/f", "share": True}),
    ("file", {"mem-path": "@DIR@/f", "readonly": True}),
]

COMMON: list[Options] = [
    {},
    {"merge": False},
    {"dump": False},
    {"merge": False, "dump": False, "reserve": False},
    {"reserve": False},
    {"prealloc": False, "prealloc-threads": 7},
    {"policy": "bind", "host-nodes": [0]},
    {"policy": "preferred", "host-nodes": [0]},
    {"policy": "preferred", "host-nodes": [100, 0, 3]},
    {"policy": "interleave", "host-nodes": [0, 64]},
    {"policy": "bind", "host-nodes": [0, 127]},
    {"policy": "default", "host-nodes": []},
    {"x-use-canonical-path-for-ramblock-id": True},
    # Refused, and nothing stays.
    {"policy": "bind"},
    {"policy": "preferred"},
    {"policy": "interleave"},
    {"host-nodes": [0]},
    {"policy": "bind", "host-nodes": [1]},
    {"policy": "preferred", "host-nodes": [127]},
    {"policy": "bind", "host-nodes": [0, 128]},
    {"policy": "bind", "host-nodes": [65535]},
    {"prealloc": True, "reserve": False},
    {"prealloc-threads": 0},
    {"prealloc-context": "nope"},
    {"prealloc-context": "/objects"},
    {"prealloc-context": ""},
    {"size": 0},
    {"size": 1},
    {"size": 4095},
    {"size": 4097},
    {"size": 1 << 62},
    {"size": (1 << 63) - 4096},
    {"size": (1 << 63) - 1},
    {"size": 1 << 63},
    {"size": (1 << 64) - (4 << 20)},
    {"size": (1 << 64) - (2 << 20)},
    {"size": (1 << 64) - 8192},
    {"size": (1 << 64) - 4096},
    {"size": (1 << 64) - 4096, "policy": "bind"},
]


@pytest.mark.parametrize(("kind", "own"), KINDS, ids=str)
def test_common_options(pair: Pair, kind: str, own: Options) -> None:
    if kind == "file":
        both_files(pair, "f", MIB)
    every = [{"size": MIB, **own, **common} for common in COMMON]
    # Sizes that are too large first: where there is other memory, QEMU ends.
    compare([Case(pair, kind, each) for each in sorted(every, key=lambda each: -each["size"])])


FILES: list[Options] = [
    {"align": 0},
    {"align": 3},
    {"align": 0x3000},
    {"align": 4096},
    {"align": 2 * MIB},
    {"align": 8 * MIB},
    {"align": 1 << 50},
    {"align": 1 << 63},
    {"offset": 100},
    {"offset": 4096},
    {"offset": MIB, "size": 4096},
    {"offset": MIB - 4096, "size": 4096},
    {"offset": (1 << 64) - 4096},
    {"offset": 1 << 63},
    {"align": 3, "offset": 100},
    {"align": 0x3000, "policy": "bind"},
    {"align": 8 * MIB, "policy": "bind"},
    {"size": 512 * 1024},
    {"size": 2 * MIB},
    {"size": 1 << 30, "align": 3},
    {"size": MIB - 1},
    {"size": MIB - 1, "policy": "bind"},
    {"size": (1 << 64) - 1},
    {"size": (1 << 64) - 4095},
    {"pmem": True},
    {"pmem": True, "share": True},
    {"pmem": True, "share": True, "readonly": True},
    {"pmem": True, "share": True, "align": 2 * MIB},
    {"rom": "on", "prealloc": False, "align": 3},
    {"rom": "on", "policy": "bind"},
    {"discard-data": True},
    {"discard-data": True, "share": True},
    {"discard-data": True, "share": True, "offset": 8192, "size": 16384},
    {"discard-data": True, "share": True, "readonly": True},
    {"discard-data": True, "readonly": True, "rom": "off"},
]


@pytest.mark.parametrize("options", FILES, ids=str)
def test_file_options(pair: Pair, options: Options) -> None:
    both_files(pair, "f", MIB)
    # An empty one is given its size, or not.
    both_files(pair, "empty", 0)
    # A file that is not there yet stays where QEMU's does. QEMU leaves it
    # behind when it fails late as well; memd does not.
    paths = ("@DIR@/f", "@DIR@/new", "@DIR@/empty")
    compare([Case(pair, "file", {"size": MIB, "mem-path": path, **options}) for path in paths])
    pair.expect_same_files()


PATHS = [
    "",
    ".",
    "@DIR@/",
    "@DIR@/no/x",
    "@DIR@/f/x",
    "@DIR@/new/",
    "@DIR@/" + "a" * 300,
    "@DIR@/nul\0inside",
    "@DIR@/ünïcödé",
    "@DIR@/directory",
    "@DIR@/directory-link",
    "@DIR@/link",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/tty",
    "/proc/version",
    "/proc/self/mem",
    "/proc",
    "/sys/kernel/mm/ksm/run",
    "@DIR@/socket",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths(pair: Pair, path: str) -> None:
    both_files(pair, "f", MIB)
    for side in (pair.reference, pair.subject):
        (side.scratch / "directory").mkdir()
        (side.scratch / "directory-link").symlink_to("directory")
        (side.scratch / "link").symlink_to("f")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(side.scratch / "socket"))
    cases = []
    here = os.getcwd()
    os.chdir(pair.subject.scratch)
    try:
        # Read-only first: the others may make what is missing.
        for readonly, share in itertools.product((True, False), (False, True)):
            options = {"mem-path": path, "readonly": readonly, "share": share}
            cases.append(Case(pair, "file", {"size": MIB, **options}))
        compare(cases)
        pair.expect_same_files()
    finally:
        os.chdir(here)


def test_a_fifo_that_is_written_to_as_well(pair: Pair) -> None:
    # Read-only, QEMU waits for a writer for ever.
    for side in (pair.reference, pair.subject):
        os.mkfifo(side.scratch / "fifo")
    Case(pair, "file", {"size": MIB, "mem-path": "@DIR@/fifo"})


def test_a_read_only_file_system(pair: Pair, read_only: Callable[[Path], None]) -> None:
    for side in (pair.reference, pair.subject):
        directory = side.scratch / "ro"
        directory.mkdir()
        (directory / "f").write_bytes(bytes(MIB))
        (directory / "empty").touch()
        read_only(directory)
    cases = []
    for name, readonly, share in itertools.product(
        ("", "/f", "/empty", "/new"), (False, True), (False, True)
    ):
        options = {"mem-path": f"@DIR@/ro{name}", "readonly": readonly, "share": share}
        cases.append(Case(pair, "file", {"size": MIB, **options}))
    compare(cases)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a directory read-only by a mount over itself."""
    if os.geteuid() != 0:
        pytest.skip("not here: root")
    mounted: list[Path] = []

    def remount(where: Path) -> None:
        for options in (["--bind", str(where)], ["-o", "remount,ro,bind"]):
            subprocess.run(["mount", *options, str(where)], check=True)
            if where not in mounted:
                mounted.append(where)

    yield remount
    for where in mounted:
        subprocess.run(["umount", "-l", str(where)], check=True)


HUGE: list[tuple[str, Options]] = (
    [
        ("memfd", {"size": size, "hugetlb": True, **own, **common})
        for size in (4 * MIB, 3 * MIB, 4096)
        for own in ({}, {"hugetlbsize": 2 * MIB, "seal": False}, {"share": False})
        for common in ({}, {"prealloc": True, "merge": False, "dump": False})
    ]
    + [
        ("memfd", {"size": 2 * MIB, "hugetlb": hugetlb, "hugetlbsize": size, "seal": seal})
        for size in (0, 1, 3, 6, 4096, 3 * MIB, 1 << 30, 1 << 40, 1 << 63, (1 << 64) - 1)
        for hugetlb in (True, False)
        for seal in (True, False)
    ]
    + [
        ("memfd", {"size": 1 << 40, "hugetlb": True}),
        ("memfd", {"size": 1 << 40, "hugetlb": True, "prealloc": True}),
        ("memfd", {"size": 1 << 40, "hugetlb": True, "reserve": False}),
        ("memfd", {"size": 4 * MIB, "hugetlb": True, "reserve": False, "share": False}),
    ]
    + [
        ("file", {"mem-path": f"@DIR@/huge{name}", "size": size, **own})
        for name in ("", "/f")
        for size in (4 * MIB, 2 * MIB + 1, MIB)
        for own in (
            {},
            {"share": True},
            {"prealloc": True, "share": True},
            {"offset": 2 * MIB},
            {"offset": 4096},
            {"align": 4096},
            {"align": 4 * MIB},
            {"align": 1 << 30},
            {"share": True, "discard-data": True},
            {"reserve": False},
        )
    ]
)


@pytest.fixture
def huge_pair(hugepages: Callable[[int], None], new_pair: Pair, mount: Callable[..., None]) -> Pair:
    """A pair with a mount of huge pages each.

    QEMU keeps the memory of what it refuses late: this one ends before others may use the
    machine's huge pages, which would find more free in the middle of their test.
    """
    hugepages(160)
    for side in (new_pair.reference, new_pair.subject):
        mount("hugetlbfs", side.scratch / "huge")
    return new_pair


def test_huge_pages(huge_pair: Pair) -> None:
    pair = huge_pair
    for kind, options in HUGE:
        case = Case(pair, kind, options)
        case.compare()
        for side in (pair.reference, pair.subject):
            (side.scratch / "huge/f").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("kind", "own"), [each for each in KINDS if not each[1].get("readonly")], ids=str
)
def test_preallocation(pair: Pair, kind: str, own: Options) -> None:
    if kind == "file":
        both_files(pair, "f", MIB)
    bound: Options = {"merge": False, "policy": "bind", "host-nodes": [0]}
    cases = [
        Case(pair, kind, {"size": MIB, "prealloc": True, "prealloc-threads": n, **own, **common})
        for n, common in itertools.product((1, 4), ({}, bound))
    ]
    everything = [(MIB, MIB)] * len(cases)
    assert pair.each(lambda side: resident(side.server.pid)) == (everything, everything)
    compare(cases)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_file_system(
    pair: Pair, mount: Callable[..., None], threads: int, share: bool, later: bool
) -> None:
    for side in (pair.reference, pair.subject):
        mount("tmpfs", side.scratch / "small", "size=1m")
    options: Options = {"size": 2 * MIB, "share": share, "prealloc-threads": threads}
    for path in ("@DIR@/small", "@DIR@/small/f"):
        if not later:
            assert not Case(pair, "file", {"mem-path": path, "prealloc": True, **options}).made
            continue
        case = Case(pair, "file", {"mem-path": path, **options})
        assert case.made
        for _ in range(2):
            setting = {"path": case.path, "property": "prealloc", "value": True}
            assert "error" in pair.ask("qom-set", setting)
        pair.ask("qom-get", {"path": case.path, "property": "prealloc"})
        pair.expect_same_regions(1)
        pair.ask("object-del", {"id": case.id})
        # How many pages there is room for depends on the CPUs that count them.
        pair.expect_same_regions(0)


CHANGES: dict[str, list[JSON]] = {
    "merge": [False, False, True, True, 0, "off"],
    "dump": [False, False, True, True, None],
    "prealloc": [False, True, True, False, 1],
    "prealloc-threads": [0, 1, 4, (1 << 32) - 1, 1 << 32, -1, "x", 1.5],
    "policy": ["bind", "preferred", "zz", 3, "default"],
    "host-nodes": [[0], [], [999], [3, 999], [4, -1], [5, "x"], 0, {}, [65536], [5, 1, 3, 1]],
    "x-use-canonical-path-for-ramblock-id": [True, False, 0],
    "size": [0, 4096, "x", -1],
    "share": [True, False, 1],
    "reserve": [True, False, 1],
    "prealloc-context": ["nope", "", "/objects", 3, "@ID@"],
    "type": ["x", 3],
    "zz": [1],
    "align": [0, 3, "x"],
    "offset": [0, 5, "x"],
    "mem-path": ["/x", "", 3],
    "rom": ["on", "auto", "zz", 3],
    "readonly": [True, False, 3],
    "pmem": [True, False, 3],
    "discard-data": [True, False, 3],
    "hugetlb": [True, False, 3],
    "hugetlbsize": [0, 2 * MIB, "x"],
    "seal": [True, False, 3],
}


@pytest.mark.parametrize("common", [{}, {"merge": False, "dump": False}, {"reserve": False}])
@pytest.mark.parametrize(("kind", "own"), [k for k in KINDS if not k[1].get("readonly")], ids=str)
def test_changes_afterwards(pair: Pair, kind: str, own: Options, common: Options) -> None:
    if kind == "file":
        both_files(pair, "f", MIB)
    case = Case(pair, kind, {"size": MIB, **own, **common})
    for name, values in CHANGES.items():
        for value in values:
            if value == "@ID@":
                value = case.id
            setting = {"path": case.path, "property": name, "value": value}
            if "return" in pair.ask("qom-set", setting):
                pair.expect_same_regions(1)
            pair.ask("qom-get", {"path": case.path, "property": name})
    case.compare()


AT_ONCE: Options = {
    "prealloc-context": "nope",
    "reserve": False,
    "prealloc": True,
    "hugetlbsize": 0,
    "host-nodes": [999],
    "prealloc-threads": 0,
    "size": 0,
    "policy": "bind",
    "share": False,
}


@pytest.mark.parametrize("kind", ["ram", "memfd", "shm"])
def test_which_of_several_refusals(pair: Pair, kind: str) -> None:
    wrong = [name for name in AT_ONCE if kind == "memfd" or name != "hugetlbsize"]
    every = list(itertools.permutations(wrong, 3))
    for chosen in (*itertools.permutations(wrong, 2), *random.Random(0).sample(every, 30)):
        options = {"size": MIB, **{name: AT_ONCE[name] for name in chosen}}
        arguments = {"qom-type": f"memory-backend-{kind}", "id": new_id(), **options}
        if "return" in pair.ask("object-add", arguments):
            pair.ask("object-del", {"id": arguments["id"]})


def test_a_duplicate_id(pair: Pair) -> None:
    first = Case(pair, "ram", {"size": 4096})
    for options in (
        {"qom-type": "memory-backend-ram", "size": 4096},
        {"qom-type": "memory-backend-ram", "size": 0},
        {"qom-type": "memory-backend-ram", "size": 4096, "policy": "bind"},
        {"qom-type": "memory-backend-shm", "size": 4096, "share": False},
        {"qom-type": "memory-backend-file", "size": 4096, "mem-path": "@DIR@/x", "rom": "on"},
        {"qom-type": "memory-backend-memfd", "size": 4096, "hugetlbsize": 6},
        {"qom-type": "memory-backend-memfd", "size": 4096, "hugetlbsize": 0},
        {"qom-type": "memory-backend-epc", "size": 0},
        {"qom-type": "thread-context", "cpu-affinity": []},
        {"qom-type": "thread-context", "cpu-affinity": [4000]},
        {"qom-type": "thread-context", "node-affinity": [77]},
    ):
        assert "error" in pair.ask("object-add", {"id": first.id, **options})
        assert "error" in pair.ask("object-add", {"id": "9a", **options})
    pair.expect_same_files()
    first.compare()


@pytest.mark.parametrize(
    "id",
    ["type", "m[0]", "a.b", "a_b-c", "Z", "é", "a:b", "a" * 200, "-a", "_a", "a ", "0", "", "a\n"],
)
def test_ids(pair: Pair, id: str) -> None:
    answer = pair.ask("object-add", {"qom-type": "memory-backend-ram", "id": id, "size": 1})
    pair.ask("object-del", {"id": id})
    if "return" not in answer:
        assert id not in pair.subject.objects()


THREADS: list[Options] = [
    {},
    {"cpu-affinity": [0]},
    {"cpu-affinity": [0, 0]},
    {"cpu-affinity": [0, 4000]},
    {"cpu-affinity": []},
    {"cpu-affinity": [4000]},
    {"cpu-affinity": [65535]},
    {"node-affinity": [0]},
    {"node-affinity": [0, 77]},
    {"node-affinity": []},
    {"node-affinity": [77]},
    {"node-affinity": [65535]},
    {"cpu-affinity": [0], "node-affinity": [0]},
    {"cpu-affinity": [], "node-affinity": [0]},
    {"cpu-affinity": [0], "node-affinity": []},
    {"cpu-affinity": [4000], "node-affinity": [77]},
]


@pytest.mark.parametrize("options", THREADS, ids=str)
def test_thread_contexts(pair: Pair, options: Options) -> None:
    name = new_id()
    path = f"/objects/{name}"
    answer = pair.ask("object-add", {"qom-type": "thread-context", "id": name, **options})
    if "error" in answer:
        return

    def ask(prop: str) -> JSON:
        return pair.ask("qom-get", {"path": path, "property": prop})

    for prop in ("type", "cpu-affinity", "node-affinity"):
        ask(prop)
    for each in THREADS[1:-4]:
        ((prop, value),) = each.items()
        pair.ask("qom-set", {"path": path, "property": prop, "value": value})
        ask("cpu-affinity")
    for prop in ("thread-id", "type"):
        pair.ask("qom-set", {"path": path, "property": prop, "value": 3})
    case = Case(pair, "ram", {"size": MIB, "prealloc-context": name, "prealloc": True})
    # The context may go before those that refer to it.
    pair.ask("object-del", {"id": name})
    pair.ask("qom-get", {"path": case.path, "property": "prealloc-context"})
    case.compare()


VALUES: dict[str, list[JSON]] = {
    "size": [1, 4095, 4096, 8192, MIB, MIB, MIB, 3 * MIB, 2 * MIB + 4096, 1 << 62],
    "share": [True, False],
    "merge": [True, False],
    "dump": [True, False],
    "reserve": [True, True, False],
    "prealloc": [False, False, True],
    "prealloc-threads": [1, 2, 5, 0],
    "policy": ["default", "bind", "preferred", "interleave"],
    "host-nodes": [[], [0], [0], [0, 5], [1], [128]],
    "x-use-canonical-path-for-ramblock-id": [True, False],
    "prealloc-context": ["", "nope"],
    "align": [0, 4096, 2 * MIB, 3, 12288],
    "offset": [0, 0, 4096, MIB, 5],
    "mem-path": [
        "@DIR@/f",
        "@DIR@/f",
        "@DIR@/empty",
        "@DIR@/new",
        "@DIR@",
        "/dev/zero",
        "@DIR@/n/x",
    ],
    "rom": ["auto", "on", "off"],
    "readonly": [True, False],
    "pmem": [True, False],
    "discard-data": [True, False],
    "hugetlbsize": [0, 6, 2 * MIB],
    "seal": [True, False],
}
OWN = {
    "ram": (),
    "memfd": ("hugetlbsize", "seal"),
    "shm": (),
    "file": ("align", "offset", "rom", "readonly", "pmem", "discard-data"),
}
COMMON_NAMES = tuple(VALUES)[1:11]


@pytest.mark.parametrize("stream", range(4))
def test_random_options(pair: Pair, stream: int) -> None:
    """MEMD_RANDOM_OPTIONS sets how many combinations a stream tries, MEMD_SEED which."""
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}, stream {stream}")
    pair.note = f"MEMD_SEED={seed}, stream {stream}"
    chance = random.Random(f"{seed}/{stream}")
    for _ in range(int(os.environ.get("MEMD_RANDOM_OPTIONS", "15"))):
        for side in (pair.reference, pair.subject):
            (side.scratch / "new").unlink(missing_ok=True)
            (side.scratch / "empty").unlink(missing_ok=True)
            (side.scratch / "empty").touch()
        both_files(pair, "f", 3 * MIB)
        kind = chance.choice(list(OWN))
        chosen = [name for name in (*COMMON_NAMES, *OWN[kind]) if chance.random() < 0.3]
        options = {name: chance.choice(VALUES[name]) for name in chosen}
        options["size"] = chance.choice(VALUES["size"])
        if kind == "file":
            options["mem-path"] = chance.choice(VALUES["mem-path"])
        # QEMU does not survive preallocation of memory that can't be written.
        if options.get("readonly") and options.get("rom", "auto") != "off":
            options.pop("prealloc", None)
        items = list(options.items())
        chance.shuffle(items)
        Case(pair, kind, dict(items)).compare()
