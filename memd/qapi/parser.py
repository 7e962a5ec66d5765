"""Reads schema files: expressions, directives, documentation comments.

The full reading, with the places of mistakes. A daemon that only needs the
expressions reads them by `memd.qapi.reader`.
"""

from __future__ import annotations

import os
from typing import Any

from memd.qapi.doc import Doc, DocError, parse_doc
from memd.qapi.lexer import Token, tokens
from memd.qapi.source import Definition, Expr, Place, Pragmas, SchemaError

KINDS = ("enum", "struct", "union", "alternate", "command", "event")
"""The definitions of the language, by their first key."""


class Parsed:
    """What a schema file and all that it includes consist of.

    Attributes:
        definitions: in the order of the files.
        files: every file read, in order.
    """

    def __init__(self) -> None:
        self.definitions: list[Definition] = []
        self.files: list[str] = []
        self.pragmas = Pragmas()


def parse_file(path: str) -> Parsed:
    """Reads a schema file and what it includes.

    Raises:
        SchemaError: for a mistake in the language, or a file that can't be read.
    """
    parsed = Parsed()
    _FileParser(path, Place(path, 1), parsed, []).run()
    return parsed


class _FileParser:
    """Reads one file; `stack` holds the files that are being read above it."""

    def __init__(self, path: str, included_at: Place, parsed: Parsed, stack: list[str]) -> None:
        self._file = path
        self._directory = os.path.dirname(path)
        self._parsed = parsed
        self._stack = [*stack, os.path.realpath(path)]
        parsed.files.append(path)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise included_at.error(f"can't read '{path}': {reason}") from error
        self._tokens = tokens(text, path)
        self._token = next(self._tokens)

    def run(self) -> None:
        """Reads the whole file into `parsed`."""
        doc: Doc | None = None
        doc_line = 0
        while self._token.kind:
            if self._token.kind == "doc":
                if doc is not None and doc.name:
                    raise self._error(doc_line, f"documentation of '{doc.name}' without it")
                doc_line = self._token.line
                doc = self._doc(self._take())
                continue
            line = self._token.line
            value = self._value()
            if not isinstance(value, dict):
                raise self._error(line, "expected an object, a definition or directive")
            self._top_level(value, line, doc)
            doc = None
        if doc is not None and doc.name:
            raise self._error(doc_line, f"documentation of '{doc.name}' without it")

    def _top_level(self, expr: Expr, line: int, doc: Doc | None) -> None:
        if "include" in expr:
            self._include(expr, line)
        elif "pragma" in expr:
            self._pragma(expr, line)
        else:
            kinds = [kind for kind in KINDS if kind in expr]
            if len(kinds) != 1:
                raise self._error(line, f"expected one of {', '.join(KINDS)}, include, pragma")
            kind = kinds[0]
            name = expr[kind]
            if not isinstance(name, str):
                raise self._error(line, f"'{kind}' must be a string")
            place = Place(self._file, line, f"{kind} '{name}'")
            if doc is not None and doc.name != name:
                if doc.name:
                    raise place.error(f"its documentation is of '{doc.name}'")
                doc = None
            self._parsed.definitions.append(Definition(kind, name, expr, place, doc))
            return
        if doc is not None and doc.name:
            raise self._error(line, f"documentation of '{doc.name}' before a directive")

    def _include(self, expr: Expr, line: int) -> None:
        name = expr["include"]
        if len(expr) != 1 or not isinstance(name, str):
            raise self._error(line, "'include' is a string and stands alone")
        path = os.path.join(self._directory, name)
        real = os.path.realpath(path)
        if real in self._stack:
            raise self._error(line, f"'{name}' includes itself")
        if any(os.path.realpath(known) == real for known in self._parsed.files):
            return
        _FileParser(path, Place(self._file, line), self._parsed, self._stack).run()

    def _pragma(self, expr: Expr, line: int) -> None:
        settings = expr["pragma"]
        if len(expr) != 1 or not isinstance(settings, dict):
            raise self._error(line, "'pragma' is an object and stands alone")
        pragmas = self._parsed.pragmas
        for name, value in settings.items():
            if name == "doc-required":
                if not isinstance(value, bool):
                    raise self._error(line, "pragma 'doc-required' is a boolean")
                pragmas.doc_required = value
            elif name in pragmas.exceptions:
                if not _is_strings(value):
                    raise self._error(line, f"pragma '{name}' is an array of strings")
                pragmas.exceptions[name].update(value)
            else:
                raise self._error(line, f"unknown pragma '{name}'")

    def _doc(self, token: Token) -> Doc:
        lines = token.text.split("\n") if token.text else []
        try:
            return parse_doc(lines)
        except DocError as error:
            raise self._error(token.line + 1 + error.offset, error.message) from error

    def _take(self) -> Token:
        token = self._token
        # Nothing comes after the end: who expects more is told by what he gets.
        if token.kind:
            self._token = next(self._tokens)
        return token

    def _error(self, line: int, message: str) -> SchemaError:
        return SchemaError(self._file, line, message)

    def _expect(self, kinds: str, what: str) -> Token:
        if not self._token.kind or self._token.kind not in kinds.split():
            raise self._error(self._token.line, f"expected {what}")
        return self._take()

    def _value(self) -> Any:
        token = self._take()
        if token.kind == "{":
            return self._object()
        if token.kind == "[":
            return self._array()
        if token.kind == "string":
            return token.text
        if token.kind == "word":
            return token.text == "true"
        raise self._error(token.line, "expected '{', '[', a string or a boolean")

    def _object(self) -> Expr:
        result: Expr = {}
        if self._token.kind == "}":
            self._take()
            return result
        while True:
            key = self._expect("string", "a string as key, or '}'")
            if key.text in result:
                raise self._error(key.line, f"duplicate key '{key.text}'")
            self._expect(":", "':'")
            result[key.text] = self._value()
            if self._expect(", }", "',' or '}'").kind == "}":
                return result

    def _array(self) -> list[Any]:
        result: list[Any] = []
        if self._token.kind == "]":
            self._take()
            return result
        while True:
            result.append(self._value())
            if self._expect(", ]", "',' or ']'").kind == "]":
                return result


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
