"""What `object_add` of QEMU 10.0.2's human monitor answers to the same options."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.qapi.keyval import check_keyval, nest
from tests.qapi.files import schema_of, whole_schema

LONG = "a" * 128
OPTIONS = whole_schema().object_type("ObjectOptions")
RAM = {"qom-type": "memory-backend-ram", "id": "m0", "size": "4k"}


def check(*options: str) -> Any:
    """The options checked, or the error's text."""
    pairs = {**RAM, **dict(option.split("=", 1) for option in options)}
    try:
        checked = check_keyval(OPTIONS, pairs)
    except QMPError as error:
        return error.desc
    return {key: value for key, value in checked.items() if key not in RAM}


@pytest.mark.parametrize(
    ("option", "member", "value"),
    [
        ("share=on", "share", True),
        ("share=yes", "share", True),
        ("share=n", "share", False),
        ("prealloc-threads=0x2", "prealloc-threads", 2),
        ("prealloc-threads=010", "prealloc-threads", 8),
        ("prealloc-threads=-18446744073709551615", "prealloc-threads", 1),
        ("policy=bind", "policy", "bind"),
        ("prealloc-context=a,b", "prealloc-context", "a,b"),
        ("host-nodes.0=0", "host-nodes", [0]),
        ("host-nodes.00=7", "host-nodes", [7]),
    ],
)
def test_takes(option: str, member: str, value: Any) -> None:
    assert check(option) == {member: value}


def test_size_and_lists() -> None:
    checked = check_keyval(
        OPTIONS, {**RAM, "host-nodes.1": "3", "size": "1.5G", "host-nodes.0": "1"}
    )
    assert checked["size"] == 3 << 29
    assert checked["host-nodes"] == [1, 3]


def test_what_is_nested_already() -> None:
    checked = check_keyval(OPTIONS, {**RAM, "host-nodes": ["1", "3"]})
    assert checked["host-nodes"] == [1, 3]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["share=1"], "Parameter 'share' expects 'on' or 'off'"),
        (["share="], "Parameter 'share' expects 'on' or 'off'"),
        (["prealloc-threads=-1"], "Parameter 'prealloc-threads' expects uint32_t"),
        (["prealloc-threads=4294967296"], "Parameter 'prealloc-threads' expects uint32_t"),
        (["prealloc-threads=1k"], "Parameter 'prealloc-threads' expects integer"),
        (["prealloc-threads="], "Parameter 'prealloc-threads' expects integer"),
        (["size=x"], "Parameter 'size' expects size"),
        (["size=1.5"], "Parameter 'size' expects size"),
        (["policy=bad"], "Parameter 'policy' does not accept value 'bad'"),
        (["policy="], "Parameter 'policy' does not accept value ''"),
        (["policy=bind", "foo=1"], "Parameter 'foo' is unexpected"),
        (["foo.0=1", "bar=2"], "Parameter 'bar' is unexpected"),
        (["foo.bar=1"], "Parameter 'foo' is unexpected"),
        (["host-nodes=1"], "Invalid parameter type for 'host-nodes', expected: array"),
        (["host-nodes.a=1"], "Invalid parameter type for 'host-nodes', expected: array"),
        (["host-nodes.1=0"], "Parameter 'host-nodes.0' missing"),
        (["host-nodes.99999999999=0"], "Parameter 'host-nodes.0' missing"),
        (["host-nodes.0=1", "host-nodes.2=1"], "Parameter 'host-nodes.1' missing"),
        (["host-nodes.0=-1"], "Parameter 'null' expects uint16_t"),
        (["host-nodes.0=0", "host-nodes.1=0x"], "Parameter 'host-nodes.1' expects integer"),
        (["host-nodes.0.a=1"], "Parameters 'host-nodes.0.*' are unexpected"),
        (["host-nodes.0.0=1"], "Parameters 'host-nodes.0.*' are unexpected"),
        (["share.0=on"], "Parameters 'share.*' are unexpected"),
        (["size.x=1"], "Parameters 'size.*' used inconsistently"),
        (["a.b=1", "a=2"], "Parameters 'a.*' used inconsistently"),
        (["a=1", "a.b=2"], "Parameters 'a.*' used inconsistently"),
        (["a.0=1", "a.b=2"], "Parameters 'a.*' used inconsistently"),
        (["foo.1=1"], "Parameter 'foo.0' missing"),
        (["b.5=1", "a.2=1"], "Parameter 'a.0' missing"),
        (["z.y.x.1=1"], "Parameter 'z.y.x.0' missing"),
        (["a.b.1=1", "a.c.2=1"], "Parameter 'a.b.0' missing"),
        (["=1"], "Invalid parameter ''"),
        ([".x=1"], "Invalid parameter '.x'"),
        (["x.=1"], "Invalid parameter 'x.'"),
        (["a..b=1"], "Invalid parameter 'a..b'"),
        (["a b=1"], "Invalid parameter 'a b'"),
        (["9=1"], "Invalid parameter '9'"),
        (["0.a=1"], "Invalid parameter '0.a'"),
        (["a.1a=1"], "Invalid parameter 'a.1a'"),
        (["é=1"], "Invalid parameter 'é'"),
        (["-a=1"], "Invalid parameter '-a'"),
        (["_a=1"], "Invalid parameter '_a'"),
        (["__a=1"], "Invalid parameter '__a'"),
        (["__a_=1"], "Invalid parameter '__a_'"),
        (["__com.redhat__x=1"], "Invalid parameter '__com.redhat__x'"),
        (["__com.redhat_x..0=1"], "Invalid parameter '__com.redhat_x..0'"),
        (["__a-b.c_d=1"], "Parameter '__a-b.c_d' is unexpected"),
        (["__c_x.y_z=1"], "Parameter '__c_x' is unexpected"),
        (["host-nodes.-1=0"], "Invalid parameter 'host-nodes.-1'"),
        (["host-nodes.0x0=0"], "Invalid parameter 'host-nodes.0x0'"),
        ([f"{LONG}=1"], f"Parameter '{LONG}' is too long"),
        ([f"{LONG[1:]}=1"], f"Parameter '{LONG[1:]}' is unexpected"),
        ([f"b.{LONG}=1"], f"Parameter fragment '{LONG}' is too long"),
        ([f"{LONG}.b=1"], f"Parameter fragment '{LONG}' is too long"),
    ],
)
def test_refuses(options: list[str], text: str) -> None:
    assert check(*options) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Parameter 'qom-type' is missing"),
        ({"qom-type": "zzz"}, "Parameter 'qom-type' does not accept value 'zzz'"),
        ({"qom-type": "memory-backend-ram"}, "Parameter 'id' is missing"),
        ({"qom-type": "memory-backend-ram", "id": "m"}, "Parameter 'size' is missing"),
    ],
)
def test_lacks(options: dict[str, str], text: str) -> None:
    with pytest.raises(QMPError) as caught:
        check_keyval(OPTIONS, options)
    assert caught.value.desc == text


