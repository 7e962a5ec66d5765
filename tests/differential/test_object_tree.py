"""Backends after creation: paths, properties read and written, lists, deletion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.differential.harness import OWN_TYPES, Pair, Side
from tests.differential.server import Message

MIB = 1 << 20
KINDS: dict[str, dict[str, Any]] = {
    "ram": {},
    "file": {"mem_path": "@DIR@/file", "share": True},
    "memfd": {},
    "shm": {},
}

GOOD: list[tuple[str, Any]] = [
    ("merge", False),
    ("merge", True),
    ("dump", False),
    ("dump", True),
    ("prealloc-threads", 3),
    ("prealloc", True),
    ("prealloc", False),
    ("host-nodes", [0]),
    ("policy", "bind"),
    ("policy", "default"),
    ("host-nodes", []),
    ("x-use-canonical-path-for-ramblock-id", True),
    ("discard-data", True),
    ("discard-data", False),
]

BAD: list[tuple[str, Any]] = [
    ("size", 2 * MIB),
    ("size", MIB),
    ("size", 0),
    ("size", "1M"),
    ("share", True),
    ("share", False),
    ("share", 1),
    ("reserve", False),
    ("reserve", None),
    ("merge", "on"),
    ("merge", 1),
    ("dump", []),
    ("prealloc", "x"),
    ("prealloc-threads", 0),
    ("prealloc-threads", -1),
    ("prealloc-threads", 1 << 32),
    ("prealloc-threads", "2"),
    ("prealloc-context", ""),
    ("prealloc-context", "nope"),
    ("prealloc-context", 1),
    ("policy", "foo"),
    ("policy", 0),
    ("host-nodes", 0),
    ("host-nodes", [999]),
    ("host-nodes", [-1]),
    ("host-nodes", ["0"]),
    ("hugetlb", True),
    ("hugetlbsize", 4096),
    ("hugetlbsize", 0),
    ("seal", False),
    ("align", 4096),
    ("offset", 4096),
    ("mem-path", "/x"),
    ("mem-path", 1),
    ("pmem", True),
    ("pmem", False),
    ("readonly", True),
    ("rom", "on"),
    ("rom", "maybe"),
    ("type", "x"),
    ("m[0]", "x"),
    ("nope", 1),
    ("", 1),
]


@pytest.mark.parametrize("kind", KINDS)
def test_writing_properties(pair: Pair, kind: str) -> None:
    """Each write gives the same answer, and the same mapping and values afterwards."""
    pair.add(kind, size=MIB, **KINDS[kind])
    for name, value in GOOD + BAD:
        pair.ask("qom-set", {"path": "m", "property": name, "value": value})
        pair.ask("qom-get", {"path": "m", "property": name})
        pair.expect_same_regions()
    pair.ask("query-memdev")
    pair.ask("object-del", {"id": "m"})
    pair.expect_nothing_mapped()


PATHS = [
    "m",
    "/objects/m",
    "objects/m",
    "//objects///m//",
    "/objects/m/",
    "/m",
    "",
    "/",
    "//",
    "objects",
    "/objects",
    "/objects/",
    "m/m[0]",
    "m[0]",
    "/objects/m/m[0]",
    "/objects/m/m[1]",
    "/objects/M",
    "objects/objects/m",
    "../objects/m",
    "./m",
    " m",
    "m ",
    "/machine",
    "machine",
    "/nope",
    "ä",
    "x" * 2000,
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:20] or "empty")
def test_paths(pair: Pair, path: str) -> None:
    pair.add("ram", size=MIB)
    pair.ask("qom-get", {"path": path, "property": "type"})
    pair.ask("qom-get", {"path": path, "property": "size"})
    pair.ask("qom-set", {"path": path, "property": "merge", "value": False})
    if path not in ("/machine", "machine"):
        pair.ask("qom-list", {"path": path})


def test_ambiguous_and_unambiguous_names(pair: Pair) -> None:
    pair.add("ram", "objects", size=MIB)
    pair.add("ram", "machine", size=MIB)
    for path in ("objects", "machine", "/objects", "objects/objects", "/objects/machine"):
        pair.ask("qom-get", {"path": path, "property": "type"})


@pytest.mark.parametrize("kind", KINDS)
def test_lists_and_values(pair: Pair, kind: str) -> None:
    """Every property that is listed has the same value, the region's own included."""
    pair.add(kind, size=MIB, **KINDS[kind])
    for path in ("/objects", "/objects/m", "/objects/m/m[0]"):
        for item in pair.ask("qom-list", {"path": path})["return"]:
            pair.ask("qom-get", {"path": path, "property": item["name"]})
    pair.ask("qom-set", {"path": "/objects/m/m[0]", "property": "size", "value": 1})
    pair.ask("qom-set", {"path": "/objects/m/m[0]", "property": "priority", "value": 1})


