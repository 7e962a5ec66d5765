"""A template's memory as several clones are sent it: what is not here is fetched in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.pages.postcopy import BATCH, Missing
from memd.pages.recording import PAGE

if TYPE_CHECKING:
    from memd.pages.template import Template

log = logging.getLogger("memd")

_AT_ONCE = 8
"""Fetches under way at once for what is asked for, and as many for what will be: a source
that is far away answers each after a while."""

_AGAIN = 5.0
"""Seconds after which what could not be had is tried again."""


class TemplateMemory:
    """The main memory of a template.

    Args:
        template: it is closed with `close`.

    Attributes:
        content: a byte for each page of 4 KiB, 0 where it is all zeroes.
        on_ready: called on the event loop when something has been fetched.
    """

    __slots__ = (
        *("_ahead", "_asked", "_failed", "_fetching", "_loop", "_task", "content"),
        *("on_ready", "template"),
    )

    def __init__(self, template: Template) -> None:
        self.template = template
        self.content = bytearray(template.size // PAGE)
        for offset, length in template.data_ranges():
            first, count = offset // PAGE, -(-length // PAGE)
            self.content[first : first + count] = b"\1" * count
        self.on_ready: set[Callable[[], None]] = set()
        self._loop = asyncio.get_running_loop()
        self._asked = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        self._ahead = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ahead")
        # Ranges that are being fetched, and that could not be had.
        self._fetching: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._failed: set[tuple[int, int]] = set()
        self._task: asyncio.Task[None] | None = None

    def view(self, offset: int, length: int) -> memoryview | None:
        """Bytes of it; None where they have to be fetched first, which begins.

        Raises:
            Missing: they can't be had at present.
        """
        if self.template.ready(offset, length):
            return self.template.view(offset, length)
        if (offset, length) in self._failed:
            raise Missing
        self._fetch(self._asked, offset, length)
        return None

    def fetch_ahead(self, working_set: Iterable[int]) -> None:
        """Fetch everything, the working set first; once for all clones."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run_ahead(working_set))

    def close(self) -> None:
        """Stop fetching."""
        if self._task is not None:
            self._task.cancel()
        for executor in (self._asked, self._ahead):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _run_ahead(self, working_set: Iterable[int]) -> None:
        under_way: set[asyncio.Future[None]] = set()
        for offset, length in self._in_order(working_set):
            if self.template.ready(offset, length):
                # Others have their turn.
                await asyncio.sleep(0)
                continue
            under_way.add(self._fetch(self._ahead, offset, length))
            if len(under_way) >= _AT_ONCE:
                _done, under_way = await asyncio.wait(
                    under_way, return_when=asyncio.FIRST_COMPLETED
                )

    def _in_order(self, working_set: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Ranges as `Source` sends them."""
        first = end = 0
        for page in working_set:
            if page != end or end - first >= BATCH:
                if end > first:
                    yield first * PAGE, (end - first) * PAGE
                first = page
            end = page + 1
        if end > first:
            yield first * PAGE, (end - first) * PAGE
        step = BATCH * PAGE
        for offset, length in self.template.data_ranges():
            for at in range(offset, offset + length, step):
                yield at, min(step, offset + length - at)

    def _fetch(
        self, executor: ThreadPoolExecutor, offset: int, length: int
    ) -> asyncio.Future[None]:
        wanted = (offset, length)
        found = self._fetching.get(wanted)
        if found is None:
            found = self._loop.run_in_executor(executor, self.template.fetch, offset, length)
            self._fetching[wanted] = found
            found.add_done_callback(lambda done: self._fetched(wanted, done))
        return found

    def _fetched(self, wanted: tuple[int, int], done: asyncio.Future[None]) -> None:
        del self._fetching[wanted]
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            reason = error.desc if isinstance(error, QMPError) else repr(error)
            log.error(
                "template '%s': %d bytes at 0x%x can't be had: %s",
                *(self.template.name, wanted[1], wanted[0], reason),
            )
            self._failed.add(wanted)
            self._loop.call_later(_AGAIN, self._try_again, wanted)
        self._wake()

    def _try_again(self, wanted: tuple[int, int]) -> None:
        self._failed.discard(wanted)
        self._wake()

    def _wake(self) -> None:
        for each in tuple(self.on_ready):
            each()
