"""`--metrics`: what the daemon holds and does, for Prometheus (extra `metrics`).

Scrapes are read and answered on the event loop, in the library's words, which a thread
puts together, for one scrape at a time; pages are counted in a thread, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import (
    CollectorRegistry,
    MetricsHandler,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from memd import __version__
from memd.commands.daemon import Daemon
from memd.commands.memdev import x_memdev_stat
from memd.commands.metering import BOUNDS, Meter
from memd.compat import Compat
from memd.config import Chardev
from memd.errors import QMPError
from memd.hostmem.sockets import close_socket, keep_urgent, receive_soon
from memd.json_types import JSONObject
from memd.places import SHARE, Places
from memd.server.endpoint import open_chardev
from memd.server.hub import Hub
from memd.server.listener import Listener, SocketFiles
from memd.server.peer import user_of
from memd.work import MEMORY, Encoded, Job, Run

if TYPE_CHECKING:
    from memd.pages.servers import Totals
    from memd.pages.store import Holdings


AT_ONCE = 64
"""Scrapers that are connected at the same time. When one more connects, the
first that has not sent its request is disconnected, or else the new one."""

PATIENCE = 10.0
"""Seconds for a scraper to say what it wants, for the pages to be counted, and for it to
read the answer."""

LONGEST = 1 << 16
"""Bytes of what a scraper says."""


Counted = tuple[str, list[int], float, dict[str, int]]
"""A command: name, buckets, seconds, errors by class."""


class Snapshot:
    """Values that are read on the event loop for one scrape."""

    backends = Encoded(b"[]")
    clients = 0
    held = 0
    lost: Sequence[JSONObject] = ()
    pools: Sequence[JSONObject] = ()
    populated = 0
    templates: Holdings | None = None
    sent: Totals | None = None
    commands: Sequence[Counted] = ()


def _families(compat: Compat, seen: Snapshot) -> Iterator[Metric]:
    """The metrics of a snapshot."""
    yield InfoMetricFamily(
        "memd", "The daemon.", value={"version": __version__, "compat": compat.value}
    )
    # Decoded here, in the thread that answers.
    yield from _of_backends(seen.backends.value())
    yield from _of_pools(seen.pools)
    yield from _of_commands(seen.commands)
    yield CounterMetricFamily(
        "memd_populated_bytes", "Bytes that were preallocated.", value=seen.populated
    )
    yield GaugeMetricFamily("memd_clients", "Clients that are connected.", value=seen.clients)
    yield GaugeMetricFamily(
        "memd_held_bytes",
        "Bytes held for clients: unfinished messages, and answers that nobody has read.",
        value=seen.held,
    )
    yield _labelled(
        GaugeMetricFamily,
        "memd_lost_regions",
        "Regions that ended with the last daemon, by why.",
        ["reason"],
        (((str(each["reason"]),), 1) for each in seen.lost),
    )
    if seen.templates is not None:
        yield from _of_templates(seen.templates)
    if seen.sent is not None:
        yield from _of_clones(seen.sent)


def _labelled(
    kind: Callable[..., Any],
    name: str,
    text: str,
    labels: Sequence[str],
    rows: Iterable[tuple[tuple[str, ...], int]],
) -> Metric:
    """A metric with values by their labels; those of rows with the same labels are summed."""
    sums: Counter[tuple[str, ...]] = Counter()
    for each, value in rows:
        sums[each] += value
    family = kind(name, text, labels=labels)
    for each, value in sorted(sums.items()):
        family.add_metric(each, value)
    return cast(Metric, family)


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Counts by upper bound, each with those below it, as a histogram has them."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))


_SUMS = (
    ("memd_backend_bytes", "size", "Bytes of the memory backends."),
    ("memd_resident_bytes", "resident", "Of these, bytes that are in memory."),
    ("memd_copied_bytes", "private-dirty", "Bytes that private mappings have copied on write."),
    ("memd_swapped_bytes", "swapped", "Bytes that are swapped out."),
    ("memd_exports", "exports", "Descriptors of memory that were handed out."),
)


def _of_backends(backends: Sequence[JSONObject]) -> Iterator[Metric]:
    yield _labelled(
        GaugeMetricFamily,
        "memd_backends",
        "Memory backends, by type.",
        ["type"],
        (((each["qom-type"],), 1) for each in backends),
    )
    for name, member, text in _SUMS:
        yield _labelled(
            GaugeMetricFamily,
            name,
            text,
            ["type"],
            (((each["qom-type"],), each[member]) for each in backends),
        )
    yield _labelled(
        GaugeMetricFamily,
        "memd_node_bytes",
        "Bytes that are in memory, by NUMA node.",
        ["type", "node"],
        (
            ((each["qom-type"], str(share["node"])), share["bytes"])
            for each in backends
            for share in each["nodes"]
        ),
    )
    yield GaugeMetricFamily(
        "memd_backends_not_kept",
        "Memory backends that the service manager does not hold for a restart.",
        value=sum(each.get("kept") is False for each in backends),
    )


_POOLS = (
    (GaugeMetricFamily, "wanted", "count", "Backends whose memory is to be ready in pools."),
    (GaugeMetricFamily, "ready", "ready", "Of these, those whose memory is."),
    (GaugeMetricFamily, "bytes", "bytes", "Bytes of memory that pools have."),
    (CounterMetricFamily, "taken", "taken", "Objects that took their memory from a pool."),
    (CounterMetricFamily, "missed", "missed", "Objects that found none ready."),
)


def _of_pools(pools: Sequence[JSONObject]) -> Iterator[Metric]:
    for family, name, member, text in _POOLS:
        yield _labelled(
            family,
            f"memd_pool_{name}",
            text,
            ["type", "size"],
            (((each["qom-type"], str(each["properties"]["size"])), each[member]) for each in pools),
        )


def _of_commands(commands: Sequence[Counted]) -> Iterator[Metric]:
    errors = CounterMetricFamily(
        "memd_command_errors",
        "Commands that were answered with an error.",
        labels=["command", "class"],
    )
    times = HistogramMetricFamily(
        "memd_command_seconds",
        "Commands, and how long each took, from when it was read to its answer.",
        labels=["command"],
    )
    for command, counts, seconds, refused in sorted(commands):
        times.add_metric([command], _buckets(BOUNDS, counts), seconds)
        for error_class, count in sorted(refused.items()):
            errors.add_metric([command, error_class], count)
    yield times
    yield errors


def _of_templates(held: Holdings) -> Iterator[Metric]:
    yield GaugeMetricFamily("memd_templates", "Templates of the store.", value=held.templates)
    yield GaugeMetricFamily(
        "memd_template_stored_bytes", "What the store takes for them.", value=held.stored
    )
    yield GaugeMetricFamily(
        "memd_template_cache_bytes", "Fetched chunks that are kept besides.", value=held.cached
    )
    yield _labelled(
        CounterMetricFamily,
        "memd_template_chunks",
        "Chunks that were read, by where they came from; damaged ones from anywhere.",
        ["from"],
        (((each,), held.counts[each]) for each in ("stored", "kept", "fetched", "damaged")),
    )
    yield CounterMetricFamily(
        "memd_template_fetched_bytes",
        "Bytes that came from sources, packs that were pulled apart.",
        value=held.counts["fetched-bytes"],
    )


def _of_clones(sent: Totals) -> Iterator[Metric]:
    from memd.pages.postcopy import WAITS

    yield GaugeMetricFamily(
        "memd_template_clones", "Machines that are being sent a template.", value=sent.clones
    )
    zeroes = sent.pages["zeroes"]
    pages = {
        "asked": sent.pages["asked"] - zeroes,
        "asked-zero": zeroes,
        "working-set": sent.pages["working-set"],
        "rest": sent.pages["rest"],
    }
    yield _labelled(
        CounterMetricFamily,
        "memd_template_pages",
        "Pages of 4 KiB that machines were sent, by why.",
        ["cause"],
        (((cause,), count) for cause, count in pages.items()),
    )
    yield CounterMetricFamily(
        "memd_template_sent_bytes", "Bytes that machines were sent.", value=sent.bytes
    )
    waits = HistogramMetricFamily(
        "memd_template_fault_seconds",
        "Requests of machines for a page, and how long each waited until it was sent.",
        labels=[],
    )
    waits.add_metric([], _buckets(WAITS, sent.waits), sent.waited)
    yield waits
    yield _labelled(
        CounterMetricFamily,
        "memd_template_served",
        "Machines that were sent a template, by outcome.",
        ["outcome"],
        (((outcome,), count) for outcome, count in sent.outcomes.items()),
    )


def _answerer(registry: CollectorRegistry) -> Callable[[bytes], bytes]:
    """The library's answers to requests."""

    class Handler(MetricsHandler.factory(registry)):  # type: ignore[misc]
        def __init__(self, request: bytes) -> None:
            """Answer, without the socket that the library would have."""
            self.rfile = io.BytesIO(request)
            self.wfile = io.BytesIO()
            self.handle_one_request()

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            try:
                choose_encoder(self.headers.get("Accept", ""))
            except (TypeError, ValueError):
                self.send_error(400)
                return
            super().do_GET()

        def do_HEAD(self) -> None:
            """The answer to GET without its body."""
            self.do_GET()
            head = self.wfile.getvalue().partition(b"\r\n\r\n")[0]
            self.wfile = io.BytesIO(head + b"\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: scrapers come every few seconds."""

    def answer(request: bytes) -> bytes:
        written: bytes = Handler(request).wfile.getvalue()
        return written

    return answer


class Metrics:
    """Serves the metrics until it is closed; a collector of the library's registry.

    Args:
        loop: the daemon's.
        hub: the daemon's clients.
        daemon: its state.
        meter: what was counted.
        run: runs commands.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: Hub,
        daemon: Daemon,
        meter: Meter,
        run: Run,
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._daemon = daemon
        self._meter = meter
        self._run = run
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(self)
        self._answer = _answerer(registry)
        self._seen = Snapshot()
        self._one_at_a_time = asyncio.Lock()
        # Those that have not said what they want, in the order they came, and all of them, each
        # with its user.
        self._silent: dict[asyncio.Task[None], None] = {}
        self._scrapes: dict[asyncio.Task[None], int] = {}
        self._places = Places(AT_ONCE, SHARE, within=hub.opened)
        self._listeners: list[Listener] = []
        self._files = SocketFiles()

    def describe(self) -> Iterator[Metric]:
        """The metrics' names, by which a scraper may ask for some (`?name[]=`)."""
        return _families(self._daemon.compat, Snapshot())

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        return _families(self._daemon.compat, self._seen)

    async def open(self, address: Chardev) -> None:
        """Listen, and serve.

        Args:
            address: kind "unix" or "tcp".

        Raises:
            QMPError: it can't be listened on.
        """
        socks = await self._hub.in_thread(partial(open_chardev, address, self._files))
        self._listeners = [Listener(self._loop, each, self._serve) for each in socks]
        for listener in self._listeners:
            listener.start()

    async def close(self) -> None:
        """Serve no more. What is being answered is cut off."""
        for scrape in self._scrapes:
            scrape.cancel()
        for listener in self._listeners:
            listener.close()
        await self._files.remove(self._hub.in_thread)

    def _serve(self, client: socket.socket) -> None:
        user, places = user_of(client), self._places
        if not places.has_free_place(user):
            silent = ((each, self._scrapes[each]) for each in self._silent)
            first = places.to_end_for(user, silent)
            if first is None:
                close_socket(client)
                return
            self._count_out(first)
            first.cancel()
        places.take(user)
        client.setblocking(False)
        keep_urgent(client)
        scrape = self._loop.create_task(self._scrape(client))
        self._scrapes[scrape] = user
        self._silent[scrape] = None
        scrape.add_done_callback(partial(self._left, client))

    def _left(self, client: socket.socket, scrape: asyncio.Task[None]) -> None:
        close_socket(client)
        self._count_out(scrape)

    def _count_out(self, scrape: asyncio.Task[None]) -> None:
        self._silent.pop(scrape, None)
        if scrape in self._scrapes:
            self._places.give_back(self._scrapes.pop(scrape))

    async def _scrape(self, client: socket.socket) -> None:
        # Who goes away, or takes too long, does not matter (a TimeoutError is an OSError).
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PATIENCE):
                request = await self._request(client)
            self._silent.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
            try:
                async with asyncio.timeout(PATIENCE), self._one_at_a_time:
                    self._seen = await self._snapshot()
                    answer: bytes = await self._run(self._render(request))
            except (QMPError, TimeoutError):
                answer = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_sendall(client, answer)

    async def _request(self, client: socket.socket) -> bytes:
        said = b""
        while b"\r\n\r\n" not in said and b"\n\n" not in said and len(said) < LONGEST:
            more = await receive_soon(client, LONGEST)
            if not more:
                break
            said += more
        return said

    async def _render(self, request: bytes) -> bytes:
        return await Job(partial(self._answer, request), on=MEMORY)

    async def _snapshot(self) -> Snapshot:
        seen = Snapshot()
        seen.clients, seen.held = self._hub.clients, self._hub.held
        seen.lost = list(self._daemon.lost.values())
        if (pools := self._daemon.tree.objects.pools) is not None:
            seen.pools = pools.describe()
        seen.commands = [
            (name, list(record.buckets), record.seconds, dict(record.errors))
            for name, record in self._meter.records.items()
        ]
        if "memd.hostmem.populate" in sys.modules:
            from memd.hostmem.populate import populated

            seen.populated = populated()
        seen.backends = await self._run(x_memdev_stat(self._daemon, {}))
        if self._daemon.templates is not None:
            seen.templates = await self._run(self._daemon.templates.holdings())
            seen.sent = self._daemon.templates.servers.totals()
        return seen
