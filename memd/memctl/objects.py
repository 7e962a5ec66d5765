"""Objects as a command line spells them: `memctl add` and `memctl explain`.

The spelling is that of QEMU's and memd's `-object`: `TYPE,KEY=VALUE,...`, dotted
keys, or JSON. A memory backend may be called by the end of its name:
`ram,id=m0,size=64M`.
"""

from __future__ import annotations

from memd.client import Client
from memd.compat import Compat
from memd.json_types import JSONObject
from memd.memctl.backends import PREFIX

METAVAR = "TYPE,KEY=VALUE,..."


def compat_of(client: Client) -> Compat:
    """The release that the daemon behaves as, by the version in its greeting."""
    try:
        later = client.greeting["QMP"]["version"]["qemu"]["major"] >= 11
    except (KeyError, TypeError):
        later = False
    return Compat.V11_1 if later else Compat.V10_0


def short_names() -> set[str]:
    """The backends' names without `PREFIX`, as the schema has them."""
    from memd.qapi import load_schema

    branches = load_schema().commands["object-add"].arguments.branches
    return {name.removeprefix(PREFIX) for name in branches if name.startswith(PREFIX)}


def in_full(text: str) -> str:
    """The spelling with the type's whole name."""
    name, comma, rest = text.partition(",")
    return f"{PREFIX}{name}{comma}{rest}" if name in short_names() else text


def parse(text: str, compat: Compat) -> JSONObject:
    """The arguments for `object-add`.

    Args:
        compat: whose texts.

    Raises:
        QMPError: it can't be, in QEMU's words.
        Answered: help was asked for.
    """
    from memd.cli.objects import parse_object

    return parse_object(in_full(text), compat)
