"""The features of `-cpu MODEL,...`: whether the model has such, and takes such values.

Which of them a host could provide is not asked: none is. Texts were observed on
QEMU 10.0.2.
"""

from __future__ import annotations

from memd.errors import QMPError
from memd.qapi.keyval import parsed
from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_uint64
from memd.qapi.visit import narrow_integers
from memd.qom import ObjectType, Tree
from memd.standin.catalogue import Catalogue
from memd.standin.types import CatalogueTypes

_int64, _uint64 = parsed(parse_int64, "int64"), parsed(parse_uint64, "uint64")
_VISITS = {
    "bool": parsed(parse_switch, "'on' or 'off'"),
    **dict.fromkeys(("int", "int64"), _int64),
    "uint64": _uint64,
    **narrow_integers(_int64, _uint64),
}
"""How the text of a feature is read, by its type; others are taken as they are."""


def check_features(catalogue: Catalogue, tree: Tree, type_name: str, text: str) -> None:
    """Check what follows a model's name.

    Args:
        catalogue: what has the model's type.
        tree: what has no such type.
        type_name: the model's type.
        text: `NAME=VALUE`, `NAME`, `+NAME` and `-NAME`, between commas.

    Raises:
        QMPError: there is no such feature, or it does not take its value.
    """
    known = CatalogueTypes(catalogue, tree).find(type_name)
    if known is None or catalogue.section("types")["types"][type_name]["removed"] is None:
        # It could not be asked for what it has.
        return
    words = [word for word in text.split(",") if word]
    # Those with a sign are set last.
    for word in sorted(words, key=lambda word: word[0] in "+-"):
        if word[0] in "+-":
            _find(known, word[1:])
            continue
        name, is_given, value = word.partition("=")
        _check(known, name.replace("_", "-"), value if is_given else "on")


def _find(known: ObjectType, name: str) -> str:
    """The type of a feature."""
    if name not in known.all_properties:
        raise QMPError(f"Property '{known.name}.{name}' not found")
    return known.all_properties[name].type


def _check(known: ObjectType, name: str, value: str) -> None:
    if name == "tsc-freq":
        if parse_size(value) is None:
            raise QMPError(f"bad numerical value {value}")
        return
    try:
        visit = _VISITS.get(_find(known, name))
        if visit is not None:
            visit(value, name)
    except QMPError as error:
        told = f"can't apply global {known.name}.{name}={value}: {error.desc}"
        raise QMPError(told) from None
