"""What must hold of any input at all: one function a door that bytes come in by.

Each takes bytes, and raises where the code behind the door breaks its promise:
an exception that is not the one it documents, or an answer that depends on how
the bytes came in.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

from memd.cli.keyval import parse_keyval
from memd.cli.objects import parse_object
from memd.cli.opts import OptsList, parse_opts
from memd.cli.report import Answered
from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi import load_schema
from memd.qapi.introspect import introspect
from memd.qapi.json_schema import json_schema
from memd.qapi.keyval import check_keyval
from memd.qapi.reader import read_expressions
from memd.qapi.source import Definition, SchemaError
from memd.wire import Decoder, encode
from tests.qapi.files import schema_of
from tests.qapi.rules import check_file

Target = Callable[[bytes], None]

PIECES = (1, 3, 64)
"""Bytes that a decoder is fed at a time, besides all at once."""

KEYS = OptsList("fuzz", "first", {"first": "str", "flag": "bool", "count": "num", "size": "size"})


CONDITIONAL = "'if': "


class Broken(AssertionError):
    """A promise that does not hold."""


class ExactDecoder(Decoder):
    """One that knows no short cut."""

    __slots__ = ()

    def _enter_text(self) -> bool:
        return False


def wire(data: bytes, make: Callable[[Compat], Decoder] = Decoder) -> None:
    """Framing: what comes out is the same however the bytes come in, and goes out as it was."""
    for compat in Compat:
        whole = _shown(_decoded(make(compat), data, len(data) or 1))
        for size in PIECES:
            if _shown(_decoded(make(compat), data, size)) != whole:
                raise Broken(f"{size} bytes at a time it is something else")
        if _shown(_decoded(ExactDecoder(compat), data, len(data) or 1)) != whole:
            raise Broken("the exact path sees something else")
        for item in _decoded(Decoder(compat), data, len(data) or 1):
            if isinstance(item, QMPError):
                item = item.desc
            if not _is_finite(item):
                # Written "inf", as QEMU does, which nobody can read.
                continue
            # Once through, -0.0 has become 0, as QEMU writes and reads it; from then on it stays.
            once = encode(_through(compat, encode({"value": item})))
            if encode(_through(compat, once)) != once:
                raise Broken(f"{item!r} is another thing every time")


def schema(data: bytes, check: Callable[[str], list[Definition]] = check_file) -> None:
    """The schema's front end: a file is refused with a place, or all that is made of it works."""
    with tempfile.TemporaryDirectory(prefix="memd-fuzz-") as directory:
        path = os.path.join(directory, "fuzz.json")
        with open(path, "wb") as file:
            file.write(data)
        try:
            definitions = check(path)
        except SchemaError:
            return
        expressions = [definition.expr for definition in definitions]
        if read_expressions(path) != expressions:
            raise Broken("the quick reader reads something else")
        if any(CONDITIONAL in repr(expression) for expression in expressions):
            # What a condition leaves out may be what something else refers to:
            # QEMU learns that from its compiler.
            return
        made = schema_of(expressions)
        introspect(made)
        json_schema(made)
        for name in made.commands:
            with contextlib.suppress(QMPError):
                made.checker(name)({})


def keyval(data: bytes) -> None:
    """Options on a command line: taken apart, or refused in words."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(QMPError):
        parse_keyval(text, "first")
    with contextlib.suppress(QMPError, Answered):
        parse_opts(KEYS, text, lambda _warning, _hint: None)
    for compat in Compat:
        for nesting in (False, True):
            with contextlib.suppress(QMPError, Answered):
                checked = parse_object(text, compat, set(), None, nesting=nesting)
                if not isinstance(checked.get("qom-type"), str):
                    raise Broken("an object without a type")
        with contextlib.suppress(QMPError):
            check_keyval(load_schema(compat).object_type("ObjectOptions"), _pairs(text))


def _pairs(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key: value for key, _sign, value in pairs}


def _decoded(decoder: Decoder, data: bytes, size: int) -> list[Any]:
    items = []
    for start in range(0, len(data), size):
        items += decoder.feed(data[start : start + size])
    return items + decoder.end()


def _is_finite(item: Any) -> bool:
    try:
        json.dumps(item, allow_nan=False)
    except ValueError:
        return False
    return True


def _through(compat: Compat, written: bytes) -> Any:
    """What is read where memd has written one value."""
    found = _decoded(Decoder(compat), written, len(written))
    if len(found) != 1 or isinstance(found[0], QMPError):
        raise Broken(f"{written!r} is read as {found!r}")
    return found[0]


def _shown(items: list[Any]) -> list[str]:
    """The items in a form that tells 1 from 1.0 and True, and errors by what they say."""
    return [
        f"{item.error_class}: {item.desc}" if isinstance(item, QMPError) else repr(item)
        for item in items
    ]


TARGETS: dict[str, Target] = {"wire": wire, "schema": schema, "keyval": keyval}
