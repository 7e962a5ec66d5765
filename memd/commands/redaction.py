"""The part of a command's arguments and of its error that may stand in a record.

What a client sent may be a secret, or what memory holds, under a wrong name too. So
of commands that carry such content, values are told of those members alone that
name something; of others it is told that they were there. A member that the schema
does not know is only counted, whatever the command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from memd.backends.secret import SECRET_COMMON
from memd.commands import hmp
from memd.commands.daemon import Daemon
from memd.commands.hmp_arguments import BLANKS, words
from memd.commands.memdev import decoded_length
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.types import ObjectType

HIDDEN = "…"
"""Stands for a value that is not told, or for the rest of one that is too long."""

LONGEST_TEXT = 256
"""Characters of a text in a record; of a longer one only the beginning is there."""

MOST_TEXT = 16 << 10
"""Characters of all texts in a record's arguments together. The journal takes
datagrams, of 208 KiB where nobody has asked for less (net.core.wmem_default)."""

_MOST_ITEMS = 32
"""Members of an object, or items of a list, in a record."""

_DEEPEST = 3
"""Levels of lists and objects in a record: the value of a property has two."""

_MOST_LOOKED_AT = 4096
"""Characters that an error's text is compared with; of more it is left out."""

_CONTENT = frozenset(("data", "password", "passphrase", "secret", "key", "keys"))
"""Names of members and properties whose values are never told, in lower case."""

_LOGIN = re.compile(r"(://[^/?#\s:]*:)[^/?#\s]*@")
"""The password of a URL, which nothing here takes; one may be sent all the same."""

_JSON = "json:"
"""What a name of a file begins with that has options of a block node."""

_MEMBER_WITH_CONTENT = re.compile(rf"['\"]({'|'.join(sorted(_CONTENT))})['\"]\s*:", re.IGNORECASE)

_NO_ERROR = "left out, since it tells of what was sent"

_WORDS = re.compile(r"[\s,=]+")

_SHORTEST_WORD = 4
"""Characters of a part of a value that a text may quote; shorter ones are in any text."""

_PLAIN_LINES = frozenset(
    (
        *("balloon", "c", "cont", "device_del", "netdev_del", "object_del", "q", "quit", "s"),
        *("stop", "system_powerdown", "system_reset", "system_wakeup"),
    )
)
"""Commands of the human monitor whose arguments only name something."""


class Told:
    """The part of one command that may be told.

    Attributes:
        arguments: of its arguments.
        cut: whether there was more to tell than a record has room for.
    """

    def __init__(self, told: JSONObject, sent: JSONObject | None, known: frozenset[str]) -> None:
        """Take over what may be told.

        Args:
            told: the arguments' part of it.
            sent: all of them, where some may not be told, else None.
            known: the members that the command may have.
        """
        record = _Shortened()
        self.arguments = record.value(told)
        self.cut = record.cut
        self._told = told
        self._sent = sent
        self._known = known

    def error(self, desc: str) -> str:
        """An error's text as it may be told: it may quote what is not."""
        if self._sent is not None:
            kept = [key for key in self._sent if key not in self._known]
            kept += [
                value
                for key, value in self._sent.items()
                if key not in self._told or self._told[key] != value
            ]
            if _quotes(desc, kept):
                return _NO_ERROR
        desc = _without_password(desc)
        return desc if len(desc) <= LONGEST_TEXT else desc[:LONGEST_TEXT] + HIDDEN


