"""Where the daemon is reached: its monitors, and the character devices below them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from memd import qom
from memd.backends.tls_creds import TLSCredentials
from memd.compat import Compat
from memd.config import Chardev, Config, MonitorSpec
from memd.errors import QMPError, StartError, refusing, starting
from memd.hostmem.sockets import address_of, close_socket, ends_of
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
    from memd.server.tls import TLSPort, TLSStream

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
            telnet=spec.chardev.telnet and spec.chardev.server,
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


class Port:
    """A character device with what is open for it, on a socket or a terminal.

    Args:
        config: the parsed command line.
        loop: where it is served.
        tree: where its TLS credentials are.
        hub: where clients go.
        files: the files that its sockets are bound to.
        limited_log: told whom it refuses.
        chardev: what it is.
        seen: see below.

    Attributes:
        seen: how it is seen in the tree.
        dialer: connects again once the connection is lost, where that is wanted.
    """

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        hub: Hub,
        files: SocketFiles,
        limited_log: LimitedLog,
        chardev: Chardev,
        seen: qom.ChardevObject,
    ) -> None:
        self._config = config
        self._loop = loop
        self._tree = tree
        self._hub = hub
        self._files = files
        self._limited_log = limited_log
        self._chardev = chardev
        self._allowed = chardev.allowed or config.allowed
        self.seen = seen
        self.dialer: Dialer | None = None
        self._listeners: list[Listener] = []
        self._tls_port: TLSPort | None = None
        self._adopt: Adopt = close_socket
        # Whether clients come one at a time.
        self._one = False

    async def open(self, adopt: Adopt, monitor: ObjectMonitor | None = None) -> None:
        """Listen or connect; every client's socket goes to `adopt`.

        Args:
            monitor: whose clients they are, which may have to come one at a time.

        Raises:
            StartError: it can't be opened.
        """
        chardev = self._chardev
        if chardev.kind in ("stdio", "null"):
            return
        self._adopt = adopt
        if chardev.reconnect:
            self.dialer = self._make_dialer()
        try:
            socks = await self._hub.in_thread(self._open_sockets)
        except QMPError as error:
            if self.dialer is None:
                raise StartError(error.desc, chardev.where, error.hint) from None
            self.dialer.refused(error)
            return
        if chardev.server or chardev.kind == "fd":
            self.seen.addr = address_of(socks[0])
        if chardev.server:
            await self._serve(socks, monitor)
        else:
            self._came(socks[0])

    async def _serve(self, socks: list[socket.socket], monitor: ObjectMonitor | None) -> None:
        """Have clients come to these sockets, the first one at once where it is waited for."""
        # From now on the sockets go with them, also if the end comes while it waits.
        self._listeners = [Listener(self._loop, each, self._came) for each in socks]
        config = self._config
        if monitor is not None and config.one_client and monitor.id not in config.test_control:
            self._one = True
            monitor.on_alone = self._listen
            for each in socks:
                each.listen(_ONE_WAITS)
        if self._chardev.wait:
            await self._wait_for_client(socks)
            if self._one:
                return
        self._listen()

    def _listen(self) -> None:
        for each in self._listeners:
            each.start()

    def _came(self, sock: socket.socket) -> None:
        if self._one:
            for each in self._listeners:
                each.pause()
        if self._may_come(sock):
            self._greet(sock)
        elif self._one:
            self._listen()

    def _greet(self, sock: socket.socket) -> asyncio.Future[bool] | None:
        if self._chardev.tls_creds is None:
            self.seen.ends = ends_of(sock)
        return self._adopt(sock)

    async def _wait_for_client(self, socks: list[socket.socket]) -> None:
        """Wait until a client is served."""
        chardev = self._chardev
        text = f"QEMU waiting for connection on: disconnected:{chardev.describe()}"
        self._config.report.info(text, chardev.where)
        while True:
            client = await self._accept(socks)
            if self._may_come(client):
                greeted = self._greet(client)
                if greeted is None or await greeted:
                    return

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

    def _make_dialer(self) -> Dialer:
        def failed(error: QMPError) -> None:
            text = f"Unable to connect character device {self._chardev.id}: {error.desc}"
            self._config.report.error(text)

        return Dialer(
            self._loop,
            lambda: self._open_sockets()[0],
            self._came,
            self._chardev.reconnect / 1000,
            self._hub.spawn,
            failed,
        )

    def _open_sockets(self) -> list[socket.socket]:
        """The sockets that listen, or the one that is connected; raises `QMPError`."""
        socks = open_chardev(self._chardev, self._files, 0o600 if self._allowed is None else 0o666)
        try:
            for each in socks:
                self._check(each)
        except BaseException:
            for each in socks:
                each.close()
            raise
        return socks

    def _check(self, sock: socket.socket) -> None:
        """Whether somebody may be served there; raises `QMPError` if not."""
        chardev = self._chardev
        if self._allowed is not None:
            self._check_allowed(sock)
        if chardev.server and not self._config.insecure_tcp and not is_loopback(sock):
            if chardev.tls_creds is None:
                whom = "in clear"
            elif self._credentials().verify_peer:
                return
            else:
                whom = "to clients without certificates"
            raise QMPError(
                f"refusing to serve QMP {whom} beyond this machine",
                hint="Every client that can connect can read and write files as this user;"
                " --insecure-tcp serves it all the same.",
            )

    def _check_allowed(self, sock: socket.socket) -> None:
        """Where who connects can't be told, or may not: raises `QMPError`."""
        chardev = self._chardev
        if sock.family != socket.AF_UNIX:
            if chardev.tls_creds is not None and self._credentials().verify_peer:
                return
            raise QMPError(
                "refusing to serve QMP where the users who connect can't be told",
                hint="--allow-user and --allow-group are checked on UNIX sockets; on TCP,"
                " clients' certificates can be: tls-creds with verify-peer=on.",
            )
        if not chardev.server and not self._admits(sock):
            raise QMPError(f"the process that serves '{chardev.describe()}' may not be a client")

    def _may_come(self, sock: socket.socket) -> bool:
        """Whether who has connected may be a client; else it is disconnected."""
        chardev = self._chardev
        # Whom memd itself connects to has been looked at; with TLS, certificates tell.
        return not chardev.server or chardev.tls_creds is not None or self._admits(sock)

    def _admits(self, sock: socket.socket) -> bool:
        """Whether the process at the other end may be a client; else it is disconnected."""
        allowed, peer = self._allowed, peer_of(sock)
        if allowed is None or (peer and allowed.admits(peer.uid, peer.gid, peer.groups)):
            return True
        self._limited_log.warn("refused a client: %s may not connect", peer or "an unknown process")
        close_socket(sock)
        return False

    def serve_tls(self, monitor: ObjectMonitor) -> Adopt:
        """What makes clients of TLS connections; raises `StartError` without credentials."""
        from memd.server.tls import TLSPort

        chardev, credentials = self._chardev, self._credentials()

        def served(stream: TLSStream, sock: socket.socket) -> None:
            self.seen.ends = ends_of(sock)
            self._hub.serve(stream, monitor)

        port = self._tls_port = TLSPort(
            self._loop,
            lambda: credentials.context(server=chardev.server),
            None if chardev.server else chardev.host or "localhost",
            served,
            lambda: monitor.on_alone(),
            self._hub.opened,
        )

        def start(sock: socket.socket) -> asyncio.Future[bool]:
            # A client may have changed it since memd began to listen.
            if chardev.server and not credentials.verify_peer and self._needs_proof(sock):
                self._limited_log.warn(
                    "refused a client: '%s' has verify-peer=off", chardev.tls_creds
                )
                close_socket(sock)
                monitor.on_alone()
                refused: asyncio.Future[bool] = self._loop.create_future()
                refused.set_result(False)
                return refused
            return port.start(sock)

        return start

    def _needs_proof(self, sock: socket.socket) -> bool:
        """Whether clients have to show by certificates who they are."""
        if self._allowed is not None:
            return True
        return not (self._config.insecure_tcp or is_loopback(sock))

    def _credentials(self) -> TLSCredentials:
        found = self._tree.objects.get(self._chardev.tls_creds or "")
        if not isinstance(found, TLSCredentials):
            text = f"No TLS credentials with id '{self._chardev.tls_creds}'"
            raise StartError(text, self._chardev.where)
        return found

    def close(self) -> None:
        """Take nobody more; those who are there go on being served."""
        if self.dialer is not None:
            self.dialer.close()
        for listener in self._listeners:
            listener.close()
        if self._tls_port is not None:
            self._tls_port.close()


