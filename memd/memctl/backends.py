"""How a backend is shown, for all subcommands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.memctl.sizes import short, size
from memd.memctl.tables import Cell, Column

PREFIX = "memory-backend-"
"""The beginning of all backends' names, which tables leave out."""

_FILE = f"{PREFIX}file"


def stat(client: Client, id: str) -> JSONObject:
    """A backend's member of x-memdev-stat's answer.

    Raises:
        QMPError: there is no such backend.
    """
    found: JSONObject
    (found,) = client.execute("x-memdev-stat", {"id": id})
    return found


def size_of(client: Client, id: str) -> int:
    """A backend's size, in bytes.

    Raises:
        QMPError: there is no such backend.
    """
    try:
        found: int = client.execute("qom-get", {"path": f"/objects/{id}", "property": "size"})
    except QMPError:
        # Who asks for memory is told of memory.
        client.execute("x-memdev-read", {"id": id, "offset": 0, "length": 0})
        raise
    return found


def add_id(parser: argparse.ArgumentParser) -> None:
    """Declare a backend's id."""
    parser.add_argument("id", metavar="ID", help="the backend's id")


def add_range(parser: argparse.ArgumentParser, offset: str, length: str) -> None:
    """Declare a backend's id, and a range of its memory that may be left out.

    Args:
        offset: the help of the former's argument.
        length: of the latter's.
    """
    add_id(parser)
    parser.add_argument("offset", metavar="OFFSET", nargs="?", type=size, help=offset)
    parser.add_argument("length", metavar="LENGTH", nargs="?", type=size, help=length)


def access(each: JSONObject) -> str:
    """What a backend's memory is: "ROM", "copy-on-write" (of a file) or "RAM"."""
    if each["rom"]:
        return "ROM"
    if each["qom-type"] == _FILE and not each["share"]:
        return "copy-on-write"
    return "RAM"


STYLES = {"ROM": "yellow", "copy-on-write": "cyan", "RAM": ""}
"""The colour of each kind of access."""

COLUMNS: Sequence[Column] = (
    ("ID", False),
    ("TYPE", False),
    ("SIZE", True),
    ("ACCESS", False),
    ("SHARE", False),
    ("RESIDENT", True),
    ("PRIVATE", True),
    ("SWAPPED", True),
    ("EXPORTS", True),
)


def row(each: JSONObject) -> list[Cell]:
    """A backend's row, for `COLUMNS`."""
    kind = access(each)
    return [
        (each["id"], "bold"),
        each["qom-type"].removeprefix(PREFIX),
        short(each["size"]),
        (kind, STYLES[kind]),
        spelled(each["share"]),
        short(each["resident"]),
        short(each["private-dirty"]),
        (short(each["swapped"]), "red" if each["swapped"] else ""),
        str(each["exports"]),
    ]


def spelled(value: JSON) -> str:
    """A value as a command line has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
