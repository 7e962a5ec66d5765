"""Every command of the schema has a handler, and every handler a command."""

from __future__ import annotations

from memd.commands.table import HANDLERS, SESSION_HANDLERS
from memd.compat import Compat
from memd.qapi import load_schema


def test_the_schema_promises_what_is_there() -> None:
    assert not set(HANDLERS) & set(SESSION_HANDLERS)
    promised = set[str]()
    for compat in Compat:
        promised |= set(load_schema(compat).commands)
    assert promised == set(HANDLERS) | set(SESSION_HANDLERS)
