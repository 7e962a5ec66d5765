"""A recorded conversation, had once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memd.errors import QMPError
from memd.faulty.replay import Script
from memd.testing import Server
from tests.differential.server import Monitor

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
EVENT = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}


def client(**message: Any) -> dict[str, Any]:
    return {"from": "client", "message": message}


def server(message: Any) -> dict[str, Any]:
    return {"from": "server", "message": message}


def script(path: Path, *entries: dict[str, Any]) -> Script:
    (path / "t").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return Script(str(path / "t"))


def values(due: list[bytes | None]) -> list[Any]:
    return [None if data is None else json.loads(data) for data in due]


def test_a_client_that_does_as_recorded(tmp_path: Path) -> None:
    recorded = script(
        tmp_path,
        server(GREETING),
        client(execute="qmp_capabilities"),
        server({"return": {}}),
        client(execute="stop", id="s"),
        server(EVENT),
        server({"return": {}, "id": "s"}),
        server({"event": "LATER"}),
        {"from": "client", "end": True},
        # That is because the client has left: this one may not have.
        {"from": "server", "end": True},
    )
    replay = recorded.next()
    assert values(replay.due()) == [GREETING]
    assert recorded.left == 2
    # Ids are the client's own, and arguments may be left out where they are empty.
    first = {"execute": "qmp_capabilities", "arguments": {}, "id": 1}
    assert values(replay.answer(first)) == [{"return": {}, "id": 1}]
    assert values(replay.answer({"execute": "stop"})) == [EVENT, {"return": {}}, {"event": "LATER"}]
    assert (recorded.left, recorded.mismatches) == (0, [])


def test_a_client_that_does_otherwise(tmp_path: Path) -> None:
    recorded = script(tmp_path, client(execute="stop", arguments={"a": 1}), server({"return": {}}))
    replay = recorded.next()
    (answer,) = values(replay.answer({"execute": "cont", "id": 3}))
    text = (
        f'replay: {tmp_path}/t:1: {{"execute": "stop", "arguments": {{"a": 1}}}} is expected,'
        ' and {"execute": "cont"} came'
    )
    assert answer == {"error": {"class": "GenericError", "desc": text}, "id": 3}
    assert recorded.mismatches == [text]
    # It may still do the right thing.
    assert values(replay.answer({"execute": "stop", "arguments": {"a": 1}})) == [{"return": {}}]
    (more,) = values(replay.answer({"execute": "stop"}))
    assert more["error"]["desc"].endswith('nothing more is expected, and {"execute": "stop"} came')
    (garbage,) = values(replay.answer(QMPError("x")))
    assert garbage["error"]["desc"].endswith("and garbage came")


def test_recorded_in_a_rush_and_replayed_one_by_one(tmp_path: Path) -> None:
    recorded = script(
        tmp_path,
        client(execute="a", id=1),
        client(execute="b", id=2),
        server(GREETING),
        server({"return": 1, "id": 1}),
        server(EVENT),
        server({"return": 2, "id": 2}),
    )
    replay = recorded.next()
    assert values(replay.due()) == [GREETING]
    assert values(replay.answer({"execute": "a"})) == [{"return": 1}]
    assert values(replay.answer({"execute": "b"})) == [EVENT, {"return": 2}]
    # And the same in a rush once more, as it is the only conversation.
    again = recorded.next()
    again.due()
    assert values(again.answer({"execute": "a", "id": "x"})) == [{"return": 1, "id": "x"}]


def test_what_is_no_message(tmp_path: Path) -> None:
    recorded = script(
        tmp_path,
        {"from": "server", "text": "hello\r\n"},
        {"from": "client", "text": "JSON parse error"},
        server({"error": {"class": "GenericError", "desc": "JSON parse error"}}),
        {"from": "server", "end": True},
    )
    replay = recorded.next()
    assert replay.due() == [b"hello\r\n"]
    error, end = values(replay.answer(QMPError("some other text")))
    assert (error["error"]["desc"], end) == ("JSON parse error", None)


def test_an_answer_with_a_wrong_id_stays_wrong(tmp_path: Path) -> None:
    recorded = script(tmp_path, client(execute="a", id=1), server({"return": 1, "id": 9}))
    replay = recorded.next()
    assert values(replay.answer({"execute": "a", "id": 5})) == [{"return": 1, "id": 9}]


def test_each_client_has_its_own_part(tmp_path: Path) -> None:
    path = tmp_path / "t"
    lines = [
        {"connection": 1, "from": "server", "message": GREETING},
        {"connection": 2, "from": "server", "message": {"QMP": 2}},
        {"connection": 1, "from": "client", "message": {"execute": "query-name"}},
        {"connection": 1, "from": "server", "message": {"return": {"name": "recorded"}}},
        {"connection": 1, "from": "server", "end": True},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Server(replay=path) as daemon:
        first = Monitor(daemon.socket, negotiate=False)
        second = Monitor(daemon.socket, negotiate=False)
        third = Monitor(daemon.socket, negotiate=False)
        assert [each.greeting for each in (first, second, third)] == [
            GREETING,
            {"QMP": 2},
            GREETING,
        ]
        assert first.execute("query-name", id=7) == {"return": {"name": "recorded"}, "id": 7}
        assert first.at_end()
        status = daemon.tell("x-test-replay-status")
        assert status == {"mismatches": [], "left": 1}
        # It answers by itself again.
        daemon.tell("x-test-replay")
        fourth = Monitor(daemon.socket)
        assert fourth.execute("query-name") == {"return": {}}
        for each in (first, second, third, fourth):
            each.close()


def test_what_it_can_not_read(tmp_path: Path) -> None:
    with pytest.raises(QMPError, match=r"cannot read '.*/none': No such file or directory"):
        Script(str(tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(QMPError, match="is not a transcript: "):
        Script(str(tmp_path / "binary"))
