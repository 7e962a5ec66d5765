"""`memctl top`: the backends, live."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from memd.json_types import JSONObject
from memd.memctl.backends import COLUMNS, row
from memd.memctl.context import USAGE, Context, Trouble
from memd.memctl.sizes import short
from memd.memctl.tables import Cell, console, on_terminal, plain, rich_table
from memd.sizes import rounded

if TYPE_CHECKING:
    from rich.console import Group


_INTERVAL = 2.0
_COLUMNS = [*COLUMNS, ("CHANGE", True)]
_CLEAR = "\x1b[H\x1b[J"
"""Clears a terminal (ECMA-48)."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-d",
        "--delay",
        metavar="SECONDS",
        type=float,
        default=_INTERVAL,
        help=f"how often to look (default: {_INTERVAL:g})",
    )
    parser.add_argument(
        "-n", "--count", metavar="N", type=int, help="look so often, and end (default: for ever)"
    )
    parser.epilog = (
        "Those that take most memory come first; CHANGE is since the last look. Ctrl-C ends it,"
        " with status 0. With --json each look is a document, in a line of its own."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Watch."""
    if not arguments.delay > 0 or (arguments.count is not None and arguments.count < 1):
        raise Trouble("a delay and a count are greater than 0", USAGE)
    view = View()
    # Ctrl-C is how one ends it.
    with suppress(KeyboardInterrupt), context.connect() as client, _screen(context) as show:
        client.on_event = view.see
        while view.looks != arguments.count:
            if view.looks:
                # Events come meanwhile, and the end of the connection is an error.
                with suppress(TimeoutError):
                    client.wait_event(timeout=arguments.delay)
            view.look(client.execute("x-memdev-stat"))
            show(view)
            view.forget_progress()


class View:
    """The last look, the changes since the one before, and the progress of long commands."""

    def __init__(self) -> None:
        self.looks = 0
        self._before: dict[str, int] = {}
        self.backends: list[JSONObject] = []
        self.making: dict[str, JSONObject] = {}
        """X_MEMDEV_PROGRESS's data, by id."""

    def look(self, stat: list[JSONObject]) -> None:
        """Take an answer to x-memdev-stat."""
        self.looks += 1
        self._before = {each["id"]: each["resident"] for each in self.backends}
        self.backends = sorted(stat, key=lambda each: (-each["resident"], each["id"]))

    def see(self, event: JSONObject) -> None:
        """Take an event: what is under way, until it is whole."""
        if event["event"] == "X_MEMDEV_PROGRESS":
            data = event["data"]
            self.making[data["id"]] = data

    def forget_progress(self) -> None:
        """Forget what was under way: what still is tells of itself a few times a second."""
        self.making = {}

    def title(self) -> str:
        """The first line."""
        resident = sum(each["resident"] for each in self.backends)
        size = sum(each["size"] for each in self.backends)
        count = len(self.backends)
        noun = "backend" if count == 1 else "backends"
        return f"{count} {noun} of {short(size)}, {short(resident)} resident"

    def rows(self) -> list[list[Cell]]:
        """The table's rows."""
        found = []
        for each in self.backends:
            before = self._before.get(each["id"], each["resident"])
            found.append([*row(each), _change(each["resident"] - before)])
        return found

    def lines(self) -> list[str]:
        """The progress of each backend that is being made or saved."""
        return [
            f"{id}: {rounded(each['done'])} of {rounded(each['total'])}"
            for id, each in sorted(self.making.items())
        ]

    def data(self) -> JSONObject:
        """The same for scripts."""
        return {
            "time": time.time(),
            "backends": self.backends,
            "progress": [self.making[id] for id in sorted(self.making)],
        }


def _change(amount: int) -> Cell:
    if not amount:
        return ""
    return (f"+{rounded(amount)}", "green") if amount > 0 else (f"-{rounded(-amount)}", "red")


def _fitting(view: View) -> tuple[list[list[Cell]], list[str]]:
    """The rows that fit on the terminal, and a line for those that don't."""
    rows = view.rows()
    lines = os.get_terminal_size(1).lines
    # The first line, the titles, what is under way, and where the cursor comes to stand.
    room = lines - 3 - len(view.making)
    if not lines or len(rows) <= room:
        return rows, []
    room = max(room - 1, 1)
    return rows[:room], [f"and {len(rows) - room} more"]


@contextmanager
def _screen(context: Context) -> Iterator[Callable[[View], None]]:
    """Yields what shows a look: as a line of JSON, on the whole terminal, or as a table."""
    rich = None if context.as_json else console()
    if context.as_json:
        yield lambda view: print(json.dumps(view.data()), flush=True)
    elif rich is None:
        yield _print
    else:
        from rich.live import Live

        with Live(console=rich, screen=True, auto_refresh=False) as live:
            yield lambda view: live.update(_picture(view), refresh=True)


def _picture(view: View) -> Group:
    from rich.console import Group
    from rich.text import Text

    rows, more = _fitting(view)
    below = [Text(line, "cyan") for line in view.lines()]
    return Group(Text(view.title(), "bold"), rich_table(_COLUMNS, rows), *map(Text, more), *below)


def _print(view: View) -> None:
    terminal = on_terminal()
    rows, more = _fitting(view) if terminal else (view.rows(), [])
    lines = [view.title(), *plain(_COLUMNS, rows), *more, *view.lines()]
    if terminal and (columns := os.get_terminal_size(1).columns):
        lines = [line[:columns] for line in lines]
    before = _CLEAR if terminal else "\n" if view.looks > 1 else ""
    print(before + "\n".join(lines), flush=True)
