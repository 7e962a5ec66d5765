"""The arguments of `device_add` for a `-device`: texts become values of their types."""

from __future__ import annotations

from memd.json_types import JSON, JSONObject
from memd.qapi.hash_order import object_order
from memd.qom import ObjectType
from memd.qom.object import not_found


def arguments(options: JSONObject, qom_type: ObjectType | None) -> JSONObject:
    """The arguments of `device_add`, with values of their types.

    Args:
        options: as text.
        qom_type: the device's class; None where there is no such class,
            and then values stay as they are.

    Raises:
        QMPError: a property can't take its text, or there is none of that name.
    """
    if qom_type is None:
        return options
    typed: JSONObject = {}
    for name in object_order(options):
        text = options[name]
        if name in ("driver", "bus", "id"):
            typed[name] = text
            continue
        prop = qom_type.all_properties.get(name)
        if prop is None:
            raise not_found(qom_type, name)
        typed[name] = value_of(prop.type, name, text)
    return typed


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