class Ports:
    """The daemon's monitors and character devices, and what is open for them.

    Args:
        config: the parsed command line.
        loop: where they are served.
        tree: where they are seen.
        hub: where clients go.
        complete: see `Monitor`.
    """

    _qtest: QTest | None = None

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        hub: Hub,
        complete: Callable[[str], Iterable[str]],
    ) -> None:
        self._config = config
        self._loop = loop
        self._tree = tree
        self._hub = hub
        self._complete = complete
        self._limited_log = LimitedLog(loop)
        self._files = SocketFiles()
        self._monitors: list[Monitor] = []
        # Connections that no monitor uses: held, and never read.
        self._unused: list[socket.socket] = []
        self._ports: list[Port] = []

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
                port = self._add(chardev, used=False)
                # Who comes finds nothing served, and is disconnected.
                adopt = close_socket if chardev.server else partial(self._hold, port.seen)
                await port.open(adopt)

    def forget_names(self) -> None:
        """Close the descriptors that clients have named (`getfd`)."""
        for monitor in self._monitors:
            monitor.close()

    async def stop(self) -> None:
        """Take nobody more; those who are there go on being served."""
        for port in self._ports:
            port.close()
        await self._files.remove(self._hub.in_thread)

    def close(self) -> None:
        """Close all that is left, once nobody is served any more."""
        for sock in self._unused:
            close_socket(sock)
        if self._qtest is not None:
            self._qtest.close()
        for monitor in self._monitors:
            monitor.close()

    def _hold(self, seen: qom.ChardevObject, sock: socket.socket) -> None:
        self._unused.append(sock)
        seen.hold(sock.fileno(), sock.family)

    async def _open_monitor(self, spec: MonitorSpec) -> None:
        port = self._add(spec.chardev, used=True)
        with starting(spec.where):
            monitor = ObjectMonitor(self._tree, spec, port.seen)
        monitor.complete = self._complete
        self._monitors.append(monitor)
        port.seen.on_yank = lambda: self._hub.disconnect(monitor)
        if spec.chardev.kind == "stdio":
            self._hub.serve(StdioStream(raw=monitor.human), monitor)
        else:
            adopt: Adopt = lambda client: self._hub.adopt(client, monitor)  # noqa: E731
            if spec.chardev.tls_creds is not None:
                adopt = port.serve_tls(monitor)
            await port.open(adopt, monitor)
            if port.dialer is not None:
                monitor.on_alone = port.dialer.dial

    async def _open_qtest(self, chardev: Chardev) -> None:
        from memd.server.qtest import QTest, QTestLog

        if chardev.kind == "stdio":
            raise StartError("the qtest protocol is spoken on sockets only")
        if chardev.tls_creds is not None:
            raise StartError("the qtest protocol is spoken in clear only")
        port = self._add(chardev, used=True)

        def changed(connected: bool) -> None:
            port.seen.connected = connected
            if port.dialer is not None and not connected:
                port.dialer.dial()

        path = self._config.qtest_log
        with refusing(f"could not open '{path}'", StartError):
            log = await self._hub.in_thread(partial(QTestLog, path))
        self._qtest = QTest(self._loop, log, self._hub.opened, changed)
        port.seen.on_yank = self._qtest.cut
        await port.open(self._qtest.adopt)

    def _add(self, chardev: Chardev, *, used: bool) -> Port:
        """A character device, in the tree and not open yet; raises `StartError`."""
        backend = chardev.kind if chardev.kind in ("stdio", "null") else "socket"
        seen = qom.ChardevObject(self._tree, backend)
        seen.server = chardev.server
        if chardev.telnet:
            seen.protocol = "telnet"
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
        port = Port(
            self._config,
            self._loop,
            self._tree,
            self._hub,
            self._files,
            self._limited_log,
            chardev,
            seen,
        )
        self._ports.append(port)
        return port
