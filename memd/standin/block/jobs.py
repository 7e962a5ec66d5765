"""The register of jobs: states, what may be asked of a job in which, and the events.

A job has nothing to copy: it becomes ready or is done as soon as it starts.
Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Callable

from memd.errors import QMPError, is_identifier
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.places import Share
from memd.standin.block.blocks import Blocks
from memd.standin.block.dirty_bitmap import Bitmap
from memd.standin.block.job_nodes import JobNodes
from memd.work import Command, Event, Events

_LONGEST_ERROR = 1024
"""Characters of why a job has failed."""

_ACTIVE = ("running", "paused", "ready", "standby")
_VERBS = {
    "cancel": (*_ACTIVE, "pending"),
    "pause": _ACTIVE,
    "set-speed": _ACTIVE,
    "complete": ("ready", "standby"),
    "finalize": ("pending",),
    "dismiss": ("concluded",),
}
"""In which states a job takes a command; in any it may be resumed, if it was paused."""

Work = Callable[[Callable[[Event], None]], Command[None]]
"""Does what a job is for while that runs; given what tells of an event."""

Finish = Callable[[bool], Command[None]]
"""Does what a job is for; told whether it was completed and not cancelled when it was ready."""


class Task(NamedTuple):
    """The work of a job.

    Attributes:
        kind: QAPI's `JobType`.
        id: the job's.
        args: the command's.
        nodes: those that it uses, or None.
        length: what there is to do.
        end: "ready" where a client completes it, "running" where one cancels it, or
            "pending" where it ends by itself.
        finish: does it; None where there is nothing to do.
        error: why it fails, or None.
        bitmap: the dirty bitmap that it uses, or None.
        work: what it does first, or None.
    """

    kind: str
    id: str
    args: JSONObject
    nodes: JobNodes | None = None
    length: int = 0
    end: str = "pending"
    finish: Finish | None = None
    error: str | None = None
    bitmap: Bitmap | None = None
    work: Work | None = None

    async def release(self) -> None:
        """Keep others from nothing that it uses any more."""
        if self.bitmap is not None:
            self.bitmap.busy = False
        if self.nodes is not None:
            await self.nodes.end()


def changes(id: str, *statuses: str) -> Events:
    """What is told of a job that has these states, one after the other."""
    return tuple(Event("JOB_STATUS_CHANGE", {"status": each, "id": id}) for each in statuses)


class _Job:
    """A job that a client has started."""

    def __init__(self, task: Task, share: Share) -> None:
        args = task.args
        self.id = task.id
        self.counted = share
        self.task = task
        self.is_block = task.kind != "create" and not task.kind.startswith("snapshot")
        self.keeps_result = not args.get("auto-dismiss", self.is_block)
        self.waits = not args.get("auto-finalize", True)
        self.speed = args.get("speed", 0)
        self.error: str | None = None
        if task.error is not None:
            self.fail(task.error)
        self.pauses = self.completes = self.ends = False
        self.pivots = True
        self.syncs = args.get("copy-mode") == "write-blocking"
        self.events: list[Event] = []
        self.go("created")

    def go(self, status: str) -> None:
        self.status = status
        self.events += changes(self.id, status)

    def fail(self, why: str) -> None:
        # It may repeat what was sent, and `query-jobs` tells of all jobs.
        self.error = why[:_LONGEST_ERROR]

    @property
    def offset(self) -> int:
        return 0 if self.task.end == "running" else self.task.length

    def tell(self, name: str, **more: JSON) -> None:
        if self.is_block:
            data = {"device": self.id, "len": self.task.length, "offset": self.offset}
            data |= {"speed": self.speed, "type": self.task.kind}
            self.events.append(Event(name, {**data, **more}))


class Jobs:
    """The jobs of a stand-in.

    Args:
        blocks: the nodes that they are about.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._jobs: dict[str, _Job] = {}

    def check(self, id: str, args: JSONObject) -> None:
        """Raise `QMPError` where there can't be a job of that id with these arguments."""
        if not is_identifier(id):
            raise QMPError(f"Invalid job ID '{id}'")
        if id in self._jobs:
            raise QMPError(f"Job ID '{id}' already in use")
        _check_speed(args.get("speed", 0))

    async def start(self, task: Task) -> Events:
        """Start a job, and have it do what it can.

        Raises:
            QMPError: there can't be one; another may have come since `check`.
        """
        self.check(task.id, task.args)
        self._blocks.check_open()
        share = self._blocks.account.charge({"id": task.id, **task.args})
        job = self._jobs[task.id] = _Job(task, share)
        job.go("running")
        if task.kind == "backup":
            job.go("paused")
            job.go("running")
        if task.work is not None:
            job.ends = True
            try:
                await task.work(job.events.append)
            except QMPError as error:
                job.fail(error.desc)
            job.ends = False
        if job.error is not None:
            await self._complete(job)
        elif task.end == "ready":
            job.go("ready")
            job.tell("BLOCK_JOB_READY")
        elif task.end == "pending":
            await self._wait(job)
        return _taken(job)

    async def _wait(self, job: _Job) -> None:
        """It has done all but its last step."""
        job.go("waiting")
        job.go("pending")
        if not job.waits:
            await self._finish(job)
        elif job.is_block:
            job.events.append(Event("BLOCK_JOB_PENDING", {"type": job.task.kind, "id": job.id}))

    async def _finish(self, job: _Job) -> None:
        try:
            if job.task.finish is not None:
                job.ends = True
                await job.task.finish(job.pivots)
        except QMPError as error:
            job.fail(error.desc)
        await self._complete(job)

    async def _complete(self, job: _Job) -> None:
        """It is over by itself."""
        if job.error is None:
            job.tell("BLOCK_JOB_COMPLETED")
        else:
            job.go("aborting")
            job.tell("BLOCK_JOB_COMPLETED", error=job.error)
        await self._end(job)

    async def _end(self, job: _Job) -> None:
        # No client may dismiss it before its nodes are free.
        job.ends = True
        job.go("concluded")
        task = job.task
        # A stream keeps commands from its nodes until it is dismissed.
        if task.kind == "stream" and task.nodes is not None and job.keeps_result:
            task.nodes.finish()
            await self._blocks.relock(refuse=False)
        else:
            await task.release()
        job.ends = False
        if not job.keeps_result:
            await self._remove(job)

    async def close(self) -> None:
        """Count none any more."""
        for job in self._jobs.values():
            job.counted.end()

    async def _remove(self, job: _Job) -> None:
        job.go("null")
        del self._jobs[job.id]
        job.counted.end()
        if job.task.nodes is not None:
            await job.task.nodes.end()

    def _find(self, id: str, verb: str, *, block: bool) -> _Job:
        job = self._jobs.get(id)
        if job is None or (block and not job.is_block):
            if block:
                raise QMPError(f"Block job '{id}' not found", "DeviceNotActive")
            raise QMPError("Job not found")
        if job.ends or job.status not in _VERBS.get(verb, (job.status,)):
            raise QMPError(
                f"Job '{id}' in state '{job.status}' cannot accept command verb '{verb}'"
            )
        return job

    async def command(self, command: str, args: JSONObject) -> Events:
        """`job-VERB` and `block-job-VERB`.

        Args:
            command: one of these; VERB is pause, resume, cancel, complete, finalize or dismiss.
            args: its arguments.

        Raises:
            QMPError: there is no such job, or it does not take that now.
        """
        block, verb = command.startswith("block-"), command.rpartition("-")[2]
        job = self._find(args["device"] if "device" in args else args["id"], verb, block=block)
        # Whether a job that is ready is given up, and not ended as it is.
        force = args.get("force", not block)
        match verb:
            case "pause":
                _pause(job)
            case "resume":
                await self._resume(job)
            case "cancel":
                await self._cancel(job, force)
            case "complete" if job.pauses:
                job.completes = True
            case "complete":
                await self._wait(job)
            case "finalize":
                await self._finish(job)
            case "dismiss":
                await self._remove(job)
        return _taken(job)

    async def _resume(self, job: _Job) -> None:
        if not job.pauses:
            raise QMPError("Can't resume a job that was not paused")
        _go_on(job)
        if job.completes:
            await self._wait(job)

    async def _cancel(self, job: _Job, force: bool) -> None:
        if job.pauses and not force:
            raise QMPError(f"The block job for device '{job.id}' is currently paused")
        _go_on(job)
        if job.status == "ready" and not force:
            job.pivots = False
            await self._wait(job)
        else:
            job.fail("Operation canceled")
            job.go("aborting")
            job.tell("BLOCK_JOB_CANCELLED")
            await self._end(job)

    def set_speed(self, args: JSONObject) -> None:
        """`block-job-set-speed`; raises `QMPError`."""
        job = self._find(args["device"], "set-speed", block=True)
        _check_speed(args["speed"])
        job.speed = args["speed"]

    def change(self, args: JSONObject) -> None:
        """`block-job-change`; raises `QMPError`."""
        job = self._find(args["id"], "change", block=True)
        if job.task.kind != "mirror":
            raise QMPError("Job type does not support change")
        if args["copy-mode"] == "background":
            raise QMPError("Change to copy mode 'background' is not implemented")
        job.syncs = True

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-jobs`."""
        return [
            {
                "id": job.id,
                "type": job.task.kind,
                "status": job.status,
                "current-progress": job.offset if job.is_block else 1,
                "total-progress": job.task.length if job.is_block else 1,
                **({} if job.error is None else {"error": job.error}),
            }
            for job in reversed(self._jobs.values())
        ]

    def query_block(self, args: object = None) -> list[JSON]:
        """The value of `query-block-jobs`."""
        return [
            {
                "type": job.task.kind,
                "device": job.id,
                "len": job.task.length,
                "offset": job.offset,
                "busy": False,
                "paused": job.pauses or (job.status == "pending" and job.task.end == "ready"),
                "speed": job.speed,
                "io-status": "ok",
                "ready": job.status in ("ready", "standby"),
                "status": job.status,
                "auto-finalize": not job.waits,
                "auto-dismiss": not job.keeps_result,
                **({} if job.error is None else {"error": job.error}),
                **({"actively-synced": job.syncs} if job.task.kind == "mirror" else {}),
            }
            for job in reversed(self._jobs.values())
            if job.is_block
        ]


def _check_speed(speed: int) -> None:
    if speed < 0:
        raise QMPError("Parameter 'speed' expects a non-negative value")


def _pause(job: _Job) -> None:
    if job.pauses:
        raise QMPError("Job is already paused")
    job.pauses = True
    job.go("paused" if job.status == "running" else "standby")


def _go_on(job: _Job) -> None:
    if job.pauses:
        job.pauses = False
        job.go("running" if job.status == "paused" else "ready")


def _taken(job: _Job) -> Events:
    events = tuple(job.events)
    job.events.clear()
    return events
