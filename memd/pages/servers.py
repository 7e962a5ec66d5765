"""Starts, commands and replaces the processes that serve pages (`memd.pages.serving`).

A process is started for the first clone, or ahead of it if there are templates; at
most one a core. It outlives the daemon, and serves its clones to their end. Each clone
has a file in the store's directory, which the process that serves it has locked; the
next daemon recovers clones whose file is not locked.

A request has `id` and `template`, and may have `uri`, `qmp`, `file`, `page-size`,
`page-sizes` (of each block, once they are known), `record` and `recover`. The process
answers with messages of the same `id`: one once it is connected, reports while it
serves, and one with an `outcome` at the end.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import logging
import os
import subprocess
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memd.errors import QMPError
from memd.json_types import JSON
from memd.pages import processes
from memd.pages.blobs import replace
from memd.pages.channel import Channel, Message
from memd.pages.postcopy import SentCounts
from memd.places import ANYBODY, SHARE, Places, current_user, whom
from memd.work import Completion, Emit, Event

log = logging.getLogger("memd")

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs in a thread what may wait for the file system; gives what it returns or raises."""

MOST = 1024
"""Clones served at once at most. Each takes a descriptor and a byte for each of its pages."""

_TOLD = ("pages", "bytes", "ran-after", "map")
"""Members of a report that QMP clients are told."""

_AHEAD = 0.1
"""Seconds after the start until a process is started ahead, so that its clients come first."""

_PAUSE = 0.2
"""Seconds between looks at a clone that a process of an earlier daemon serves."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of processes that serve.

    Attributes:
        directory: the template store's.
        sources: URLs of where chunks are that it has not.
        roots: directories below which clones' sockets have to be, none for anywhere.
        tcp: whether clones may be on other hosts.
    """

    directory: str
    sources: Sequence[str] = ()
    roots: Sequence[str] = ()
    tcp: bool = False


class Clone:
    """A clone that is being served.

    Args:
        directory: where it is noted.
        begun: happens once it is connected to, or can't be; None where nobody waits for that.

    Attributes:
        number: which one.
        request: what the process was told.
        file: where it is noted.
        begun: as above; None once it is connected to.
        refusal: why it can't be connected to, or None.
        report: what the process last told of it.
    """

    def __init__(
        self, number: int, request: Message, directory: Path, begun: Completion | None = None
    ) -> None:
        self.number = number
        self.request = request
        self.file = directory / f"{number}.json"
        self.begun = begun
        self.refusal: QMPError | None = None
        self.report: Message = {}
        if "qmp" in request:
            request["file"] = str(self.file)

    @property
    def name(self) -> str:
        """The template's name."""
        return str(self.request["template"])

    @property
    def user(self) -> int:
        """The user whose client had it served."""
        return int(self.request.get("user", ANYBODY))

    def describe(self) -> dict[str, JSON]:
        """It as QMP tells of it (QAPI `TemplateClone`)."""
        told: dict[str, JSON] = {
            key: self.request[key] for key in ("uri", "qmp") if key in self.request
        }
        return {
            **told,
            "pages": SentCounts().pages,
            "bytes": 0,
            **{key: self.report[key] for key in _TOLD if key in self.report},
        }


class Totals(SentCounts):
    """Pages and bytes that all clones were sent.

    Attributes:
        clones: how many are being served.
        outcomes: how many clones came to which end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clones = 0
        self.outcomes = Counter[str]()

    def add(self, report: Message) -> None:
        """Add what a process told of a clone."""
        for cause, count in report.get("pages", {}).items():
            self.pages[cause] += count
        for at, count in enumerate(report.get("waits", ())):
            self.waits[at] += count
        self.bytes += report.get("bytes", 0)
        self.waited += report.get("waited", 0.0)


class _Process:
    """A process that serves, and the clones that it has."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        take: Callable[[_Process, Message], None],
        ended: Callable[[_Process], None],
    ) -> None:
        self.popen = popen
        self.clones: dict[int, Clone] = {}
        self.channel = Channel(partial(take, self), partial(ended, self))


