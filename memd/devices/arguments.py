"""The arguments of `device_add` for a `-device`: texts become values of their types."""

from __future__ import annotations

from memd.json_types import JSON, JSONObject
from memd.qom import ObjectType


class Text(str):
    """A value that becomes one of a property's type once the property is set."""

    __slots__ = ()

    def of(self, kind: ObjectType, name: str) -> JSON:
        """The value of a property of a type; raises `QMPError` where it can't be that."""
        told = kind.all_properties.get(name)
        return str(self) if told is None else value_of(told.type, name, str(self))


def arguments(options: JSONObject) -> JSONObject:
    """The arguments of `device_add`, of options as text."""
    return {
        name: text if name in ("driver", "bus", "id") else Text(text)
        for name, text in options.items()
    }


def value_of(kind: str, name: str, text: str) -> JSON:
    """A property's value from its text.

    Args:
        kind: the property's type; a text stays one where the type is none of numbers.

    Raises:
        QMPError: the type does not take it.
    """
    from memd.qapi.keyval import SCALARS, visit_text

    # What is called "int" takes sizes.
    return SCALARS.get("size" if kind == "int" else kind, visit_text)(text, name)
