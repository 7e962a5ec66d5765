"""Reads schema files in full: definitions with their documentation."""

from __future__ import annotations

import re
from json import JSONDecoder

from memd.qapi.doc import Doc, parse_doc
from memd.qapi.reader import read
from memd.qapi.schema import KINDS
from memd.qapi.source import Definition, Expr, SchemaError

_DOC = re.compile(r"^##\n((?:#.*\n)*?)##$", re.M)


def parse_file(path: str) -> list[Definition]:
    """What a schema file and those that it includes define, in their order.

    Raises:
        SchemaError: for a mistake in the language, or a file that can't be read.
    """
    definitions = []
    docs: dict[str, list[tuple[int, Doc]]] = {}
    for file, line, expr in read(path, set(), JSONDecoder(object_pairs_hook=_object)):
        if file not in docs:
            docs[file] = _docs(file)
        doc = None
        while docs[file] and docs[file][0][0] < line:
            if doc is not None and doc.name:
                raise SchemaError(file, line, f"documentation of '{doc.name}' without it")
            doc = docs[file].pop(0)[1]
        if "pragma" not in expr:
            definitions.append(_definition(expr, file, line, doc))
    for file, left in docs.items():
        for line, doc in left:
            if doc.name:
                raise SchemaError(file, line, f"documentation of '{doc.name}' without it")
    return definitions


def _object(pairs: list[tuple[str, object]]) -> Expr:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _docs(file: str) -> list[tuple[int, Doc]]:
    """The documentation comments of a file, and the lines that they begin in."""
    with open(file, encoding="ascii") as source:
        text = source.read()
    found = []
    for block in _DOC.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        try:
            found.append((line, parse_doc(block[1])))
        except ValueError as error:
            raise SchemaError(file, line, str(error)) from None
    return found


def _definition(expr: Expr, file: str, line: int, doc: Doc | None) -> Definition:
    kinds = [kind for kind in KINDS if kind in expr]
    if len(kinds) != 1 or not isinstance(expr[kinds[0]], str):
        raise SchemaError(file, line, f"expected one name of {', '.join(KINDS)}")
    kind = kinds[0]
    if doc is not None and not doc.name:
        doc = None
    definition = Definition(kind, expr[kind], expr, file, line, doc)
    if doc is not None and doc.name != definition.name:
        raise definition.error(f"its documentation is of '{doc.name}'")
    return definition
