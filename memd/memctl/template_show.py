"""`memctl template show`: all of one template."""

from __future__ import annotations

import argparse

from memd.errors import printable
from memd.json_types import JSONObject
from memd.memctl.context import Context
from memd.memctl.sizes import PAGE, exact, short

_TITLE = 13
"""Columns of what stands before a value."""


_ROW = 64
"""Parts of its memory in a row."""

_BAR = 40
"""Characters of the picture of a machine that is being served."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Show it."""
    with context.connect() as client:
        found = client.execute("x-template-query", {"name": arguments.name})
    # What others have saved may have any text in it.
    lines = (
        printable(f"{title + ':' if title else '':<{_TITLE}} {value}")
        for title, value in _lines(found)
    )
    context.tell(found, lines)


def _lines(found: JSONObject) -> list[tuple[str, str]]:
    """Titles and values, in the order in which they are shown."""
    stored, data = found["stored"], found["data"]
    lines = [
        ("name", found["name"]),
        ("digest", f"sha256:{found['digest']}"),
        ("memory", exact(found["size"])),
        ("", f"in pages of {short(found['page-size'])}, {short(data)} not zeroes"),
        ("stored", f"{short(stored)} in {found['chunks']} chunks"),
    ]
    if found["shared"]:
        lines.append(("", f"{short(found['shared'])} of it shared with other templates"))
    if found["present"] < stored:
        missing = short(stored - found["present"])
        lines.append(("", f"{missing} of it not here: fetched when it is asked for"))
    if found["working-set"]:
        lines.append(("working set", f"{short(found['working-set'])}, fetched first"))
    else:
        lines.append(("working set", "not recorded: clones start slower"))
    if found["devices"]:
        version = found.get("qemu-version")
        saved = f", saved by QEMU {version}" if version else ""
        lines.append(("machine", f"{found.get('machine') or 'of unknown type'}{saved}"))
        lines.append(("", f"device state of {short(found['devices'])}"))
        for block in found["blocks"]:
            mark = ""
            if "offset" in block:
                mark = f", the template's memory from byte {block['offset']} on"
            lines.append(("", f"block {block['id']}: {short(block['length'])}{mark}"))
    else:
        lines.append(("machine", "none: memory alone"))
    lines.append(("source", found.get("source", "none")))
    for clone in found["clones"]:
        lines.append(("served to", clone.get("qmp") or clone["uri"]))
        lines.append(("", picture(clone["pages"], data // PAGE)))
        lines += map_rows(clone.get("map", ""), found["size"])
    return lines


def map_rows(letters: str, size: int) -> list[tuple[str, str]]:
    """The picture of a machine's memory, in rows that begin with an address."""
    width = len(f"{size:x}")
    rows = [
        ("", f"{size * at // len(letters):0{width}x}  {letters[at : at + _ROW]}")
        for at in range(0, len(letters), _ROW)
    ]
    legend = "A asked for, W working set, R rest, E earlier; small: in part, . not yet"
    return [*rows, ("", legend)] if rows else []


def picture(pages: dict[str, int], data: int) -> str:
    """How much of the template's data a machine has, and why: a bar, and in words."""
    asked = pages["asked"] - pages["zeroes"]
    parts = (("#", asked), ("=", pages["working-set"]), ("-", pages["rest"]))
    bar = ""
    done = 0
    for mark, count in parts:
        done += count
        end = min(_BAR, _BAR * done // max(1, data))
        bar += mark * (end - len(bar))
    return (
        f"[{bar:.<{_BAR}}] # {asked} pages asked for, = {pages['working-set']} of the working set,"
        f" - {pages['rest']} others, of {data}"
    )
