"""The compiled checks: QEMU's texts in QEMU's order, and the verdict of `jsonschema`."""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memd.compat import Compat
from memd.errors import GENERIC_ERROR, QMPError
from memd.qapi.check import ObjectVisit, Visits
from memd.qapi.validator import Validator
from tests.qapi.files import schema_of, whole_schema
from tests.qapi.generate import Generator

RAM = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}


def refusal(command: str, arguments: dict[str, Any]) -> str:
    with pytest.raises(QMPError) as caught:
        whole_schema().checker(command)(arguments)
    assert caught.value.error_class == GENERIC_ERROR
    return caught.value.desc


# Observed on QEMU 10.0.2 and 11.1.3.
REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    # One mistake.
    ("query-name", {"x": 1}, "Parameter 'x' is unexpected"),
    ("qom-get", {}, "Parameter 'path' is missing"),
    ("qom-get", {"path": "/"}, "Parameter 'property' is missing"),
    ("qom-set", {"path": "/", "property": "x"}, "Parameter 'value' is missing"),
    ("qom-get", {"path\0": "/", "property": "x"}, "Parameter 'path' is missing"),
    ("object-add", {}, "Parameter 'qom-type' is missing"),
    (
        "object-add",
        {"qom-type": []},
        "Invalid parameter type for 'qom-type', expected: string",
    ),
    (
        "object-add",
        {"qom-type": "foo"},
        "Parameter 'qom-type' does not accept value 'foo'",
    ),
    ("object-add", {**RAM, "id": 1}, "Invalid parameter type for 'id', expected: string"),
    ("object-add", {**RAM, "size": 1.0}, "Parameter 'size' expects uint64"),
    ("object-add", {**RAM, "size": None}, "Parameter 'size' expects uint64"),
    ("object-add", {**RAM, "size": "64M"}, "Parameter 'size' expects uint64"),
    (
        "object-add",
        {**RAM, "policy": "x", "share": "on"},
        "Parameter 'policy' does not accept value 'x'",
    ),
    ("object-add", {**RAM, "share": 1}, "Invalid parameter type for 'share', expected: boolean"),
    ("object-add", {**RAM, "host-nodes": [-1]}, "Parameter 'null' expects uint16_t"),
    (
        "object-add",
        {**RAM, "host-nodes": 0},
        "Invalid parameter type for 'host-nodes', expected: array",
    ),
    ("object-add", {**RAM, "host-nodes": [0, "1"]}, "Parameter 'host-nodes[1]' expects uint64"),
    (
        "object-add",
        {**RAM, "prealloc-threads": 1 << 32},
        "Parameter 'prealloc-threads' expects uint32_t",
    ),
    ("object-add", {**RAM, "mem-path": "/x"}, "Parameter 'mem-path' is unexpected"),
    ("add-fd", {"fdset-id": 1 << 63}, "Invalid parameter type for 'fdset-id', expected: integer"),
    ("qmp_capabilities", {"enable": ["x"]}, "Parameter 'null' does not accept value 'x'"),
    # The schema's order counts, not the one sent; what is unexpected comes last.
    (
        "object-add",
        {"foo": 1, "size": "x", "policy": "bad", "id": "m", "qom-type": "memory-backend-ram"},
        "Parameter 'policy' does not accept value 'bad'",
    ),
    (
        "object-add",
        {"foo": 1, "mem-path": 1, "id": "m", "qom-type": "memory-backend-file"},
        "Parameter 'size' is missing",
    ),
    ("object-add", {"size": [], "id": 1, "qom-type": "memory-backend-ram"}, "Invalid parameter "),
    # Nested.
    ("yank", {"instances": [1]}, "Invalid parameter type for 'instances[0]', expected: object"),
    ("yank", {"instances": [{}]}, "Parameter 'instances[0].type' is missing"),
    ("yank", {"instances": [{"type": "x"}]}, "Parameter 'type' does not accept value 'x'"),
    (
        "yank",
        {"instances": [{"type": "migration"}, {"type": "chardev"}]},
        "Parameter 'instances[1].id' is missing",
    ),
    (
        "yank",
        {"instances": [{"type": "chardev", "id": []}]},
        "Invalid parameter type for 'instances[0].id', expected: string",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": 1},
        "Invalid parameter type for 'image', expected: BlockdevRef",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": {"driver": "null-co", "foo": "x"}, "align": "x"},
        "Parameter 'image.foo' is unexpected",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": {"driver": "null-co"}, "align": "x", "bar": 1},
        "Invalid parameter type for 'align', expected: integer",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": {"driver": "blkdebug", "image": 1}},
        "Invalid parameter type for 'image', expected: BlockdevRef",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": {}},
        "Parameter 'image.driver' is missing",
    ),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": "x", "max-transfer": 1 << 31},
        "Parameter 'max-transfer' expects int32_t",
    ),
]


