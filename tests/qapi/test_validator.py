from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memd.qapi.validator import Validator
from tests.qapi.files import whole_schema

RAM = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}
TIME = {"seconds": 1, "microseconds": 2}


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(whole_schema())


@pytest.mark.parametrize(
    "message",
    [
        {"execute": "query-status"},
        {"execute": "query-status", "arguments": {}, "id": None},
        {"execute": "object-add", "arguments": RAM},
        {"exec-oob": "query-yank", "id": 1},
        {"execute": "query-yank"},
        {"execute": "device_add", "arguments": {"driver": "x", "anything": 1}},
        {"return": {}},
        {"return": [], "id": {"x": 1}},
        {"error": {"class": "GenericError", "desc": "x"}},
        {"event": "STOP", "timestamp": TIME},
        {
            "event": "SHUTDOWN",
            "timestamp": TIME,
            "data": {"guest": False, "reason": "host-signal"},
        },
        {
            "QMP": {
                "version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""},
                "capabilities": ["oob"],
            }
        },
    ],
)
def test_good_messages(validator: Validator, message: Any) -> None:
    assert not validator.violations(message)


@pytest.mark.parametrize(
    ("message", "paths"),
    [
        ([], [""]),
        ({}, [""]),
        ({"execute": "no"}, ["execute"]),
        ({"execute": "query-status", "exec-oob": "query-yank"}, [""]),
        ({"exec-oob": "query-status"}, ["exec-oob"]),
        ({"execute": "query-status", "arguments": {"x": 1}}, ["arguments"]),
        ({"execute": "query-status", "x": 1}, [""]),
        ({"execute": "object-add"}, [""]),
        ({"execute": "object-add", "arguments": {**RAM, "qom-type": "x"}}, ["arguments.qom-type"]),
        (
            {"execute": "object-add", "arguments": {**RAM, "size": 1.0, "host-nodes": [0, -1]}},
            ["arguments.host-nodes[1]", "arguments.size"],
        ),
        ({"execute": "object-add", "arguments": {**RAM, "size": True}}, ["arguments.size"]),
        ({"return": {}, "error": {}}, [""]),
        ({"event": "STOP"}, [""]),
        ({"event": "SHUTDOWN", "timestamp": TIME}, [""]),
        ({"event": "SHUTDOWN", "timestamp": TIME, "data": {"guest": False}}, ["data"]),
    ],
)
def test_bad_messages(validator: Validator, message: Any, paths: list[str]) -> None:
    assert sorted({violation.path for violation in validator.violations(message)}) == paths


def test_arguments_and_returned_values(validator: Validator) -> None:
    assert not validator.violations({"path": "/", "property": "type"}, "qom-get.arguments")
    assert str(validator.violations({"path": 1, "property": ""}, "qom-get.arguments")[0]) == (
        "path: 1 is not of type 'string'"
    )
    assert not validator.violations({"path": "/", "property": "type"}, "qom-get.arguments")
    assert validator.violations({}, "qom-get.arguments")
    assert not validator.violations({"running": True, "status": "running"}, "query-status.returns")
    assert validator.violations({"running": True}, "query-status.returns")
    assert validator.violations([], "stop.returns")


def test_unknown_commands(validator: Validator) -> None:
    with pytest.raises(KeyError):
        validator.violations({}, "no.arguments")


def test_a_daemon_does_not_pay_for_it() -> None:
    script = (
        "import sys\n"
        "from memd.qapi import load_schema\n"
        "from memd.qapi.introspect import introspect\n"
        "schema = load_schema()\n"
        "schema.checker('object-add')({'qom-type': 'memory-backend-ram', 'id': 'a', 'size': 1})\n"
        "introspect(schema)\n"
        "cold = {'jsonschema', 'argparse', 'inspect', 'dataclasses', 'memd.qapi.parser'}\n"
        "print(sorted(cold & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
