from __future__ import annotations

import pytest

from memd import backends
from memd.cli.objects import object_help, object_type_help, parse_object
from memd.cli.report import Answered
from memd.compat import Compat
from memd.errors import QMPError
from memd.qom import Tree

RAM = {"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20}


def parse(text: str, compat: Compat = Compat.V10_0, *, nesting: bool = True) -> dict[str, object]:
    return parse_object(text, compat, set(), None, nesting=nesting)


def refusal(text: str, *, nesting: bool = True) -> str:
    with pytest.raises(QMPError) as caught:
        parse(text, nesting=nesting)
    return caught.value.desc


def answer(text: str, compat: Compat = Compat.V10_0) -> str:
    with pytest.raises(Answered) as caught:
        parse(text, compat)
    assert caught.value.status == 0
    return caught.value.text


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("memory-backend-ram,id=m0,size=1M", {}),
        ("qom-type=memory-backend-ram,id=m0,size=0x100000", {}),
        ("memory-backend-ram,id=m0,size=1M,id=0", {}),
        ('{"qom-type":"memory-backend-ram","id":"m0","size":1048576}', {}),
        ("memory-backend-ram,id=m0,size=1M,share=on", {"share": True}),
        ("memory-backend-ram,id=m0,size=1M,noshare", {"share": False}),
        ("memory-backend-ram,id=m0,size=1M,host-nodes=0-2", {"host-nodes": [0, 1, 2]}),
        (
            "memory-backend-ram,id=m0,size=1M,host-nodes=0,host-nodes=3",
            {"host-nodes": [0, 3]},
        ),
        (
            "memory-backend-ram,id=m0,size=1M,host-nodes.1=3,host-nodes.0=0",
            {"host-nodes": [0, 3]},
        ),
    ],
)
def test_taken(text: str, more: dict[str, object]) -> None:
    assert parse(text) == RAM | more


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Parameter 'qom-type' is missing"),
        ("foo", "Parameter 'qom-type' does not accept value 'foo'"),
        ("foo,help", "Parameter 'qom-type' does not accept value 'foo'"),
        ("id=m,help", "Parameter 'qom-type' is missing"),
        ("memory-backend-ram,id=m0", "Parameter 'size' is missing"),
        ("memory-backend-ram,size=1M", "Parameter 'id' is missing"),
        ("memory-backend-ram,id=0,size=1M", "Parameter 'id' expects an identifier"),
        ("memory-backend-ram,id=m0,size=x", "Parameter 'size' expects a size value"),
        ("memory-backend-ram,id=m0,size=1M,foo=1", "Invalid parameter 'foo'"),
        ("{", "JSON parse error, premature EOI"),
        ('{"qom-type":"foo"}', "Parameter 'qom-type' does not accept value 'foo'"),
        ('{"qom-type":1}', "Invalid parameter type for 'qom-type', expected: string"),
        # With a dot it is qemu-storage-daemon's spelling, and its texts.
        ("memory-backend-ram,id=m0,size=1M,a.b=1", "Parameter 'a' is unexpected"),
        ("memory-backend-ram,id=m0,share,a.b=1", "Expected '=' after parameter 'share'"),
        ("memory-backend-ram,id=m0,size=1M,host-nodes.1=1", "Parameter 'host-nodes.0' missing"),
        ("memory-backend-ram,size=1M,host-nodes.0=1", "Parameter 'id' is missing"),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_without_nesting_a_dot_is_nothing_special() -> None:
    text = "memory-backend-ram,id=m0,size=1M,host-nodes.0=1"
    assert refusal(text, nesting=False) == "Invalid parameter 'host-nodes.0'"


def test_warnings() -> None:
    told: list[str] = []

    def warn(text: str, hint: str) -> None:
        told.append(hint)

    parse_object("memory-backend-ram,id=m0,size=1M,share", Compat.V10_0, set(), warn, nesting=True)
    assert told == ["Please use share=on instead"]


def test_ids_are_kept_apart() -> None:
    ids: set[str] = set()
    text = "memory-backend-ram,id=m0,size=1M"
    parse_object(text, Compat.V10_0, ids, None, nesting=True)
    assert ids == {"m0"}
    with pytest.raises(QMPError) as caught:
        parse_object(text, Compat.V10_0, ids, None, nesting=True)
    assert caught.value.desc == "Duplicate ID 'm0' for object"


@pytest.mark.parametrize(
    "text",
    [
        "monitor-qmp,id=m0,chardev=c0,pretty=on",
        '{"qom-type":"monitor-qmp","id":"m0","chardev":"c0","pretty":true}',
    ],
)
def test_a_monitor_is_an_object_in_a_later_release(text: str) -> None:
    assert parse(text, Compat.V11_1) == {
        "qom-type": "monitor-qmp",
        "id": "m0",
        "chardev": "c0",
        "pretty": True,
    }
    assert refusal(text) == "Parameter 'qom-type' does not accept value 'monitor-qmp'"


@pytest.mark.parametrize("text", ["help", "?", "qom-type=help", "help,foo=1", "help,a.b=1"])
def test_what_types_there_are(text: str) -> None:
    tree = Tree()
    backends.register(tree)
    told = answer(text)
    assert told == object_help(tree)
    lines = told.splitlines()
    assert lines[0] == "List of user creatable objects:"
    assert lines[1:] == sorted(lines[1:])
    assert "  memory-backend-file" in lines
    assert "  memory-backend" not in lines


@pytest.mark.parametrize("text", ["{},help", "{},?", "{},size=x,help", "{},id=m,help=off"])
def test_what_a_type_takes(text: str) -> None:
    told = answer(text.format("memory-backend-memfd"))
    lines = told.splitlines()
    assert lines[0] == "memory-backend-memfd options:"
    assert "  hugetlbsize=<int>      - Huge pages size (ex: 2M, 1G)" in lines
    assert "  x-use-canonical-path-for-ramblock-id=<bool>" in lines
    assert lines[1:] == sorted(lines[1:])
    assert not any(line.startswith("  type=") for line in lines)


def test_types_without_properties() -> None:
    assert answer("container,help") == "There are no options for container.\n"
    assert object_type_help(Tree(), "nosuch") is None
    assert answer("nosuch,a.b=1,help").startswith("List of user creatable objects:")
