"""What a transcript is held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memd.testing.checks import (
    Expected,
    Unexpected,
    check_replay,
    check_schema,
    expect,
    save_transcript,
    sent,
)


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
    expect(expected, TWO, only=True)
    expect(expected[1:], TWO, only=False)


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
    with pytest.raises(Unexpected) as complaint:
        expect(expected, TWO, only=True)
    lines = str(complaint.value).splitlines()
    assert [line.removeprefix(" > ") for line in lines if line.startswith(" > ")] == marked


def test_in_another_order() -> None:
    with pytest.raises(Unexpected, match="expected, among others:\n   object-add\n > qmp_cap"):
        expect(("object-add", "qmp_capabilities"), TWO, only=False)
    expect(("yank",), client({"exec-oob": "yank"}), only=True)
    for strange in ([1], {"execute": 1}, {"execute": "object-add", "arguments": 1}):
        with pytest.raises(Unexpected):
            expect((("object-add", {"id": 1}),), client(strange), only=True)


def test_what_was_sent() -> None:
    transcript = [*TWO, {"from": "server", "message": {}}, {"from": "client", "text": "x"}]
    assert sent(transcript) == [entry["message"] for entry in TWO]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"from": "client", "text": "JSON parse error"}, "client: no message: JSON parse error"),
        ({"from": "client", "message": [1]}, "client: no object"),
        ({"from": "client", "message": {"execute": "nothing"}}, "there is no command 'nothing'"),
        ({"from": "client", "message": {"execute": "stop", "foo": 1}}, "client: .*'foo'"),
        (
            {"from": "client", "message": {"execute": "object-del", "arguments": {}}},
            "arguments: 'id' is a required property",
        ),
        ({"from": "server", "text": '{"re'}, "server: no message"),
        ({"from": "server", "message": {"return": {}, "x": 1}}, "server: .*'x'"),
        (
            {"from": "server", "message": {"return": []}, "command": "qmp_capabilities"},
            "what qmp_capabilities returns: .* is not of type 'object'",
        ),
        (
            # As in many a fake: the capabilities are a part of the version.
            {"from": "server", "message": {"QMP": {"version": {"capabilities": []}}}},
            "server: .*'QMP'.* is not valid under any",
        ),
    ],
)
def test_what_does_not_fit_the_schema(entry: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Unexpected, match=complaint):
        check_schema([entry], "10.0", answers=True)


def test_what_fits_the_schema() -> None:
    version = {"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": ""}
    time = {"seconds": 1, "microseconds": 2}
    check_schema(
        [
            *(
                {"from": "server", "message": message}
                for message in (
                    {"QMP": {"version": version, "capabilities": []}},
                    {"timestamp": time, "event": "STOP"},
                    {"error": {"class": "GenericError", "desc": "x"}, "id": 1},
                )
            ),
            *TWO[:1],
            {"from": "server", "message": {"return": {}}, "command": "qmp_capabilities"},
            # A command that was answered as told need not be one of the schema's.
            {"from": "client", "message": {"execute": "told", "arguments": 1}},
            {"from": "server", "message": {"return": 1}, "command": "told", "fault": True},
            {"from": "client", "end": True},
            {"from": "server", "end": True},
        ],
        "10.0",
        answers=True,
    )


def test_replays() -> None:
    check_replay({"mismatches": [], "left": 0})
    with pytest.raises(Unexpected, match="a\nb\n2 recorded messages of clients did not come"):
        check_replay({"mismatches": ["a", "b"], "left": 2})


def test_files(tmp_path: Path) -> None:
    save_transcript(TWO, tmp_path / "t")
    lines = (tmp_path / "t").read_text().splitlines()
    assert [json.loads(line) for line in lines] == TWO
