"""Finds the schema files and reads them quickly.

A daemon needs the expressions, not their documentation or the places of
mistakes, and the files that it comes with were checked when it was built. So
comments are dropped line by line, and what is left is JSON but for its quotes,
which the standard library reads in C: ten times as fast as
`memd.qapi.parser`, and a test holds the two together. Whatever this reader does
not understand goes to that parser, which either does or says what is wrong.
"""

from __future__ import annotations

import os
from json import JSONDecoder

from memd.compat import Compat
from memd.qapi.schema import Expr, Schema

_MAIN = "qapi-schema.json"
_TEST = "test.json"

_cache: dict[tuple[Compat, bool], Schema] = {}


def schema_directory() -> str:
    """Where the schema files are: inside an installed package, or beside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = os.path.join(package, "schemas")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), "schemas")


def schema_file() -> str:
    """The file that includes all others."""
    return os.path.join(schema_directory(), _MAIN)


def load_schema(compat: Compat = Compat.V10_0, *, test: bool = False) -> Schema:
    """The schema of what memd serves, read once.

    Args:
        compat: whose introspection and checks it gives; decides the `if`
            conditions (`COMPAT_10_0`, `COMPAT_11_1`).
        test: whether the commands of a daemon with --test-faults are in it.

    Raises:
        SchemaError: for a mistake in the files.
    """
    schema = _cache.get((compat, test))
    if schema is None:
        expressions = read_expressions(schema_file())
        if test:
            expressions += read_expressions(os.path.join(schema_directory(), _TEST))
        schema = _cache[compat, test] = Schema(expressions, defined_names(compat))
    return schema


def defined_names(compat: Compat) -> frozenset[str]:
    """The names that `if` conditions hold for."""
    return frozenset((f"COMPAT_{compat.value.replace('.', '_')}",))


def read_expressions(path: str) -> list[Expr]:
    """The definitions of a schema file and all that it includes.

    Raises:
        SchemaError: for a mistake in the files.
    """
    expressions: list[Expr] = []
    try:
        _read(path, expressions, set())
    except (OSError, ValueError, TypeError):
        from memd.qapi.parser import parse_file

        return [definition.expr for definition in parse_file(path).definitions]
    return expressions


def _read(path: str, expressions: list[Expr], seen: set[str]) -> None:
    seen.add(path)
    with open(path, encoding="ascii") as file:
        # Comments stand on lines of their own in most files.
        text = "".join([line for line in file if not line.lstrip().startswith("#")])
    if "#" in text or '"' in text or "\\" in text:
        raise ValueError(path)
    decode = JSONDecoder().raw_decode
    text = text.replace("'", '"').strip()
    position = 0
    while position < len(text):
        expr, position = decode(text, position)
        while text[position : position + 1].isspace():
            position += 1
        if type(expr) is not dict:
            raise ValueError(path)
        if "include" in expr:
            included = os.path.join(os.path.dirname(path), expr["include"])
            if included not in seen:
                _read(included, expressions, seen)
        elif "pragma" not in expr:
            expressions.append(expr)