def test_deleting(pair: Pair) -> None:
    for bad in ("zz", "", "/objects/m", "m[0]", 5, None):
        pair.refuse("object-del", {"id": bad})
    pair.refuse("object-del")
    pair.refuse("object-del", {"id": "m", "x": 1})
    pair.add("ram", size=MIB)
    pair.add("ram", "n", size=2 * MIB)
    pair.ask("object-del", {"id": "m"})
    pair.refuse("object-del", {"id": "m"})
    pair.expect_same_regions(count=1)
    pair.add("ram", size=3 * MIB)
    pair.ask("query-memdev")


def test_thread_context(pair: Pair) -> None:
    """Its affinity, its use by a preallocation, and that it may go at any time."""
    context: dict[str, Any] = {"qom-type": "thread-context", "id": "tc"}
    wrongs: list[dict[str, Any]] = [
        {"cpu-affinity": [99999]},
        {"cpu-affinity": []},
        {"cpu-affinity": [-1]},
        {"cpu-affinity": ["0"]},
        {"cpu-affinity": 0},
        {"node-affinity": [99]},
        {"node-affinity": [9999]},
        {"node-affinity": []},
        {"cpu-affinity": [0], "node-affinity": [0]},
        {"thread-id": 1},
        {"foo": 1},
    ]
    for wrong in wrongs:
        pair.refuse("object-add", {**context, **wrong})
    pair.ask("object-add", {**context, "cpu-affinity": [0]})
    for item in pair.ask("qom-list", {"path": "tc"})["return"]:
        if item["name"] != "thread-id":
            pair.ask("qom-get", {"path": "tc", "property": item["name"]})
    for name, value in (
        ("cpu-affinity", [0]),
        ("cpu-affinity", [0, 1]),
        ("cpu-affinity", [99999]),
        ("cpu-affinity", []),
        ("node-affinity", [0]),
        ("node-affinity", [99]),
        ("thread-id", 1),
    ):
        pair.ask("qom-set", {"path": "tc", "property": name, "value": value})
        pair.ask("qom-get", {"path": "tc", "property": "cpu-affinity"})
    for context_name in ("tc", "/objects/tc", "m", "nope"):
        pair.add("ram", size=MIB, prealloc=True, prealloc_context=context_name, prealloc_threads=2)
        pair.ask("qom-get", {"path": "m", "property": "prealloc-context"})
        pair.ask("object-del", {"id": "tc"})
        pair.ask("qom-get", {"path": "m", "property": "prealloc-context"})
        pair.ask("object-del", {"id": "m"})
        pair.ask("object-del", {"id": "tc"})
        pair.ask("object-add", context)
    pair.expect_nothing_mapped()


def test_types(pair: Pair) -> None:
    """What management asks to learn which backends there are."""

    def types(side: Side) -> Message:
        answer = side.ask("qom-list-types", arguments)
        if "return" in answer:
            answer["return"] = [t for t in answer["return"] if t["name"] not in OWN_TYPES]
        return answer

    for arguments in (
        {"implements": "memory-backend"},
        {"implements": "memory-backend", "abstract": True},
        {"implements": "memory-backend", "abstract": False},
        {"implements": "memory-backend-file"},
        {"implements": "thread-context"},
        {"implements": "no-such-type"},
        {"implements": 5},
        {"abstract": "yes"},
        {"foo": 1},
    ):
        pair.same(f"qom-list-types {arguments}", types)
    for name in (
        *["memory-backend-ram", "memory-backend-file", "memory-backend-memfd"],
        *["memory-backend-shm", "memory-backend", "thread-context", "memory-region", "container"],
        *["foo", "", 5],
    ):
        pair.ask("qom-list-properties", {"typename": name})
    pair.ask("qom-list-properties")
