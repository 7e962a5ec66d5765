"""Monitors over TLS: real clients on a real daemon, and the stream by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.places import ANYBODY, Places
from memd.server.tls import TLSPort, TLSStream
from tests.conftest import NOT_HERE
from tests.descriptors import lingering, wait_for_closing
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, TREE, Monitor, Server, memd_argv
from tests.ports import free_port
from tests.tls import PAST, Certificates, Client, is_served, negotiated, server_options
from tests.users import STRANGER

Start = Callable[..., Server]


def filename(monitor: Monitor) -> str:
    """How the chardev `secure` is described."""
    rows = monitor.execute("query-chardev")["return"]
    (name,) = (row["filename"] for row in rows if row["label"] == "secure")
    return str(name)


def secure_port(monitor: Monitor) -> int:
    """Where the chardev `secure` listens."""
    return int(filename(monitor).partition(",")[0].rpartition(":")[2])


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@pytest.fixture
def served(start_memd: Start, certificates: Certificates) -> Iterator[tuple[Server, int]]:
    """A daemon and its port; it must end with the descriptors that it began with."""
    server = start_memd(*server_options(certificates.good))
    port = secure_port(server.monitor())
    before = descriptors(server)
    yield server, port
    assert server.alive()
    assert settle(lambda: descriptors(server), lambda now: now == before) == before


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_with_a_certificate(
    served: tuple[Server, int], certificates: Certificates, version: str
) -> None:
    _server, port = served
    with Client(port, certificates.client_context(version=version)) as client:
        assert client.socket.version() == f"TLSv{version}"
        assert client.read()["QMP"]["capabilities"] == ["oob"]
        assert client.execute("query-name")["error"]["class"] == "CommandNotFound"
        assert client.execute("qmp_capabilities") == {"return": {}}
        assert client.execute("query-name") == {"return": {}}
        # close_notify is answered with close_notify, then the end.
        plain = client.socket.unwrap()
        assert plain.recv(1) == b""
        plain.close()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_whom_it_refuses(
    served: tuple[Server, int], certificates: Certificates, version: str
) -> None:
    _server, port = served
    certificates.issue("stranger", by="other-ca")
    certificates.issue("late", by="ca", holds=PAST)
    for own, alert in (
        (None, "(?i)certificate_required|handshake_failure"),
        ("stranger", "(?i)unknown_ca"),
        ("late", "(?i)certificate_expired"),
    ):
        with (
            pytest.raises(ssl.SSLError, match=alert),
            Client(port, certificates.client_context(own, version=version)) as client,
        ):
            client.read()
    assert is_served(port, certificates.client_context())


def test_a_client_that_does_not_trust_it(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    _server, port = served
    assert not is_served(port, certificates.client_context(trusts="other-ca"))
    assert is_served(port, certificates.client_context())


def test_versions_of_old_are_not_spoken(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    _server, port = served
    context = certificates.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert not is_served(port, context)


@pytest.mark.parametrize(
    "sent",
    [b'{"execute":"qmp_capabilities"}\n', b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b""],
)
def test_a_client_in_clear_is_let_go(
    served: tuple[Server, int], certificates: Certificates, sent: bytes
) -> None:
    _server, port = served
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            # An alert, maybe; never a greeting.
            assert b"QMP" not in client.recv(1000)
    assert is_served(port, certificates.client_context())


def test_half_a_handshake_keeps_nobody_waiting(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    server, port = served
    monitor = server.monitor()
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = certificates.client_context().wrap_bio(into, out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = out.read()
    before = descriptors(server)
    with contextlib.ExitStack() as stack:
        for size in (0, 3, 5, 50, len(hello)):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            client.sendall(hello[:size])
        assert is_served(port, certificates.client_context())
        assert settle(lambda: descriptors(server), lambda now: now == before + 5) == before + 5
        assert filename(monitor).startswith("disconnected:")
    monitor.close()


def test_large_answers_and_many_small_commands(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    _server, port = served
    size = 4 << 20
    with negotiated(port, certificates.client_context()) as client:
        ram = {"qom_type": "memory-backend-ram", "id": "m0", "size": size}
        assert client.execute("object-add", **ram) == {"return": {}}
        data = os.urandom(1 << 20)
        text = base64.b64encode(data).decode()
        assert client.execute("x-memdev-write", id="m0", offset=5, data=text) == {"return": {}}
        # Asked for several times before any of it is read: the socket runs full.
        ask = {"execute": "x-memdev-read"}
        client.send(
            *({**ask, "arguments": {"id": "m0", "offset": at, "length": 1 << 20}} for at in (5, 0)),
            *({**ask, "arguments": {"id": "m0", "offset": 5, "length": 1 << 20}} for _ in range(6)),
        )
        answers = [base64.b64decode(client.read()["return"]["data"]) for _ in range(8)]
        assert answers[1] == b"\0" * 5 + data[:-5]
        assert set(answers) == {data, answers[1]}
        client.send(*({"execute": "query-name", "id": number} for number in range(5000)))
        for number in range(5000):
            assert client.read() == {"return": {}, "id": number}
        assert client.execute("object-del", id="m0") == {"return": {}}


def test_commands_that_come_with_the_handshake(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    """What lies behind the handshake's last record is not lost, nor left lying."""
    _server, port = served
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context(version="1.3").wrap_bio(
        into, out, server_hostname="localhost"
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(out.read())
                into.write(sock.recv(65536))
        client.write(b'{"execute":"qmp_capabilities"}')
        sock.sendall(out.read())
        received = b""
        while received.count(b"\n") < 2:
            try:
                received += client.read(65536)
            except ssl.SSLWantReadError:
                into.write(sock.recv(65536))
    assert received.endswith(b'{"return": {}}\r\n')


def test_others_are_served_meanwhile(
    served: tuple[Server, int], certificates: Certificates
) -> None:
    _server, port = served
    clients = [negotiated(port, certificates.client_context()) for _ in range(5)]
    for client in clients:
        client.send({"execute": "query-name"})
    for client in reversed(clients):
        assert client.read() == {"return": {}}
        client.__exit__()


def test_quit_is_answered(start_memd: Start, certificates: Certificates) -> None:
    server = start_memd(*server_options(certificates.good))
    with negotiated(secure_port(server.monitor()), certificates.client_context()) as client:
        client.send({"execute": "quit"})
        assert [next(iter(client.read())) for _ in range(2)] == ["timestamp", "return"]
        with pytest.raises(EOFError):
            client.read()
    assert server.wait() == 0


def test_anybody_where_peers_are_not_verified(
    start_memd: Start, certificates: Certificates
) -> None:
    server = start_memd(*server_options(certificates.good, verify_peer="off"))
    port = secure_port(server.monitor())
    assert is_served(port, certificates.client_context(None))
    # Changed on the fly, it counts from the next client on.
    monitor = server.monitor()
    change = {"path": "/objects/tls0", "property": "verify-peer", "value": True}
    assert monitor.execute("qom-set", change) == {"return": {}}
    assert not is_served(port, certificates.client_context(None))
    assert is_served(port, certificates.client_context())


def test_credentials_that_are_deleted_go_on(start_memd: Start, certificates: Certificates) -> None:
    server = start_memd(*server_options(certificates.good))
    port = secure_port(server.monitor())
    assert server.monitor().execute("object-del", {"id": "tls0"}) == {"return": {}}
    assert is_served(port, certificates.client_context())


def test_start_waits_for_the_first_client_that_is_served(
    directory: Path, certificates: Certificates
) -> None:
    port = free_port()
    second = directory / "second.sock"
    argv = [*memd_argv(), *server_options(certificates.good, port, wait="on")]
    argv += ["--qmp", f"unix:{second},server=on,wait=off"]
    with subprocess.Popen(argv, cwd=TREE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"waiting for connection" in process.stderr.readline()
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(b"in clear\n")
                with contextlib.suppress(ConnectionResetError):
                    client.recv(100)
            assert not second.exists()
            assert is_served(port, certificates.client_context())
            assert settle(second.exists, bool)
            assert is_served(port, certificates.client_context())
        finally:
            process.terminate()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_it_connects_again_until_it_is_satisfied(
    start_memd: Start, certificates: Certificates, host: str
) -> None:
    """As a client, whose server has the wrong certificate at first."""
    certificates.issue("impostor", by="other-ca")
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        pytest.skip(f"{NOT_HERE}a machine that knows {host}")
    with socket.create_server((host, 0)) as listening:
        listening.settimeout(PATIENCE)
        address = f"host={host},port={listening.getsockname()[1]}"
        start_memd(
            *("-object", f"tls-creds-x509,id=tls0,dir={certificates.good_client}"),
            *("-chardev", f"socket,id=secure,{address},reconnect-ms=10,tls-creds=tls0"),
            *("-mon", "chardev=secure,mode=control"),
        )
        accepted = [accept(listening, certificates, name) for name in ("impostor", "server")]
        # The certificate is for localhost and 127.0.0.1.
        assert accepted == [False, host == "localhost"]


def accept(listening: socket.socket, certificates: Certificates, own: str) -> bool:
    """Serve a client that expects a monitor at this end; whether it greets."""
    client, _address = listening.accept()
    client.settimeout(PATIENCE)
    try:
        with server_context(certificates, own).wrap_socket(client, server_side=True) as peer:
            return peer.recv(100).startswith(b'{"QMP"')
    except OSError:
        return False


# The port and the stream by themselves


def server_context(certificates: Certificates, own: str = "server") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = certificates.place
    context.load_cert_chain(place / f"{own}.pem", place / f"{own}.key")
    return context


class Ports:
    """A port of this process, and what comes of its connections."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        host: str | None = None,
        make: type[TLSPort] = TLSPort,
        places: Places | None = None,
    ) -> None:
        self.streams: list[TLSStream] = []
        self.refused = 0
        self.port = make(
            asyncio.get_running_loop(),
            context,
            host,
            lambda stream, _sock: self.streams.append(stream),
            self._count,
            Places() if places is None else places,
        )

    def _count(self) -> None:
        self.refused += 1

    def connect(self) -> tuple[socket.socket, asyncio.Future[bool]]:
        """A connection's other end, and whether it will have been served."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = socket.create_connection(listening.getsockname(), PATIENCE)
            ours, _address = listening.accept()
        return theirs, self.port.start(ours)


class ImpatientPort(TLSPort):
    handshake_time = 0.01


class SmallPort(TLSPort):
    max_handshakes = 2


class FourPort(TLSPort):
    max_handshakes = 4


async def test_a_handshake_takes_so_long_and_no_longer(certificates: Certificates) -> None:
    ports = Ports(lambda: server_context(certificates), make=ImpatientPort)
    client, outcome = ports.connect()
    assert not await outcome
    assert client.recv(1) == b""
    assert ports.refused == 1
    client.close()


async def test_a_peer_that_vanishes_is_found_out(certificates: Certificates) -> None:
    ports = Ports(lambda: server_context(certificates))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname(), PATIENCE):
            ours, _address = listening.accept()
            outcome = ports.port.start(ours)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not await outcome


async def test_one_handshake_too_many_ends_the_oldest(certificates: Certificates) -> None:
    ports = Ports(lambda: server_context(certificates), make=SmallPort)
    connections = [ports.connect() for _ in range(3)]
    assert [outcome.done() for _client, outcome in connections] == [True, False, False]
    assert connections[0][0].recv(1) == b""
    ports.port.close()
    for client, outcome in connections:
        assert not await outcome
        client.close()
    assert ports.refused == 1


async def test_handshakes_take_the_places_of_their_user(certificates: Certificates) -> None:
    """The newest one is begun where there are any; where others have all, none is."""
    places = Places(4, share=1 / 2, apart=())
    ports = Ports(lambda: server_context(certificates), places=places)
    connections = [ports.connect() for _ in range(3)]
    assert [outcome.done() for _client, outcome in connections] == [True, False, False]
    assert places.of(ANYBODY) == 2
    connections[1][0].close()
    assert not await connections[1][1]
    places.take(STRANGER, 4)
    connections.append(ports.connect())
    # Ending the older one would make no room.
    assert [outcome.done() for _client, outcome in connections] == [True, True, False, True]
    ports.port.close()
    assert places.of(ANYBODY) == 0
    places.give_back(STRANGER, 4)
    client, outcome = ports.connect()
    context = certificates.client_context()
    secure = await asyncio.to_thread(context.wrap_socket, client, server_hostname="localhost")
    assert await outcome
    # It is a client's from here on, which takes one by itself.
    assert places.taken == 0
    ports.streams[0].close()
    for each, _outcome in connections:
        each.close()
    secure.close()


async def test_the_oldest_of_another_user_goes_on(certificates: Certificates) -> None:
    """Of four places, those whose user is not known may have three."""
    ports = Ports(lambda: server_context(certificates), make=FourPort)
    theirs, ours = socket.socketpair()
    local = ports.port.start(ours)
    connections = [ports.connect() for _ in range(4)]
    assert [outcome.done() for _client, outcome in connections] == [True, False, False, False]
    assert not local.done()
    ports.port.close()
    assert not await local
    theirs.close()
    for client, _outcome in connections:
        client.close()


async def test_who_comes_later_ends_nobody_who_has_no_more_than_a_share(
    certificates: Certificates,
) -> None:
    """The daemon's own user may have all places; to end one of its handshakes would make room."""
    ports = Ports(lambda: server_context(certificates), make=FourPort)
    pairs = [socket.socketpair() for _ in range(4)]
    local = [ports.port.start(ours) for _theirs, ours in pairs]
    client, outcome = ports.connect()
    assert not await outcome
    assert not any(each.done() for each in local)
    ports.port.close()
    assert not any([await each for each in local])
    for theirs, _ours in pairs:
        theirs.close()
    client.close()


async def test_descriptors_are_not_taken_in_a_handshake(certificates: Certificates) -> None:
    """Nor is their last close waited for."""
    ports = Ports(lambda: server_context(certificates))
    theirs, ours = socket.socketpair()
    outcome = ports.port.start(ours)
    with socket.create_server(("127.0.0.1", 0)) as listening, lingering(listening) as sent:
        socket.send_fds(theirs, [b"x"], [sent.fileno()])
    assert not await outcome
    assert ports.refused == 1
    theirs.close()
    wait_for_closing()


async def test_credentials_that_are_for_the_other_end(certificates: Certificates) -> None:
    def refuse() -> ssl.SSLContext:
        raise QMPError("Expected TLS credentials for a server endpoint")

    ports = Ports(refuse)
    client, outcome = ports.connect()
    assert not await outcome
    assert client.recv(1) == b""
    client.close()


@pytest.mark.parametrize(
    ("host", "good"), [("localhost", True), ("elsewhere", False), (".", False)]
)
async def test_as_a_client(certificates: Certificates, host: str, good: bool) -> None:
    ports = Ports(certificates.client_context, host)
    server, outcome = ports.connect()
    context = server_context(certificates)

    def serve() -> bytes:
        try:
            with context.wrap_socket(server, server_side=True) as peer:
                return peer.recv(5)
        except OSError:
            return b""

    answer = asyncio.get_running_loop().run_in_executor(None, serve)
    assert await outcome is good
    if good:
        assert ports.streams[0].send(b"hello", ()) == 5
        ports.streams[0].close()
    assert await answer == (b"hello" if good else b"")
    server.close()


async def streams(certificates: Certificates) -> tuple[TLSStream, ssl.SSLSocket]:
    """A stream and the other end."""
    ports = Ports(lambda: server_context(certificates))
    client, outcome = ports.connect()
    context = certificates.client_context(None)

    def connect() -> ssl.SSLSocket:
        return context.wrap_socket(client, server_hostname="localhost")

    peer = await asyncio.get_running_loop().run_in_executor(None, connect)
    assert await outcome
    return ports.streams[0], peer


async def test_what_is_sent_before_there_is_room(certificates: Certificates) -> None:
    """No byte is lost or sent twice, whatever comes in between, and little is held."""
    stream, peer = await streams(certificates)
    with contextlib.closing(stream), peer:
        data = memoryview(os.urandom(8 << 20))
        sent = 0
        received = bytearray()
        stopped = 0
        while len(received) < len(data):
            offered = data[sent : sent + 3_000_000]
            try:
                taken = stream.send(offered, ()) if offered else 0
            except BlockingIOError:
                taken = 0
            sent += taken
            stopped += taken < len(offered)
            for _ in range(20):
                if len(received) < sent:
                    received += peer.recv(1 << 16)
                elif sent < len(data):
                    # Part of what is owed may be in the socket already.
                    received += peer.recv(1000)
                else:
                    break
        assert sent == len(data)
        assert bytes(received) == data
        assert stopped


async def test_the_end_comes_after_what_was_said(certificates: Certificates) -> None:
    stream, peer = await streams(certificates)
    with contextlib.closing(stream), peer:
        assert _receive(stream) == b"..."
        # Both at once, so that nothing more comes to wake the loop.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(b"last words")
        peer.setblocking(False)
        # Says that it ends, and would wait for the answer.
        with pytest.raises(ssl.SSLWantReadError):
            peer.unwrap()
        assert settle(lambda: _receive(stream), lambda data: data != b"...") == b"last words"
        # The peer's socket is open still.
        assert stream.receive() == (b"", [])
        assert not stream.hung_up()


def _receive(stream: TLSStream) -> bytes:
    try:
        return stream.receive()[0]
    except BlockingIOError:
        return b"..."


async def test_a_broken_stream_is_an_error(certificates: Certificates) -> None:
    stream, peer = await streams(certificates)
    raw = socket.socket(fileno=os.dup(peer.fileno()))
    with raw, peer, contextlib.closing(stream):
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(OSError, match=r"(?i)bad.record.mac|record.layer.failure"):
            settle(lambda: _receive(stream), lambda data: data != b"...")
        stream.close()
