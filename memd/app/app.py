"""Composition: from a parsed command line to a daemon that serves.

The order is QEMU's: the monitors' sockets first, so that a client may connect
from then on; then the objects of the command line; then the processes that wait are told
that the daemon is ready.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from memd import backends
from memd.app.access import open_audit, open_roots
from memd.app.ending import Step, take_each
from memd.app.ports import Ports
from memd.app.signals import Signals
from memd.backends.base import MemoryBackend
from memd.backends.secret import is_credential
from memd.commands.control import greeting, shutdown_event
from memd.commands.daemon import Daemon
from memd.commands.dispatcher import Dispatcher
from memd.config import Chardev, Config, StartCommand
from memd.errors import QMPError, StartError, answer_to, shortage, starting
from memd.hostmem.writer import LineWriter
from memd.json_types import JSONObject
from memd.places import USER
from memd.qom import Quota, Tree
from memd.server.hub import Hub
from memd.server.limits import LimitedLog, Limits
from memd.server.listener import END_PATIENCE
from memd.session import Dispatch
from memd.work import Command, Completion

if TYPE_CHECKING:
    from memd.app.machine_builder import MachineBuilder
    from memd.app.metrics import Metrics
    from memd.commands.audit import Audit
    from memd.commands.metering import Meter
    from memd.hostmem.paths import Roots
    from memd.pages.pools import Pools
    from memd.persist.service_manager import ServiceManager

log = logging.getLogger("memd")

WATCH = 2.0
"""Seconds between two looks at whether there are huge pages enough (`--commit strict`)."""

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end the daemon with status 0, as they end QEMU."""

_DESCRIPTORS = 8
"""Files that have to be open at once to start, and to serve a client."""


