"""Validation by `jsonschema`, whose verdict counts.

The compiled checks stand in front of it because it takes a thousand times as
long; a property-based test holds that the two never disagree.
"""

from __future__ import annotations

from typing import Any

from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qapi.json_schema import json_schema
from memd.qapi.schema import Schema


class Violation(NamedTuple):
    """Something in a message that the schema does not allow.

    Attributes:
        path: where, such as "arguments.host-nodes[0]"; "" for the whole.
        message: what is wrong with it.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Validator:
    """Validates messages, arguments and returned values against a schema.

    Args:
        schema: the schema.

    Raises:
        ImportError: if `jsonschema` is not installed.
    """

    def __init__(self, schema: Schema) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend

        checker = Draft202012Validator.TYPE_CHECKER.redefine_many(
            {
                # QMP tells 1 from 1.0, and true from both.
                "integer": lambda _, value: type(value) is int,
                "number": lambda _, value: type(value) in (int, float),
            }
        )
        self._document = json_schema(schema)
        self._make = extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]
        self._made: JSONObject = {}

    def violations(self, value: JSON, definition: str = "") -> list[Violation]:
        """The mistakes in a value.

        Args:
            value: a request, an event or an answer; or what is defined.
            definition: `COMMAND.arguments`, `COMMAND.returns` or another definition of the
                JSON Schema; "" for a whole message.

        Raises:
            KeyError: there is no such definition.
        """
        errors = self._validator(definition).iter_errors(value)
        found = [Violation(_path(error.absolute_path), error.message) for error in errors]
        return sorted(found, key=str)

    def _validator(self, name: str) -> Any:
        validator = self._made.get(name)
        if validator is None:
            document = self._document
            if name:
                if name not in document["$defs"]:
                    raise KeyError(name)
                document = {
                    "$schema": document["$schema"],
                    "$ref": f"#/$defs/{name}",
                    "$defs": document["$defs"],
                }
            validator = self._made[name] = self._make(document)
        return validator


def _path(parts: Any) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
