"""`--metrics`: what the daemon holds and does, for Prometheus (extra `metrics`).

Scrapes are answered by a thread of their own, in the library's words; only what
has to be read on the event loop is, and pages are counted beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import HTTPServer
from itertools import accumulate
from socketserver import ThreadingMixIn
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
from memd.commands.memdev import x_memdev_stat
from memd.commands.metering import BOUNDS
from memd.hostmem.sockets import listen_tcp
from memd.json_types import JSONObject
from memd.server.endpoint import open_unix
from memd.server.listener import Listener, SocketFile
from memd.work import Run

if TYPE_CHECKING:
    from memd.commands.daemon import Daemon
    from memd.commands.metering import Meter
    from memd.config import Chardev
    from memd.pages.servers import Totals
    from memd.pages.store import Holdings
    from memd.server.hub import Hub


AT_ONCE = 4
"""Scrapes that are answered at the same time. A further one is disconnected, unless
somebody has taken longer than `GRACE` to say what it wants: then that one is."""

GRACE = 1.0
"""Seconds; a scraper says what it wants in one packet."""

PATIENCE = 10.0
"""Seconds for a scraper to say what it wants, and for the pages to be counted."""


class Snapshot:
    """What is read on the event loop for one scrape."""

    def __init__(self) -> None:
        self.backends: list[JSONObject] = []
        self.clients = 0
        self.held = 0
        self.lost: list[JSONObject] = []
        self.pools: list[JSONObject] = []
        self.populated = 0
        self.templates: Holdings | None = None
        self.sent: Totals | None = None
        # Name, buckets, seconds, errors.
        self.commands: list[tuple[str, list[int], float, dict[str, int]]] = []


class Collector:
    """Makes the metrics of a snapshot.

    Args:
        compat: whose behaviour is given, such as "10.0".
        look: makes a snapshot, from any thread.
    """

    def __init__(self, compat: str, look: Callable[[], Snapshot]) -> None:
        self._compat = compat
        self._look = look

    def describe(self) -> Iterator[Metric]:
        """The metrics' names, by which a scraper may ask for some (`?name[]=`)."""
        return self._families(Snapshot())

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        return self._families(self._look())

    def _families(self, seen: Snapshot) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "memd", "The daemon.", value={"version": __version__, "compat": self._compat}
        )
        yield from _of_backends(seen.backends)
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
            Counter((str(each["reason"]),) for each in seen.lost),
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
    values: Mapping[tuple[str, ...], float],
) -> Metric:
    """A metric with these values, by their labels."""
    family = kind(name, text, labels=labels)
    for each, value in sorted(values.items()):
        family.add_metric(each, value)
    return cast(Metric, family)


def _sums(rows: Iterable[tuple[tuple[str, ...], int]]) -> Counter[tuple[str, ...]]:
    sums: Counter[tuple[str, ...]] = Counter()
    for labels, value in rows:
        sums[labels] += value
    return sums


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


