"""Migration of a stand-in: its memory goes to another one, or comes from one.

States, events, their order and errors were observed on QEMU
10.0.2 and 11.1.3. A machine that stands still is sent once. One that runs is sent while it
does, and then, once it stands, what has changed since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

from memd.backends.base import MemoryBackend
from memd.backends.file import FileBackend
from memd.compat import Compat
from memd.devices.virtio_mem import VirtioMem
from memd.devices.virtio_pci import VirtioPci
from memd.errors import QMPError
from memd.hostmem.region import Region, job_on
from memd.json_types import JSON, JSONObject
from memd.standin.channels import Channel, Opener, address
from memd.standin.stream import (
    END,
    FULL,
    MORE,
    MORE_THAN_A_PIPE,
    SLICE,
    Block,
    Buffer,
    NotLoaded,
    Reader,
    Writer,
)
from memd.work import Command, Completion, Event, Job, Turn

if TYPE_CHECKING:
    from memd.config import Config
    from memd.devices.kinds import MachineKind
    from memd.devices.machine import Machine
    from memd.qom import Tree
    from memd.standin.chardevs import Sets

log = logging.getLogger("memd")

T = TypeVar("T")

Save = Callable[[Callable[[Buffer], int]], None]
"""Writes the state of a machine by a function that takes bytes, and says how many."""

Load = Callable[[Callable[[memoryview], int]], None]
"""Reads it by one that fills what it is given, and says with how many bytes, 0 at the end."""

_IGNORE_SHARED = "x-ignore-shared"
_INTERNAL = "internal error, see the log"
_STATES = (
    *("running", "paused", "prelaunch", "shutdown", "suspended", "watchdog", "guest-panicked"),
    *("io-error", "internal-error", "debug"),
)
"""Run states in which a machine can arrive."""

_ENDING = ("cancelling", "failing")
_PATIENCE = 1.0
"""Seconds that a migration, once it is cancelled, waits for what is being written."""
_UNDER_WAY = ("setup", "active", "pre-switchover", "device", "postcopy-active", *_ENDING)


class Host(Protocol):
    """The daemon, as far as a stand-in uses it.

    Attributes:
        tree: the QOM tree.
        config: the parsed command line.
        run_state: whether the machine runs, and why not.
        autostart: whether it runs once it has come.
        migration_capabilities: those that are switched on.
        machine: its memory side.
        machine_kind: which machine it is, None where it is none.
        fail: ends the process with an error.
    """

    tree: Tree
    config: Config
    run_state: str
    autostart: bool
    migration_capabilities: frozenset[str]
    machine: Machine
    machine_kind: MachineKind | None
    fail: Callable[[str], None]

    @property
    def fdsets(self) -> Sets:
        """The descriptor sets of `add-fd`."""


class _Cancelled(Exception):
    """A client has cancelled it."""


class Migration:
    """The migration of a machine, out and in, and what clients are told of it.

    Args:
        host: the daemon.
        parameters: gives those of migration.
        compat: whose events and texts.
        set_active: locks the images of the machine, or leaves them to another one.
        blockers: gives why the machine can't be migrated, as `query-migrate` tells it and as an
            error does; the last one is that of the error.
    """

    outgoing = incoming = "none"
    _error: str | None = None
    _incoming_error: str | None = None
    # Whether no machine has come or was awaited yet.
    _may_come = True
    _channel: Channel | None = None
    _awaited: Channel | None = None
    _writer: Writer | None = None
    _pause: Completion | None = None
    # The end of what is being written, and what wakes who waits for that.
    _written: Completion | None = None
    _waits: Completion | None = None
    _given_up = _continue = _urgent = False
    _began = _stopped = 0.0
    # The run state before it was stopped to be sent.
    _stopped_from: str | None = None
    _setup = _took = _downtime = _syncs = 0

    def __init__(
        self,
        host: Host,
        parameters: Callable[[], JSONObject],
        compat: Compat,
        set_active: Callable[[bool], Command[None]],
        blockers: Callable[[], Sequence[tuple[str, str]]],
    ) -> None:
        self._host = host
        self._set_active = set_active
        self._blockers = blockers
        self._compat = compat
        self._machine_name = "none" if host.machine_kind is None else host.machine_kind.name
        self._parameters = parameters
        self._addresses: list[JSON] = []

    # What is told

    def query(self, args: object = None) -> JSONObject:
        """The value of `query-migrate`."""
        told: JSONObject = {}
        blockers = self._blockers()
        if blockers:
            told["blocked-reasons"] = [reason for reason, _ in blockers]
        if self.incoming != "none":
            told["status"] = self.incoming
            if self._addresses and self.incoming in ("setup", "active"):
                told["socket-address"] = self._addresses
            if self._incoming_error is not None:
                told["error-desc"] = self._incoming_error
        if self.outgoing == "none":
            return told
        told["status"] = self.outgoing
        if self._error is not None:
            told["error-desc"] = self._error
        if self.outgoing in ("setup", "failing", "failed", "cancelled"):
            return told
        if self.outgoing == "completed":
            told["downtime"] = self._downtime
        else:
            told["expected-downtime"] = self._parameters()["downtime-limit"]
            self._took = _milliseconds(self._began)
        told |= {"setup-time": self._setup, "total-time": self._took}
        if self._writer is not None:
            told["ram"] = ram = _ram(self._writer, self._took, self._syncs)
            if self._compat is not Compat.V10_0 and self.is_under_way:
                told["remaining"] = ram["remaining"]
        return told

    def _become(self, status: str) -> None:
        self.outgoing = status
        self._host.machine.migrating = self.is_under_way
        self._tell(status)

    def _become_incoming(self, status: str) -> None:
        self.incoming = status
        self._tell(status)

    def _tell(self, status: str) -> None:
        self._emit("MIGRATION", {"status": status})

    def _emit(self, name: str, data: JSONObject) -> None:
        if "events" in self._host.migration_capabilities:
            self._host.machine.emit((Event(name, data),))

    def _sync(self) -> None:
        self._syncs += 1
        # Since QEMU 11, of the passes alone that follow the first one.
        if self._compat is Compat.V10_0 or self._syncs > 1:
            self._emit("MIGRATION_PASS", {"pass": self._syncs})

    @property
    def is_under_way(self) -> bool:
        """Whether the machine is being sent."""
        return self.outgoing in _UNDER_WAY

    def check_blocked(self) -> None:
        """Raise `QMPError` where a device keeps the machine from being migrated, or saved."""
        for _, error in self._blockers()[-1:]:
            raise QMPError(error)

    # Going

    async def send(self, args: JSONObject, opener: Opener) -> None:
        """`migrate`: begin to send the machine.

        Raises:
            QMPError: it can't be sent now, or not to there.
        """
        where = address(args, self._compat)
        if self.is_under_way:
            raise QMPError("There's a migration process in progress")
        if self._host.run_state == "inmigrate":
            raise QMPError("Guest is waiting for an incoming migration")
        if self._host.run_state == "postmigrate":
            raise QMPError("Can't migrate the vm that was paused due to previous migration")
        self.check_blocked()
        if self._parameters()["tls-creds"]:
            raise QMPError("memd migrates in clear only, and 'tls-creds' is set")
        self._error, self._writer, self._channel = None, None, None
        self._stopped_from = None
        self._continue = self._urgent = False
        self._began, self._syncs = monotonic(), 0
        self._become("setup")
        channel: Channel | None = None
        try:
            if where["transport"] != "socket" or where["type"] == "fd":
                channel = await opener.open(where, write=True)
        except Exception as error:
            self._fail(error.desc if isinstance(error, QMPError) else _INTERNAL)
            self._have_failed()
            raise

        async def connect() -> Channel:
            return channel or await opener.open(where, write=True)

        self._host.machine.spawn(self._send(connect()), "a migration")

    async def _send(self, connected: Command[Channel]) -> None:
        blocks = self._blocks()
        for each in blocks:
            each.region.pin()
        done = False
        why: str | None = _INTERNAL
        try:
            # The answer goes first.
            await Turn()
            self._channel = await connected
            self._check()
            self._writer = writer = self._writer_of(blocks)
            changes = await self._send_memory(writer)
            await self._switch_over()
            await self._send_rest(writer, changes=changes, pipe=self._channel.pipe)
            done, why = True, None
        except _Cancelled:
            why = None
        except QMPError as error:
            why = error.desc
            log.error("%s", why)
        except OSError as error:
            kind = "socket" if self._channel is None else self._channel.kind
            why = f"Unable to write to {kind}: {error.strerror}"
            log.error("%s", why)
        finally:
            channel, self._channel = self._channel, None
            await self._release(blocks, channel, kill=not done)
            # Who is told that it has failed may begin another one.
            if why is not None and self.outgoing not in _ENDING:
                self._fail(why)
            if done:
                self._complete()
            else:
                await self._run_again()
            self._have_failed()
            if self.outgoing == "cancelling":
                self._become("cancelled")
            if channel is not None:
                await channel.ended()

    async def _send_memory(self, writer: Writer) -> bool:
        """Send the memory once; whether it may have changed meanwhile, as the machine ran."""
        self._setup = _milliseconds(self._began)
        self._sync()
        self._become("active")
        await self._push(writer)
        runs = self._host.run_state == "running"
        writer.go_through(remember=runs)
        await self._push(writer, limited=True)
        if self._compat is not Compat.V10_0:
            self._sync()
        return runs

    async def _switch_over(self) -> None:
        """Stop the machine, and leave its images to the other one."""
        host = self._host
        self._stopped_from, self._stopped = host.run_state, monotonic()
        host.run_state = "finish-migrate"
        if self._stopped_from == "running":
            host.machine.emit((Event("STOP"),))
        if "pause-before-switchover" in host.migration_capabilities:
            self._become("pre-switchover")
            while not self._continue:
                await self._wait()
        self._become("device")
        await self._set_active(False)
        if self._compat is Compat.V10_0:
            self._sync()

    async def _send_rest(self, writer: Writer, *, changes: bool, pipe: bool) -> None:
        """Send what has changed since the memory was sent, and the devices.

        Args:
            changes: whether the machine ran when the memory was sent.
            pipe: whether it is sent through a pipe.
        """
        if changes or self._stopped_from == "running":
            writer.go_through(remember=False)
            await self._push(writer)
        # Incus hands a pipe over while the rest of a state waits to go into it.
        least = MORE_THAN_A_PIPE if pipe else 0
        rest = {"run-state": self._stopped_from, "devices": self._devices()}
        writer.finish(rest, least=least)
        await self._push(writer)

    async def _release(self, blocks: list[Block], channel: Channel | None, *, kill: bool) -> None:
        """Close what the machine was sent by."""

        writer, written = self._writer, self._written

        def release() -> None:
            if writer is not None:
                writer.close()
            for each in blocks:
                each.region.unpin()
            if channel is not None:
                channel.close(kill=kill)

        async def release_then() -> None:
            if written is not None:
                await written
            await Job(release)

        if written is None:
            await release_then()
        else:
            self._written = None
            self._host.machine.spawn(release_then(), "the end of a migration")

    def _complete(self) -> None:
        """The machine has gone."""
        self._took = _milliseconds(self._began)
        self._downtime = _milliseconds(self._stopped)
        self._host.run_state = "postmigrate"
        self._become("completed")

    async def _run_again(self) -> None:
        """The machine has not gone: it is as it was before it was stopped for that."""
        host, before = self._host, self._stopped_from
        if before is not None and host.run_state == "finish-migrate":
            host.run_state = before
            if before == "running":
                host.machine.emit((Event("RESUME"),))
            await self._activate()

    async def _push(self, writer: Writer, *, limited: bool = False) -> None:
        """Send what there is.

        Args:
            limited: whether not faster than clients want it to be.
        """
        channel = self._channel
        assert channel is not None
        debt, came_to = 0.0, MORE
        while came_to != END:
            rate = self._parameters()["max-bandwidth"] if limited and not self._urgent else 0
            most = max(1, min(rate // 10, SLICE)) if rate else SLICE
            before, since = writer.cost, monotonic()
            came_to = await self._write(partial(writer.push, channel.fd, most))
            if came_to == FULL:
                await channel.ready(write=True)
            debt += writer.cost - before
            while limited and debt > 0:
                rate = self._parameters()["max-bandwidth"]
                debt -= rate * (monotonic() - since)
                since = monotonic()
                if not rate or self._urgent:
                    debt = 0
                elif debt > 0:
                    await self._wait(min(debt / rate, 1.0))
            self._check()

    async def _write(self, work: Callable[[], int]) -> int:
        """Write something in a thread.

        It is left behind where the migration is cancelled and it does not end: another process
        that has the descriptor may have made it wait, or the file system.
        """
        outcome: list[int | Exception] = []
        written, waits = self._written, self._waits = Completion(), Completion()

        async def run() -> None:
            try:
                outcome.append(await Job(work))
            except Exception as failed:
                outcome.append(failed)
            written.set()
            waits.set()

        self._host.machine.spawn(run(), "a migration")
        await waits
        self._waits = None
        if outcome:
            self._written = None
        self._check()
        (value,) = outcome
        if isinstance(value, Exception):
            raise value
        return value

    async def _wait(self, seconds: float | None = None) -> None:
        """Wait for so long, or until something has happened to it."""
        self._pause = Completion()
        if seconds is not None:
            self._host.machine.later(max(0.0, seconds), self._pause.set)
        await self._pause
        self._pause = None
        self._check()

    def _check(self) -> None:
        if self.outgoing == "cancelling":
            raise _Cancelled

    def _wake(self) -> None:
        if self._pause is not None:
            self._pause.set()
        if self._channel is not None:
            self._channel.interrupt()

    def _fail(self, why: str) -> None:
        self._error = why
        self._become("failed" if self._compat is Compat.V10_0 else "failing")

    def _have_failed(self) -> None:
        if self.outgoing == "failing":
            self._become("failed")

    def cancel(self, args: object = None) -> None:
        """`migrate_cancel`."""
        if self.is_under_way and self.outgoing not in _ENDING:
            self._become("cancelling")
            self._wake()
            if self._waits is not None:
                self._host.machine.later(_PATIENCE, self._waits.set)

    async def close(self) -> None:
        """End what is under way, either way."""
        self.cancel()
        self._given_up = True
        if self._awaited is not None:
            self._awaited.interrupt()

    def remove_names(self) -> None:
        """Remove the socket at which a machine is awaited: the process ends. May wait."""
        if self._awaited is not None:
            self._awaited.remove_name()

    def go_on(self, args: JSONObject) -> None:
        """`migrate-continue`; raises `QMPError` where it is in no such state."""
        state = args["state"]
        if self.outgoing != state:
            raise QMPError(f"Migration not in expected state: {self.outgoing}")
        if state == "pre-switchover":
            self._continue = True
            self._wake()

    def hurry(self, args: object = None) -> None:
        """`migrate-start-postcopy`: send as fast as can be; raises `QMPError`."""
        if "postcopy-ram" not in self._host.migration_capabilities:
            raise QMPError(
                "Enable postcopy with migrate_set_capability before the start of migration"
            )
        if self.outgoing == "none":
            raise QMPError("Postcopy must be started after migration has been started")
        self._urgent = True
        self._wake()

    # Into an image, and from one

    async def save(self, put: Callable[[Save], T], on: frozenset[int], was: str) -> T:
        """Have the machine's state written somewhere, and give what comes of that.

        Args:
            put: is given, in a thread, what writes it by the function that it is given.
            on: what that may wait for; see `Job.on`.
            was: the run state of the machine.
        """
        blocks = self._blocks()
        writer, devices = self._writer_of(blocks), self._devices()

        def drain(write: Callable[[Buffer], int]) -> None:
            while writer.push_into(write, SLICE) != END:
                pass

        def save(write: Callable[[Buffer], int]) -> None:
            drain(write)
            writer.go_through(remember=False)
            drain(write)
            told_state = was if was in _STATES else "paused"
            writer.finish({"run-state": told_state, "devices": devices})
            drain(write)

        return await job_on(_regions(blocks), lambda: put(save), on=on, heavy=True)

    async def load(self, take: Callable[[Load], None], on: frozenset[int]) -> None:
        """Have the machine's state read from somewhere.

        Args:
            take: is given, in a thread, what reads it by the function that it is given.
            on: what that may wait for.

        Raises:
            NotLoaded: it can't be loaded.
        """
        blocks = self._blocks()
        reader = Reader(self._check_header, blocks)

        def load(read: Callable[[memoryview], int]) -> None:
            while not reader.pull_from(read):
                pass

        await job_on(_regions(blocks), lambda: take(load), on=on, heavy=True)
        self._take_devices(reader.state or {})

    # Coming

    async def receive(self, args: JSONObject, opener: Opener) -> None:
        """`migrate-incoming`: await a machine.

        Raises:
            QMPError: none is to come, or not from there.
        """
        if not self._may_come:
            raise QMPError("The incoming migration has already been started")
        if self._host.run_state != "inmigrate":
            raise QMPError("'-incoming' was not specified on the command line")
        where, exits = address(args, self._compat), args.get("exit-on-error", True)
        if self.incoming != "none":
            raise QMPError(f"Illegal migration incoming state: {self.incoming}")
        self._become_incoming("setup")
        channel = await opener.open(where, write=False)
        self._may_come = False
        self._addresses = channel.listening
        self._host.machine.spawn(self._receive(channel, exits), "an incoming migration")

    async def _receive(self, channel: Channel, exits: bool) -> None:
        host = self._host
        blocks: list[Block] = []
        try:
            self._awaited = channel
            while channel.listening:
                if not await self._is_ready(channel):
                    return
                listening, come = channel, channel.accept()
                if come is not None:
                    # It counts as a part of what waited for it.
                    come.share, listening.share = listening.share, None
                    self._awaited = channel = come
                    await Job(listening.close)
            # The answer goes first.
            await self._wait(0.0)
            self._become_incoming("active")
            blocks = self._blocks()
            for each in blocks:
                each.region.pin()
            reader = Reader(self._check_header, blocks)
            while not await Job(lambda: reader.pull(channel.fd)):
                if not await self._is_ready(channel):
                    return
            was = self._take_devices(reader.state or {})
            if was == "running" and not (host.autostart and await self._activate()):
                was = "paused"
            host.run_state = was
            if was == "running":
                host.machine.emit((Event("RESUME"),))
            self._become_incoming("completed")
        except NotLoaded as error:
            self._incoming_error = error.told(self._compat)
            if str(error) not in self._incoming_error:
                log.error("%s", error)
            self._become_incoming("failed")
            if exits:
                host.fail(self._incoming_error)
        finally:

            def release() -> None:
                for each in blocks:
                    each.region.unpin()
                channel.close()

            await Job(release)
            await channel.ended()

    async def _is_ready(self, channel: Channel) -> bool:
        """Wait until more may have come; False where none is awaited any more."""
        if not self._given_up:
            await channel.ready()
        return not self._given_up

    async def _activate(self) -> bool:
        """Lock the images of the machine; whether nobody else has them."""
        try:
            await self._set_active(True)
        except QMPError as error:
            log.error("%s", error.desc)
            return False
        return True

    def _check_header(self, header: JSONObject) -> None:
        if header["machine"] != self._machine_name:
            raise _other_machine(
                f"Machine type received is '{header['machine']}' and local is"
                f" '{self._machine_name}'"
            )
        here = _IGNORE_SHARED in self._host.migration_capabilities
        if (_IGNORE_SHARED in header["capabilities"]) != here:
            raise _other_machine(
                f"Capability {_IGNORE_SHARED} is {'on' if here else 'off'}, but received"
                f" capability is {'off' if here else 'on'}",
                "Failed to validate capabilities",
            )

    # What goes and comes

    def _writer_of(self, blocks: list[Block]) -> Writer:
        ignores = self._host.migration_capabilities & {_IGNORE_SHARED}
        return Writer({"machine": self._machine_name, "capabilities": [*ignores]}, blocks)

    def _blocks(self) -> list[Block]:
        """The memory that a machine or a device has."""
        ignore = _IGNORE_SHARED in self._host.migration_capabilities
        found = []
        for backend in self._host.machine.tree.objects.children.values():
            if not isinstance(backend, MemoryBackend) or backend.mapped_by is None:
                continue
            region = backend.region
            if region is None:
                continue
            left_out = ignore and backend.share and isinstance(backend, FileBackend)
            carried = region.writable and not left_out
            found.append(Block(backend.memory_name, region, carried=carried))
        return found

    def _devices(self) -> JSONObject:
        """The state of devices besides their memory: a virtio-mem's size and the requested one."""
        return {path: [each.size, each.requested] for path, each in self._virtio_mems()}

    def _take_devices(self, state: JSONObject) -> str:
        """Take over what devices had; gives the run state of the machine that came."""
        try:
            for path, each in self._virtio_mems():
                if path in state["devices"]:
                    size, requested = map(int, state["devices"][path])
                    each.size = min(size, each.front.memory_size)
                    each.requested = min(requested, each.front.memory_size)
            if state["run-state"] not in _STATES:
                raise ValueError
            return str(state["run-state"])
        except (KeyError, TypeError, ValueError):
            raise NotLoaded("the stream is damaged") from None

    def _virtio_mems(self) -> Iterator[tuple[str, VirtioMem]]:
        for device in self._host.machine.plugged:
            if isinstance(device, VirtioPci) and isinstance(device.virtio, VirtioMem):
                yield self._host.machine.tree.path_of(device), device.virtio


