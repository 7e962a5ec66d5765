"""Composition: from a parsed command line to a daemon that serves.

The order is QEMU's: the monitors' sockets first, so that a client may connect
from then on; then the objects of the command line; then whoever waits is told
that the daemon is ready.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd import backends
from memd.app.accelerators import choose_accelerator
from memd.app.errors import StartError
from memd.app.ports import Ports
from memd.commands.control import greeting, shutdown_event
from memd.commands.daemon import Daemon
from memd.commands.dispatcher import Dispatcher
from memd.errors import QMPError
from memd.outcome import JSON, Blocking
from memd.qom import Tree
from memd.server.hub import Hub

if TYPE_CHECKING:
    from memd.cli.config import Config

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end the daemon with status 0, as they end QEMU."""


class App:
    """The daemon while it runs: its state, its clients, its sockets."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._tree = Tree(config.compat)
        backends.register(self._tree)
        self._daemon = Daemon(
            self._tree,
            config.compat,
            name=config.name,
            uuid=config.uuid,
            run_state="prelaunch" if config.stopped or config.preconfig else "running",
            preconfig=config.preconfig,
            autostart=not config.stopped,
            deny_private_discard=config.deny_private_discard,
        )
        self._hub = Hub(
            loop, Dispatcher(self._daemon), lambda: greeting(self._daemon), config.compat
        )
        self._ports = Ports(config, loop, self._tree, self._hub)

    async def run(self, ready: Callable[[], None]) -> None:
        """Start, tell `ready`, and serve until the end.

        Raises:
            StartError: something on the command line cannot be done.
        """
        for number in END_SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)
        self._hub.hold()
        try:
            starting = asyncio.ensure_future(self._start())
            self._hub.ended.add_done_callback(lambda _reason: starting.cancel())
            await asyncio.wait({starting})
            if not starting.cancelled():
                starting.result()
                self._hub.release()
                ready()
                # Not before the greeting, and while there are descriptors to read it.
                self._loop.call_soon(lambda: self._daemon.schema)
                await self._hub.ended
        finally:
            await self._close()

    async def _start(self) -> None:
        config = self._config
        if config.accels:
            self._daemon.accel = choose_accelerator(config)
            self._daemon.kvm_enabled = self._daemon.accel == "kvm"
        # Monitors may need TLS credentials, and nothing else that is made here.
        for options in config.objects:
            if options["qom-type"].startswith("tls-creds"):
                await self._make_object(options)
        await self._ports.open()
        for options in config.objects:
            if not options["qom-type"].startswith("tls-creds"):
                await self._make_object(options)

    async def _make_object(self, options: dict[str, JSON]) -> None:
        try:
            job = backends.create(self._tree, options)
        except QMPError as error:
            raise StartError(error.desc, hint=error.hint) from None
        if job is None:
            return
        result = await self._run_job(job)
        if isinstance(result, QMPError):
            raise StartError(result.desc, hint=result.hint)

    async def _run_job(self, job: Blocking) -> JSON:
        done: asyncio.Future[JSON] = self._loop.create_future()

        def end(result: JSON) -> None:
            if not done.cancelled():
                done.set_result(result)

        self._hub.start_job(job, end)
        return await done

    def _on_signal(self) -> None:
        if not self._hub.ended.done():
            self._hub.broadcast((shutdown_event("host-signal"),))
            self._hub.shut_down("host-signal")

    async def _close(self) -> None:
        self._ports.stop()
        await self._hub.close()
        await self._hub.settle(backends.give_up)
        self._ports.close()
        backends.close_all(self._tree)
        self._daemon.fdsets.close()


def run(config: Config, ready: Callable[[], None] = lambda: None) -> int:
    """Run the daemon until it is told to end.

    Args:
        config: the parsed command line.
        ready: told once clients are served and every object is there.

    Returns:
        the exit status: 0 after `quit` or a signal, 1 where it could not start.
    """

    async def main() -> None:
        await App(config, asyncio.get_running_loop()).run(ready)

    try:
        asyncio.run(main())
    except StartError as error:
        config.report.error(error.text, error.where, error.hint)
        return 1
    return 0
