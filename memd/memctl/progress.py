"""Progress of a long command, on a terminal's standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memd.client import Client
from memd.json_types import JSONObject
from memd.memctl.context import say
from memd.sizes import rounded

if TYPE_CHECKING:
    from rich.progress import Progress

_EVENTS = {"X_MEMDEV_PROGRESS": "id", "X_TEMPLATE_PROGRESS": "name"}
"""The events that tell how far something is, and which member says what."""


class Bar:
    """A progress bar; a context manager that clears it away.

    It appears with the first thing that it is told, so that what is done at
    once has none. Where standard error is not a terminal there is none at all.

    Args:
        id: the backend's, or the template's name.
        doing: what is done to it, such as "populating".
        client: whose events tell how far it is.
        left: what becomes of it where memctl is interrupted and the daemon goes on, for
            standard error; "" where that is not so.

    Attributes:
        id: as above.
        visible: whether there is a terminal.
    """

    def __init__(
        self, id: str, doing: str, client: Client | None = None, *, left: str = ""
    ) -> None:
        self._client = client
        self._left = left
        self.id = id
        self._doing = doing
        self.visible = sys.stderr.isatty()
        self._shown = False
        self._rich: Progress | None = None

    def see(self, event: JSONObject) -> None:
        """Take an event of the daemon's; those of others are passed over."""
        data = event.get("data", {})
        member = _EVENTS.get(event.get("event", ""), "")
        if member and data.get(member) == self.id:
            self.at(data["done"], data["total"])

    def at(self, done: int, total: int) -> None:
        """Show how far it is, in bytes."""
        if not self.visible or not total:
            return
        if not self._shown:
            self._shown = True
            self._rich = _rich()
            if self._rich is not None:
                self._rich.start()
                self._rich.add_task(f"{self._doing} {self.id}", total=total)
        if self._rich is not None:
            self._rich.update(self._rich.task_ids[0], completed=done, total=total)
            return
        text = f"{self._doing} {self.id}: {100 * done // total} % of {rounded(total)}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take it off the terminal."""
        if self._rich is not None:
            self._rich.stop()
        elif self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False
        self._rich = None

    def __enter__(self) -> Bar:
        if self._client is not None:
            self._client.on_event = self.see
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self.clear()
        if self._left and kind is not None and issubclass(kind, KeyboardInterrupt):
            say(f"the daemon goes on, and {self._left}")
        if self._client is not None:
            self._client.on_event = None


def _rich() -> Progress | None:
    """rich's progress bar; None without rich."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
