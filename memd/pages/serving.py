"""A process that serves templates' pages to clones, apart from the daemon's interpreter.

    python -m memd.pages.serving FD SETTINGS

FD is its end of a socket pair with the daemon (`memd.pages.servers`), which sends
requests and gets reports. SETTINGS are `servers.Settings` in JSON. When the daemon ends,
the process serves its clones to their end, and writes each one's outcome to its file, for
the next daemon.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import gc
import json
import logging
import os
import socket
import sys
import time
from array import array
from pathlib import Path

from memd.errors import QMPError
from memd.hostmem.descriptor_limit import raise_limit
from memd.pages.channel import Channel, Message
from memd.pages.clone_connection import CloneConnection
from memd.pages.clone_monitor import CloneMonitor
from memd.pages.fd_holder import Holder
from memd.pages.layout import ranges_of
from memd.pages.postcopy import Sender, SentCounts
from memd.pages.reach import Reach
from memd.pages.recording import PAGE, Recording, parse
from memd.pages.store import Store
from memd.pages.template import Template
from memd.pages.template_memory import TemplateMemory

log = logging.getLogger("memd")

QUIET = 10.0
"""Seconds without a request after which a working set is taken to be known."""

REPORTS = 1.0
"""Seconds between two reports on a clone that is being served."""

LOADING = 60.0
"""Seconds in which a clone has to load its devices, some 10 ms as a rule, or to go on after a
pause. What is not QEMU never does, and would take up a place."""

_KEEP = 10.0
"""Seconds for which a template stays open that nobody is served from: opening it and mapping
it once more takes a fifth of what serving a clone of 480 MiB costs (measured)."""

_RECOVERIES = 3
"""Times that a clone is recovered without having been sent a page in between."""

_FEW = PAGE
"""Bytes that a recovery takes by itself, at most."""


class Opened:
    """A template that clones are being served from.

    Attributes:
        recording: the machine's state.
        memory: its main memory.
        working_set: numbers of pages, in their order.
        ranges: the same as `Sender` is told them.
        page_sizes: of the blocks of memory that it was made of, in bytes.
        clones: how many are being served.
        closing: when it is closed; None while clones are being served.
    """

    def __init__(self, recording: Recording, memory: TemplateMemory) -> None:
        self.recording = recording
        self.memory = memory
        self.working_set = memory.template.working_set()
        self.ranges = ranges_of(self.working_set)
        manifest = memory.template.manifest
        self.page_sizes = [
            block.page_size for block in manifest.blocks if block.offset is not None
        ] or [manifest.page_size] * len(recording.memory)
        self.clones = 0
        self.closing: asyncio.TimerHandle | None = None


class Process:
    """Serves the requests of the daemon.

    Args:
        sock: its end of the socket pair.
        store: where the templates are.
        holder: holds the connections to clones' monitors.
        reach: where clones may be.
    """

    def __init__(self, sock: socket.socket, store: Store, holder: Holder, reach: Reach) -> None:
        self._sock = sock
        self._store = store
        self._holder = holder
        self._reach = reach
        self._opened: dict[str, Opened] = {}
        self._served: dict[asyncio.Task[None], _Served] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Event()
        self._channel = Channel(self._begin, self._alone.set)

    async def run(self) -> None:
        """Serve until the daemon has ended, and no clone is left."""
        await self._channel.open(self._sock)
        await self._alone.wait()
        if self._served:
            log.warning("memd has ended; %d clones are served to the end", len(self._served))
        for served in self._served.values():
            served.hurry()
        while self._served:
            await asyncio.wait(self._served)

    def _begin(self, request: Message) -> None:
        served = _Served(request, self._holder, self._reach, self._channel)
        task = asyncio.ensure_future(self._serve(request, served))
        self._served[task] = served
        task.add_done_callback(self._served.pop)

    async def _serve(self, request: Message, served: _Served) -> None:
        """Serve one clone, and tell the daemon how that went."""
        name = request["template"]
        ended: Message = {}
        note = await asyncio.to_thread(_lock, request["file"]) if "qmp" in request else -1
        try:
            opened = await self._open(name)
            try:
                ended["outcome"] = await served.run(opened, note)
            finally:
                self._leave(name, opened)
        except QMPError as error:
            ended |= {"outcome": "failed", "error": error.desc}
        except Exception:
            log.exception("serving a clone of '%s' failed unexpectedly", name)
            ended |= {"outcome": "failed", "error": "internal error, see the log"}
        if request.get("record"):
            ended["working-set"] = served.learnt()
        ended |= served.report()
        self._channel.send({"id": request["id"], **ended})
        if note >= 0:
            if self._alone.is_set():
                # Here the next daemon finds it.
                await asyncio.to_thread(_write, note, {**request, **ended})
            os.close(note)
        await served.close()
        gc.collect()

    async def _open(self, name: str) -> Opened:
        """A template that one clone more is served from; `_leave` gives it back.

        Raises:
            QMPError: there is none, it is damaged, or it has no devices.
        """
        while (opened := self._opened.get(name)) is None or opened.closing is not None:
            if opened is not None and opened.closing is not None:
                opened.closing.cancel()
                opened.closing = None
                del self._opened[name]
            else:
                opened = await self._open_anew(name)
            current = await asyncio.to_thread(self._is_current, opened.memory.template)
            # Else it was changed or deleted, or another clone was faster.
            if current and name not in self._opened:
                self._opened[name] = opened
            else:
                await opened.memory.close()
        opened.clones += 1
        opened.memory.use()
        return opened

    def _is_current(self, template: Template) -> bool:
        try:
            return template.use() and self._store.manifest(template.name) == template.manifest
        except QMPError:
            return False

    async def _open_anew(self, name: str) -> Opened:
        def look() -> tuple[Recording, Template]:
            template = self._store.open(name)
            try:
                devices = template.devices()
                if not devices:
                    raise QMPError(
                        f"template '{name}' has memory alone: save it with the devices of a"
                        " machine to serve it"
                    )
                recording = parse(devices, template.size)
                # From now on its chunks are kept, unless it was changed before.
                template.use()
                return recording, template
            except BaseException:
                template.close()
                raise

        recording, template = await asyncio.to_thread(look)
        return Opened(recording, TemplateMemory(template))

    def _leave(self, name: str, opened: Opened) -> None:
        """One clone less is served from a template, which may be deleted after the last one."""
        opened.clones -= 1
        if not opened.clones:
            opened.memory.rest()
            loop = asyncio.get_running_loop()
            opened.closing = loop.call_later(_KEEP, self._close, name, opened)

    def _close(self, name: str, opened: Opened) -> None:
        del self._opened[name]
        self._closings.add(task := asyncio.ensure_future(opened.memory.close()))
        task.add_done_callback(self._closings.discard)


class _Served:
    """One clone, over all its connections.

    Args:
        request: see `memd.pages.servers`.
        holder: holds the connection to its monitor as well.
        reach: where it may be.
        channel: to the daemon.
    """

    def __init__(self, request: Message, holder: Holder, reach: Reach, channel: Channel) -> None:
        self._request = request
        self._id: int = request["id"]
        self._qmp: str | None = request.get("qmp")
        # Where the clone could make its monitor's socket it can make another.
        self._uri: str = request.get("uri") or f"unix:{self._qmp}.pages"
        self._page_sizes: list[int] = request.get("page-sizes", [])
        self._recovering: bool = request.get("recover", False)
        self._record: bool = request.get("record", False)
        self._holder = holder
        self._reach = reach
        self._channel = channel
        self._monitor: CloneMonitor | None = None
        self._connection: CloneConnection | None = None
        self._sender: Sender | None = None
        self._began = time.monotonic()
        self._ran_after: float | None = None
        self._counts = SentCounts()
        self._asked = array("I")

    def hurry(self) -> None:
        """Send all there is: the daemon that could recover the clone has gone."""
        self._record = False
        if self._sender is not None and self._connection is not None:
            self._sender.push()
            self._connection.wake()

    async def close(self) -> None:
        """Leave its monitor."""
        if self._monitor is not None:
            self._monitor.close()
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._holder.drop, self._id)

    async def run(self, opened: Opened, note: int) -> str:
        """Serve it to its end; gives the outcome (QAPI `TemplateOutcome`).

        Args:
            note: its file, or -1.

        Raises:
            QMPError: it could not be served.
        """
        if not self._record:
            # It will be needed by when the machine waits for it.
            opened.memory.fetch_ahead(opened.working_set)
        if self._qmp is not None:
            try:
                self._monitor = await self._find_monitor(self._qmp)
            except QMPError as error:
                if not self._recovering:
                    raise
                if not await asyncio.to_thread(self._reach.listens, self._qmp):
                    return "left"
                raise QMPError(
                    f"the machine can't be recovered, and has to be ended: {error.desc}"
                ) from None
        recording = opened.recording
        if not self._page_sizes and "page-size" in self._request:
            self._page_sizes = [self._request["page-size"]] * len(recording.memory)
        if self._monitor is not None and not self._recovering:
            await self._prepare_machine(self._monitor, recording, note)
        self._page_sizes = self._page_sizes or opened.page_sizes
        return await self._send_to_end(opened)

    async def _prepare_machine(
        self, monitor: CloneMonitor, recording: Recording, note: int
    ) -> None:
        """See that the machine is like the template's, and have it wait for its content.

        Raises:
            QMPError: it is another, or does not.
        """
        names = [block.name.decode("ascii", "replace") for block in recording.memory]
        # At once: each answer comes after a turn of QEMU's main loop.
        asked = [monitor.check_machine(recording.machine)]
        if "uri" not in self._request:
            asked.append(monitor.allow_postcopy())
        sizes, _ = await asyncio.gather(
            asyncio.gather(*map(monitor.page_size, names)), asyncio.gather(*asked)
        )
        self._page_sizes = self._page_sizes or sizes
        # It may not be able to tell when it has to be recovered.
        noted = {**self._request, "page-sizes": self._page_sizes}
        await asyncio.to_thread(_write, note, noted)
        if "uri" not in self._request:
            await monitor.listen(self._uri)

    async def _send_to_end(self, opened: Opened) -> str:
        """Send all of it, also after the connection broke; gives the outcome.

        Raises:
            QMPError: the machine can't be reached, or ends, or pauses again and again.
        """
        futile = 0
        while True:
            if self._recovering and self._monitor is not None:
                found = await self._monitor.recover(self._uri)
                if found != "paused":
                    return found
            before = self._counts.bytes
            try:
                await self._send(opened)
            except OSError:
                if not self._has_run:
                    raise QMPError(
                        f"the QEMU at {self._uri} ended before it ran: it says why on its standard"
                        f" error{self._versions(opened)}"
                    ) from None
            else:
                return "complete"
            if self._monitor is None:
                return "lost"
            futile = 0 if self._counts.bytes > before + _FEW else futile + 1
            if futile > _RECOVERIES:
                raise QMPError("the clone pauses again and again")
            self._recovering = True

    async def _find_monitor(self, path: str) -> CloneMonitor:
        """Its monitor, by the connection that an earlier process had if there is one.

        Raises:
            QMPError: it can't be reached.
        """
        held = -1
        if self._recovering:
            with contextlib.suppress(OSError):
                held = await asyncio.to_thread(self._holder.take, self._id)
        if held >= 0:
            monitor = CloneMonitor.adopt(path, held)
        else:
            monitor = await CloneMonitor.connect(path, self._reach)
        try:
            await asyncio.to_thread(self._holder.keep, self._id, monitor)
        except OSError as failed:
            log.warning("the monitor %s is held by this process alone: %s", path, failed)
        return monitor

    async def _send(self, opened: Opened) -> None:
        """Serve it over one connection.

        Raises:
            OSError: the connection is lost.
            QMPError: it could not be served.
        """
        sender = Sender(
            opened.recording,
            opened.memory,
            self._page_sizes,
            opened.ranges,
            self._counts,
            on_demand=self._record,
            recover=self._recovering,
        )
        sock = await self._reach.connect(self._uri)
        self._channel.send({"id": self._id, "page-sizes": self._page_sizes})
        connection = CloneConnection(sender, sock)
        self._sender, self._connection = sender, connection
        opened.memory.on_ready.add(connection.wake)
        told = seen = 0
        quiet = connected = time.monotonic()
        try:
            while not (await asyncio.wait((connection.ended,), timeout=REPORTS))[0]:
                if not sender.goes_on and time.monotonic() - connected > LOADING:
                    raise QMPError(f"the QEMU at {self._uri} has not begun within {LOADING:.0f} s")
                if told != self._counts.bytes:
                    self._see_running(sender)
                    told = self._counts.bytes
                    told_of = {**self.report(), "map": sender.picture()}
                    self._channel.send({"id": self._id, **told_of})
                if self._record and len(sender.asked) == seen:
                    if time.monotonic() - quiet > QUIET:
                        self.hurry()
                else:
                    seen, quiet = len(sender.asked), time.monotonic()
            await connection.ended
        finally:
            self._see_running(sender)
            self._asked += sender.asked
            self._sender = self._connection = None
            opened.memory.on_ready.discard(connection.wake)
            connection.close()

    def _versions(self, opened: Opened) -> str:
        """The difference of versions that may be why a QEMU does not take a template's devices."""
        saved = opened.memory.template.manifest.qemu_version
        if self._monitor is None or not saved or self._recovering:
            return ""
        here = self._monitor.version
        return "" if here == saved else f"; the template is of QEMU {saved}, and it is {here}"

    @property
    def _has_run(self) -> bool:
        return self._recovering or self._ran_after is not None

    def _see_running(self, sender: Sender) -> None:
        if sender.running and not self._has_run:
            self._ran_after = sender.ran_at - self._began

    def report(self) -> Message:
        """The report on it so far."""
        ran = {} if self._ran_after is None else {"ran-after": self._ran_after}
        return {**vars(self._counts), **ran}

    def learnt(self) -> str:
        """The pages that were asked for, each once, in base64 of 32-bit numbers."""
        pages = array("I", dict.fromkeys(self._asked))
        return base64.b64encode(pages.tobytes()).decode("ascii")


def _lock(path: str) -> int:
    """A clone's file, locked for as long as this process serves it; -1 if it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _write(fd: int, message: Message) -> None:
    if fd < 0:
        return
    data = json.dumps(message).encode()
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def main(arguments: list[str]) -> None:
    """Serve until the daemon has ended."""
    number, told = arguments
    settings = json.loads(told)
    logging.basicConfig(format="memd: %(message)s")
    # What is sent makes many small objects and no circles; what is imported stays.
    gc.disable()
    gc.freeze()
    # As many machines are served as docs/limits.md says.
    with contextlib.suppress(OSError):
        raise_limit()
    sock = socket.socket(fileno=int(number))
    holder = Holder(Path(settings["directory"]) / "serving")
    reach = Reach(settings["roots"], tcp=settings["tcp"])
    store = Store(settings["directory"], readonly=True, sources=settings["sources"])

    async def run() -> None:
        await Process(sock, store, holder, reach).run()

    asyncio.run(run())
    # Fetching that is under way is given up.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
