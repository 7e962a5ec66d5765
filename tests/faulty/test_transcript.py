"""What was said, in order; its form in files."""

from __future__ import annotations

import json

import pytest

from memd.errors import QMPError
from memd.faulty.transcript import ABOUT, Transcript, read_transcript


def test_what_was_said() -> None:
    transcript = Transcript()
    transcript.heard(1, {"execute": "stop"}, 19)
    transcript.heard(1, QMPError("JSON parse error"), 2)
    transcript.sent(1, b'{"return": {}}\r\n', "stop", False)
    transcript.sent(2, b'{"retu', "stop", True)
    transcript.ended(2, "server")
    said, following = transcript.since(0)
    assert following == 5
    times = [entry.pop("time") for entry in said]
    assert times == sorted(times)
    assert said == [
        {"connection": 1, "from": "client", "message": {"execute": "stop"}},
        {"connection": 1, "from": "client", "text": "JSON parse error"},
        {"connection": 1, "from": "server", "command": "stop", "message": {"return": {}}},
        {"connection": 2, "from": "server", "command": "stop", "fault": True, "text": '{"retu'},
        {"connection": 2, "from": "server", "end": True},
    ]
    assert len(transcript.since(4)[0]) == 1
    assert transcript.since(5) == transcript.since(9) == ([], 5)
    transcript.reset()
    assert transcript.since(0) == ([], 0)
    # Who asks for all is told of it still.
    assert len(transcript.since(0, all=True)[0]) == 5


class Short(Transcript):
    """Keeps little."""

    length = 3
    size = 10


class InParts(Transcript):
    """Tells little at once."""

    at_once = 10 + 2 * ABOUT


def test_the_oldest_are_forgotten() -> None:
    transcript = Short()
    # A client of number 0 is not recorded.
    for number in (0, 1, 2, 3, 4, 5):
        transcript.heard(number, {}, 2)
    found, following = transcript.since(0)
    assert ([entry["connection"] for entry in found], following) == ([3, 4, 5], 5)
    assert [entry["connection"] for entry in transcript.since(4)[0]] == [5]
    assert transcript.lost() == 2
    transcript.sent(9, b"1234567", None, False)
    transcript.heard(9, {}, 7)
    assert transcript.since(0) == transcript.since(6)
    assert transcript.since(0)[1] == 7


def test_no_more_is_told_at_once_than_can_be_sent() -> None:
    transcript = InParts()
    for size in (4, 4, 4, 50, 1):
        transcript.heard(1, size, size)
    told, following = [], 0
    while (part := transcript.since(following))[0]:
        told.append([entry["message"] for entry in part[0]])
        following = part[1]
    assert told == [[4, 4], [4], [50], [1]]


def test_a_file_is_a_message_a_line() -> None:
    lines = [
        {"connection": 2, "from": "server", "message": {"QMP": {}}},
        {"connection": 1, "from": "client", "text": "garbage"},
        {"connection": 2, "from": "client", "end": True},
    ]
    text = "\n\n".join(map(json.dumps, lines))
    first, second = read_transcript(text)
    assert [entry["line"] for entry in first] == [3]
    assert [entry["line"] for entry in second] == [1, 5]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is nothing in it"),
        ("{", "line 1: Expecting"),
        ("\n[]", "line 2: not an object"),
        ('{"message": 1}', "line 1: 'from' is neither client nor server"),
        ('{"from": "client"}', "line 1: neither 'message' nor 'text' nor 'end'"),
        ('{"from": "client", "text": 1}', "line 1: 'text' is not a string"),
        ('{"from": "client", "end": true, "connection": "1"}', "line 1: 'connection' is no"),
    ],
)
def test_what_is_no_transcript(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_transcript(text)
