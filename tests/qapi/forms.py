"""The forms of definitions: their keys and what these hold, as a JSON Schema of each kind."""

from __future__ import annotations

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from memd.json_types import JSONObject
from memd.qapi.source import Definition

Form = JSONObject


def _object(required: Form, optional: Form) -> Form:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _array(items: Form) -> Form:
    return {"type": "array", "items": items}


def _each(value: Form) -> Form:
    """An object of members, or branches, by name."""
    return {"type": "object", "additionalProperties": value}


def _either(*forms: Form) -> Form:
    return {"anyOf": list(forms)}


_TEXT: Form = {"type": "string"}
_IF = {"if": _either(_TEXT, _object({"not": _TEXT}, {}))}
_FEATURES = {
    "features": _array(_either(_TEXT, _object({"name": _TEXT}, _IF))) | {"uniqueItems": True}
}
_COMMON = _IF | _FEATURES
_TYPE = _either(_TEXT, _array(_TEXT) | {"minItems": 1, "maxItems": 1})
_MEMBERS = _each(_either(_TYPE, _object({"type": _TYPE}, _COMMON)))
_DATA = {"data": _either(_TEXT, _MEMBERS), "boxed": {"const": True}}

_KINDS: dict[str, tuple[Form, Form]] = {
    # Keys that have to be there, and others.
    "enum": (
        {"data": _array(_either(_TEXT, _object({"name": _TEXT}, _COMMON)))},
        {"prefix": _TEXT},
    ),
    "struct": ({"data": _MEMBERS}, {"base": _TEXT}),
    "union": (
        {
            "base": _either(_TEXT, _MEMBERS),
            "discriminator": _TEXT,
            "data": _each(_either(_TEXT, _object({"type": _TEXT}, _IF))),
        },
        {},
    ),
    "alternate": (
        {"data": _each(_either(_TYPE, _object({"type": _TYPE}, _IF))) | {"minProperties": 1}},
        {},
    ),
    "command": (
        {},
        {
            **_DATA,
            "returns": _TYPE,
            "gen": {"const": False},
            "allow-oob": {"const": True},
            "allow-preconfig": {"const": True},
        },
    ),
    "event": ({}, _DATA),
}


def check_form(definition: Definition) -> None:
    """Checks a definition by itself.

    Raises:
        SchemaError: for what fits worst.
    """
    required, optional = _KINDS[definition.kind]
    form = _object({definition.kind: _TEXT, **required}, {**optional, **_COMMON})
    error = best_match(Draft202012Validator(form).iter_errors(definition.expr))
    if error is not None:
        raise definition.error(f"{error.json_path.removeprefix('$.')}: {error.message}")
