"""One fault: what contradicts itself, what it is for, how often."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from memd.errors import QMPError
from memd.faulty.fault import SCOPES, Effect, Fault, errno_of
from memd.qapi import load_schema
from memd.qapi.types import ObjectType


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({}, "Nothing is to go wrong: give one of answer, answer-id, "),
        ({"command": "stop"}, "Nothing is to go wrong: "),
        ({"command": "a", "event": "B", "drop": True}, "'command' and 'event' exclude each other"),
        ({"greeting": False, "drop": True}, "Parameter 'greeting' expects true"),
        ({"greeting": True, "error": {}}, "'error' is not for a fault of a greeting"),
        ({"event": "", "answer": 1}, "'answer' is not for a fault of an event"),
        ({"syscall": "mmap", "split": 1}, "'split' is not for a fault of a system call"),
        ({"command": "a", "version": {}}, "'version' is not for a fault of a command"),
        ({"drop": True, "nth": 0}, "Parameter 'nth' expects a number from 1 on"),
        ({"drop": True, "times": 0}, "Parameter 'times' expects a number from 1 on"),
        ({"split": 0}, "Parameter 'split' expects a number from 1 on"),
        ({"error": {}, "answer": 1}, "'error' and 'answer' exclude each other"),
        ({"answer-id": 1, "no-id": True}, "'answer-id' and 'no-id' exclude each other"),
        ({"drop": True, "arguments": {}}, "'arguments' expects an object, and a 'command'"),
        ({"command": "a", "drop": True, "arguments": 1}, "'arguments' expects an object"),
        ({"drop": True, "run": True}, "'run' goes with 'error' or 'answer'"),
        ({"disconnect": "after", "cut": 1}, "'cut' goes with 'disconnect' in the 'middle'"),
        ({"event": "", "disconnect": "instead"}, "Only a command has something else done"),
        ({"syscall": "mmap", "errno": "EMANY"}, "'errno' expects the name of an error"),
        ({"syscall": "mmap", "errno": "errorcode"}, "'errno' expects the name of an error"),
        ({"syscall": "mmap", "stall": True}, "Only the system call 'populate' can be stalled"),
        ({"syscall": "mmap", "errno": "EIO", "client": 1}, "'client' is not for a fault of a sys"),
    ],
)
def test_refusals(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(QMPError) as refused:
        Fault("f", spec)
    assert text in refused.value.desc


@pytest.mark.parametrize(
    ("members", "applied"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"times": 2}, [1, 2]),
        ({"nth": 3}, [3]),
        ({"nth": 2, "times": 3}, [2, 3, 4]),
    ],
)
def test_how_often(members: dict[str, int], applied: list[int]) -> None:
    fault = Fault("f", {"drop": True, **members})
    assert [number for number in range(1, 6) if fault.count()] == applied
    assert (fault.seen, fault.applied) == (5, len(applied))


def test_for_whom() -> None:
    everyone = Fault("f", {"drop": True})
    assert everyone.scope == "command"
    assert everyone.is_for(client=7, monitor="m", command=None)
    one = Fault(
        "f", {"command": "a", "arguments": {"x": 1}, "client": 2, "monitor": "m", "split": 1}
    )
    arguments = {"x": 1, "y": [2]}
    assert one.is_for(arguments, client=2, monitor="m", command="a")
    assert not one.is_for(arguments, client=1, monitor="m", command="a")
    assert not one.is_for(arguments, client=2, monitor="n", command="a")
    for name, other in (("b", {"x": 1}), ("a", {}), ("a", {"x": 2}), ("a", None), (None, None)):
        assert not one.is_for(other, command=name)


def test_an_effect_is_all_faults_together() -> None:
    event = {"event": "A"}
    effect = Effect(
        [
            Fault("1", {"delay": 5, "events-before": [event]}),
            Fault("2", {"answer": 1, "delay": 7, "split": 2}),
            Fault("3", {"error": {"desc": "x"}, "split": 3, "events-after": [event, event]}),
        ]
    )
    assert effect.delay == 12
    assert effect.before == [event]
    assert effect.after == [event, event]
    assert effect.answers
    # The first one that would answer does.
    assert "error" not in effect.spec
    assert (effect.spec["answer"], effect.spec["split"]) == (1, 2)
    assert not Effect([Fault("1", {"drop": True})]).answers


def test_errors_by_name() -> None:
    assert errno_of("ENOMEM") == errno.ENOMEM
    assert [errno_of(name) for name in ("", "EX", "errorcode", "enomem")] == [0, 0, 0, 0]


def test_every_member_is_known_here() -> None:
    """None of `TestFault` is for no scope at all."""
    from memd.faulty import fault

    schema = load_schema(test=True).type("TestFault")
    assert isinstance(schema, ObjectType)
    known = fault._WHERE.union(*(fault._EFFECTS[scope] for scope in SCOPES))
    assert {member.name for member in schema.members} == known