class App:
    """The daemon while it runs: its state, its clients, its sockets."""

    _roots: Roots | None = None
    _machine_builder: MachineBuilder | None = None
    _meter: Meter | None = None
    _audit: Audit | None = None
    _pools: Pools | None = None
    _watching: asyncio.Future[None] | None = None
    _metrics: Metrics | None = None
    _manager: ServiceManager | None = None

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._tree = Tree(config.compat)
        self._tree.prealloc = config.mem_prealloc
        backends.register(self._tree)
        self._tree.objects.quota = Quota(**config.quota)
        self._daemon = Daemon(self._tree, config)
        self._set_machine()
        self._hub = self._make_hub(self._wrapped(self._dispatcher()))
        objects = self._tree.objects
        objects.account.descriptors = objects.quota.descriptors = self._hub.kept
        machine = self._daemon.machine
        machine.emit = self._hub.broadcast
        machine.later = loop.call_later
        machine.spawn = lambda command, what: self._hub.spawn(command, what, USER.get())
        self._daemon.shut_down = self._hub.shut_down
        self._daemon.fail = self._hub.fail
        self._daemon.start_again = partial(self._in_task, self._reset)
        self._resetting = asyncio.Lock()
        self._ports = Ports(config, loop, self._tree, self._hub, self._complete_line)
        # A path or an abstract name; what else a manager may listen on is not spoken to.
        if config.stored or os.environ.get("NOTIFY_SOCKET", "")[:1] in ("/", "@"):
            from memd.persist.service_manager import ServiceManager

            self._manager = ServiceManager(
                loop, self._tree, self._run, config.stored, accept_loss=config.accept_loss
            )
            self._daemon.lost = self._manager.lost

    def _make_hub(self, dispatch: Dispatch) -> Hub:
        config = self._config
        make: Callable[..., Hub] = Hub
        if config.test_faults:
            from memd.faulty.injection import faulty_hub

            lifelines = [
                each.id or each.chardev.id for each in config.monitors if not each.chardev.server
            ]
            make = partial(faulty_hub, self._daemon, config.test_control, lifelines)
        limits = Limits(**config.limits)
        return make(self._loop, dispatch, lambda: greeting(self._daemon), config.compat, limits)

    def _wrapped(self, dispatch: Dispatch) -> Dispatch:
        """The dispatcher in what measures commands and records them, as far as that is asked for.

        Raises:
            StartError: the audit can't be opened.
        """
        config = self._config
        if config.metrics is not None:
            from memd.commands.metering import Meter

            dispatch = self._meter = Meter(dispatch, self._daemon)
        if (sink := open_audit(config.audit)) is not None:
            from memd.commands.audit import Audit

            dispatch = self._audit = Audit(
                dispatch,
                self._daemon,
                sink,
                self._loop,
                # The hub is there once it is needed.
                lambda command, what: self._hub.spawn(command, what),
                LimitedLog(self._loop).warn,
            )
        return dispatch

    def _complete_line(self, line: str) -> Iterable[str]:
        from memd.commands.hmp import names_for

        return names_for(self._daemon, line)

    def _set_machine(self) -> None:
        if self._config.machine_kind is not None:
            from memd.app.machine_builder import MachineBuilder

            self._machine_builder = MachineBuilder(self._daemon)

    def _dispatcher(self) -> Dispatcher:
        """The dispatcher.

        Raises:
            StartError: the catalogue can't be read.
        """
        if self._config.unmodelled is None:
            return Dispatcher(self._daemon)
        from memd.commands.standin import StandInDispatcher

        self._set_standin()
        return StandInDispatcher(self._daemon)

    def _set_standin(self) -> None:
        from memd.standin.standin import StandIn

        machine = self._daemon.machine
        with starting():
            standin = self._daemon.standin = StandIn(self._daemon)
        machine.add_other = lambda args: standin.add_device(machine, args)
        if self._config.globals:
            machine.made = lambda device: standin.globals.apply(device)

    async def run(self, ready: Callable[[], None]) -> None:
        """Start, tell `ready`, and serve until the end.

        Raises:
            StartError: something on the command line cannot be done.
        """
        actions: dict[int, Callable[[], None]] = dict.fromkeys(END_SIGNALS, self._on_signal)
        # Else what reloads a unit ended a daemon that has no manager.
        actions[signal.SIGUSR1] = (lambda: None) if self._manager is None else self._manager.reload
        # It ends what a thread waits for, and means nothing else.
        actions[signal.SIGURG] = lambda: None
        signals = Signals(self._loop, actions)
        # Nobody may read them, and the loop is not to wait for that.
        lines = LineWriter(2, b"lines are lost: nobody read them")
        self._config.report.write = lines.write
        self._hub.hold()
        try:
            starting = asyncio.ensure_future(self._start())
            self._hub.ended.add_done_callback(lambda _reason: starting.cancel())
            await asyncio.wait({starting})
            if not starting.cancelled():
                starting.result()
                self._hub.release()
                if self._manager is not None:
                    self._manager.ready()
                lines.flush(END_PATIENCE)
                ready()
                # Not before the greeting, and while there are descriptors to read it.
                self._loop.call_soon(self._load_schema)
                await self._hub.ended
        except StartError as error:
            if self._manager is not None:
                self._manager.failed(error.text)
            raise
        finally:
            await self._close()
            self._config.report.write = None
            lines.flush(END_PATIENCE)
            signals.close()

    def _load_schema(self) -> None:
        try:
            _ = self._daemon.schema
        except (OSError, ImportError) as error:
            # The first command tries again.
            log.warning("cannot read the schema: %s", error)

    async def _start(self) -> None:
        config, manager = self._config, self._manager
        try:
            self._hub.prepare()
        except RuntimeError:
            raise StartError(f"cannot start a thread: {os.strerror(errno.EAGAIN)}") from None
        if manager is not None:
            manager.open()
        if config.accels:
            from memd.app.machine_builder import choose_accelerator

            self._daemon.accel = choose_accelerator(config)
        if config.commit == "strict":
            self._tree.ledger.strict = True
            self._watching = asyncio.ensure_future(self._watch_huge_pages())
        if config.mem_roots:
            self._roots = await self._hub.in_thread(partial(open_roots, config.mem_roots))
        # Monitors may need TLS credentials, these a secret, and nothing else here.
        if manager is not None:
            await manager.restore(credentials=True, roots=self._roots)
        await self._make_credentials()
        if config.metrics is not None and self._meter is not None:
            await self._open_metrics(config.metrics, self._meter)
        if config.templates is not None:
            await self._open_templates(config.templates)
        await self._ports.open()
        if manager is not None:
            await manager.restore(credentials=False)
        await self._make_everything()
        if manager is not None:
            await manager.commit()
        if config.pools:
            self._pools = self._open_pools()

    async def _make_credentials(self) -> None:
        for options in self._config.objects:
            if is_credential(options["qom-type"]):
                await self._make_object(options)
        # What the command line says of credentials is not confined, all else is.
        if self._roots is not None:
            self._tree.host.roots = self._roots

    async def _make_everything(self) -> None:
        """Make all that the command line describes, monitors and credentials excepted."""
        config = self._config
        for options in config.objects:
            if not is_credential(options["qom-type"]):
                await self._make_object(options)
        if config.startup:
            await self._register(config.startup)
        if self._daemon.nodes is None:
            await self._complete()
        else:
            self._daemon.complete = partial(self._in_task, self._complete)

    async def _complete(self) -> None:
        """Make the machine; clients find it running, or awaiting another one."""
        if self._config.making is not None:
            await self._register([self._config.making])
        if self._machine_builder is not None:
            await self._machine_builder.assemble(self._make_object, self._run)
        if self._daemon.standin is not None:
            self._daemon.standin.warn()
        machine = self._daemon.machine
        if self._config.loading is not None:
            await self._register([self._config.loading])
        machine.started = True
        machine.set_running(self._daemon.run_state == "running")
        if self._config.incoming is not None:
            await self._register([self._config.incoming])

    async def _in_task(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do what is waited for in a task, which commands are not; raises `QMPError`."""

        async def do() -> None:
            # What the command line says counts for nobody, also where a client has it done.
            USER.set(None)
            await work()

        done = Completion()
        task = asyncio.ensure_future(do())
        task.add_done_callback(lambda _task: done.set())
        await done
        try:
            task.result()
        except StartError as error:
            raise QMPError(error.text) from None

    async def _reset(self) -> None:
        """Be as at the start, but for the monitors and their clients.

        One at a time: the next finds everything made.

        Raises:
            QMPError: not everything could be made again, or an object has to stay.
            StartError: the same.
        """
        async with self._resetting:
            daemon, tree = self._daemon, self._tree
            daemon.reset()
            if daemon.standin is not None:
                await self._run(daemon.standin.close())
                self._set_standin()
            for each in tree.objects.each():
                if isinstance(each, MemoryBackend):
                    each.mapped_by = None
                    if each.shown is not None:
                        each.shown.place(None)
            left = await self._run(tree.objects.delete_every())
            if left:
                raise QMPError(f"these objects can't be deleted: {', '.join(left)}")
            self._ports.forget_names()
            self._set_machine()
            if self._roots is not None:
                tree.host.roots = None
            await self._make_credentials()
            await self._make_everything()

    async def _register(self, commands: list[StartCommand]) -> None:
        """Run the commands that options of a stand-in stand for; raises `StartError`."""
        from memd.commands.standin import at_start

        for each in commands:
            with starting(each.where, each.failed):
                await self._run(at_start(self._daemon, each))

    async def _watch_huge_pages(self) -> None:
        """Say that others have taken huge pages which memory here may claim."""
        ledger = self._tree.ledger
        while True:
            await asyncio.sleep(WATCH)
            try:
                short = await self._hub.in_thread(ledger.lacking)
            except QMPError:
                # Nothing here tells how many there are.
                return
            if short == self._tree.shortage:
                continue
            self._tree.shortage = short
            self._status_changed()
            if short:
                log.warning("%s: a write may end in SIGBUS", short)
            else:
                log.info("there are huge pages enough again")

    def _open_pools(self) -> Pools:
        from memd.pages.pools import RESERVE, Pools

        config, objects = self._config, self._tree.objects
        reserve = RESERVE if config.pool_reserve is None else config.pool_reserve
        with starting("--pool"):
            objects.pools = pools = Pools(
                self._tree, config.pools, reserve, self._hub.in_thread, self._status_changed
            )
        return pools

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def _status_changed(self) -> None:
        if self._manager is not None:
            self._manager.status_changed()

    async def _open_templates(self, directory: str) -> None:
        from memd.pages.templates import Templates, open_store

        config, hub = self._config, self._hub
        opening = open_store(directory, config.template_sources, config.template_cache)
        with starting(f"--templates {directory}"):
            store, is_used = await self._run(opening)
        self._daemon.templates = templates = Templates(
            store,
            hub.broadcast,
            hub.in_thread,
            hub.spawn,
            roots=config.mem_roots,
            tcp=config.insecure_tcp,
        )
        await templates.servers.resume()
        if is_used:
            templates.servers.prepare_soon()

    async def _open_metrics(self, address: Chardev, meter: Meter) -> None:
        try:
            from memd.app.metrics import Metrics
        except ImportError as error:
            hint = "the extra metrics brings it: in memd's source tree, pip install '.[metrics]'"
            raise StartError(f"--metrics needs {error.name}", address.where, hint) from None
        self._metrics = Metrics(self._loop, self._hub, self._daemon, meter, self._run)
        with starting(address.where):
            await self._metrics.open(address)

    async def _make_object(self, options: JSONObject) -> None:
        if self._manager is not None and self._manager.has(options):
            return
        with starting():
            await self._run(self._tree.objects.create(options))

    async def _run(self, command: Command[Any]) -> Any:
        """Run a command; a `memd.work.Run`. It raises `QMPError` only."""
        done = self._hub.begin(command)
        if not done.done() and self._manager is not None:
            self._manager.ask_for_time(done)
        try:
            return await done
        except QMPError:
            # The caller tells of it, with its hint.
            raise
        except Exception as error:
            raise answer_to(error, getattr(command, "__qualname__", "a command")) from None

    def _on_signal(self) -> None:
        if not self._hub.ended.done():
            self._hub.broadcast((shutdown_event("host-signal"),))
            self._hub.shut_down("host-signal")

    async def _close(self) -> None:
        """Free everything. A step that fails is logged and stops no other."""
        manager, metrics, templates = self._manager, self._metrics, self._daemon.templates
        pools, audit, standin = self._pools, self._audit, self._daemon.standin
        steps: tuple[Step | None, ...] = (
            manager.stopping if manager else None,
            self._ports.stop,
            metrics.close if metrics else None,
            self._hub.close,
            pools.close if pools else None,
            self._stop_watching,
            lambda: self._hub.end_jobs(backends.give_up),
            self._ports.close,
            manager.end if manager else None,
            lambda: self._run(backends.close_all(self._tree, self._hub.start)),
            # The processes go on serving for the next daemon.
            templates.servers.close if templates else None,
            templates.store.close if templates else None,
            (lambda: self._run(standin.store())) if standin else None,
            self._daemon.fdsets.close,
            self._roots.close if self._roots else None,
            # They may wait for a file system, but not for long.
            (lambda: self._hub.in_thread(standin.end, END_PATIENCE)) if standin else None,
            (lambda: self._hub.in_thread(audit.close, END_PATIENCE)) if audit else None,
        )
        await take_each(steps)


def run(config: Config, ready: Callable[[], None] = lambda: None) -> int:
    """Run the daemon until it is told to end; `END_SIGNALS` do nothing from then on.

    Args:
        config: the parsed command line.
        ready: told once clients are served and every object is there.

    Returns:
        the exit status: 0 after `quit` or a signal, 1 where it could not start.
    """

    async def main() -> None:
        await App(config, asyncio.get_running_loop()).run(ready)

    try:
        _check_descriptors()
        asyncio.run(main())
    except StartError as error:
        for text, hint in ((error.text, error.hint), (error.failed, None)):
            if text:
                config.report.error(text, error.where, hint)
        return 1
    except (OSError, MemoryError) as error:
        lack = shortage(error)
        if lack is None:
            raise
        config.report.error(f"cannot start: {lack.desc}")
        return 1
    finally:
        # They do nothing from here on, until the interpreter ends: that takes some
        # milliseconds yet, in which it would have them kill the process.
        atexit.register(_ignore_signals)
    return 0


def _check_descriptors() -> None:
    """See that enough files can be opened to start and to serve somebody; raises `OSError`."""
    opened: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            opened.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    finally:
        for fd in opened:
            os.close(fd)


def _ignore_signals() -> None:
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
