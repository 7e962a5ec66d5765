"""What a transcript is held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memd.testing.checks import Unexpected, check_replay, check_schema, save_transcript


def client(*commands: Any) -> list[dict[str, Any]]:
    return [{"from": "client", "message": command} for command in commands]


TWO = client(
    {"execute": "qmp_capabilities"},
    {"execute": "object-add", "arguments": {"id": "m0", "size": 1}, "id": 5},
)

VERSION = {"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": ""}
TIME = {"seconds": 1, "microseconds": 2}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"from": "client", "text": "JSON parse error"}, "client: no message: JSON parse error"),
        ({"from": "client", "message": [1]}, "client: no object"),
        ({"from": "client", "message": {"execute": "nothing"}}, "there is no command 'nothing'"),
        (
            {"from": "server", "message": {"event": "STOPPED", "timestamp": TIME}},
            "server: .*'STOPPED'",
        ),
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


GREETING = {"QMP": {"version": VERSION, "capabilities": []}}
REFUSED = {"error": {"class": "GenericError", "desc": "x"}}


def conversation(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What one client and the server say; an answer is to the command before it."""
    entries: list[dict[str, Any]] = []
    for message in messages:
        entry: dict[str, Any] = {"connection": 1, "message": message}
        if "execute" in message:
            entry["from"] = "client"
        else:
            entry["from"] = "server"
            if entries and "execute" in entries[-1]["message"]:
                entry["command"] = entries[-1]["message"]["execute"]
        entries.append(entry)
    return entries


CAPABILITIES = {"execute": "qmp_capabilities"}
STOP = {"execute": "stop"}
DONE: dict[str, Any] = {"return": {}}


@pytest.mark.parametrize(
    "messages",
    [
        (GREETING, STOP, DONE),
        (GREETING, STOP, DONE, CAPABILITIES, DONE),
        (GREETING, CAPABILITIES, REFUSED, STOP, DONE),
    ],
)
def test_a_command_before_the_negotiation(messages: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(Unexpected, match=r"^1 mistakes .*\n.*has not negotiated\n.*stop"):
        check_schema(conversation(*messages), "10.0", answers=True)


@pytest.mark.parametrize(
    "messages",
    [
        (GREETING, CAPABILITIES, DONE, STOP, DONE),
        (GREETING, CAPABILITIES, STOP, DONE, DONE),
        (GREETING, CAPABILITIES, DONE, CAPABILITIES, REFUSED, STOP, DONE),
        # The transcript begins after a reset: it had negotiated before.
        (STOP, DONE),
    ],
)
def test_a_client_that_negotiates(messages: tuple[dict[str, Any], ...]) -> None:
    check_schema(conversation(*messages), "10.0", answers=True)


def test_what_fits_the_schema() -> None:
    rtc = {"offset": 1, "qom-path": "/machine"}
    device = {"driver": "e1000", "netdev": "n0"}
    check_schema(
        [
            *(
                {"from": "server", "message": message}
                for message in (
                    GREETING,
                    {"timestamp": TIME, "event": "STOP"},
                    {"error": {"class": "GenericError", "desc": "x"}, "id": 1},
                )
            ),
            *TWO[:1],
            {"from": "server", "message": {"return": {}}, "command": "qmp_capabilities"},
            # QEMU has them, and memd by itself has not.
            {"from": "client", "message": {"execute": "query-pci"}},
            {"from": "client", "message": {"execute": "device_add", "arguments": device}},
            {"from": "server", "message": {"event": "RTC_CHANGE", "data": rtc, "timestamp": TIME}},
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
