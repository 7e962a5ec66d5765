"""What `-object` of QEMU 10.0.2 and 11.1.3 answers to the same options."""

from __future__ import annotations

from typing import Any

import pytest

from memd.errors import QMPError
from memd.qapi.opts import check_opts
from memd.qapi.schema import Schema
from tests.qapi.files import schema_of, whole_schema

RAM = "qom-type=memory-backend-ram,id=m0,size=4k"


def check(options: str, schema: Schema | None = None, type_name: str = "ObjectOptions") -> Any:
    pairs = [(key, value) for key, _, value in (o.partition("=") for o in options.split(",") if o)]
    try:
        return check_opts((schema or whole_schema()).object_type(type_name), pairs)
    except QMPError as error:
        return error.desc


@pytest.mark.parametrize(
    ("options", "member", "value"),
    [
        ("share=y", "share", True),
        ("share=on,share=off", "share", False),
        ("size=1.5G", "size", 3 << 29),
        ("prealloc-threads= 0x2", "prealloc-threads", 2),
        ("prealloc-context=", "prealloc-context", ""),
        ("policy=bind", "policy", "bind"),
        ("host-nodes=3", "host-nodes", [3]),
        ("host-nodes=0-2,host-nodes=7,host-nodes=1", "host-nodes", [0, 1, 2, 7, 1]),
        ("host-nodes=0x0-0x1", "host-nodes", [0, 1]),
        ("host-nodes=0- 1", "host-nodes", [0, 1]),
        ("host-nodes=0-65535", "host-nodes", list(range(65536))),
    ],
)
def test_takes(options: str, member: str, value: Any) -> None:
    assert check(f"{RAM},{options}")[member] == value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("share=1", "Parameter 'share' expects 'on' or 'off'"),
        ("share=on,share=", "Parameter 'share' expects 'on' or 'off'"),
        ("size=x,foo=1", "Parameter 'size' expects a size value"),
        ("policy=bad,size=x", "Parameter 'policy' does not accept value 'bad'"),
        ("prealloc-threads=-1", "Parameter 'prealloc-threads' expects a uint64 value"),
        ("prealloc-threads=4294967296", "Parameter 'prealloc-threads' expects uint32_t"),
        ("prealloc-threads=1-2", "Parameter 'prealloc-threads' expects a uint64 value"),
        ("host-nodes=", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=x", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=5-0", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0-", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=-1", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=-1-0", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0--1", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0 -1", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0-1-2", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0-65536", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=0,host-nodes=x", "Parameter 'host-nodes' expects a uint64 value or range"),
        ("host-nodes=65536", "Parameter 'null' expects uint16_t"),
        ("host-nodes=65530-65540", "Parameter 'null' expects uint16_t"),
        ("foo=1,foo=2", "Invalid parameter 'foo'"),
        ("host-nodes.0=0", "Invalid parameter 'host-nodes.0'"),
        ("host-nodes.0=1,host-nodes.2=1", "Invalid parameter 'host-nodes.2'"),
        ("=1", "Invalid parameter ''"),
        ("mem-path=/x", "Invalid parameter 'mem-path'"),
    ],
)
def test_refuses(options: str, text: str) -> None:
    assert check(f"{RAM},{options}") == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("id=m0", "Parameter 'qom-type' is missing"),
        ("qom-type=zzz,id=m0", "Parameter 'qom-type' does not accept value 'zzz'"),
        ("qom-type=memory-backend-file,size=1,rom=x", "Parameter 'id' is missing"),
        ("qom-type=memory-backend-ram,id=m0,bar=2,foo=1", "Parameter 'size' is missing"),
        (
            "qom-type=memory-backend-file,id=m0,size=1,rom=x",
            "Parameter 'mem-path' is missing",
        ),
    ],
)
def test_lacks(options: str, text: str) -> None:
    assert check(options) == text


OTHER = schema_of(
    [
        {"enum": "E", "data": ["a", "b"]},
        {"struct": "S", "data": {"*i": "int", "*n": "int8", "*l": ["int"], "*e": ["E"], "*o": "T"}},
        {"struct": "T", "data": {}},
    ]
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("i=-0x10", {"i": -16}),
        ("n=-128", {"n": -128}),
        ("l=-2-1,l=5", {"l": [-2, -1, 0, 1, 5]}),
        ("l=-3--2", {"l": [-3, -2]}),
        ("e=a,e=b", {"e": ["a", "b"]}),
        ("", {}),
        ("i=9223372036854775808", "Parameter 'i' expects an int64 value"),
        ("n=128", "Parameter 'n' expects int8_t"),
        ("l=x", "Parameter 'l' expects an int64 value or range"),
        ("e=c", "Parameter 'e' does not accept value 'c'"),
        ("o=1", "Invalid parameter type for 'o', expected: string"),
    ],
)
def test_other_types(options: str, expected: Any) -> None:
    assert check(options, OTHER, "S") == expected
