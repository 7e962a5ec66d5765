"""What was said, held against what was to be said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memd.faulty.checks import Expected, difference, sent, unexpected


def client(*commands: Any) -> list[dict[str, Any]]:
    return [{"from": "client", "message": command} for command in commands]


TWO = client(
    {"execute": "qmp_capabilities"},
    {"execute": "object-add", "arguments": {"id": "m0", "size": 1}, "id": 5},
)


@pytest.mark.parametrize(
    "expected",
    [
        ("qmp_capabilities", "object-add"),
        ("qmp_capabilities", ("object-add", {"id": "m0"})),
        (("qmp_capabilities", {}), ("object-add", {"size": 1, "id": "m0"})),
    ],
)
def test_as_expected(expected: tuple[Expected, ...]) -> None:
    assert unexpected(expected, TWO, only=True) == ""
    assert unexpected(expected[1:], TWO, only=False) == ""


@pytest.mark.parametrize(
    ("expected", "marked"),
    [
        (("qmp_capabilities",), ["(nothing more)", json.dumps(TWO[1]["message"])]),
        (("object-add",), ["object-add", json.dumps(TWO[0]["message"])]),
        (("qmp_capabilities", "object-add", "x"), ["x", "(nothing more)"]),
        (
            ("qmp_capabilities", ("object-add", {"id": "m1"})),
            ['object-add {"id": "m1"}', json.dumps(TWO[1]["message"])],
        ),
        ((), ["(nothing more)", json.dumps(TWO[0]["message"])]),
    ],
)
def test_otherwise_than_expected(expected: tuple[Expected, ...], marked: list[str]) -> None:
    lines = unexpected(expected, TWO, only=True).splitlines()
    assert [line.removeprefix(" > ") for line in lines if line.startswith(" > ")] == marked


def test_in_another_order() -> None:
    told = unexpected(("object-add", "qmp_capabilities"), TWO, only=False)
    assert told.startswith("expected, among others:\n   object-add\n > qmp_cap")
    assert not unexpected(("yank",), client({"exec-oob": "yank"}), only=True)
    for strange in ([1], {"execute": 1}, {"execute": "object-add", "arguments": 1}):
        assert unexpected((("object-add", {"id": 1}),), client(strange), only=True)


def test_what_was_sent() -> None:
    transcript = [*TWO, {"from": "server", "message": {}}, {"from": "client", "text": "x"}]
    assert sent(transcript) == [entry["message"] for entry in TWO]


def test_many_messages_are_not_all_shown() -> None:
    came = client(*({"execute": f"c{number}"} for number in range(100)))
    told = unexpected([f"c{number}" for number in range(60)] + ["x"], came, only=True)
    assert len(told.splitlines()) < 90
    assert " > x" in told
    assert ' > {"execute": "c60"}' in told


def said(*messages: Any) -> list[dict[str, Any]]:
    return [
        {"time": number, "from": "client" if "execute" in each else "server", "message": each}
        for number, each in enumerate(messages)
    ]


ASKED = {"execute": "query-memdev", "id": "a"}
ANSWER = {"return": [{"id": "m0", "size": 1}], "id": "a"}
EVENT = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 1}}


def test_the_same_conversation() -> None:
    came = said(
        {**ASKED, "id": 7},
        {**EVENT, "timestamp": {"seconds": 2, "microseconds": 2}},
        {**ANSWER, "id": 7},
    )
    wanted = said(ASKED, EVENT, ANSWER)
    assert difference([wanted], [came]) == ""
    assert difference([[*wanted, {"from": "client", "end": True}]], [came]) == ""
    assert (
        difference(
            [said(ASKED, EVENT, {"return": [{"id": "m0", "size": "..."}], "id": "a"})], [came]
        )
        == ""
    )


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ((ASKED, EVENT), "message 3:"),
        ((ASKED, EVENT, ANSWER, EVENT), "message 4:"),
        ((EVENT, ASKED, ANSWER), "message 1, at from:"),
        ((ASKED, EVENT, {**ANSWER, "id": "b"}), "message 3, at message.id:"),
        ((ASKED, EVENT, {"return": ANSWER["return"]}), "message 3, at message.id:"),
        ((ASKED, EVENT, {**ANSWER, "return": []}), "message 3, at message.return[0]:"),
        (
            (ASKED, EVENT, {**ANSWER, "return": [{"id": "m0", "size": True}]}),
            "message 3, at message.return[0].size:",
        ),
        ((), "message 1:"),
    ],
)
def test_another_conversation(messages: tuple[Any, ...], told: str) -> None:
    wanted = said(ASKED, EVENT, ANSWER)
    assert difference([wanted], [said(*messages)]).startswith(f"client 1, {told}\nexpected: ")
    assert difference([[], wanted], [[], said(*messages)]).startswith(f"client 2, {told}")


def test_another_number_of_clients() -> None:
    assert difference([said(ASKED)], [said(ASKED), said(ASKED)]).startswith("client 2, message 1")
    assert difference([said(ASKED)], []).startswith("client 1, message 1")
