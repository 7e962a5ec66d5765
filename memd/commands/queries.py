"""Queries: the commands that a read-only monitor runs and the audit does not record.

Any other command, a new one included, is refused on a read-only monitor, and audited. A test
checks that each command of the table was considered.

`x-memdev-read` and `x-memdev-export` are not queries though they change nothing:
they disclose content of memory. Neither is `qom-list-get`, nor `qom-get` of
a `data`: that may be a secret. `x-memdev-explain` is one: it creates
nothing.
"""

from __future__ import annotations

from memd.json_types import JSONObject

QUERIES = frozenset(
    {
        "qmp_capabilities",
        "device-list-properties",
        "qom-list",
        "qom-list-properties",
        "qom-list-types",
        "x-hugepage-query",
        "x-memdev-explain",
        "x-memdev-lost",
        "x-memdev-map",
        "x-memdev-stat",
        "x-pool-query",
        "x-template-list",
        "x-template-query",
    }
)
"""Commands that change nothing, and disclose neither content of memory nor secrets; besides
those whose names begin with `query-`."""

_HUMAN_QUERIES = ("info", "help", "?")
"""The human monitor's query commands."""


def is_query(name: str, arguments: JSONObject) -> bool:
    """Whether a command is a query.

    Args:
        name: the command.
        arguments: as the client sent them, checked or not.
    """
    if name in QUERIES or name.startswith("query-"):
        return True
    if name == "qom-get":
        return arguments.get("property") != "data"
    if name != "human-monitor-command":
        return False
    line = arguments.get("command-line")
    words = line.split(None, 1) if type(line) is str else []
    return not words or words[0] in _HUMAN_QUERIES
