from __future__ import annotations

import pytest

from memd.backends.base import MEMORY_BACKEND
from memd.json_types import JSON
from memd.qom import Tree
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.hostmem.smaps import row_of
from tests.stepping import Running

DEFAULTS: dict[str, JSON] = {
    "share": False,
    "size": MIB,
    "dump": True,
    "prealloc-threads": 1,
    "x-use-canonical-path-for-ramblock-id": False,
    "policy": "default",
    "prealloc-context": "",
    "prealloc": False,
    "reserve": True,
    "host-nodes": [],
    "merge": True,
}


def test_defaults(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    assert {name: get(tree, name) for name in DEFAULTS} == DEFAULTS
    assert set(MEMORY_BACKEND.all_properties) == {"type", *DEFAULTS}
    assert MEMORY_BACKEND.abstract


def test_the_memory_region(tree: Tree) -> None:
    add(tree, "ram", size=5)
    assert get(tree, "m0[0]") == "/objects/m0/m0[0]"
    memory = tree.resolve("/objects/m0/m0[0]")
    assert memory.qom_type.name == "memory-region"
    assert memory.get_property("size") == 5
    delete(tree)
    add(tree, "ram", size=MIB, x_use_canonical_path_for_ramblock_id=True)
    name = "\\x2fobjects\\x2fm0[0]"
    assert get(tree, name) == f"/objects/m0/{name}"


VALUES: list[tuple[str, JSON, str]] = [
    ("size", 0, "property 'size' of memory-backend-ram doesn't take value '0'"),
    ("size", "x", "Parameter 'size' expects uint64"),
    ("share", 1, "Invalid parameter type for 'share', expected: boolean"),
    ("dump", None, "Invalid parameter type for 'dump', expected: boolean"),
    ("merge", "on", "Invalid parameter type for 'merge', expected: boolean"),
    ("reserve", 0, "Invalid parameter type for 'reserve', expected: boolean"),
    ("prealloc", 1, "Invalid parameter type for 'prealloc', expected: boolean"),
    (
        "prealloc-threads",
        0,
        "property 'prealloc-threads' of memory-backend-ram doesn't take value '0'",
    ),
    ("prealloc-threads", 1 << 32, "Parameter 'prealloc-threads' expects uint32_t"),
    ("prealloc-threads", -1, "Parameter 'prealloc-threads' expects uint32_t"),
    ("policy", "zz", "Parameter 'policy' does not accept value 'zz'"),
    ("host-nodes", [128], "Invalid host-nodes value: 128"),
    ("host-nodes", [0, 999], "Invalid host-nodes value: 999"),
    ("host-nodes", [-1], "Parameter 'null' expects uint16_t"),
    ("host-nodes", 0, "Invalid parameter type for 'host-nodes', expected: array"),
    ("host-nodes", ["0"], "Parameter 'host-nodes[0]' expects uint64"),
    ("prealloc-context", "nope", "Device 'nope' not found"),
    (
        "prealloc-context",
        "/objects",
        "Invalid parameter type for 'prealloc-context', expected: thread-context",
    ),
]


@pytest.mark.parametrize(("name", "value", "text"), VALUES)
def test_values_that_are_refused(tree: Tree, name: str, value: JSON, text: str) -> None:
    arguments = {"qom-type": "memory-backend-ram", "id": "m0", "size": MIB, name: value}
    assert refusal(lambda: tree.objects.create(arguments)) == text
    # Later on, too; of a size it does not matter what it is.
    add(tree, "ram", size=MIB)
    if name == "size":
        text = "cannot change property size of memory-backend-ram "
    before = get(tree, name)
    assert refusal(lambda: change(tree, name, value)) == text
    assert get(tree, name) == before


@pytest.mark.parametrize(("name", "values"), [("share", (True, False)), ("reserve", (True, False))])
def test_what_may_not_change(tree: Tree, name: str, values: tuple[JSON, ...]) -> None:
    add(tree, "ram", size=MIB)
    before = get(tree, name)
    for value in values:
        assert refusal(lambda value=value: change(tree, name, value)) == (  # type: ignore[misc]
            "cannot change property value"
        )
    assert get(tree, name) == before


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("prealloc-threads", (7, (1 << 32) - 1)),
        ("policy", ("bind", "preferred", "interleave", "default")),
        ("x-use-canonical-path-for-ramblock-id", (True, False)),
    ],
)
def test_what_only_shows(tree: Tree, name: str, values: tuple[JSON, ...]) -> None:
    add(tree, "ram", size=MIB)
    for value in values:
        assert change(tree, name, value) == {}
        assert get(tree, name) == value


