"""Options as `key=value,...` without nesting: the way of `-chardev`, `-mon`, `-name`.

A first value may stand without its key, a key without a value means "on" (with
"no" before it, "off"), `,,` stands for a comma in a value, and of a key that is
given twice the last counts. Texts and their order were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING

from memd.cli.keyval import HELP
from memd.cli.report import Answered
from memd.errors import ID_HINT, QMPError, bad_identifier, is_identifier
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.option_text import pairs

if TYPE_CHECKING:
    from memd.cli.reading import Given
    from memd.config import Report

Warn = Callable[[str, str], None]
"""Takes a warning and its hint."""


_KINDS = {"str": "str", "bool": "bool (on/off)", "num": "num", "size": "size"}


class OptsList(NamedTuple):
    """The keys of an option.

    Args:
        name: how messages call it.
        implied: the key of a first value that has none, or None.
        kinds: its keys, and what their values are: "str", "bool", "num" or
            "size". None where any key goes.
        takes_id: whether it may be given an `id`.
    """

    name: str
    implied: str | None
    kinds: Mapping[str, str] | None
    takes_id: bool = True

    def describe(self) -> str:
        """Its keys, as QEMU lists them."""
        lines = [f"  {key}=<{_KINDS[kind]}>\n" for key, kind in (self.kinds or {}).items()]
        return f"{self.name} options:\n" + "".join(sorted(lines))


class Opts:
    """Options that were given.

    Attributes:
        id: the `id` among them, or None.
        pairs: the others, in the order written. Values are text, and of their
            kind.
    """

    def __init__(self, id: str | None = None) -> None:
        self.id = id
        self.pairs: list[tuple[str, str]] = []

    def get(self, key: str) -> str | None:
        """The value that counts, None where there is none."""
        return dict(self.pairs).get(key)

    def has(self, key: str) -> bool:
        """Whether a key was given."""
        return key in dict(self.pairs)

    def with_id(self) -> list[tuple[str, str]]:
        """All of them, the `id` first."""
        return self.pairs if self.id is None else [("id", self.id), *self.pairs]

    def switch(self, key: str) -> bool | None:
        """The value of a "bool", None where there is none."""
        from memd.qapi.numbers import parse_switch

        value = self.get(key)
        return None if value is None else parse_switch(value)

    def number(self, key: str) -> int | None:
        """The value of a "num", None where there is none; raises `QMPError`, if unchecked."""
        from memd.qapi.numbers import option_number

        value = self.get(key)
        return None if value is None else option_number(value, key)

    def values(self, known: OptsList) -> JSONObject:
        """All of them by key: each "bool" as one, each "num" as an integer, others as text."""
        read: dict[str, Callable[[str], JSON]] = {"bool": self.switch, "num": self.number}
        kinds = known.kinds or {}
        found = {key: read.get(kinds.get(key, ""), self.get)(key) for key, _value in self.pairs}
        return found if self.id is None else {"id": self.id, **found}


class OptsParser:
    """Takes options apart, whose ids differ from those of earlier ones of the same list.

    Args:
        report: told of keys without a value.

    Attributes:
        ids: those that were given so far, by the name of the list.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.ids: defaultdict[str, set[str]] = defaultdict(set)

    def parse(self, known: OptsList, given: Given) -> Opts:
        """The options in an argument; raises as `parse_opts`."""
        taken = self.ids[known.name]
        opts = parse_opts(known, given.value, given.warn(self._report), taken)
        if opts.id is not None:
            taken.add(opts.id)
        return opts


def bad_id_option() -> QMPError:
    """The error for an id of the command line that is none."""
    return QMPError(bad_identifier().desc, hint=ID_HINT)


def parse_opts(
    known: OptsList, text: str, warn: Warn | None = None, taken: Container[str] = ()
) -> Opts:
    """Take options apart and check them.

    Args:
        known: what may be given.
        text: the options.
        warn: told of keys without a value, which QEMU deprecates.
        taken: ids of earlier options that an id must not repeat.

    Raises:
        QMPError: for an id, a key or a value that can't be.
        Answered: help was asked for.
    """
    id = _find_id(text)
    if id is not None:
        if not known.takes_id:
            raise QMPError("Invalid parameter 'id'")
        if not is_identifier(id):
            raise bad_id_option()
        if id in taken:
            raise QMPError(f"Duplicate ID '{id}' for {known.name}")
    opts = Opts(id)
    extend(opts, known, text, warn, answer_help=True)
    return opts


def extend(
    opts: Opts, known: OptsList, text: str, warn: Warn | None = None, *, answer_help: bool = False
) -> None:
    """Take further options apart, check them, and add them; see `parse_opts`.

    Args:
        answer_help: whether `help` is a question, and not a key.
    """
    for key, value in pairs(text, known.implied):
        if value is None:
            if known.kinds is not None and answer_help and key in HELP:
                raise Answered(known.describe(), 1)
            key, value = _short(key, warn)
        if key == "id":
            continue
        if known.kinds is not None:
            _check(known.kinds, key, value)
        opts.pairs.append((key, value))


def validate(opts: Opts, kinds: Mapping[str, str]) -> None:
    """Check options of a list that takes any key; raises `QMPError`.

    Args:
        kinds: as of `OptsList`.
    """
    for key, value in opts.pairs:
        _check(kinds, key, value)


def _find_id(text: str) -> str | None:
    """The first id. Nothing is implied here: QEMU looks for it before all else."""
    for key, value in pairs(text):
        if value is None:
            key, value = _short(key, None)
        if key == "id":
            return value
    return None


def _short(written: str, warn: Warn | None) -> tuple[str, str]:
    """The meaning of a key without a value."""
    if written in HELP:
        return written, "on"
    off = written.startswith("no")
    key, value = (written[2:], "off") if off else (written, "on")
    if warn is not None:
        better = f"{key}={value}" if key != "delay" else f"nodelay={'on' if off else 'off'}"
        warn(f"short-form boolean option '{written}' deprecated", f"Please use {better} instead")
    return key, value


def _check(kinds: Mapping[str, str], key: str, value: str) -> None:
    kind = kinds.get(key)
    if kind is None:
        raise QMPError(f"Invalid parameter '{key}'")
    if kind == "str":
        return
    from memd.qapi import numbers

    if kind == "bool":
        if numbers.parse_switch(value) is None:
            raise QMPError(f"Parameter '{key}' expects 'on' or 'off'")
    elif kind == "size":
        numbers.option_size(value, key)
    else:
        numbers.option_number(value, key)