OTHER = schema_of(
    [
        {"enum": "E", "data": ["a", "b"]},
        {"struct": "R", "data": {"match": "str", "*policy": "E"}},
        {
            "struct": "S",
            "data": {"*i": "int", "*n": "number", "*r": ["R"], "*l": "R", "*x": "any", "*a": "A"},
        },
        {"alternate": "A", "data": {"r": "R", "e": "E"}},
    ]
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"i": "-0x10"}, {"i": -16}),
        ({"n": "1.5"}, {"n": 1.5}),
        ({"x": "1"}, {"x": "1"}),
        ({"a": "b"}, {"a": "b"}),
        ({"a.match": "b"}, {"a": {"match": "b"}}),
        ({"r.0.match": "x", "r.0.policy": "a"}, {"r": [{"match": "x", "policy": "a"}]}),
        ({"i": "9223372036854775808"}, "Parameter 'i' expects integer"),
        ({"n": "x"}, "Parameter 'n' expects number"),
        ({"l": "x"}, "Invalid parameter type for 'l', expected: object"),
        ({"r.0": "x"}, "Invalid parameter type for 'r.0', expected: object"),
        ({"r.0.match": "x", "r.0.foo": "1"}, "Parameter 'r.0.foo' is unexpected"),
        ({"r.0.policy": "a"}, "Parameter 'r.0.match' is missing"),
        ({"r.0.match": "x", "r.0.policy": "z"}, "Parameter 'policy' does not accept value 'z'"),
        ({"a.0": "x"}, "Invalid parameter type for 'a', expected: A"),
    ],
)
def test_other_types(options: dict[str, str], expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(QMPError) as caught:
            check_keyval(OTHER.object_type("S"), options)
        assert caught.value.desc == expected
    else:
        assert check_keyval(OTHER.object_type("S"), options) == expected


@given(st.dictionaries(st.text(alphabet="ab01._-", max_size=8), st.just("1"), max_size=6))
def test_any_keys(options: dict[str, str]) -> None:
    try:
        nested = nest(options)
    except QMPError:
        return
    for name in nested:
        assert any(key == name or key.startswith(f"{name}.") for key in options)
