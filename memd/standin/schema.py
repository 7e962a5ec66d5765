"""The schema of a stand-in: a catalogue's, and memd's own commands besides."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Mapping

from memd.compat import Compat
from memd.json_types import JSONObject
from memd.qapi.reader import defined_names, load_schema
from memd.qapi.schema import Schema
from memd.qapi.source import Expr
from memd.qapi.types import Checker
from memd.standin.catalogue import Catalogue

_ADD = "object-add"


class StandInSchema(Schema):
    """The schema of a catalogue, checked by the same engine as memd's own.

    Args:
        own: memd's own schema, whose types of objects are checked by it: there
            is one that no QEMU has.
        found: the definitions of both, the catalogue's first.
    """

    def __init__(self, own: Schema, found: Mapping[str, Expr], compat: Compat) -> None:
        super().__init__(found, defined_names(compat))
        self._own = own
        self._add: Checker | None = None

    def checker(self, command: str) -> Checker:
        if command != _ADD:
            return super().checker(command)
        if self._add is None:
            known = self._own.commands[_ADD].arguments.branches
            ours, theirs = self._own.checker(_ADD), super().checker(_ADD)

            def check(arguments: JSONObject) -> JSONObject:
                kind = arguments.get("qom-type")
                return (ours if type(kind) is str and kind in known else theirs)(arguments)

            self._add = check
        return self._add


@functools.cache
def standin_schema(catalogue: Catalogue, compat: Compat, *, test: bool) -> Schema:
    """The schema of a stand-in, made once.

    Args:
        catalogue: what it offers.
        compat: whose behaviour memd's own commands have.
        test: whether the commands of a daemon with --test-faults are in it.

    Raises:
        QMPError: the catalogue can't be read.
        SchemaError: for a mistake in memd's own files.
    """
    theirs = catalogue.section("schema")
    own = load_schema(compat, test=test)
    # Types have numbers there and names here; commands, events and alternates have names in both.
    ours = {key: expr for key, expr in own.definitions.items() if key not in theirs}
    return StandInSchema(own, ChainMap(ours, theirs), compat)
