"""`memctl top`: the backends, live."""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING

from memd.json_types import JSONObject
from memd.memctl.backends import COLUMNS, row
from memd.memctl.context import USAGE, Context, Trouble
from memd.memctl.sizes import short
from memd.memctl.tables import Cell, console, on_terminal, plain, rich_table
from memd.sizes import rounded

if TYPE_CHECKING:
    from rich.live import Live


_INTERVAL = 2.0
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
    view, screen = View(), _Screen(context)
    looks = repeat(None) if arguments.count is None else range(arguments.count)
    try:
        with context.connect() as client:
            client.on_event = view.see
            for number, _look in enumerate(looks):
                if number:
                    # Events come meanwhile, and the end of the connection is an error.
                    with suppress(TimeoutError):
                        client.wait_event(timeout=arguments.delay)
                view.look(client.execute("x-memdev-stat"))
                screen.show(view)
                view.forget_progress()
    except KeyboardInterrupt:
        # That is how one ends it.
        pass
    finally:
        screen.close()


class View:
    """What is shown: the last look, what changed since the one before, what is being made."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self.backends: list[JSONObject] = []
        self.making: dict[str, JSONObject] = {}
        """X_MEMDEV_PROGRESS's data, by id."""

    def look(self, stat: list[JSONObject]) -> None:
        """Take an answer to x-memdev-stat."""
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
        """The table's rows, for `COLUMNS` and CHANGE."""
        found = []
        for each in self.backends:
            before = self._before.get(each["id"], each["resident"])
            found.append([*row(each), _change(each["resident"] - before)])
        return found

    def lines(self) -> list[str]:
        """What is being made or saved."""
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


class _Screen:
    """Where looks are shown: a whole terminal, lines of JSON, or plain tables one by one."""

    def __init__(self, context: Context) -> None:
        self._as_json = context.as_json
        self._live: Live | None = None
        self._first = True
        rich = None if context.as_json else console()
        if rich is not None:
            from rich.live import Live

            self._live = Live(console=rich, screen=True, auto_refresh=False)
            self._live.start()

    def show(self, view: View) -> None:
        """Show a look in the place of the last."""
        columns = [*COLUMNS, ("CHANGE", True)]
        if self._as_json:
            print(json.dumps(view.data()), flush=True)
        elif self._live is not None:
            from rich.console import Group
            from rich.text import Text

            below = [Text(line, "cyan") for line in view.lines()]
            rows, more = _fitting(view)
            table = rich_table(columns, rows)
            group = Group(Text(view.title(), "bold"), table, *map(Text, more), *below)
            self._live.update(group, refresh=True)
        else:
            rows, more = _fitting(view) if on_terminal() else (view.rows(), [])
            lines = [view.title(), *plain(columns, rows), *more, *view.lines()]
            before = _CLEAR if on_terminal() else "" if self._first else "\n"
            print(before + "\n".join(lines), flush=True)
        self._first = False

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
