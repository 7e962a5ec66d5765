"""Where a definition stands, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

if TYPE_CHECKING:
    from memd.qapi.doc import Doc

Expr = JSONObject
"""An expression as it is written: a definition, or a directive."""


class SchemaError(Exception):
    """A mistake in a schema; as text, `file:line: message`."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.message = message


class Definition(NamedTuple):
    """One definition of a schema: what was written, where, and its documentation.

    Attributes:
        kind: "enum", "struct", "union", "alternate", "command" or "event".
        name: what is defined.
        file: the path under which its file was opened.
        line: counted from 1.
        doc: None where there is no documentation comment.
    """

    kind: str
    name: str
    expr: Expr
    file: str
    line: int
    doc: Doc | None

    def error(self, message: str) -> SchemaError:
        """The error to raise for a mistake in it."""
        return SchemaError(self.file, self.line, f"{self.kind} '{self.name}': {message}")
