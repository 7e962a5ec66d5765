"""`memctl top`: the backends, live.

It stands on qemu.qmp, the QEMU project's client: events come beside what is
asked, and a daemon that goes away is noticed at once. That takes 35 ms more to
start, which does not matter to what stays (see `context`).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, cast

from memd.errors import QMPError
from memd.json_types import JSON
from memd.memctl.backends import COLUMNS, row
from memd.memctl.context import NO_DAEMON, OK, PATIENCE, USAGE, Context, Trouble, no_daemon
from memd.memctl.sizes import rounded, short
from memd.memctl.tables import Cell, console, on_terminal, plain, rich_table

if TYPE_CHECKING:
    import argparse

    from qemu.qmp import EventListener, QMPClient
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


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Watch."""
    if not arguments.delay > 0 or (arguments.count is not None and arguments.count < 1):
        raise Trouble("a delay and a count are greater than 0", USAGE)
    try:
        asyncio.run(_watch(context, arguments.delay, arguments.count))
    except KeyboardInterrupt:
        # That is how one ends it.
        pass
    return OK


class View:
    """What is shown: the last look, what changed since the one before, what is being made."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self.backends: list[dict[str, JSON]] = []
        self.making: dict[str, dict[str, JSON]] = {}
        """X_MEMDEV_PROGRESS's data, by id."""

    def look(self, stat: list[dict[str, JSON]]) -> None:
        """Take an answer to x-memdev-stat."""
        self._before = {each["id"]: each["resident"] for each in self.backends}
        self.backends = sorted(stat, key=lambda each: (-each["resident"], each["id"]))

    def see(self, event: dict[str, JSON]) -> None:
        """Take an event: what is under way, until it is whole."""
        data = event["data"]
        self.making[data["id"]] = data

    def settle(self) -> None:
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

    def data(self) -> dict[str, JSON]:
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


async def _watch(context: Context, delay: float, count: int | None) -> None:
    import logging

    from qemu.qmp import EventListener, QMPClient
    from qemu.qmp.error import QMPError as ClientError

    # What it has to say comes as an exception, too.
    logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
    logging.getLogger("qemu.qmp").propagate = False
    address = context.address()
    client = QMPClient("memctl")
    progress = EventListener(names="X_MEMDEV_PROGRESS")
    client.register_listener(progress)
    try:
        await asyncio.wait_for(client.connect(address), PATIENCE)
    except TimeoutError as error:
        raise no_daemon(address, error) from None
    except ClientError as error:
        cause = error.__cause__
        raise no_daemon(
            address, cause if isinstance(cause, OSError) else ValueError(str(error))
        ) from None
    try:
        await _look(context, client, progress, delay, count)
    except ClientError as error:
        raise _trouble(error) from None
    finally:
        try:
            await client.disconnect()
        except (ClientError, OSError, EOFError):
            # It is gone, which was said.
            pass


def _trouble(error: Exception) -> Exception:
    from qemu.qmp import ExecuteError

    if isinstance(error, ExecuteError):
        refusal = error.error.error
        return QMPError(refusal.desc, refusal.class_)
    return Trouble("the daemon is gone", NO_DAEMON)


async def _look(
    context: Context,
    client: QMPClient,
    progress: EventListener,
    delay: float,
    count: int | None,
) -> None:
    view = View()
    screen = _Screen(context)
    try:
        while True:
            view.look(cast("list[JSON]", await client.execute("x-memdev-stat")))
            screen.show(view)
            view.settle()
            if count is not None:
                count -= 1
                if not count:
                    return
            await _wait(client, progress, view, delay)
    finally:
        screen.close()


async def _wait(client: QMPClient, progress: EventListener, view: View, delay: float) -> None:
    """Take events until it is time for the next look, or the daemon is gone."""
    gone = asyncio.ensure_future(_end(client))
    try:
        async with asyncio.timeout(delay):
            while True:
                event = asyncio.ensure_future(progress.get())
                try:
                    await asyncio.wait((event, gone), return_when=asyncio.FIRST_COMPLETED)
                    if not event.done():
                        # The next question will say why.
                        return
                    view.see(dict(event.result()))
                finally:
                    event.cancel()
    except TimeoutError:
        pass
    finally:
        gone.cancel()


async def _end(client: QMPClient) -> None:
    """Wait until the daemon is gone, which may have been some time ago."""
    from qemu.qmp import Runstate

    while client.runstate == Runstate.RUNNING:
        await client.runstate_changed()


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
