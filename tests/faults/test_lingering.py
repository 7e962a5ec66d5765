"""Descriptors whose last close waits for a peer, wherever a client has them closed.

A client can have a socket wait for an hour when it is closed (SO_LINGER), and send it over
its connection. The last process to hold it waits: the kernel closes what is on its way to a
process together with the connection, or when there is no room for it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.descriptors import lingering
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import PATIENCE, Server, qemu_system_memd
from tests.faults.test_stalls import others_go_on

STATUS = b'{"execute":"query-status"}'


class Peer:
    """The peer of sockets that wait for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))

    def linger(self) -> socket.socket:
        """A socket whose last close waits for an hour."""
        return lingering(self._listening, 3600)

    def inside(self) -> socket.socket:
        """A socket that such a one is on its way to."""
        near, far = socket.socketpair()
        with far, self.linger() as inner:
            socket.send_fds(far, [b"x"], [inner.fileno()])
        return near


@pytest.fixture
def peer() -> Iterator[Peer]:
    """It leaves in the end, so that nobody waits for it any more."""
    with ExitStack() as stack:
        yield Peer(stack)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """A context in which a daemon does nothing: nothing of what is sent is closed here last."""
    server.process.send_signal(signal.SIGSTOP)
    yield
    server.process.send_signal(signal.SIGCONT)


def hand_over(
    server: Server,
    sock: socket.socket,
    *,
    others: int = 0,
    flags: int = 0,
    path: Path | None = None,
) -> None:
    """Connect, send a socket behind so many other descriptors, close it here, and leave."""
    with (
        stopped(server),
        socket.socket(socket.AF_UNIX) as client,
        open(os.devnull) as null,
        sock,
    ):
        client.settimeout(PATIENCE)
        client.connect(str(path or server.path))
        fds = [null.fileno()] * others + [sock.fileno()]
        # One byte that is urgent is alone.
        data = [b"x" if flags else STATUS]
        socket.send_fds(client, data, fds, flags)


def ends(server: Server) -> None:
    """Have it end, as it does."""
    server.process.terminate()
    assert server.wait() == 0
    server.stop()


@pytest.mark.parametrize("others", [0, 16, 252])
@pytest.mark.parametrize("flags", [0, socket.MSG_OOB])
def test_what_comes_with_a_connection_that_ends(
    start_memd: Callable[..., Server], peer: Peer, others: int, flags: int
) -> None:
    """Read or not, taken or not."""
    server = start_memd()
    for make in (peer.linger, peer.inside):
        hand_over(server, make(), others=others, flags=flags)
        others_go_on(server)
    ends(server)


def test_what_is_sent_on_a_connection_that_goes_on(
    start_memd: Callable[..., Server], peer: Peer
) -> None:
    server = start_memd()
    monitor = server.monitor()
    with open(os.devnull) as null:
        for make in (peer.linger, peer.inside):
            for request in (STATUS, b'{"execute":"getfd","arguments":{"fdname":"x"}}', b"x" * 10):
                with stopped(server), make() as sock:
                    fds = (*[null.fileno()] * 20, sock.fileno())
                    monitor.send(request, (sock.fileno(), *fds))
                others_go_on(server)
    # While it waits for a command, or is not read.
    add = b'{"execute":"object-add","arguments":{"qom-type":"memory-backend-memfd","id":"m",'
    add += b'"size":268435456,"prealloc":true}}'
    monitor.send(add * 3)
    with stopped(server), peer.linger() as sock:
        monitor.send(STATUS, (sock.fileno(),))
        monitor.close()
    others_go_on(server)
    ends(server)


def test_clients_that_are_turned_away(start_memd: Callable[..., Server], peer: Peer) -> None:
    """However many come: no more than a few descriptors are held for them."""
    server = start_memd("--max-clients", "2", "--max-clients-per-user", "2")
    monitors = [server.monitor() for _ in range(2)]
    before = sum(descriptors(server.pid).values())
    for _ in range(60):
        hand_over(server, peer.linger())
        assert "return" in monitors[0].execute("query-status")
    left = settle(lambda: sum(descriptors(server.pid).values()), lambda now: now < before + 40)
    assert left < before + 40
    ends(server)