def _regions(blocks: list[Block]) -> list[Region]:
    return [each.region for each in blocks]


def _other_machine(why: str, detail: str = "") -> NotLoaded:
    where = "post load hook failed for: configuration, version_id: 1, minimum_version: 0"
    return NotLoaded(why, detail=f"{where}: {detail or why}")


def _milliseconds(since: float) -> int:
    return int((monotonic() - since) * 1000)


def _ram(writer: Writer, took: int, syncs: int) -> JSONObject:
    """QAPI's `MigrationStats`."""
    return {
        "total": writer.total,
        "remaining": writer.total - writer.gone_through,
        "transferred": writer.sent,
        "duplicate": writer.zeroes,
        "normal": writer.normal,
        "normal-bytes": writer.normal * 4096,
        "dirty-pages-rate": 0,
        "mbps": writer.sent * 8 / 1000 / took if took else 0,
        "dirty-sync-count": syncs,
        "postcopy-requests": 0,
        "page-size": 4096,
        "multifd-bytes": 0,
        "pages-per-second": (writer.normal + writer.zeroes) * 1000 // took if took else 0,
        "precopy-bytes": writer.sent,
        "downtime-bytes": 0,
        "postcopy-bytes": 0,
        "dirty-sync-missed-zero-copy": 0,
    }
