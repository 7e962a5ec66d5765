"""`memctl show`: all of one backend."""

from __future__ import annotations

import argparse

from memd.client import Client
from memd.errors import QMPError, printable
from memd.json_types import JSON, JSONObject
from memd.memctl.backends import STYLES, access, add_id, spelled, stat
from memd.memctl.context import Context
from memd.memctl.sizes import exact, short
from memd.memctl.tables import print_line
from memd.sizes import rounded

_ASKED = frozenset(
    ("share", "size", "policy", "host-nodes", "reserve", "discard-data")
    + ("mem-path", "offset", "align", "readonly", "rom", "pmem")
    + ("hugetlb", "hugetlbsize", "seal")
)
"""Properties that say what memory is; how it was populated does not matter any more."""

_LIKE_IT = "memctl-show"
"""The id under which the daemon is asked about a backend like this one."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_id(parser)


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Show it."""
    id = arguments.id
    with context.connect() as client:
        taken = stat(client, id)
        properties = _properties(client, id)
        # The rows of /proc/PID/maps.
        mapping = client.execute("x-memdev-map", {"id": id, "length": 0})["mapping"]
        explanation = _explanation(client, taken["qom-type"], properties)
    context.tell(
        {
            "stat": taken,
            "properties": properties,
            "mapping": mapping,
            "explanation": explanation,
        }
    )
    if not context.as_json:
        _print(_rows(taken), properties, mapping, explanation)


def _properties(client: Client, id: str) -> JSONObject:
    """The properties and their values; not the type, nor what is below the object."""
    path = f"/objects/{id}"
    return {
        each["name"]: client.execute("qom-get", {"path": path, "property": each["name"]})
        for each in client.execute("qom-list", {"path": path})
        if each["name"] != "type" and "<" not in each["type"]
    }


def _explanation(client: Client, kind: str, properties: JSONObject) -> JSON:
    """The daemon's explanation of a backend with these properties; None if there is none.

    It may not, though the backend is there: its file may be gone since, or
    there is no memory for a second one.
    """
    # An empty value stands for "not given", but for a switch.
    options = {
        name: value
        for name, value in properties.items()
        if name in _ASKED and (value or value is False)
    }
    try:
        told = client.execute("x-memdev-explain", {"qom-type": kind, "id": _LIKE_IT, **options})
    except QMPError:
        return None
    return told if told["verdict"] == "works" else None


def _rows(taken: JSONObject) -> list[tuple[str, str]]:
    resident = short(taken["resident"])
    if len(nodes := taken["nodes"]) == 1:
        resident += f", on node {nodes[0]['node']}"
    elif nodes:
        parts = (f"{rounded(each['bytes'])} on node {each['node']}" for each in nodes)
        resident += f": {', '.join(parts)}"
    return [
        ("id", taken["id"]),
        ("type", taken["qom-type"]),
        ("size", exact(taken["size"])),
        ("access", access(taken)),
        ("share", spelled(taken["share"])),
        ("page size", rounded(taken["page-size"])),
        ("resident", resident),
        ("private", short(taken["private-dirty"])),
        ("swapped", short(taken["swapped"])),
        ("exports", str(taken["exports"])),
    ]


def _print(
    rows: list[tuple[str, str]],
    properties: JSONObject,
    mapping: list[str],
    explanation: JSON,
) -> None:
    for name, value in rows:
        print_line(f"{name + ':':<11}{value}", STYLES.get(value, ""))
    print_line("properties:", "bold")
    for name, value in properties.items():
        # Clients choose paths, and terminals execute control characters.
        print_line(printable(f"  {name}={spelled(value)}"))
    print_line("mapping:", "bold")
    for row in mapping:
        print_line(printable(f"  {row}"))
    if explanation is not None:
        print_line("what that means:", "bold")
        # The verdict comes first: that it would work is seen.
        for text in explanation["text"][1:]:
            if not text.startswith(("Better: ", "Why: ")):
                print_line(printable(f"  {text}"))
