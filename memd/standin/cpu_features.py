"""The features of `-cpu MODEL,...`: whether the model has such, and takes such values.

Which of them a host could provide is not asked: none is. Texts were observed on
QEMU 10.0.2.
"""

from __future__ import annotations

from memd.config import Global
from memd.errors import QMPError
from memd.qapi.numbers import parse_size
from memd.qom import ObjectType, Tree
from memd.standin.catalogue import Catalogue
from memd.standin.property_text import read_global
from memd.standin.types import CatalogueTypes


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
    if known is None or catalogue.section("types")[type_name]["removed"] is None:
        # It could not be asked for what it has.
        return
    words = [word for word in text.split(",") if word]
    # Those with a sign are set last.
    for word in sorted(words, key=lambda word: word[0] in "+-"):
        if word[0] in "+-":
            if word[1:] not in known.all_properties:
                raise QMPError(f"Property '{known.name}.{word[1:]}' not found")
            continue
        name, is_given, value = word.partition("=")
        _check(known, name.replace("_", "-"), value if is_given else "on")


def _check(known: ObjectType, name: str, value: str) -> None:
    if name != "tsc-freq":
        read_global(known, Global(known.name, name, value))
    elif parse_size(value) is None:
        raise QMPError(f"bad numerical value {value}")
