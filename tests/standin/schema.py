"""The schema of a catalogue, for tests."""

from __future__ import annotations

from memd.compat import Compat
from memd.qapi.schema import Schema
from memd.standin.catalogue import Catalogue, packaged


def catalogue_schema(compat: Compat) -> Schema:
    """What the catalogue that comes with memd says of commands, events and types."""
    return Schema(Catalogue(packaged(compat)).section("schema"), ())
