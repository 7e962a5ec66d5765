"""Comparison of the messages that came with the expected ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from memd.json_types import JSON, JSONObject

Message = JSONObject

Expected = str | tuple[str, Message]
"""A command's name, or its name and arguments that it must have had."""

ANY = "..."
"""Stands for any value in a transcript."""

_SHOWN = 500
"""Characters of a message that a difference shows."""

_AROUND = 20
"""Messages before and after a difference that are shown."""


def sent(transcript: Iterable[Message]) -> list[Message]:
    """The messages that clients sent."""
    return [
        entry["message"] for entry in transcript if entry["from"] == "client" and "message" in entry
    ]


def unexpected(expected: Sequence[Expected], transcript: Iterable[Message], *, only: bool) -> str:
    """The difference of what clients sent from the expected commands; "" for none.

    Args:
        only: whether they are all that was sent; else others may be between.
    """
    came = sent(transcript)
    at = 0
    for message in came:
        if at < len(expected) and _is(message, expected[at]):
            at += 1
        elif only:
            break
    if at == len(expected) and (not only or len(came) == len(expected)):
        return ""
    head = "expected:" if only else "expected, among others:"
    wanted = [each if isinstance(each, str) else f"{each[0]} {_text(each[1])}" for each in expected]
    mark = at if only else None
    return "\n".join([head, *_lines(wanted, at), "sent:", *_lines(map(_text, came), mark)])


def _is(message: JSON, expected: Expected) -> bool:
    name, wanted = (expected, {}) if isinstance(expected, str) else expected
    if not isinstance(message, dict) or message.get("execute", message.get("exec-oob")) != name:
        return False
    arguments = message.get("arguments", {})
    return isinstance(arguments, dict) and all(
        key in arguments and arguments[key] == value for key, value in wanted.items()
    )


def _lines(texts: Iterable[str], marked: int | None) -> list[str]:
    """A line each, with a mark at one of them, and those around it alone where there are many."""
    rows = [f"   {text}" for text in texts]
    if marked is not None:
        rows = [*rows, "   (nothing more)"] if marked == len(rows) else rows
        rows[marked] = " > " + rows[marked][3:]
    start = max(0, (len(rows) if marked is None else marked) - _AROUND)
    shown = rows[start : start + 2 * _AROUND]
    more = "   ..."
    return [more] * (start > 0) + shown + [more] * (start + len(shown) < len(rows))


def difference(wanted: Sequence[Sequence[Message]], came: Sequence[Sequence[Message]]) -> str:
    """The first difference of two conversations, lists of entries for each client; "" for none."""
    for number, sides in enumerate(zip_longest(wanted, came, fillvalue=()), 1):
        mine, other = map(_comparable, sides)
        for at, pair in enumerate(zip_longest(mine, other), 1):
            where = _differs(pair[0], pair[1])
            if where is not None:
                shown = ["(nothing more)" if each is None else _text(each) for each in pair]
                return (
                    f"client {number}, message {at}{where and ', at '}{where}:\n"
                    f"expected: {shown[0]}\ncame:     {shown[1]}"
                )
    return ""


def _comparable(entries: Iterable[Message]) -> list[Message]:
    """The messages without times; an id is the number of the client's message that has it."""
    found: list[Message] = []
    ids: dict[str, int] = {}
    for entry in entries:
        if "end" in entry:
            continue
        said: Message = {k: entry[k] for k in ("from", "message", "text") if k in entry}
        message = said.get("message")
        if isinstance(message, dict):
            message = {key: value for key, value in message.items() if key != "timestamp"}
            if "id" in message:
                id = json.dumps(message["id"])
                if entry["from"] == "client":
                    ids[id] = len(found)
                message["id"] = ids.get(id, ANY if message["id"] == ANY else None)
            said["message"] = message
        found.append(said)
    return found


def _differs(wanted: JSON, came: JSON, path: str = "") -> str | None:
    """The path to the first difference of two values; None where there is none."""
    if wanted == ANY and came is not None:
        return None
    if isinstance(wanted, dict) and isinstance(came, dict):
        pairs: Iterable[tuple[Any, Any, Any]] = (
            (f".{key}" if path else key, wanted.get(key, ()), came.get(key, ()))
            for key in {**wanted, **came}
        )
    elif isinstance(wanted, list) and isinstance(came, list):
        pairs = (
            (f"[{at}]", *pair) for at, pair in enumerate(zip_longest(wanted, came, fillvalue=()))
        )
    else:
        # JSON's true is not a number, and 1 is not 1.0.
        return None if type(wanted) is type(came) and wanted == came else path
    return next(
        (
            found
            for key, one, other in pairs
            if (found := _differs(one, other, path + key)) is not None
        ),
        None,
    )


def _text(message: JSON) -> str:
    text = json.dumps(message)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
