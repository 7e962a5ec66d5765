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


def test_what_fits_the_schema() -> None:
    version = {"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": ""}
    rtc = {"offset": 1, "qom-path": "/machine"}
    device = {"driver": "e1000", "netdev": "n0"}
    check_schema(
        [
            *(
                {"from": "server", "message": message}
                for message in (
                    {"QMP": {"version": version, "capabilities": []}},
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