@pytest.mark.parametrize(("command", "arguments", "text"), REFUSALS)
def test_refuses(command: str, arguments: dict[str, Any], text: str) -> None:
    sent = copy.deepcopy(arguments)
    # The first good call makes the quick check, the next ones use it.
    whole_schema().checker("object-add")(RAM)
    first = refusal(command, arguments)
    assert first.startswith(text) if text.endswith(" ") else first == text
    assert refusal(command, arguments) == first
    assert arguments == sent


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("query-name", {}),
        ("qom-set", {"path": "", "property": "", "value": None}),
        ("object-add", RAM),
        ("object-add", {**RAM, "host-nodes": [0, 65535], "policy": "bind", "share": False}),
        ("object-add", {"qom-type": "thread-context", "id": "t", "node-affinity": []}),
        ("yank", {"instances": [{"type": "migration"}, {"type": "chardev", "id": "x"}]}),
        ("blockdev-add", {"driver": "blkdebug", "image": {"driver": "blkdebug", "image": "x"}}),
        # Reads its arguments itself.
        ("device_add", {"anything": 1}),
    ],
)
def test_takes(command: str, arguments: dict[str, Any]) -> None:
    check = whole_schema().checker(command)
    assert check(arguments) == check(arguments) == arguments


def test_converts() -> None:
    check = whole_schema().checker("object-add")
    arguments = {**RAM, "size": -1}
    for _ in range(2):
        assert check(arguments) == {**RAM, "size": (1 << 64) - 1}
        assert arguments["size"] == -1


SMALL = schema_of(
    [
        {"enum": "E", "data": ["a", "b", "c"]},
        {"struct": "S", "data": {"*s": "str", "*l": ["S"], "n": "number", "*z": "null"}},
        {"union": "V", "base": {"f": "E"}, "discriminator": "f", "data": {"b": "S"}},
        {"union": "U", "base": {"e": "E"}, "discriminator": "e", "data": {"a": "V", "b": "S"}},
        {"alternate": "A", "data": {"i": "uint8", "b": "bool", "l": ["int16"], "z": "null"}},
        {"command": "union", "data": "U", "boxed": True},
        {"command": "alternate", "data": {"a": "A", "*e": ["E"], "any": "any"}},
    ]
)


def small(command: str, **arguments: Any) -> Any:
    try:
        return SMALL.checker(command)(arguments)
    except QMPError as error:
        return error.desc


def test_branches_of_branches() -> None:
    nested = {"e": "a", "f": "b", "n": 1}
    for _ in range(2):
        assert small("union", **nested) == {**nested, "n": 1.0}
    assert small("union", e="a", f="c") == {"e": "a", "f": "c"}
    assert small("union", e="c") == {"e": "c"}
    assert small("union", e="a") == "Parameter 'f' is missing"
    assert small("union", e="a", f="b") == "Parameter 'n' is missing"
    assert small("union", e="c", n=1) == "Parameter 'n' is unexpected"
    assert small("union", e="b", n=1, l=[{"n": 1, "l": [{"n": ""}]}]) == (
        "Invalid parameter type for 'l[0].l[0].n', expected: number"
    )


def test_alternatives() -> None:
    assert small("alternate", a=7, any=[]) == {"a": 7, "any": []}
    assert small("alternate", a=None, any=None) == {"a": None, "any": None}
    assert small("alternate", a=256, any=0) == "Parameter 'a' expects uint8_t"
    assert small("alternate", a=1.0, any=0) == "Parameter 'a' expects uint64"
    assert small("alternate", a=[0, 99999], any=0) == "Parameter 'null' expects int16_t"
    assert small("alternate", a="x", any=0) == "Invalid parameter type for 'a', expected: A"


# The rest is about every command, with arguments that are made up.


@functools.cache
def validator(compat: Compat) -> Validator:
    return Validator(whole_schema(compat))


@functools.cache
def exact(compat: Compat, command: str) -> ObjectVisit:
    """The check that goes by the schema, without the quick one before it."""
    return ObjectVisit(whole_schema(compat).commands[command].arguments, Visits())


def outcome(check: Any, *arguments: Any) -> tuple[str, Any]:
    try:
        return "taken", check(*arguments)
    except QMPError as error:
        return "refused", error.desc


COMMANDS = [
    (compat, command.name)
    for compat in Compat
    for command in whole_schema(compat).commands.values()
    # The others read their arguments themselves.
    if command.generated
    # There is more to find out about what has more members.
    for _ in range(20 if command.arguments.tag else 1 + len(command.arguments.members))
]


@settings(max_examples=600)
@given(st.sampled_from(COMMANDS), st.randoms(use_true_random=False))
def test_never_disagrees(chosen: tuple[Compat, str], random_: random.Random) -> None:
    compat, command = chosen
    schema = whole_schema(compat)
    made = Generator(random_).object(schema.commands[command].arguments)
    sent = copy.deepcopy(made)
    verdict = outcome(schema.checker(command), made)
    assert repr(made) == repr(sent)
    # The quick check answers what the exact one does ...
    expected = outcome(exact(compat, command), sent, "")
    assert repr(sorted(verdict[1].items()) if verdict[0] == "taken" else verdict) == repr(
        sorted(expected[1].items()) if expected[0] == "taken" else expected
    )
    # ... and both take what `jsonschema` takes.
    assert (verdict[0] == "taken") is (
        not validator(compat).violations(made, f"{command}.arguments")
    )


@given(st.sampled_from(COMMANDS), st.randoms(use_true_random=False))
def test_takes_what_has_no_mistake(chosen: tuple[Compat, str], random_: random.Random) -> None:
    compat, command = chosen
    schema = whole_schema(compat)
    generator = Generator(random_, mistakes=0)
    made = generator.object(schema.commands[command].arguments)
    assert outcome(schema.checker(command), made)[0] == "taken"
