"""What a transcript is held against: expected commands, the schema, a replay."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from memd.errors import QMPError
from memd.json_types import JSON

__all__ = ["Expected", "QMPError", "Unexpected", "check_replay", "check_schema", "expect", "sent"]

Message = dict[str, JSON]

Expected = str | tuple[str, Message]
"""A command's name, or its name and arguments that it must have had."""


class Unexpected(AssertionError):
    """Something else was said than was expected."""


def sent(transcript: Iterable[Message]) -> list[Message]:
    """The messages that clients sent."""
    return [
        entry["message"] for entry in transcript if entry["from"] == "client" and "message" in entry
    ]


def expect(expected: Sequence[Expected], transcript: Iterable[Message], *, only: bool) -> None:
    """Raise `Unexpected` unless clients sent the expected commands; see `Server.expect`."""
    came = sent(transcript)
    at = 0
    for message in came:
        if at < len(expected) and _is(message, expected[at]):
            at += 1
        elif only:
            break
    if at < len(expected) or (only and len(came) != len(expected)):
        raise Unexpected(_difference(expected, came, at, only))


def _is(message: JSON, expected: Expected) -> bool:
    name, wanted = (expected, {}) if isinstance(expected, str) else expected
    if not isinstance(message, dict) or message.get("execute", message.get("exec-oob")) != name:
        return False
    arguments = message.get("arguments", {})
    return isinstance(arguments, dict) and all(
        key in arguments and arguments[key] == value for key, value in wanted.items()
    )


def _difference(expected: Sequence[Expected], came: Sequence[Message], at: int, only: bool) -> str:
    """Both lists, a line each, with a mark where they part."""
    lines = ["expected:" if only else "expected, among others:"]
    for index, each in enumerate(expected):
        name, wanted = (each, None) if isinstance(each, str) else each
        mark = ">" if index == at else " "
        lines.append(f" {mark} {name}{'' if wanted is None else ' ' + json.dumps(wanted)}")
    if only and at == len(expected):
        lines.append(" > (nothing more)")
    lines.append("sent:")
    for index, message in enumerate(came):
        mark = ">" if only and index == at else " "
        lines.append(f" {mark} {json.dumps(message)}")
    if only and at >= len(came):
        lines.append(" > (nothing more)")
    return "\n".join(lines)


def check_schema(transcript: Iterable[Message], compat: str, *, answers: bool) -> None:
    """Raise `Unexpected` unless each message fits the schema; see `Server.check_schema`.

    Commands that there are not are only told of where the server answered them
    itself: with an error.
    """
    validator, known = _schema(compat)
    transcript = list(transcript)
    told = {entry["command"] for entry in transcript if entry.get("fault") and "command" in entry}
    wrong: list[str] = []
    # What is said again and again is looked at once: that takes a millisecond.
    seen: dict[str, list[str]] = {}
    for entry in transcript:
        message = entry.get("message")
        same = message | {"id": 0} if isinstance(message, dict) and "id" in message else message
        key = json.dumps([*(entry.get(name) for name in ("from", "text", "command", "end")), same])
        if key not in seen:
            if entry["from"] == "client":
                seen[key] = _request(validator, known, message, entry.get("text"), told)
            elif answers and "end" not in entry:
                seen[key] = _answer(validator, known, message, entry)
        for each in seen.get(key, ()):
            said = json.dumps(message) if message is not None else repr(entry.get("text"))
            wrong.append(f"{entry['from']}: {each}\n    {said[:500]}")
    if wrong:
        raise Unexpected("\n".join([f"{len(wrong)} mistakes against the schema:", *wrong]))


@functools.cache
def _schema(compat: str) -> tuple[Any, Any]:
    """A validator, and the commands that there are; made once, as it takes a tenth of a second."""
    from memd.compat import Compat
    from memd.qapi import load_schema
    from memd.qapi.validator import Validator

    schema = load_schema(Compat(compat))
    return Validator(schema), schema.commands


def _request(
    validator: Any, known: Any, message: JSON, text: str | None, told: set[str]
) -> list[str]:
    if message is None:
        return [] if text is None else [f"no message: {text}"]
    if not isinstance(message, dict):
        return ["no object"]
    name = message.get("execute", message.get("exec-oob"))
    if isinstance(name, str) and name not in known:
        return [] if name in told else [f"there is no command {name!r}"]
    return [str(each) for each in validator.message(message)]


def _answer(validator: Any, known: Any, message: JSON, entry: Message) -> list[str]:
    if message is None:
        return ["no message"]
    found = [str(each) for each in validator.message(message)]
    command = entry.get("command")
    if isinstance(message, dict) and "return" in message and command in known:
        returned = validator.returned(command, message["return"])
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
