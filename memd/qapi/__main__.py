"""memd-schema: the schema for other programs, and messages held against it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from memd.compat import Compat
from memd.qapi.introspect import introspect
from memd.qapi.json_schema import json_schema
from memd.qapi.parser import parse_file
from memd.qapi.reader import load_schema, schema_file
from memd.qapi.schema import Schema
from memd.qapi.source import SchemaError
from memd.qapi.visit import INT64_MIN, UINT64_MAX


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments; the process's own if None.

    Returns:
        The exit status: 0, or 1 for an invalid message or another failure.
    """
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except BrokenPipeError:
        # The reader has closed its end. What is still buffered is dropped, so that
        # the interpreter does not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, SchemaError, ImportError) as error:
        print(f"memd-schema: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    compat = Compat(options.compat)
    schema = load_schema(compat)
    if options.check is not None:
        return _check(schema, options.check)
    if options.introspect:
        document: Any = introspect(schema)
    else:
        docs = {each.name: each.doc for each in parse_file(schema_file()) if each.doc}
        document = json_schema(schema, docs)
    text = json.dumps(document, indent=2) + "\n"
    if options.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        with open(options.output, "w", encoding="ascii") as file:
            file.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memd-schema",
        description="Writes the JSON Schema (2020-12) of what memd serves over QMP.",
    )
    versions = [compat.value for compat in Compat]
    parser.add_argument(
        "--compat",
        choices=versions,
        default=versions[0],
        help="the QEMU whose behaviour it is (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write; not stdout")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check",
        metavar="FILE",
        help="print what is wrong with the messages in FILE (- for stdin); status 1 if anything is",
    )
    what.add_argument(
        "--introspect", action="store_true", help="write query-qmp-schema's value instead"
    )
    return parser


def _check(schema: Schema, path: str) -> int:
    from memd.qapi.validator import Validator

    validator = Validator(schema)
    if path == "-":
        text = sys.stdin.read()
    else:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    messages = list(_values(text))
    if not messages:
        raise ValueError("no message to check")
    status = 0
    for number, message in enumerate(messages, 1):
        for violation in validator.violations(message):
            which = f"message {number}: " if len(messages) > 1 else ""
            print(f"{which}{violation}")
            status = 1
    return status


def _values(text: str) -> Iterator[Any]:
    """The JSON values that a text consists of, one after the other."""
    decoder = json.JSONDecoder(parse_int=_integer)
    position = 0
    while True:
        while text[position : position + 1].isspace():
            position += 1
        if position == len(text):
            return
        value, position = decoder.raw_decode(text, position)
        yield value


def _integer(digits: str) -> int | float:
    """An integer as QMP has it: what does not fit into 64 bits is a double."""
    if len(digits) > 20:
        return float(digits)
    value = int(digits)
    return value if INT64_MIN <= value <= UINT64_MAX else float(value)


if __name__ == "__main__":
    sys.exit(main())
