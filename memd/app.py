"""Composition: from a parsed command line to a daemon that serves.

The order is QEMU's: the monitors' sockets first, so that a client may connect
from then on; then the objects of the command line; then whoever waits is told
that the daemon is ready.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd import backends, qom
from memd.backends.tls_creds import TLSCredentials
from memd.commands.control import greeting, shutdown_event
from memd.commands.daemon import Daemon
from memd.commands.dispatcher import Dispatcher
from memd.compat import Compat
from memd.errors import QMPError
from memd.outcome import JSON, Blocking
from memd.qom import Tree
from memd.server.dialer import Dialer
from memd.server.endpoint import (
    address_of,
    ends_of,
    is_loopback,
    open_fd,
    open_tcp,
    open_unix,
)
from memd.server.hub import Hub
from memd.server.listener import Listener
from memd.server.stream import StdioStream
from memd.session import Monitor

if TYPE_CHECKING:
    from memd.cli.config import Chardev, Config, MonitorSpec
    from memd.server.qtest import QTest
    from memd.server.tls import TLSPort

Adopt = Callable[[socket.socket], "asyncio.Future[bool] | None"]
"""Takes a connection; a future, where it is yet to be seen whether it can be served."""

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end the daemon with status 0, as they end QEMU."""


class StartError(Exception):
    """The daemon cannot start.

    Args:
        text: the message for standard error.
        where: the option and its argument that are at fault, or "".
        hint: what may follow on a line of its own, or None.
    """

    def __init__(self, text: str, where: str = "", hint: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.hint = hint


class ObjectMonitor(Monitor):
    """A monitor that is seen in the object tree, with its character device."""

    __slots__ = ("_chardev", "on_alone")

    def __init__(self, tree: Tree, spec: MonitorSpec, chardev: qom.Chardev) -> None:
        super().__init__(spec.id or spec.chardev.id, pretty=spec.pretty)
        self._chardev = chardev
        # Told when the last client has left.
        self.on_alone: Callable[[], None] = lambda: None
        if tree.compat is not Compat.V10_0:
            seen = qom.Monitor(tree, self.id, spec.chardev.id, spec.pretty)
            seen.on_pretty = self._set_pretty
            tree.attach(seen)

    def _set_pretty(self, pretty: bool) -> None:
        self.pretty = pretty

    def client_came(self) -> None:
        """See `Monitor`."""
        super().client_came()
        self._chardev.connected = True

    def client_left(self) -> None:
        """See `Monitor`."""
        super().client_left()
        self._chardev.connected = self.clients > 0
        if not self.clients:
            self.on_alone()


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
        self._listeners: list[Listener] = []
        self._monitors: list[Monitor] = []
        self._dialers: list[Dialer] = []
        # Connections that no monitor sits on: held, and never read.
        self._unused: list[socket.socket] = []
        self._tls_ports: list[TLSPort] = []
        self._qtest: QTest | None = None

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
            self._daemon.accel = _choose_accelerator(config)
            self._daemon.kvm_enabled = self._daemon.accel == "kvm"
        if config.qtest is not None:
            await self._open_qtest(config.qtest)
        # Monitors may need TLS credentials, and nothing else that is made here.
        for options in config.objects:
            if options["qom-type"].startswith("tls-creds"):
                await self._make_object(options)
        for spec in config.monitors:
            await self._open_monitor(spec)
        used = {spec.chardev.id for spec in config.monitors}
        for chardev in config.chardevs:
            if chardev.id not in used:
                seen = self._add_chardev(chardev, used=False)
                # Who comes finds nothing served, and is let go.
                adopt = socket.socket.close if chardev.server else self._unused.append
                await self._open_chardev(chardev, seen, adopt)
        for options in config.objects:
            if not options["qom-type"].startswith("tls-creds"):
                await self._make_object(options)

    async def _open_monitor(self, spec: MonitorSpec) -> None:
        if spec.mode != "control":
            raise StartError("only monitors in control mode (QMP) are served", spec.where)
        seen = self._add_chardev(spec.chardev, used=True)
        monitor = ObjectMonitor(self._tree, spec, seen)
        self._monitors.append(monitor)
        seen.on_yank = lambda: self._hub.disconnect(monitor)
        if spec.kind == "stdio":
            self._hub.serve(StdioStream(), monitor)
        else:
            adopt: Adopt = lambda client: self._hub.adopt(client, monitor)  # noqa: E731
            if spec.tls_creds is not None:
                adopt = self._tls_port(spec.chardev, seen, monitor).start
            dialer = await self._open_chardev(spec.chardev, seen, adopt)
            if dialer is not None:
                monitor.on_alone = dialer.dial

    async def _open_qtest(self, chardev: Chardev) -> None:
        from memd.server.qtest import QTest, QTestLog

        if chardev.kind == "stdio":
            raise StartError("the qtest protocol is spoken on sockets only")
        if chardev.tls_creds is not None:
            raise StartError("the qtest protocol is spoken in clear only")
        seen = self._add_chardev(chardev, used=True)
        dialer: Dialer | None = None

        def changed(connected: bool) -> None:
            seen.connected = connected
            if dialer is not None and not connected:
                dialer.dial()

        path = self._config.qtest_log
        try:
            log = QTestLog(path)
        except OSError as error:
            raise StartError(f"could not open '{path}': {os.strerror(error.errno or 0)}") from None
        self._qtest = QTest(self._loop, log, changed)
        seen.on_yank = self._qtest.cut
        dialer = await self._open_chardev(chardev, seen, self._qtest.adopt)

    def _add_chardev(self, chardev: Chardev, *, used: bool) -> qom.Chardev:
        backend = chardev.kind if chardev.kind in ("stdio", "null") else "socket"
        seen = qom.Chardev(self._tree, backend)
        seen.server = chardev.server
        seen.used = used
        if chardev.kind == "tcp":
            seen.addr = {"type": "inet", "host": chardev.host, "port": chardev.port}
        elif backend == "socket":
            seen.addr = {"type": "unix", "path": chardev.path}
        self._tree.chardevs.add_child(chardev.id, seen)
        return seen

    async def _open_chardev(
        self, chardev: Chardev, seen: qom.Chardev, adopt: Adopt
    ) -> Dialer | None:
        """Listen or connect; every client's socket goes to `adopt`.

        Returns:
            what connects again once the connection is lost, where that is wanted.
        """
        if chardev.kind in ("stdio", "null"):
            return None

        def greet(sock: socket.socket) -> asyncio.Future[bool] | None:
            if chardev.tls_creds is None:
                seen.ends = ends_of(sock)
            return adopt(sock)

        def came(sock: socket.socket) -> None:
            greet(sock)

        dialer = self._make_dialer(chardev, came) if chardev.reconnect else None
        try:
            sock = self._open_socket(chardev)
        except QMPError as error:
            if dialer is None:
                raise StartError(error.desc, chardev.where, error.hint) from None
            dialer.refused(error)
            return dialer
        if chardev.server or chardev.kind == "fd":
            seen.addr = address_of(sock)
        if not chardev.server:
            came(sock)
            return dialer
        if chardev.wait:
            self._config.report.info(
                f"QEMU waiting for connection on: disconnected:{chardev.describe()}",
                chardev.where,
            )
            sock.setblocking(False)
            while True:
                client, _address = await self._loop.sock_accept(sock)
                greeted = greet(client)
                if greeted is None or await greeted:
                    break
        made_path = os.path.abspath(chardev.path) if chardev.kind == "unix" else None
        self._listeners.append(Listener(self._loop, sock, came, made_path=made_path))
        return None

    def _tls_port(self, chardev: Chardev, seen: qom.Chardev, monitor: ObjectMonitor) -> TLSPort:
        from memd.server.tls import TLSPort, TLSStream

        credentials = self._credentials(chardev)

        def served(stream: TLSStream, sock: socket.socket) -> None:
            seen.ends = ends_of(sock)
            self._hub.serve(stream, monitor)

        port = TLSPort(
            self._loop,
            lambda: credentials.context(server=chardev.server),
            None if chardev.server else chardev.host or "localhost",
            served,
            lambda: monitor.on_alone(),
        )
        self._tls_ports.append(port)
        return port

    def _credentials(self, chardev: Chardev) -> TLSCredentials:
        found = self._tree.user_object(chardev.tls_creds or "")
        if not isinstance(found, TLSCredentials):
            text = f"No TLS credentials with id '{chardev.tls_creds}'"
            raise StartError(text, chardev.where)
        return found

    def _make_dialer(self, chardev: Chardev, came: Callable[[socket.socket], None]) -> Dialer:
        def failed(error: QMPError) -> None:
            text = f"Unable to connect character device {chardev.id}: {error.desc}"
            self._config.report.error(text)

        dialer = Dialer(
            self._loop,
            lambda: self._open_socket(chardev),
            came,
            chardev.reconnect / 1000,
            self._hub.start_job,
            failed,
        )
        self._dialers.append(dialer)
        return dialer

    def _open_socket(self, chardev: Chardev) -> socket.socket:
        if chardev.kind == "unix":
            return open_unix(chardev.path, server=chardev.server)
        if chardev.kind == "fd":
            return open_fd(chardev.fd, server=chardev.server)
        sock = open_tcp(chardev.host, chardev.port, server=chardev.server)
        if chardev.server and not self._config.insecure_tcp and not is_loopback(sock):
            if chardev.tls_creds is None:
                whom = "in clear"
            elif self._credentials(chardev).verify_peer:
                return sock
            else:
                whom = "to just anybody"
            sock.close()
            raise QMPError(
                f"refusing to serve QMP {whom} beyond this machine",
                hint="Whoever can connect can read and write files as this user;"
                " --insecure-tcp serves it all the same.",
            )
        return sock

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
        for dialer in self._dialers:
            dialer.close()
        for listener in self._listeners:
            listener.close()
        for port in self._tls_ports:
            port.close()
        await self._hub.close()
        await self._hub.settle(backends.give_up)
        for sock in self._unused:
            sock.close()
        if self._qtest is not None:
            self._qtest.close()
        backends.close_all(self._tree)
        for monitor in self._monitors:
            monitor.close()
        self._daemon.fdsets.close()


def _choose_accelerator(config: Config) -> str:
    """The first of the accelerators asked for that this host has.

    Raises:
        StartError: it has none of them.
    """
    for number, name in enumerate(config.accels):
        refusal = _try_accelerator(name)
        if refusal is None:
            if number:
                config.report.error(f"falling back to {name}")
            return name
        for text in refusal[:-1]:
            config.report.error(text)
        if number + 1 == len(config.accels):
            raise StartError(refusal[-1])
        config.report.error(refusal[-1])
    return "tcg"


def _try_accelerator(name: str) -> list[str] | None:
    """Why an accelerator can't be used, in QEMU's words (10.0.2, 11.1.3), or None."""
    if name not in ("kvm", "mshv"):
        return None
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if name == "kvm":
            return [
                f"Could not access KVM kernel module: {reason}",
                f"failed to initialize kvm: {reason}",
            ]
        return [
            f"Failed to open /dev/mshv: {reason}",
            "failed to initialize mshv: Operation not permitted",
        ]
    return None


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
