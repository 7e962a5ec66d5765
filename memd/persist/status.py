"""The line that `systemctl status` shows of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from memd.json_types import JSON
from memd.persist.sd_notify import Notifier
from memd.qom import Tree
from memd.sizes import rounded
from memd.timer import Timer

INTERVAL = 0.2
"""Seconds between two messages: objects come and go by the thousand a second."""

NAMED = 3
"""The number of lost objects that are named."""

_LENGTH = 60
"""Characters of an id that are told; it may have any number."""


class Status:
    """Tells the service manager how many backends there are, and how large they are.

    Args:
        loop: the event loop.
        notifier: where it goes.
        tree: where the backends are.
        lost: what was lost, by id.

    Attributes:
        interval: see `INTERVAL`.
    """

    interval = INTERVAL

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        notifier: Notifier,
        tree: Tree,
        lost: Mapping[str, JSON],
    ) -> None:
        self._notifier = notifier
        self._tree = tree
        self._lost = lost
        self._timer = Timer(loop, self._send)

    def changed(self) -> None:
        """Something comes or goes: tell soon, once for all that does meanwhile."""
        self._timer.start(self.interval)

    def _send(self) -> None:
        self._notifier.tell(self.line())

    def line(self) -> str:
        """The status line, such as `STATUS=12 backends, 48 GiB`."""
        backends = [obj for obj in self._tree.objects.each() if obj.qom_type.is_a("memory-backend")]
        sizes = [obj.memory_size for obj in backends]
        text = f"{len(sizes)} backend{'' if len(sizes) == 1 else 's'}, {rounded(sum(sizes))}"
        not_kept = sum(obj.kept is False and obj.memory_fd >= 0 for obj in backends)
        if not_kept:
            text += f"; not kept: {not_kept}"
        if self._tree.shortage:
            text += f"; {self._tree.shortage}"
        if self._tree.objects.pools is not None:
            text += f"; {self._tree.objects.pools.status()}"
        if self._lost:
            names = list(self._lost)
            text += f"; lost: {', '.join(name[:_LENGTH] for name in names[:NAMED])}"
            if len(names) > NAMED:
                text += f" and {len(names) - NAMED} more"
        return f"STATUS={text}"

    def close(self) -> None:
        """Tell nothing more."""
        self._timer.cancel()
