"""object-add: each refusal in QEMU's words and order, and each option's effect."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.differential.harness import Pair, Side, fresh_id
from tests.differential.kernel import resident

MIB = 1 << 20
ABSENT = object()


def stock(side: Side, where: str = "") -> None:
    place = side.scratch / where
    place.mkdir(exist_ok=True)
    with (place / "file").open("wb") as file:
        file.truncate(MIB)
    (place / "dir").mkdir()


def arguments(kind: str = "ram", **changes: Any) -> dict[str, Any]:
    """A good object-add, changed; underscores stand for dashes, ABSENT leaves a member out."""
    good: dict[str, Any] = {"qom-type": f"memory-backend-{kind}", "id": "m", "size": MIB}
    if kind == "file":
        good["mem-path"] = "@DIR@/file"
    good.update((name.replace("_", "-"), value) for name, value in changes.items())
    return {name: value for name, value in good.items() if value is not ABSENT}


REFUSALS: list[dict[str, Any]] = [
    # The type.
    arguments(qom_type=ABSENT),
    arguments(qom_type="foo"),
    arguments(qom_type=""),
    arguments(qom_type=7),
    arguments(qom_type=None),
    {"qom-type": "secret", "id": "m", "file": "/nowhere/a\0b"},
    arguments(qom_type="memory-backend"),
    arguments(qom_type="container"),
    arguments(qom_type="memory-backend-epc"),
    # The id.
    *[
        arguments(id=bad)
        for bad in (ABSENT, "", "9a", "a/b", "a b", "-a", "_a", ".a", "ä", 5, None)
    ],
    *[arguments(id=bad) for bad in ("a\0b", "a\n", "a[0]", "a:b", "a*")],
    # Members in the schema's order, then what is unexpected, then the id's form.
    arguments(id=ABSENT, qom_type=ABSENT),
    arguments(id=5, size=ABSENT, foo=1),
    arguments(id="9a", size=ABSENT, foo=1),
    arguments(id="9a", foo=1),
    arguments(id="9a", size=0),
    arguments(dump=1, size=ABSENT),
    arguments(merge="x", dump=1),
    arguments(size="x", share=1),
    arguments(foo=1, bar=2),
    arguments(mem_path="/x"),
    arguments(hugetlb=True),
    arguments("memfd", mem_path="/x"),
    arguments("file", seal=True),
    arguments("shm", seal=True),
    # Sizes.
    *[
        arguments(kind, size=bad)
        for kind in ("ram", "file", "memfd", "shm")
        for bad in (ABSENT, 0, "64M", "", 1.0, 1e6, True, None, [], {})
    ],
    *[arguments(kind, size=bad) for kind in ("ram", "memfd", "shm") for bad in (1 << 62, 1 << 63)],
    *[arguments(kind, size=1 << 50) for kind in ("ram", "memfd", "shm")],
    arguments(size=1 << 64),
    arguments(size=-(1 << 63) - 1),
    arguments(size=1 << 50, share=True),
    *[arguments(kind, size=bad) for kind in ("file", "memfd") for bad in (1, 4095, 4097, MIB + 1)],
    arguments("file", size=1 << 62, mem_path="@DIR@/new"),
    arguments("file", size=1 << 63, mem_path="@DIR@/new"),
    arguments("file", size=1 << 50, mem_path="@DIR@/new"),
    # NUMA.
    arguments(policy="bind"),
    arguments(policy="interleave"),
    arguments(policy="preferred"),
    arguments(policy="foo"),
    arguments(policy=1),
    arguments(host_nodes=[0]),
    arguments(host_nodes=[0], policy="default"),
    arguments(host_nodes=[99], policy="bind"),
    arguments(host_nodes=[127], policy="interleave"),
    *[arguments(host_nodes=[bad]) for bad in (128, 999, 65535, 65536, -1, 1.5, "0", True, None)],
    arguments(host_nodes=[0, "1"]),
    arguments(host_nodes=0),
    arguments(host_nodes={}),
    arguments(host_nodes="0"),
    arguments(host_nodes=[999], size=0),
    arguments(host_nodes=[999], prealloc_threads=0),
    # Preallocation.
    *[arguments(prealloc_threads=bad) for bad in (0, -1, 1 << 32, 1 << 64, "1", 1.0, True)],
    arguments(prealloc_threads=0, size=0),
    arguments(prealloc_context="nope"),
    arguments(prealloc_context="/objects"),
    arguments(prealloc_context=1),
    arguments(prealloc=True, reserve=False),
    arguments("memfd", prealloc=True, reserve=False),
    arguments("file", prealloc=True, reserve=False),
    arguments(prealloc="on"),
    arguments(prealloc=1),
    # Files.
    arguments("file", mem_path=ABSENT),
    arguments("file", mem_path=1),
    arguments("file", mem_path=""),
    arguments("file", mem_path="@DIR@/no/such"),
    arguments("file", mem_path="@DIR@/file/below"),
    arguments("file", mem_path="@DIR@/" + "x" * 300),
    arguments("file", mem_path="@DIR@/new/"),
    arguments("file", mem_path="@DIR@/no", readonly=True),
    arguments("file", mem_path="@DIR@/dir", readonly=True),
    arguments("file", mem_path="/dev/null"),
    arguments("file", mem_path="/dev/null", readonly=True),
    arguments("file", size=2 * MIB),
    arguments("file", size=2 * MIB, readonly=True),
    arguments("file", offset=4096),
    arguments("file", offset=MIB),
    arguments("file", offset=100),
    arguments("file", offset=-4096),
    arguments("file", offset="0"),
    arguments("file", offset=1 << 63, mem_path="@DIR@/new"),
    *[arguments("file", align=bad) for bad in (1, 3, 100, 4095, 4097, 0x3000, "x", -1, 1.5)],
    arguments("file", align=3, offset=100),
    arguments("file", align=3, offset=100, size=1),
    arguments("file", offset=100, size=4097),
    arguments("file", align=3, mem_path="@DIR@/new"),
    arguments("file", offset=100, mem_path="@DIR@/new"),
    arguments("file", size=4097, mem_path="@DIR@/new"),
    arguments("file", size=4097, mem_path="@DIR@/dir"),
    arguments("file", policy="bind", mem_path="@DIR@/new"),
    arguments("file", host_nodes=[99], policy="bind", mem_path="@DIR@/new"),
    arguments("file", pmem=1),
    arguments("file", rom="yes"),
    arguments("file", rom=True),
    arguments("file", rom="on"),
    arguments("file", rom="off", readonly=True, share=True),
    arguments("file", rom="on", mem_path="@DIR@/new"),
    arguments("file", rom="on", align=3),
    # memfd and shm.
    arguments("memfd", hugetlbsize=0),
    arguments("memfd", hugetlbsize=0, hugetlb=True),
    arguments("memfd", hugetlbsize=3, hugetlb=True),
    arguments("memfd", hugetlbsize=4096, hugetlb=True),
    arguments("memfd", hugetlbsize="2M", hugetlb=True),
    arguments("memfd", hugetlbsize=3 * MIB, hugetlb=True),
    arguments("memfd", hugetlb=True, size=3 * MIB),
    arguments("memfd", hugetlb=True, size=4096),
    arguments("memfd", hugetlbsize=1 << 40, hugetlb=True),
    arguments("memfd", hugetlb="on"),
    arguments("memfd", seal=1),
    arguments("shm", share=False),
    arguments("shm", share=False, size=0),
]


def named(case: dict[str, Any]) -> dict[str, Any]:
    """A case with an id of its own in place of the usual one."""
    return {**case, "id": fresh_id()} if case.get("id") == "m" else case


def label(case: dict[str, Any]) -> str:
    words = [str(case.get("qom-type", "no type")).removeprefix("memory-backend-")]
    words += [f"{k}={str(v)[:24]}" for k, v in case.items() if k != "qom-type"]
    return ",".join(words)


def some(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """Gives a test some of the cases at a time: QEMU takes 50 ms to unmap, and once will do."""
    count = 20
    return pytest.mark.parametrize(
        "cases", [cases[at : at + count] for at in range(0, len(cases), count)], ids=lambda _: ""
    )


@some(REFUSALS)
def test_refused(pair: Pair, cases: list[dict[str, Any]]) -> None:
    pair.each(stock)
    before = pair.subject.holdings()
    for case in cases:
        assert "error" in pair.ask("object-add", named(case))
        pair.subject.expect_unchanged(before)
        # The reference leaves files that it made and sized for nothing.
        for name in pair.reference.files().keys() - before.files.keys():
            (pair.reference.scratch / name).unlink()
    pair.expect_same_regions()


def test_duplicate_id(pair: Pair) -> None:
    """The id's own refusal comes after the properties' and before anything is made."""
    pair.each(stock)
    pair.ask("object-add", arguments())
    for case in (
        arguments(),
        arguments("file", mem_path="@DIR@/new"),
        arguments("file", mem_path="@DIR@/no/such"),
        arguments(size=0),
        arguments(host_nodes=[999]),
        arguments(policy="bind"),
        arguments("file", rom="on"),
        {"qom-type": "thread-context", "id": "m"},
    ):
        pair.refuse("object-add", case)
    pair.expect_same_regions(count=1)


TAKEN: list[dict[str, Any]] = [
    *[arguments(size=size) for size in (1, 4095, 4096, 4097, MIB + 4095)],
    arguments("shm", size=1),
    arguments("shm", size=4097),
    *[arguments(id=name) for name in ("a", "A9-._z", "a" * 200, "objects", "m.0", "true")],
    arguments("ram", share=True, id="a" * 200),
    arguments("ram", share=True, id="a" * 300),
    *[
        arguments(kind, share=share, merge=merge, dump=dump, reserve=reserve)
        for kind in ("ram", "file", "memfd", "shm")
        for share in ((True,) if kind == "shm" else (False, True))
        for merge, dump, reserve in ((True, True, True), (False, False, False), (True, False, True))
    ],
    *[
        arguments(kind, host_nodes=[0], policy=policy)
        for kind in ("ram", "file", "memfd", "shm")
        for policy in ("bind", "interleave", "preferred")
    ],
    arguments(policy="default"),
    arguments(host_nodes=[0, 99], policy="preferred"),
    arguments(prealloc_context=""),
    arguments(host_nodes=[]),
    arguments(host_nodes=[0, 0], policy="bind"),
    *[
        arguments(kind, prealloc=True, prealloc_threads=threads)
        for kind in ("ram", "file", "memfd", "shm")
        for threads in (1, 2, 7)
    ],
    arguments("file", prealloc=True, share=True, mem_path="@DIR@/new"),
    arguments("file", prealloc=True, share=True, mem_path="@DIR@/dir"),
    arguments(prealloc=False, reserve=False),
    arguments(x_use_canonical_path_for_ramblock_id=True),
    arguments("memfd", x_use_canonical_path_for_ramblock_id=False),
    *[arguments("file", align=align) for align in (0, 4096, 8192, MIB, 2 * MIB)],
    arguments("file", offset=4096, size=MIB - 4096),
    arguments("file", offset=MIB - 4096, size=4096),
    arguments("file", pmem=False),
    arguments("file", mem_path="/dev/zero"),
    arguments("file", mem_path="/dev/zero", share=True),
    arguments("file", mem_path="/dev/zero", readonly=True),
    arguments("file", mem_path="@DIR@/file\0rest"),
    arguments("file", mem_path="@DIR@/new", size=8192, offset=4096),
    arguments("file", mem_path="@DIR@//dir/../file"),
    arguments("file", mem_path="@DIR@/\N{EURO SIGN}\N{GRINNING FACE}"),
    arguments("memfd", seal=False),
    arguments("memfd", seal=True),
    arguments("memfd", hugetlbsize=MIB),
    arguments("memfd", hugetlbsize=3),
    arguments("ram", reserve=False, size=1 << 40),
    arguments("memfd", reserve=False, size=1 << 36),
    {"qom-type": "thread-context", "id": "m"},
    {"qom-type": "thread-context", "id": "m", "cpu-affinity": [0]},
    {"qom-type": "thread-context", "id": "m", "node-affinity": [0]},
]


@some(TAKEN)
def test_taken(pair: Pair, cases: list[dict[str, Any]]) -> None:
    """The same mappings, the same properties, the same files; and nothing once deleted."""
    made = []
    for number, each in enumerate(cases):
        for side in (pair.reference, pair.subject):
            stock(side, str(number))
        before = pair.subject.holdings()
        case = named(each)
        if case.get("mem-path", "").startswith("@DIR@"):
            case["mem-path"] = case["mem-path"].replace("@DIR@", f"@DIR@/{number}")
        answer = pair.ask("object-add", case)
        pair.expect_same_files()
        if "error" in answer:
            pair.subject.expect_unchanged(before)
            continue
        name = case["id"]
        made.append(name)
        listed = pair.ask("qom-list", {"path": f"/objects/{name}"})["return"]
        for item in listed:
            # A thread's id is its kernel's to give.
            if item["name"] != "thread-id":
                pair.ask("qom-get", {"path": f"/objects/{name}", "property": item["name"]})
    pair.ask("query-memdev")
    pair.expect_same_regions()
    reference, subject = pair.each(lambda side: resident(side.server.pid))
    assert subject == reference
    for name in made:
        pair.ask("object-del", {"id": name})
    pair.expect_nothing_mapped()


@pytest.mark.skipif(os.geteuid() == 0, reason="not here: root may open everything")
@pytest.mark.parametrize("mode", [0o444, 0o222, 0])
def test_permission_denied(pair: Pair, mode: int) -> None:
    def prepare(side: Side) -> None:
        stock(side)
        (side.scratch / "file").chmod(mode)

    pair.each(prepare)
    for share in (False, True):
        for readonly in (False, True):
            pair.ask("object-add", arguments("file", share=share, readonly=readonly))
            pair.ask("object-del", {"id": "m"})


@pytest.mark.parametrize(
    "case",
    [
        arguments("memfd", hugetlb=True, size=2 * MIB),
        arguments("memfd", hugetlb=True, size=4 * MIB, hugetlbsize=2 * MIB, share=False),
        arguments("memfd", hugetlb=True, size=4 * MIB, prealloc=True, seal=False),
        arguments("memfd", hugetlb=True, size=2 * MIB, hugetlbsize=1 << 30),
        arguments("memfd", hugetlb=True, size=1 << 40),
        arguments("memfd", hugetlb=True, size=1 << 40, reserve=False),
        arguments("file", mem_path="@DIR@/huge", size=2 * MIB),
        arguments("file", mem_path="@DIR@/huge", size=2 * MIB, prealloc=True, share=True),
        arguments("file", mem_path="@DIR@/huge/new", size=4 * MIB, share=True),
        arguments("file", mem_path="@DIR@/huge/new", size=4096),
        arguments("file", mem_path="@DIR@/huge/new", size=3 * MIB),
        arguments("file", mem_path="@DIR@/huge/new", size=2 * MIB, align=4096),
        arguments("file", mem_path="@DIR@/huge/new", size=2 * MIB, offset=4096),
        arguments("file", mem_path="@DIR@/huge/new", size=1 << 40),
        arguments("file", mem_path="@DIR@/huge", size=1 << 40, prealloc=True),
    ],
    ids=label,
)
def test_huge_pages(hugepages: Any, new_pair: Pair, mount: Any, case: dict[str, Any]) -> None:
    """By a QEMU that ends with it: it may keep what it refuses late."""
    hugepages(16)
    pair = new_pair
    pair.each(lambda side: mount("hugetlbfs", side.scratch / "huge", "pagesize=2M"))
    before = pair.subject.holdings()
    case = named(case)
    answer = pair.ask("object-add", case)
    pair.expect_same_regions()
    if "error" in answer:
        pair.subject.expect_unchanged(before)
    else:
        pair.expect_same_files()
        pair.ask("object-del", {"id": case["id"]})
        pair.expect_nothing_mapped()


def test_a_full_file_system(pair: Pair, mount: Any) -> None:
    """The same error; a file that was there stays, one that was made goes (see test_survives)."""
    pair.each(lambda side: mount("tmpfs", side.scratch / "small", "size=1m"))
    for side in (pair.reference, pair.subject):
        with (side.scratch / "small" / "there").open("wb") as file:
            file.truncate(4 * MIB)
    case = arguments("file", mem_path="@DIR@/small/there", size=4 * MIB, prealloc=True, share=True)
    answer = pair.ask("object-add", case)
    assert "error" in answer
    assert pair.subject.regions() == []
    assert (pair.subject.scratch / "small" / "there").stat().st_size == 4 * MIB