class Redaction:
    """Says what may be told of commands' arguments.

    Args:
        daemon: whose commands, types and properties are known.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._members: dict[str, frozenset[str]] = {}

    def tell(self, name: str, arguments: JSONObject) -> Told:
        """The part of a command that may be told.

        Args:
            name: the command's.
            arguments: as the client sent them, whether or not they are right.
        """
        known = self._members.get(name)
        if known is None:
            known = self._members[name] = self._known(name)
        if name == "device_add":
            known |= self._properties_of(arguments.get("driver"))
        special = _SPECIAL.get(name)
        told: JSONObject | None = None
        if special is not None:
            told = special(self, arguments)
        elif not known.isdisjoint(_CONTENT):
            told = {key: value for key, value in arguments.items() if key == "id"}
        if told is None:
            if known >= arguments.keys():
                return Told(arguments, None, known)
            told = {key: value for key, value in arguments.items() if key in known}
        elif "length" not in told:
            # Others that are known were there, and that is all that is said of them.
            for key in arguments:
                if key in known and key not in told:
                    told[key] = HIDDEN
        unexpected = len(arguments.keys() - known)
        if unexpected:
            told["unexpected"] = unexpected
        return Told(told, arguments, known)

    def _known(self, name: str) -> frozenset[str]:
        """The members that a command may have; none of one that the schema has not."""
        command = self._daemon.schema.commands.get(name)
        return frozenset(() if command is None else _member_names(command.arguments))

    def _properties_of(self, driver: JSON) -> frozenset[str]:
        """The properties of a device of that type, without content."""
        found = self._daemon.tree.type_by_name(driver) if type(driver) is str else None
        return frozenset() if found is None else frozenset(found.all_properties) - _CONTENT

    def _object_add(self, arguments: JSONObject) -> JSONObject | None:
        """None for a type that carries no secret; a type that is not known may be meant as one."""
        name = arguments.get("qom-type")
        found = self._daemon.tree.type_by_name(name) if type(name) is str else None
        if found is None:
            return _of_types(arguments, {"id": str})
        if not found.is_a(SECRET_COMMON.name):
            return None
        return _of_types(arguments, {"qom-type": str, "id": str})

    def _qom_set(self, arguments: JSONObject) -> JSONObject:
        path, name = arguments.get("path"), arguments.get("property")
        if type(path) is not str:
            return {}
        told = {"path": path}
        if type(name) is not str:
            return told
        if name in _CONTENT:
            told["property"] = name
            return told
        try:
            found = self._daemon.tree.resolve(path)
        except QMPError:
            return told
        if name in found.qom_type.all_properties:
            told["property"] = name
            if "value" in arguments:
                told["value"] = arguments["value"]
        return told

    def _write(self, arguments: JSONObject) -> JSONObject:
        told = _of_types(arguments, {"id": str, "offset": int, "length": int})
        if type(arguments.get("data")) is str:
            told["length"] = decoded_length(arguments["data"])
        return told

    def _human(self, arguments: JSONObject) -> JSONObject:
        line = arguments.get("command-line")
        if type(line) is not str:
            return {}
        # A longer one is refused.
        name, *more = words(line[: hmp.LONGEST_LINE]) or [""]
        if not hmp.is_command(name):
            return {}
        if name in _PLAIN_LINES or not more:
            return {"command-line": line.strip(BLANKS)}
        return {"command-line": f"{name} {HIDDEN}"}


_SPECIAL: dict[str, Callable[[Redaction, JSONObject], JSONObject | None]] = {
    "object-add": Redaction._object_add,
    "qom-set": Redaction._qom_set,
    "x-memdev-write": Redaction._write,
    "human-monitor-command": Redaction._human,
}
"""The told arguments of commands that may carry secrets or memory; None for all that are known."""


def _of_types(arguments: JSONObject, kinds: dict[str, type]) -> JSONObject:
    """Those of the arguments that are of these types."""
    return {key: arguments[key] for key, kind in kinds.items() if type(arguments.get(key)) is kind}


class _Shortened:
    """Makes values fit into a record.

    Attributes:
        cut: whether something was left out.
    """

    cut = False
    _left = MOST_TEXT

    def value(self, value: JSON, depth: int = 0) -> JSON:
        """A value in what space a record has for it."""
        if type(value) is str:
            return self._text(value)
        if type(value) not in (dict, list):
            self._left -= 8
            return value
        if depth > _DEEPEST or self._left <= 0:
            self.cut = True
            return HIDDEN
        if len(value) > _MOST_ITEMS:
            self.cut = True
        if type(value) is list:
            return [self.value(item, depth + 1) for item in value[:_MOST_ITEMS]]
        short = {}
        for key, member in islice(value.items(), _MOST_ITEMS):
            secret = depth and key.lower() in _CONTENT
            short[self._text(key)] = HIDDEN if secret else self.value(member, depth + 1)
        return short

    def _text(self, text: str) -> str:
        text = _without_password(text)
        room = min(LONGEST_TEXT, max(0, self._left))
        self._left -= min(len(text), room) + 8
        if len(text) <= room:
            return text
        self.cut = True
        return text[:room] + HIDDEN


def _without_password(text: str) -> str:
    """A text, as far as it may be told: at its beginning, no URL has a password."""
    if text.startswith(_JSON) and _MEMBER_WITH_CONTENT.search(text):
        return _JSON + HIDDEN
    if "://" not in text:
        return text
    looked_at = text[:_MOST_LOOKED_AT]
    return _LOGIN.sub(rf"\g<1>{HIDDEN}@", looked_at) + text[_MOST_LOOKED_AT:]


def _quotes(desc: str, values: list[JSON]) -> bool:
    """Whether a text may have a word of these values in it, members' names among them."""
    todo = list(values)
    looked_at = 0
    while todo:
        value = todo.pop()
        if type(value) is dict:
            todo += value.keys()
            todo += value.values()
        elif type(value) is list:
            todo += value
        else:
            text = str(value)
            looked_at += 1 + len(text)
            if looked_at > _MOST_LOOKED_AT or (text and text in desc):
                return True
            if any(len(word) >= _SHORTEST_WORD and word in desc for word in _WORDS.split(text)):
                return True
        if len(todo) > _MOST_LOOKED_AT:
            return True
    return False


def _member_names(arguments: ObjectType) -> Iterator[str]:
    for member in arguments.members:
        yield member.name
    for branch in arguments.branches.values():
        yield from _member_names(branch)
