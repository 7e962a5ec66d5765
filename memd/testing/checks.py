"""Checks of a transcript: the schema, a replay."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from typing import Any

from memd.errors import QMPError
from memd.faulty.checks import Expected, Message, sent
from memd.json_types import JSON

__all__ = ["Expected", "QMPError", "Unexpected", "check_replay", "check_schema", "sent"]


class Unexpected(AssertionError):
    """Something else was said than was expected."""


def check_schema(
    transcript: Iterable[Message], compat: str, *, answers: bool, catalogue: str | None = None
) -> None:
    """Raise `Unexpected` unless each message fits the schema; see `Server.check_schema`."""
    validator, known = _schema(compat, catalogue)
    transcript = list(transcript)
    wrong = _too_early(transcript)
    # What is said again and again is looked at once: that takes a millisecond.
    seen: dict[str, list[str]] = {}
    for entry in transcript:
        message = entry.get("message")
        same = message | {"id": 0} if isinstance(message, dict) and "id" in message else message
        key = json.dumps([*(entry.get(name) for name in ("from", "text", "command", "end")), same])
        if key not in seen:
            if entry["from"] == "client":
                seen[key] = _request(validator, known, message, entry.get("text"))
            elif answers and "end" not in entry:
                seen[key] = _answer(validator, known, message, entry)
        for each in seen.get(key, ()):
            said = json.dumps(message) if message is not None else repr(entry.get("text"))
            wrong.append(f"{entry['from']}: {each}\n    {said[:500]}")
    if wrong:
        raise Unexpected("\n".join([f"{len(wrong)} mistakes against the schema:", *wrong]))


def _too_early(transcript: Iterable[Message]) -> list[str]:
    """The commands that clients sent before they negotiated, which an answer that was told hides.

    Of a connection whose greeting is not in the transcript nothing is known.
    """
    wrong: list[str] = []
    greeted: set[int | None] = set()
    asked: set[int | None] = set()
    for entry in transcript:
        connection, message = entry.get("connection"), entry.get("message")
        if not isinstance(message, dict):
            continue
        negotiates = "qmp_capabilities" in (message.get("execute"), entry.get("command"))
        if entry["from"] == "client":
            if negotiates and connection in greeted:
                greeted.remove(connection)
                asked.add(connection)
            elif connection in greeted:
                said = json.dumps(message)[:500]
                wrong.append(f"client: it has not negotiated\n    {said}")
        elif "QMP" in message:
            greeted.add(connection)
        elif negotiates and connection in asked:
            asked.remove(connection)
            if "error" in message:
                greeted.add(connection)
    return wrong


@functools.cache
def _schema(compat: str, catalogue: str | None) -> tuple[Any, Any]:
    """A validator, and the commands that there are; made once, as it takes a fifth of a second."""
    from memd.compat import Compat
    from memd.qapi.validator import Validator
    from memd.standin.catalogue import find_catalogue
    from memd.standin.schema import standin_schema

    release = Compat(compat)
    known = find_catalogue(release, catalogue)
    schema = standin_schema(known, release, test=False)
    return Validator(schema), schema.commands


def _request(validator: Any, known: Any, message: JSON, text: str | None) -> list[str]:
    if message is None:
        return [] if text is None else [f"no message: {text}"]
    if not isinstance(message, dict):
        return ["no object"]
    name = message.get("execute", message.get("exec-oob"))
    if isinstance(name, str) and name not in known:
        return [f"there is no command {name!r}"]
    return [str(each) for each in validator.violations(message)]


def _answer(validator: Any, known: Any, message: JSON, entry: Message) -> list[str]:
    if message is None:
        return ["no message"]
    found = [str(each) for each in validator.violations(message)]
    command = entry.get("command")
    if isinstance(message, dict) and "return" in message and command in known:
        returned = validator.violations(message["return"], f"{command}.returns")
        found += [f"what {command} returns: {each}" for each in returned]
    return found


def check_replay(status: Message) -> None:
    """Raise `Unexpected` unless a replay went as recorded (`TestReplayStatus`)."""
    wrong = list(status["mismatches"])
    if status["left"]:
        wrong.append(f"{status['left']} recorded messages of clients did not come")
    if wrong:
        raise Unexpected("\n".join(wrong))


def save_transcript(transcript: Iterable[Message], filename: str | os.PathLike[str]) -> None:
    """Write a transcript, a message a line."""
    with open(filename, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in transcript)
