"""A recorded conversation, had once more with another client."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import Any

from memd.errors import QMPError
from memd.faulty.transcript import Entry, load_transcript
from memd.json_types import JSONObject
from memd.wire import encode

log = logging.getLogger("memd")

_NO_ID = object()


class Script:
    """A transcript that clients are answered from.

    Args:
        filename: of the transcript.

    Attributes:
        mismatches: what clients sent that is not in it.

    Raises:
        QMPError: it can't be read.
    """

    def __init__(self, filename: str) -> None:
        self._conversations = load_transcript(filename)
        self._filename = filename
        self._replays: list[Replay] = []
        self.mismatches: list[str] = []

    def next(self) -> Replay:
        """The replay for the next client."""
        conversation = self._conversations[len(self._replays) % len(self._conversations)]
        replay = Replay(conversation, self)
        self._replays.append(replay)
        return replay

    @property
    def left(self) -> int:
        """The number of recorded messages that have not come, of those clients that connected."""
        return sum(replay.left for replay in self._replays)

    def mismatch(self, line: int, text: str) -> str:
        """Note that something else came than was expected; what the client is told."""
        where = f"{self._filename}:{line}" if line else self._filename
        text = f"replay: {where}: {text}"
        self.mismatches.append(text)
        log.warning("%s", text)
        return text


class Replay:
    """One client's part of a transcript.

    Args:
        conversation: its entries, in order.
        script: the transcript.
    """

    def __init__(self, conversation: list[Entry], script: Script) -> None:
        self._script = script
        self._asked = deque(
            entry for entry in conversation if entry["from"] == "client" and "end" not in entry
        )
        self._came = 0
        # What the server says, with how many of the client's messages were before it.
        self._said: deque[tuple[int, Entry]] = deque()
        before = 0
        left = False
        for entry in conversation:
            if entry["from"] == "client":
                left = left or "end" in entry
                before += "end" not in entry
            elif not (left and "end" in entry):
                # A client may have spoken before it was greeted; another one waits.
                self._said.append((before if self._said else 0, entry))
        # The ids of what is not answered yet: as recorded, and as this client has them.
        self._ids: deque[tuple[Any, Any]] = deque()

    @property
    def left(self) -> int:
        """The number of the client's messages that have not come."""
        return len(self._asked)

    def answer(self, item: object) -> list[bytes | None]:
        """The server's messages after this one of the client's; None for an end.

        Args:
            item: the client's message, or a `QMPError` where it sent none.
        """
        wrong = self._compare(item)
        if wrong is not None:
            answer = {"error": {"class": "GenericError", "desc": wrong}}
            if isinstance(item, dict) and "id" in item:
                answer["id"] = item["id"]
            return [encode(answer)]
        expected = self._asked.popleft()
        self._came += 1
        recorded = expected.get("message")
        self._ids.append((_id_of(recorded), _id_of(item)))
        return self.due()

    def _compare(self, item: object) -> str | None:
        """The difference of a client's message from the expected one; None for none."""
        came = _shown(item)
        if not self._asked:
            return self._script.mismatch(0, f"nothing more is expected, and {came} came")
        expected = self._asked[0]
        if isinstance(item, QMPError):
            right = "message" not in expected
        else:
            right = "message" in expected and _plain(item) == _plain(expected["message"])
        if right:
            return None
        wanted = _shown(expected["message"]) if "message" in expected else "garbage"
        return self._script.mismatch(expected["line"], f"{wanted} is expected, and {came} came")

    def due(self) -> list[bytes | None]:
        """The server's next messages, up to where it waits for the client; None for an end.

        An answer waits for its own command only, so that a client may wait for
        each answer where the recorded one did not.
        """
        due: list[bytes | None] = []
        while self._said:
            before, entry = self._said[0]
            message = entry.get("message")
            if isinstance(message, dict) and ("return" in message or "error" in message):
                if not self._ids:
                    break
                message = self._with_id(message)
            elif before > self._came:
                break
            self._said.popleft()
            if "end" in entry:
                due.append(None)
            elif "message" in entry:
                due.append(encode(message))
            else:
                due.append(entry["text"].encode())
        return due

    def _with_id(self, answer: JSONObject) -> JSONObject:
        """An answer with this client's id instead of the recorded one's."""
        recorded = _id_of(answer)
        for pair in self._ids:
            if pair[0] == recorded:
                break
        else:
            # Wrong when it was recorded, and so it stays.
            self._ids.popleft()
            return answer
        self._ids.remove(pair)
        answer = {key: value for key, value in answer.items() if key != "id"}
        if pair[1] is not _NO_ID:
            answer["id"] = pair[1]
        return answer


def _id_of(message: object) -> object:
    return message.get("id", _NO_ID) if isinstance(message, dict) else _NO_ID


def _plain(message: object) -> object:
    """A message without what may differ."""
    if not isinstance(message, dict):
        return message
    plain = {key: value for key, value in message.items() if key != "id"}
    if plain.get("arguments") == {}:
        del plain["arguments"]
    return plain


def _shown(item: object) -> str:
    return "garbage" if isinstance(item, QMPError) else json.dumps(_plain(item))
