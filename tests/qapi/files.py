"""The schema files, also those that qapi-schema.json does not include yet."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from memd.compat import Compat
from memd.qapi import schema
from memd.qapi.reader import defined_names, schema_directory
from memd.qapi.schema import Schema
from memd.qapi.source import Definition, Expr
from tests.qapi.rules import check_file

DIRECTORY = Path(schema_directory())
MAIN = DIRECTORY / "qapi-schema.json"


def check(directory: Path, text: str) -> None:
    """Check a text as a schema file of a directory; raises as `check_file` does."""
    path = directory / "s.json"
    path.write_text(text)
    check_file(str(path))


def subjects() -> list[Path]:
    """Every file but the one that includes the others."""
    return sorted(path for path in DIRECTORY.glob("*.json") if path != MAIN)


@functools.cache
def definitions() -> tuple[Definition, ...]:
    """All that any of the files defines, checked."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        everything = Path(directory) / "everything.json"
        everything.write_text(
            "".join(
                f"{{ 'include': '{path}' }}\n"
                for path in sorted(subjects(), key=lambda path: path.name != "pragma.json")
            ),
            encoding="ascii",
        )
        return tuple(check_file(str(everything)))


@functools.cache
def whole_schema(compat: Compat = Compat.V10_0) -> Schema:
    """A schema of all that any of the files defines."""
    return schema_of([each.expr for each in definitions()], *defined_names(compat))


def schema_of(expressions: Iterable[Expr], *defined: str) -> Schema:
    """The schema that expressions define, under the names that are defined."""
    return Schema(schema.definitions(expressions, defined), defined)
