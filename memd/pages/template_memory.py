"""A template's memory as several clones are sent it: what is not here is fetched in threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.pages.chunks import SET_PAGES
from memd.pages.postcopy import Missing, Span
from memd.pages.recording import PAGE

if TYPE_CHECKING:
    from memd.pages.template import Template

log = logging.getLogger("memd")

_AT_ONCE = 4
"""Fetches under way at once from a source for what is asked for: one that is far away answers
each after a while."""

_UNPACKING = 2
"""Threads that unpack what is asked for and needs no source: one that stalls holds none up."""

_AHEAD = 3
"""Fetches under way at once for what will be asked for; each makes several requests."""

_PIECE = 512
"""Pages of such a fetch, 2 MiB. The first ones are of a chunk of the working set each, since
fetches share the link and what is needed first should not wait for what is needed later."""

_GROWING = 3
"""Fetches of a size, until the next ones are of a chunk more."""

_AGAIN = 5.0
"""Seconds after which what was not available is tried again."""


class TemplateMemory:
    """The main memory of a template.

    Args:
        template: it is closed by `close`.

    Attributes:
        content: a byte for each page of 4 KiB, 0 where it is all zeroes.
        on_ready: called on the event loop when something has been fetched.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self.content = template.layout.content()
        self.on_ready: set[Callable[[], None]] = set()
        self._loop = asyncio.get_running_loop()
        self._here = ThreadPoolExecutor(_UNPACKING, thread_name_prefix="unpack")
        self._far = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        self._ahead = ThreadPoolExecutor(_AHEAD, thread_name_prefix="ahead")
        # Ranges that are being fetched, and that were not available.
        self._fetching: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._failed: set[tuple[int, int]] = set()
        # Those of which it was logged that they could not.
        self._logged: set[tuple[int, int]] = set()
        self._task: asyncio.Task[None] | None = None
        self._copy = template.copy
        self._used = True

    def records(self, page: int, count: int, asked: bool) -> Span | None:
        """Pages as they are sent; None where they have to be fetched first.

        Args:
            page: the first.
            count: how many.
            asked: whether somebody waits for them: their fetching begins then.

        Raises:
            Missing: they are not available at present.
        """
        if self._copy.has(page, count):
            return self._copy.records(page, count)
        if (page, count) in self._failed:
            raise Missing
        # What was fetched ahead and is not here was not available together with others.
        if asked or self._task is None or self._task.done():
            self._fetch(page, count)
        return None

    def fetch_ahead(self, working_set: Sequence[int]) -> None:
        """Fetch everything, the working set first; once for all clones."""
        if self._task is None and not self._copy.has(0, len(self.content)):
            self._task = asyncio.ensure_future(self._run_ahead(working_set))

    def stop(self) -> None:
        """Fetch ahead no longer."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def use(self) -> None:
        """Clones are served from it."""
        self._used = True

    def rest(self) -> None:
        """No clone is served from it, until `use`: there is time to have it ready for the next."""
        self.stop()
        self.template.rest()
        self._used = False
        self._here.submit(self._copy.gather, lambda: not self._used)

    async def close(self) -> None:
        """Stop fetching, and close the template."""
        self.stop()
        self._used = True
        for executor in (self._here, self._far, self._ahead):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        with contextlib.suppress(BufferError):
            await asyncio.to_thread(self.template.close)

    async def _run_ahead(self, working_set: Sequence[int]) -> None:
        under_way: set[asyncio.Future[None]] = set()
        for fetch in self._pieces(working_set):
            under_way.add(self._loop.run_in_executor(self._ahead, fetch))
            if len(under_way) >= _AHEAD:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                self._see(done)
        if under_way:
            self._see((await asyncio.wait(under_way))[0])

    def _see(self, done: set[asyncio.Future[None]]) -> None:
        for each in done:
            if (error := each.exception()) is not None:
                # Each of its pages is tried again when its turn comes.
                log.warning("template '%s': fetching ahead: %s", self.template.name, error)
        self._loop.call_soon(self._wake)

    def _pieces(self, working_set: Sequence[int]) -> Iterator[Callable[[], None]]:
        """The functions that fetch everything, piece by piece."""
        template = self.template
        at = fetches = 0
        while at < len(working_set):
            count = min(_PIECE, SET_PAGES * max(1, fetches // _GROWING))
            yield partial(template.fetch_pages, working_set[at : at + count])
            at, fetches = at + count, fetches + 1
        step = _PIECE * PAGE
        for offset, length in template.data_ranges():
            for start in range(offset, offset + length, step):
                part = min(step, offset + length - start)
                if not self._copy.has(start // PAGE, part // PAGE):
                    yield partial(template.fetch, start, part)

    def _fetch(self, page: int, count: int) -> None:
        wanted = (page, count)
        if wanted not in self._fetching:
            found = asyncio.ensure_future(self._get(page * PAGE, count * PAGE))
            self._fetching[wanted] = found
            found.add_done_callback(lambda done: self._fetched(wanted, done))

    async def _get(self, offset: int, length: int) -> None:
        template, run = self.template, self._loop.run_in_executor
        if not await run(self._here, template.fetch_here, offset, length):
            await run(self._far, template.fetch, offset, length)

    def _fetched(self, wanted: tuple[int, int], done: asyncio.Future[None]) -> None:
        del self._fetching[wanted]
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            reason = error.desc if isinstance(error, QMPError) else repr(error)
            if wanted not in self._logged:
                self._logged.add(wanted)
                text = "template '%s': %d pages from page %d on are not available: %s"
                log.error(text, self.template.name, wanted[1], wanted[0], reason)
            self._failed.add(wanted)
            self._loop.call_later(_AGAIN, self._try_again, wanted)
        self._wake()

    def _try_again(self, wanted: tuple[int, int]) -> None:
        self._failed.discard(wanted)
        self._wake()

    def _wake(self) -> None:
        for each in tuple(self.on_ready):
            each()