class Servers:
    """The processes that serve pages.

    Args:
        settings: what processes that serve are told.
        emit: sends events to all clients.
        learnt: stores a template's working set.
        in_thread: see `InThread`.
        most: processes at most; None for one a core.

    Attributes:
        clones: those that are being served, by number.
    """

    def __init__(
        self,
        settings: Settings,
        emit: Emit,
        learnt: Callable[[str, array[int]], None],
        in_thread: InThread = asyncio.to_thread,
        most: int | None = None,
    ) -> None:
        self._settings = settings
        self._serving = Path(settings.directory) / "serving"
        self._emit = emit
        self._in_thread = in_thread
        # However many clones there are, a store that stalls holds one thread for their files.
        self._one_at_a_time = asyncio.Lock()
        self._learnt = learnt
        self._most = most or len(os.sched_getaffinity(0))
        self._processes: list[_Process] = []
        self._starting: asyncio.Task[_Process] | None = None
        self._ahead: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # What is being written of clones that have ended.
        self._ending: set[asyncio.Task[None]] = set()
        self._last = 0
        self._closed = False
        self.clones: dict[int, Clone] = {}
        self._places = Places(MOST, SHARE)
        self._totals = Totals()

    def totals(self) -> Totals:
        """The sums so far, those of clones that are being served included."""
        totals = deepcopy(self._totals)
        totals.clones = len(self.clones)
        for clone in self.clones.values():
            totals.add(clone.report)
        return totals

    def prepare(self) -> None:
        """Start a process for the next clone, if there is none."""
        if not self._processes:
            self._begin_starting()

    def prepare_soon(self) -> None:
        """The same, once the daemon serves clients: its imports take some 0.1 s."""
        self._ahead = asyncio.get_running_loop().call_later(_AHEAD, self.prepare)

    async def serve(self, request: Message) -> None:
        """Serve a clone; the command ends once it is connected to.

        Args:
            request: its `template`, and `uri`, `qmp`, `page-size` and `record`
                where they are given.

        Raises:
            QMPError: it can't be served.
        """
        user = current_user()
        if not self._places.has_free_place(user):
            raise QMPError(
                f"{self._places.of(user)} clones are being served for {whom(user)}; no more are"
            )
        self._last += 1
        begun = Completion()
        clone = Clone(self._last, {**request, "user": user}, self._serving, begun)
        self._count(clone)
        self._run(self._begin(clone))
        await begun
        if clone.refusal is not None:
            raise clone.refusal

    def _count(self, clone: Clone) -> None:
        self.clones[clone.number] = clone
        self._places.take(clone.user)

    async def resume(self) -> None:
        """Take over the clones of an earlier daemon."""
        for clone in await self._in_thread(self._left):
            self._last = max(self._last, clone.number)
            self._count(clone)
            self._run(self._take_over(clone))

    def _left(self) -> list[Clone]:
        found = []
        for file in sorted(self._serving.glob("*.json")):
            try:
                request = json.loads(file.read_bytes())
                number, _template = int(file.stem), request["template"]
            except (OSError, ValueError, TypeError, KeyError) as damaged:
                # The host has crashed while it was written.
                log.warning("%s says nothing of a clone, and is removed: %r", file, damaged)
                file.unlink(missing_ok=True)
                continue
            found.append(Clone(number, request, self._serving))
        return found

    async def _take_over(self, clone: Clone) -> None:
        """Wait until no process serves a clone; recover it if it is not complete then."""
        while (noted := await self._with_file(partial(_noted, clone.file))) is None:
            await asyncio.sleep(_PAUSE)
        if "outcome" in noted:
            clone.report = noted if "pages" in noted else {}
            self._learn(clone, noted)
            self._ended(clone, noted["outcome"], noted.get("error"))
        else:
            clone.request["recover"] = True
            await self._place(clone)

    async def close(self) -> None:
        """Disconnect from the processes; they go on until their clones are complete."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        unfinished = {*self._ending, *([self._starting] if self._starting else [])}
        if unfinished:
            await asyncio.wait(unfinished)
        for process in self._processes:
            process.channel.close()
            # It is left alone: the process that inherits it reaps it.
            process.popen.returncode = 0

    async def _with_file(self, work: Callable[[], Any]) -> Any:
        """Do something with the file of a clone."""
        async with self._one_at_a_time:
            return await self._in_thread(work)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        _keep(self._tasks, coroutine)

    async def _begin(self, clone: Clone) -> None:
        if "qmp" in clone.request:
            # Without a monitor there is no way to recover it.
            try:
                await self._with_file(partial(self._note, clone))
            except OSError as failed:
                reason = os.strerror(failed.errno or 0)
                self._ended(clone, "failed", f"cannot write {clone.file}: {reason}")
                return
        await self._place(clone)

    def _note(self, clone: Clone) -> None:
        self._serving.mkdir(mode=0o700, exist_ok=True)
        replace(str(clone.file), json.dumps(clone.request).encode(), sync=False)

    async def _place(self, clone: Clone) -> None:
        """Give a clone to the process that has the fewest."""
        try:
            process = await self._choose()
        except OSError as failed:
            reason = failed.strerror or failed
            self._ended(clone, "failed", f"cannot start a process that serves pages: {reason}")
            return
        process.clones[clone.number] = clone
        process.channel.send({"id": clone.number, **clone.request})

    async def _choose(self) -> _Process:
        idle = min(self._processes, key=lambda each: len(each.clones), default=None)
        if idle is None or (idle.clones and len(self._processes) < self._most):
            starting = self._begin_starting()
            if idle is None:
                return await starting
        return idle

    def _begin_starting(self) -> asyncio.Task[_Process]:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)
        return self._starting

    def _started(self, done: asyncio.Task[_Process]) -> None:
        self._starting = None
        if not done.cancelled() and done.exception() is not None and self._processes:
            log.warning("cannot start a process that serves pages: %s", done.exception())

    async def _start(self) -> _Process:
        settings = json.dumps(asdict(self._settings))
        here, popen = await self._in_thread(partial(processes.start, "serving", settings))
        process = _Process(popen, self._take, self._lost)
        await process.channel.open(here)
        self._processes.append(process)
        return process

    def _lost(self, process: _Process) -> None:
        """A process has ended by itself."""
        self._processes.remove(process)
        if not self._closed:
            self._run(self._replace(process))

    async def _replace(self, process: _Process) -> None:
        status = await self._in_thread(partial(_wait, process.popen))
        log.error("a process that serves pages has ended with status %s", status)
        for clone in process.clones.values():
            if "qmp" in clone.request and clone.begun is None:
                clone.request["recover"] = True
                await self._place(clone)
            else:
                self._ended(clone, "lost", "the process that served it has ended")

    def _take(self, process: _Process, message: Message) -> None:
        clone = process.clones[message["id"]]
        if "page-sizes" in message:
            # It may not be able to tell when it has to be recovered.
            clone.request["page-sizes"] = message["page-sizes"]
        if "pages" in message:
            clone.report = message
        if "outcome" in message:
            del process.clones[clone.number]
            self._learn(clone, message)
            self._ended(clone, message["outcome"], message.get("error"))
        elif clone.begun is not None:
            begun, clone.begun = clone.begun, None
            begun.set()

    def _learn(self, clone: Clone, message: Message) -> None:
        if "working-set" in message:
            pages = array("I")
            pages.frombytes(base64.b64decode(message["working-set"]))
            self._learnt(clone.name, pages)

    def _ended(self, clone: Clone, outcome: str, error: str | None) -> None:
        _keep(self._ending, self._end(clone, outcome, error))

    async def _end(self, clone: Clone, outcome: str, error: str | None) -> None:
        if "qmp" in clone.request:
            try:
                await self._with_file(partial(clone.file.unlink, missing_ok=True))
            except OSError as failed:
                log.warning("cannot remove %s: %s", clone.file, failed.strerror)
        del self.clones[clone.number]
        self._places.give_back(clone.user)
        report = clone.describe()
        report.pop("map", None)
        self._totals.add(clone.report)
        self._totals.outcomes[outcome] += 1
        if error is not None:
            log.warning("serving a clone of '%s': %s", clone.name, error)
        if clone.begun is not None:
            # Its client is told.
            clone.refusal = QMPError(error or "the clone can't be served")
            clone.begun.set()
            return
        told = {"name": clone.name, **report, "outcome": outcome}
        if error is not None:
            told["error"] = error
        self._emit((Event("X_TEMPLATE_SERVED", told),))


def _keep(tasks: set[asyncio.Task[None]], coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine as a task, which is among these until its end."""
    tasks.add(task := asyncio.ensure_future(coroutine))
    task.add_done_callback(tasks.discard)


def _noted(file: Path) -> Message | None:
    """The note of a clone, once no process serves it; None until then."""
    try:
        with file.open("rb") as note:
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
            noted: Message = json.load(note)
            return noted
    except BlockingIOError:
        return None
    except (OSError, ValueError):
        return {"outcome": "left"}


def _wait(popen: subprocess.Popen[bytes]) -> int:
    try:
        return popen.wait(5)
    except subprocess.TimeoutExpired:
        popen.kill()
        return popen.wait()