def _of_backends(backends: list[JSONObject]) -> Iterator[Metric]:
    yield _labelled(
        GaugeMetricFamily,
        "memd_backends",
        "Memory backends, by type.",
        ["type"],
        Counter((each["qom-type"],) for each in backends),
    )
    for name, member, text in _SUMS:
        yield _labelled(
            GaugeMetricFamily,
            name,
            text,
            ["type"],
            _sums(((each["qom-type"],), each[member]) for each in backends),
        )
    yield _labelled(
        GaugeMetricFamily,
        "memd_node_bytes",
        "Bytes that are in memory, by NUMA node.",
        ["type", "node"],
        _sums(
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


def _of_pools(pools: list[JSONObject]) -> Iterator[Metric]:
    for family, name, member, text in _POOLS:
        yield _labelled(
            family,
            f"memd_pool_{name}",
            text,
            ["type", "size"],
            _sums(
                ((each["qom-type"], str(each["properties"]["size"])), each[member])
                for each in pools
            ),
        )


def _of_commands(commands: list[tuple[str, list[int], float, dict[str, int]]]) -> Iterator[Metric]:
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
        {(origin,): held.counts[origin] for origin in ("stored", "kept", "fetched", "damaged")},
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
        {(cause,): count for cause, count in pages.items()},
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
        {(outcome,): count for outcome, count in sent.outcomes.items()},
    )


class _Server(ThreadingMixIn, HTTPServer):
    """The library's answers to clients that somebody else has accepted."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(("", 0), _handler(registry), bind_and_activate=False)
        self.server_close()
        self._lock = threading.Lock()
        # Who is being served, and since when; 0 once it has said what it wants.
        self._present: dict[Any, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer beside the others, if there is room."""
        if not self._let_in(request):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # There is no thread for it.
            self._leave(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def asked(self, request: Any) -> None:
        """A scraper has said what it wants."""
        with self._lock:
            if request in self._present:
                self._present[request] = 0.0

    def _let_in(self, request: Any) -> bool:
        now = time.monotonic()
        with self._lock:
            if len(self._present) >= AT_ONCE:
                slow = [each for each, since in self._present.items() if 0 < since < now - GRACE]
                if not slow:
                    return False
                del self._present[slow[0]]
                with contextlib.suppress(OSError):
                    slow[0].shutdown(socket.SHUT_RDWR)
            self._present[request] = now
        return True

    def _leave(self, request: Any) -> None:
        with self._lock:
            self._present.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is no matter; all else is told."""
        error = sys.exception()
        if not isinstance(error, OSError):
            import logging

            logging.getLogger("memd").error("a scrape failed", exc_info=error)


def _handler(registry: CollectorRegistry) -> type[MetricsHandler]:
    class Handler(MetricsHandler.factory(registry)):  # type: ignore[misc]
        timeout = PATIENCE

        def address_string(self) -> str:
            # Of a UNIX socket there is none.
            return "scraper"

        def do_GET(self) -> None:
            self.server.asked(self.request)
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
            """What GET answers, without its body."""
            out: Any = vars(self)["wfile"]
            self.wfile = whole = io.BytesIO()
            try:
                self.do_GET()
            finally:
                self.wfile = out
            head = whole.getvalue().partition(b"\r\n\r\n")[0]
            out.write(head + b"\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: scrapers come every few seconds."""

    return Handler


class Metrics:
    """Serves the metrics until it is closed.

    Args:
        socks: listen; owned from now on.
        made_path: the path of the socket, if it was made here.
        loop: the daemon's.
        hub: the daemon's clients.
        daemon: its state.
        meter: what was counted.
        run: runs commands.
    """

    def __init__(
        self,
        socks: list[socket.socket],
        made: SocketFile | None,
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
        registry.register(Collector(daemon.compat.value, self._look))
        self._server = _Server(registry)
        self._listeners = [Listener(loop, each, self._serve, made=made) for each in socks]
        for listener in self._listeners:
            listener.start()

    async def close(self, patience: float) -> None:
        """Serve no more. What is being answered is cut off with the process.

        Args:
            patience: seconds given to the file system of its socket.
        """
        for listener in self._listeners:
            if made := listener.close():
                await self._hub.in_thread(made.remove, patience)

    def _serve(self, client: socket.socket) -> None:
        client.setblocking(True)
        self._server.process_request(client, "")

    def _look(self) -> Snapshot:
        """A snapshot, waited for in the scrape's thread."""
        looking = asyncio.run_coroutine_threadsafe(self._snapshot(), self._loop)
        return looking.result(PATIENCE)

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


async def open_metrics(
    address: Chardev,
    loop: asyncio.AbstractEventLoop,
    hub: Hub,
    daemon: Daemon,
    meter: Meter,
    run: Run,
) -> Metrics:
    """Listen, and serve.

    Args:
        address: kind "unix" or "tcp".

    Raises:
        QMPError: it can't be listened on.
    """

    def listen() -> tuple[list[socket.socket], SocketFile | None]:
        if address.kind == "unix":
            return [open_unix(address.path, server=True)], SocketFile(address.path)
        return listen_tcp(address.host, address.port, address.family), None

    socks, made = await hub.in_thread(listen)
    return Metrics(socks, made, loop, hub, daemon, meter, run)
