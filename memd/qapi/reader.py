"""Finds the schema files and reads them.

A file is JSON, but for strings in single quotes without escapes, and comments, which
stand on lines of their own. So the comments are blanked, the quotes replaced, and the
standard library reads the rest in C. `memd.qapi.parser` reads the documentation, too,
which a daemon does not need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder

from memd.compat import Compat
from memd.qapi.schema import Schema, definitions
from memd.qapi.source import Expr, SchemaError

_MAIN = "qapi-schema.json"
_TEST = "test.json"
_MARK = re.compile(r"[^ \n]")

_DECODER = JSONDecoder()

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
        OSError: they can't be read for the moment.
    """
    schema = _cache.get((compat, test))
    if schema is None:
        expressions = read_expressions(schema_file())
        if test:
            expressions += read_expressions(os.path.join(schema_directory(), _TEST))
        names = defined_names(compat)
        schema = _cache[compat, test] = Schema(definitions(expressions, names), names)
    return schema


def defined_names(compat: Compat) -> frozenset[str]:
    """The names that `if` conditions hold for."""
    return frozenset((f"COMPAT_{compat.value.replace('.', '_')}",))


def read_expressions(path: str) -> list[Expr]:
    """The definitions of a schema file and all that it includes.

    Raises:
        SchemaError: for a mistake in the files.
    """
    return [expr for _file, _line, expr in read(path, set()) if "pragma" not in expr]


def read(
    path: str, seen: set[str], decoder: JSONDecoder = _DECODER
) -> Iterator[tuple[str, int, Expr]]:
    """The definitions and pragmas of a file and what it includes: file, line, what is written.

    Args:
        seen: the files that are included no more.
        decoder: reads an expression; it may raise `ValueError` for more than JSON's mistakes.

    Raises:
        SchemaError: for a file that does not exist or can't be read, and for what is not an
            expression.
        OSError: what else keeps a file from being read, such as a lack of descriptors.
    """
    seen.add(os.path.normpath(path))
    text = _text(path)
    position = 0
    while found := _MARK.search(text, position):
        position = found.start()
        line = text.count("\n", 0, position) + 1
        try:
            expr, position = decoder.raw_decode(text, position)
            if type(expr) is not dict:
                raise ValueError("expected an object, a definition or directive")
        except JSONDecodeError as error:
            raise SchemaError(path, error.lineno, error.msg) from None
        except (RecursionError, ValueError) as error:
            raise SchemaError(path, line, str(error)) from None
        if "include" not in expr:
            yield path, line, expr
            continue
        name = expr["include"]
        if len(expr) != 1 or not isinstance(name, str):
            raise SchemaError(path, line, "'include' is a string and stands alone")
        included = os.path.join(os.path.dirname(path), name)
        if os.path.normpath(included) not in seen:
            yield from read(included, seen, decoder)


def _text(path: str) -> str:
    """A file as JSON, with empty lines for its comments."""
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read().decode("ascii")
    except (FileNotFoundError, IsADirectoryError, PermissionError, ValueError) as error:
        # What the host lacks for the moment, such as descriptors, is not a mistake of the file.
        reason = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise SchemaError(path, 1, f"can't be read: {reason}") from None
    # Nearly all comments stand in blocks between two lines of "##".
    parts = f"\n{text}".split("\n##\n")
    for number in range(1, len(parts), 2):
        block = f"\n{parts[number]}"
        if block.count("\n#") == block.count("\n"):
            parts[number] = "\n" * (block.count("\n") - 1)
    text = "\n\n".join(parts)[1:]
    if "#" in text:
        lines = text.split("\n")
        text = "\n".join("" if line.lstrip().startswith("#") else line for line in lines)
    for mark in '"#\\':
        if mark in text:
            line = text.count("\n", 0, text.index(mark)) + 1
            raise SchemaError(path, line, f"{mark} stands in comments only")
    return text.replace("'", '"')