def test_refused_descriptors_are_not_without_number(
    start_memd: Callable[..., Server], peer: Peer
) -> None:
    """Who has all that it may is told so, until those that it sends can't be closed."""
    server = start_memd("--max-descriptors", "40", "--max-descriptors-per-user", "20")
    before = sum(descriptors(server.pid).values())
    with ExitStack() as stack:
        null = stack.enter_context(open(os.devnull))
        others_go_on(server)
        for number in range(40):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE)
            client.connect(str(server.path))
            with stopped(server), peer.inside() as sock:
                for _ in range(3):
                    fds = [sock.fileno(), *[null.fileno()] * 15]
                    name = b'{"execute":"getfd","arguments":{"fdname":"%d"}}' % number
                    try:
                        socket.send_fds(client, [name], fds)
                    except (BrokenPipeError, ConnectionResetError):
                        break
            others_go_on(server)
        held = sum(descriptors(server.pid).values())
        assert held - before < 40 + 20 + 32 + 253
    ends(server)


@pytest.mark.parametrize("where", ["metrics", "template"])
def test_those_whose_protocol_has_no_descriptors(
    start_memd: Callable[..., Server], directory: Path, peer: Peer, where: str
) -> None:
    path = directory / "other"
    server = start_memd("--metrics", f"unix:{path}", "--templates", str(directory / "store"))
    monitor = server.monitor()
    if where == "template":
        memory = {"qom-type": "memory-backend-memfd", "id": "m", "size": 1 << 20}
        assert monitor.execute("object-add", memory) == {"return": {}}
        answer = monitor.execute("x-template-save", {"name": "t", "id": "m"})
        path = Path(answer["return"]["uri"].removeprefix("unix:"))
    for flags in (0, socket.MSG_OOB) if where == "metrics" else (0,):
        hand_over(server, peer.linger(), others=20, flags=flags, path=path)
        others_go_on(server)
    if where == "template":
        error = monitor.read_event("X_TEMPLATE_SAVED")["data"]["error"]
        assert "the peer sends descriptors" in error
    ends(server)


@pytest.mark.parametrize("where", ["chardev", "qtest", "nbd", "backlog"])
def test_other_sockets(directory: Path, peer: Peer, where: str) -> None:
    """Those where nobody is served, or another protocol is spoken; and at the end."""
    (directory / "server").mkdir()
    path = directory / "other"
    argv = [*qemu_system_memd(), "-machine", "none", "-display", "none"]
    address = f"unix:{path},server=on,wait=off"
    if where == "chardev":
        argv += ["-chardev", f"socket,id=c,path={path},server=on,wait=off"]
    elif where == "qtest":
        argv += ["-qtest", address]
    elif where == "backlog":
        # One client at a time.
        argv += ["-qmp", address]
    server = Server("memd", [*argv, "-clients", "one" if where == "backlog" else "many"], directory)
    monitor = server.monitor()
    if where == "nbd":
        start = {"addr": {"type": "unix", "data": {"path": str(path)}}}
        assert monitor.execute("nbd-server-start", start) == {"return": {}}
    with ExitStack() as stack:
        if where == "backlog":
            first = stack.enter_context(socket.socket(socket.AF_UNIX))
            first.connect(str(path))
            first.recv(1000)
        # Of the backlog there is one.
        for _ in range(1 if where == "backlog" else 3):
            hand_over(server, peer.linger(), others=20, path=path)
            for _ in range(3):
                assert "return" in monitor.execute("query-status")
                time.sleep(0.01)
        if where == "nbd":
            assert monitor.execute("nbd-server-stop") == {"return": {}}
        ends(server)
