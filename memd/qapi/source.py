"""Where a definition stands, and what is wrong with it.

Part of the schema language's front end, which runs where schemas are checked,
published or built, not where a daemon answers.
"""

from __future__ import annotations

from typing import Any

from memd.qapi.doc import Doc

Expr = dict[str, Any]
"""An expression as it is written: a definition, or a directive."""


class Place:
    """A line of a schema file, and the definition that it belongs to.

    Attributes:
        file: the path under which the file was opened.
        line: counted from 1.
        definition: what errors put before their text, such as "struct 'X'",
            or "".
    """

    def __init__(self, file: str, line: int, definition: str = "") -> None:
        self.file = file
        self.line = line
        self.definition = definition

    def error(self, message: str) -> SchemaError:
        """The error to raise for a mistake here."""
        if self.definition:
            message = f"{self.definition}: {message}"
        return SchemaError(self.file, self.line, message)


class SchemaError(Exception):
    """A mistake in a schema; as text, `file:line: message`."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.message = message


class Definition:
    """One definition of a schema: what was written, where, and its documentation.

    Attributes:
        kind: "enum", "struct", "union", "alternate", "command" or "event".
        name: what is defined.
        doc: None where there is no documentation comment.
    """

    def __init__(self, kind: str, name: str, expr: Expr, place: Place, doc: Doc | None) -> None:
        self.kind = kind
        self.name = name
        self.expr = expr
        self.place = place
        self.doc = doc


class Pragmas:
    """Settings that a schema makes for itself, by `pragma` directives.

    Attributes:
        doc_required: whether every definition needs documentation.
        exceptions: the names that a rule leaves alone, by the pragma's name:
            "command-name-exceptions", "command-returns-exceptions",
            "documentation-exceptions", "member-name-exceptions".
    """

    def __init__(self) -> None:
        self.doc_required = False
        self.exceptions: dict[str, set[str]] = {
            "command-name-exceptions": set(),
            "command-returns-exceptions": set(),
            "documentation-exceptions": set(),
            "member-name-exceptions": set(),
        }