def test_host_nodes_are_only_ever_added(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    for nodes, then in (([0], [0]), ([], [0]), ([127], [0, 127]), ([5, 1, 5], [0, 1, 5, 127])):
        change(tree, "host-nodes", nodes)
        assert get(tree, "host-nodes") == then
    # What a client is given is not what the backend goes by.
    get(tree, "host-nodes").append(3)
    assert get(tree, "host-nodes") == [0, 1, 5, 127]


@pytest.mark.parametrize("first", [True, False])
def test_merge(tree: Tree, first: bool) -> None:
    add(tree, "ram", size=MIB, merge=first)
    address = region_of(tree).address

    def mergeable() -> bool:
        row = row_of(address)
        assert row is not None
        return "mg" in row.flags

    assert get(tree, "merge") is first
    # Anonymous memory is marked whatever was asked for, as QEMU's is, and a
    # change to what already is changes nothing.
    assert mergeable()
    change(tree, "merge", first)
    assert mergeable()
    for value in (not first, first, not first):
        change(tree, "merge", value)
        assert get(tree, "merge") is value
        assert mergeable() is value


@pytest.mark.parametrize("first", [True, False])
def test_dump(tree: Tree, first: bool) -> None:
    add(tree, "ram", size=MIB, dump=first)
    address = region_of(tree).address
    for value in (first, not first, first):
        change(tree, "dump", value)
        assert get(tree, "dump") is value
        row = row_of(address)
        assert row is not None
        assert ("dd" in row.flags) is not value


def test_prealloc_afterwards(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    address = region_of(tree).address

    def resident() -> int:
        row = row_of(address)
        assert row is not None
        return row.resident

    change(tree, "prealloc", False)
    assert resident() == 0
    slow = Running(tree.objects.change(tree.resolve("/objects/m0"), "prealloc", True))
    assert slow.wait is not None
    # The property says so once the pages are there.
    assert get(tree, "prealloc") is False
    slow.finish()
    assert (get(tree, "prealloc"), resident()) == (True, MIB)
    for value in (True, False):
        assert tree.resolve("/objects/m0").set_property("prealloc", value) is None
        assert (get(tree, "prealloc"), resident()) == (True, MIB)


@pytest.mark.parametrize("order", [("prealloc", "reserve"), ("reserve", "prealloc")])
def test_prealloc_needs_reserve(tree: Tree, order: tuple[str, str]) -> None:
    text = "'prealloc=on' and 'reserve=off' are incompatible"
    options = {"prealloc": True, "reserve": False}
    given = {name: options[name] for name in order}
    assert refusal(lambda: add(tree, "ram", size=MIB, **given)) == text
    add(tree, "ram", size=MIB, reserve=False)
    assert refusal(lambda: change(tree, "prealloc", True)) == text
    assert get(tree, "prealloc") is False


REFUSED_AT_ONCE: list[tuple[str, JSON, str]] = [
    ("prealloc-context", "nope", "Device 'nope' not found"),
    ("reserve", False, "'prealloc=on' and 'reserve=off' are incompatible"),
    ("host-nodes", [999], "Invalid host-nodes value: 999"),
    (
        "prealloc-threads",
        0,
        "property 'prealloc-threads' of memory-backend-ram doesn't take value '0'",
    ),
    ("size", 0, "property 'size' of memory-backend-ram doesn't take value '0'"),
]


def test_which_of_several_refusals(tree: Tree) -> None:
    for at, (_name, _value, text) in enumerate(REFUSED_AT_ONCE):
        wrong = {name: value for name, value, _text in REFUSED_AT_ONCE[at:]}
        arguments = {"qom-type": "memory-backend-ram", "id": "m0", "prealloc": True, "size": MIB}
        for options in (arguments | wrong, dict(reversed([*arguments.items(), *wrong.items()]))):
            if "reserve" not in wrong:
                options = {**options, "prealloc": False}
            options.update(wrong)
            assert refusal(lambda options=options: tree.objects.create(options)) == text  # type: ignore[misc]


def test_the_name_of_the_memory(tree: Tree) -> None:
    def impossible(**options: JSON) -> str:
        return refusal(lambda: add(tree, "ram", size=1 << 62, **options))

    assert impossible() == "cannot set up guest memory 'm0': Cannot allocate memory"
    assert impossible(x_use_canonical_path_for_ramblock_id=True) == (
        "cannot set up guest memory '/objects/m0': Cannot allocate memory"
    )
