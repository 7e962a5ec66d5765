"""Where the daemon is reached: its monitors, and the character devices below them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from memd import qom
from memd.backends.tls_creds import TLSCredentials
from memd.compat import Compat
from memd.config import Allowed, Chardev, Config, MonitorSpec
from memd.errors import QMPError, StartError, refusing, starting
from memd.hostmem.sockets import address_of, ends_of
from memd.qom import Tree
from memd.server.dialer import Dialer
from memd.server.endpoint import is_loopback, open_chardev
from memd.server.hub import Hub
from memd.server.limits import LimitedLog
from memd.server.listener import Listener, SocketFiles
from memd.server.peer import peer_of
from memd.server.stream import StdioStream
from memd.session import Monitor

if TYPE_CHECKING:
    from memd.server.qtest import QTest
    from memd.server.tls import TLSPort

Adopt = Callable[[socket.socket], "asyncio.Future[bool] | None"]
"""Takes a connection; a future, where it is yet to be seen whether it can be served."""

_ONE_WAITS = 1
"""QEMU's backlog: Linux lets one more wait than that, and the next one's connect(2) (listen(2))."""


class ObjectMonitor(Monitor):
    """A monitor that is seen in the object tree, with its character device."""

    def __init__(self, tree: Tree, spec: MonitorSpec, chardev: qom.ChardevObject) -> None:
        super().__init__(
            spec.id or spec.chardev.id,
            pretty=spec.pretty,
            readonly=spec.readonly,
            human=spec.mode == "readline",
        )
        self._chardev = chardev
        # Told when the last client has left.
        self.on_alone: Callable[[], None] = lambda: None
        if tree.compat is not Compat.V10_0 and not self.human:
            seen = qom.MonitorObject(tree, self.id, spec.chardev.id, spec.pretty)
            seen.on_pretty = self._set_pretty
            tree.objects.attach(seen)

    def _set_pretty(self, pretty: bool) -> None:
        self.pretty = pretty

    def client_came(self) -> None:
        """Count a client, and show its chardev as connected."""
        super().client_came()
        self._chardev.connected = True

    def client_left(self) -> None:
        """Count one less; with the last one the chardev is not connected any more."""
        super().client_left()
        self._chardev.connected = self.clients > 0
        if not self.clients:
            self.on_alone()


class Ports:
    """The daemon's monitors and character devices, and what is open for them.

    Args:
        config: the parsed command line.
        loop: where they are served.
        tree: where they are seen.
        hub: where clients go.
    """

    _qtest: QTest | None = None

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, tree: Tree, hub: Hub
    ) -> None:
        self._config = config
        self._loop = loop
        self._tree = tree
        self._hub = hub
        self._limited_log = LimitedLog(loop)
        self._listeners: list[Listener] = []
        self._files = SocketFiles()
        self._monitors: list[Monitor] = []
        self._dialers: list[Dialer] = []
        # Connections that no monitor uses: held, and never read.
        self._unused: list[socket.socket] = []
        self._tls_ports: list[TLSPort] = []

    async def open(self) -> None:
        """Listen and connect, in the order of the command line.

        Raises:
            StartError: one of them can't be opened.
        """
        config = self._config
        if config.qtest is not None:
            await self._open_qtest(config.qtest)
        for spec in config.monitors:
            await self._open_monitor(spec)
        used = {spec.chardev.id for spec in config.monitors}
        for chardev in config.chardevs:
            if chardev.id not in used:
                seen = self._add_chardev(chardev, used=False)
                # Who comes finds nothing served, and is disconnected.
                adopt = socket.socket.close if chardev.server else partial(self._hold, seen)
                await self._open_chardev(chardev, seen, adopt)

    def forget_names(self) -> None:
        """Close the descriptors that clients have named (`getfd`)."""
        for monitor in self._monitors:
            monitor.close()

    async def stop(self) -> None:
        """Take nobody more; those who are there go on being served."""
        for dialer in self._dialers:
            dialer.close()
        for listener in self._listeners:
            listener.close()
        for port in self._tls_ports:
            port.close()
        await self._files.remove(self._hub.in_thread)

    def close(self) -> None:
        """Close all that is left, once nobody is served any more."""
        for sock in self._unused:
            sock.close()
        if self._qtest is not None:
            self._qtest.close()
        for monitor in self._monitors:
            monitor.close()

    def _hold(self, seen: qom.ChardevObject, sock: socket.socket) -> None:
        self._unused.append(sock)
        seen.hold(sock.fileno())

    async def _open_monitor(self, spec: MonitorSpec) -> None:
        seen = self._add_chardev(spec.chardev, used=True)
        with starting(spec.where):
            monitor = ObjectMonitor(self._tree, spec, seen)
        self._monitors.append(monitor)
        seen.on_yank = lambda: self._hub.disconnect(monitor)
        if spec.chardev.kind == "stdio":
            self._hub.serve(StdioStream(), monitor)
        else:
            adopt: Adopt = lambda client: self._hub.adopt(client, monitor)  # noqa: E731
            if spec.chardev.tls_creds is not None:
                adopt = self._tls_port(spec.chardev, seen, monitor)
            dialer = await self._open_chardev(spec.chardev, seen, adopt, monitor)
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
        with refusing(f"could not open '{path}'", StartError):
            log = await self._hub.in_thread(partial(QTestLog, path))
        self._qtest = QTest(self._loop, log, self._hub.opened, changed)
        seen.on_yank = self._qtest.cut
        dialer = await self._open_chardev(chardev, seen, self._qtest.adopt)

    def _add_chardev(self, chardev: Chardev, *, used: bool) -> qom.ChardevObject:
        backend = chardev.kind if chardev.kind in ("stdio", "null") else "socket"
        seen = qom.ChardevObject(self._tree, backend)
        seen.server = chardev.server
        if chardev.kind == "tcp":
            seen.addr = {"type": "inet", "host": chardev.host, "port": chardev.port}
        elif backend == "socket":
            seen.addr = {"type": "unix", "path": chardev.path, "abstract": False, "tight": True}
        front, id = seen, chardev.id
        if chardev.mux:
            front = qom.ChardevObject(self._tree, "mux")
            seen.use()
            front.share(seen)
            id += "-base"
        if used:
            front.use()
        with starting(chardev.where):
            self._tree.chardevs.add_child(id, seen)
            if front is not seen:
                self._tree.chardevs.add_child(chardev.id, front)
        return seen

    async def _open_chardev(
        self,
        chardev: Chardev,
        seen: qom.ChardevObject,
        adopt: Adopt,
        monitor: ObjectMonitor | None = None,
    ) -> Dialer | None:
        """Listen or connect; every client's socket goes to `adopt`.

        Args:
            monitor: whose clients they are, which may have to come one at a time.

        Returns:
            what connects again once the connection is lost, where that is wanted.
        """
        if chardev.kind in ("stdio", "null"):
            return None

        def greet(sock: socket.socket) -> asyncio.Future[bool] | None:
            if chardev.tls_creds is None:
                seen.ends = ends_of(sock)
            return adopt(sock)

        allowed = self._allowed(chardev)
        if chardev.tls_creds is not None:
            # Its clients show certificates.
            allowed = None

        one = (
            monitor is not None
            and self._config.one_client
            and monitor.id not in self._config.test_control
        )
        listeners: list[Listener] = []

        def listen() -> None:
            for each in listeners:
                each.start()

        def came(sock: socket.socket) -> None:
            if one:
                for each in listeners:
                    each.pause()
            # Whom memd itself connects to has been looked at.
            if allowed is None or not chardev.server or self._admits(allowed, sock):
                greet(sock)
            elif one:
                listen()

        dialer = self._make_dialer(chardev, came) if chardev.reconnect else None
        opening = partial(self._open_sockets, chardev)
        try:
            socks = await self._hub.in_thread(opening)
        except QMPError as error:
            if dialer is None:
                raise StartError(error.desc, chardev.where, error.hint) from None
            dialer.refused(error)
            return dialer
        if chardev.server or chardev.kind == "fd":
            seen.addr = address_of(socks[0])
        if not chardev.server:
            came(socks[0])
            return dialer
        listeners += [Listener(self._loop, each, came) for each in socks]
        if one and monitor is not None:
            monitor.on_alone = listen
            for each in socks:
                each.listen(_ONE_WAITS)
        # From now on their sockets go with them, also if the end comes while it waits.
        self._listeners += listeners
        if chardev.wait:
            self._config.report.info(
                f"QEMU waiting for connection on: disconnected:{chardev.describe()}",
                chardev.where,
            )
            while True:
                client = await self._accept(socks)
                if allowed is not None and not self._admits(allowed, client):
                    continue
                greeted = greet(client)
                if greeted is None or await greeted:
                    break
            if one:
                return None
        listen()
        return None

    async def _accept(self, socks: list[socket.socket]) -> socket.socket:
        """The next client that connects to one of these."""
        while True:
            ready: asyncio.Future[socket.socket] = self._loop.create_future()

            def came(sock: socket.socket, ready: asyncio.Future[socket.socket] = ready) -> None:
                if not ready.done():
                    ready.set_result(sock)

            for each in socks:
                self._loop.add_reader(each, came, each)
            try:
                sock = await ready
            finally:
                for each in socks:
                    self._loop.remove_reader(each)
            # It may have left again.
            with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
                return sock.accept()[0]

    def _needs_proof(self, chardev: Chardev, sock: socket.socket) -> bool:
        """Whether clients have to show by certificates who they are."""
        if self._allowed(chardev) is not None:
            return True
        return not (self._config.insecure_tcp or is_loopback(sock))

    def _allowed(self, chardev: Chardev) -> Allowed | None:
        return chardev.allowed or self._config.allowed

    def _tls_port(
        self, chardev: Chardev, seen: qom.ChardevObject, monitor: ObjectMonitor
    ) -> Callable[[socket.socket], asyncio.Future[bool]]:
        """A function that makes clients of TLS connections."""
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
            self._hub.opened,
        )
        self._tls_ports.append(port)

        def start(sock: socket.socket) -> asyncio.Future[bool]:
            # A client may have changed it since memd began to listen.
            if chardev.server and not credentials.verify_peer and self._needs_proof(chardev, sock):
                self._limited_log.warn(
                    "refused a client: '%s' has verify-peer=off", chardev.tls_creds
                )
                sock.close()
                monitor.on_alone()
                refused: asyncio.Future[bool] = self._loop.create_future()
                refused.set_result(False)
                return refused
            return port.start(sock)

        return start

    def _credentials(self, chardev: Chardev) -> TLSCredentials:
        found = self._tree.objects.get(chardev.tls_creds or "")
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
            lambda: self._open_sockets(chardev)[0],
            came,
            chardev.reconnect / 1000,
            self._hub.spawn,
            failed,
        )
        self._dialers.append(dialer)
        return dialer

    def _open_sockets(self, chardev: Chardev) -> list[socket.socket]:
        """The sockets that listen, or the one that is connected; raises `QMPError`."""
        allowed = self._allowed(chardev)
        socks = open_chardev(chardev, self._files, 0o600 if allowed is None else 0o666)
        try:
            for each in socks:
                self._check(chardev, each, allowed)
        except BaseException:
            for each in socks:
                each.close()
            raise
        return socks

    def _check(self, chardev: Chardev, sock: socket.socket, allowed: Allowed | None) -> None:
        """Whether somebody may be served there; raises `QMPError` if not."""
        if allowed is not None:
            self._check_allowed(chardev, sock, allowed)
        if chardev.server and not self._config.insecure_tcp and not is_loopback(sock):
            if chardev.tls_creds is None:
                whom = "in clear"
            elif self._credentials(chardev).verify_peer:
                return
            else:
                whom = "to clients without certificates"
            raise QMPError(
                f"refusing to serve QMP {whom} beyond this machine",
                hint="Every client that can connect can read and write files as this user;"
                " --insecure-tcp serves it all the same.",
            )

    def _check_allowed(self, chardev: Chardev, sock: socket.socket, allowed: Allowed) -> None:
        """Where who connects can't be told, or may not: raises `QMPError`."""
        if sock.family != socket.AF_UNIX:
            if chardev.tls_creds is not None and self._credentials(chardev).verify_peer:
                return
            raise QMPError(
                "refusing to serve QMP where the users who connect can't be told",
                hint="--allow-user and --allow-group are checked on UNIX sockets; on TCP,"
                " clients' certificates can be: tls-creds with verify-peer=on.",
            )
        if not chardev.server and not self._admits(allowed, sock):
            raise QMPError(f"the process that serves '{chardev.describe()}' may not be a client")

    def _admits(self, allowed: Allowed, sock: socket.socket) -> bool:
        """Whether the process at the other end may be a client; else it is disconnected."""
        peer = peer_of(sock)
        if peer is not None and allowed.admits(peer.uid, peer.gid, peer.groups):
            return True
        self._limited_log.warn("refused a client: %s may not connect", peer or "an unknown process")
        sock.close()
        return False
