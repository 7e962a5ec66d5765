from __future__ import annotations

from typing import Any

import pytest

from memd.errors import GENERIC_ERROR, QMPError
from memd.qapi.visit import (
    BUILTIN_VISITS,
    Visit,
    last_name,
    visit_any,
    visit_bool,
    visit_enum,
    visit_int32,
    visit_int64,
    visit_list,
    visit_null,
    visit_number,
    visit_size,
    visit_str,
    visit_uint16,
    visit_uint32,
    visit_uint64,
)

policy = visit_enum(["default", "bind"])
nodes = visit_list(visit_uint16)


@pytest.mark.parametrize(
    ("visit", "value", "result"),
    [
        (visit_bool, True, True),
        (visit_str, "", ""),
        (visit_any, [None], [None]),
        (visit_null, None, None),
        (visit_number, 1, 1.0),
        (visit_number, 1.5, 1.5),
        (visit_int64, -(1 << 63), -(1 << 63)),
        (visit_int64, (1 << 63) - 1, (1 << 63) - 1),
        (visit_uint64, (1 << 64) - 1, (1 << 64) - 1),
        (visit_uint64, -1, (1 << 64) - 1),
        (visit_size, -(1 << 63), 1 << 63),
        (visit_uint32, (1 << 32) - 1, (1 << 32) - 1),
        (visit_uint16, 0, 0),
        (BUILTIN_VISITS["uint8"], 255, 255),
        (BUILTIN_VISITS["int8"], -128, -128),
        (BUILTIN_VISITS["int16"], 32767, 32767),
        (visit_int32, -(1 << 31), -(1 << 31)),
        (policy, "bind", "bind"),
        (nodes, [0, 65535], [0, 65535]),
        (nodes, [], []),
    ],
)
def test_takes(visit: Visit, value: Any, result: Any) -> None:
    taken = visit(value, "x")
    assert taken == result
    assert type(taken) is type(result)


@pytest.mark.parametrize(
    ("visit", "value", "text"),
    [
        (visit_bool, 1, "Invalid parameter type for 'a.x', expected: boolean"),
        (visit_bool, None, "Invalid parameter type for 'a.x', expected: boolean"),
        (visit_str, None, "Invalid parameter type for 'a.x', expected: string"),
        (visit_null, 0, "Invalid parameter type for 'a.x', expected: null"),
        (visit_number, "1", "Invalid parameter type for 'a.x', expected: number"),
        (visit_number, True, "Invalid parameter type for 'a.x', expected: number"),
        (visit_int64, 1.0, "Invalid parameter type for 'a.x', expected: integer"),
        (visit_int64, True, "Invalid parameter type for 'a.x', expected: integer"),
        (visit_int64, 1 << 63, "Invalid parameter type for 'a.x', expected: integer"),
        (visit_int64, -(1 << 63) - 1, "Invalid parameter type for 'a.x', expected: integer"),
        (visit_uint64, 1.0, "Parameter 'a.x' expects uint64"),
        (visit_uint64, "1", "Parameter 'a.x' expects uint64"),
        (visit_uint64, 1 << 64, "Parameter 'a.x' expects uint64"),
        (visit_size, -(1 << 63) - 1, "Parameter 'a.x' expects uint64"),
        (visit_uint32, "1", "Parameter 'a.x' expects uint64"),
        (visit_uint32, 1 << 32, "Parameter 'x' expects uint32_t"),
        (visit_uint32, -1, "Parameter 'x' expects uint32_t"),
        (BUILTIN_VISITS["uint8"], 256, "Parameter 'x' expects uint8_t"),
        (visit_int32, 1 << 31, "Parameter 'x' expects int32_t"),
        (visit_int32, 0.0, "Invalid parameter type for 'a.x', expected: integer"),
        (BUILTIN_VISITS["int16"], -32769, "Parameter 'x' expects int16_t"),
        (BUILTIN_VISITS["int8"], 128, "Parameter 'x' expects int8_t"),
        (policy, "x", "Parameter 'x' does not accept value 'x'"),
        (policy, 1, "Invalid parameter type for 'a.x', expected: string"),
        (nodes, 0, "Invalid parameter type for 'a.x', expected: array"),
        (nodes, [0, 1.0], "Parameter 'a.x[1]' expects uint64"),
        (nodes, [0, 65536], "Parameter 'null' expects uint16_t"),
        (visit_list(policy), ["x"], "Parameter 'null' does not accept value 'x'"),
        (visit_list(nodes), [[0], [0, ""]], "Parameter 'a.x[1][1]' expects uint64"),
    ],
)
def test_refuses(visit: Visit, value: Any, text: str) -> None:
    with pytest.raises(QMPError) as caught:
        visit(value, "a.x")
    assert caught.value.desc == text
    assert caught.value.error_class == GENERIC_ERROR


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("size", "size"),
        ("limits.iops-total", "iops-total"),
        ("rules[0].policy", "policy"),
        ("host-nodes[3]", "null"),
        ("host-nodes.3", "null"),
        ("a[0][1]", "null"),
        ("", "null"),
    ],
)
def test_last_name(path: str, name: str) -> None:
    assert last_name(path) == name
