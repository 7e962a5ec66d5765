"""The QAPI schema: what commands, events and types there are, and their checks.

`load_schema` reads the files under `schemas/`; a `Schema` gives the argument
checks, query-qmp-schema's value and a JSON Schema document.
"""

from memd.qapi.reader import load_schema
from memd.qapi.schema import Command, Schema

__all__ = ["Command", "Schema", "load_schema"]
