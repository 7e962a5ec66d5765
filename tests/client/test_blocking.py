from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.client import Client, QMPError
from tests.differential.harness import Side, settle
from tests.differential.kernel import descriptors
from tests.differential.server import Server
from tests.ports import free_port

MIB = 1 << 20


@pytest.fixture
def client(memd: Side) -> Iterator[Client]:
    before = descriptors(os.getpid())
    with Client(memd.server.path, timeout=60) as client:
        yield client
    assert descriptors(os.getpid()) <= before


def test_commands(client: Client) -> None:
    assert client.greeting["QMP"]["version"]["qemu"]["major"] >= 10
    assert client.execute("query-status")["running"] is True
    with pytest.raises(QMPError) as refused:
        client.execute("qom-get", {"path": "nope", "property": "size"})
    assert (refused.value.error_class, refused.value.desc) == (
        "DeviceNotFound",
        "Device 'nope' not found",
    )


def add(client: Client, kind: str = "memfd", size: int = MIB) -> None:
    client.execute("object-add", {"qom-type": f"memory-backend-{kind}", "id": "m", "size": size})


def test_memory(client: Client, memd: Side) -> None:
    add(client)
    client.write("m", 5, b"hello")
    assert client.read("m", 4, 7) == b"\0hello\0"
    with client.export("m") as memory:
        with mmap.mmap(memory.fd, memory.size, offset=memory.offset) as there:
            assert there[5:10] == b"hello"
            there[5] = ord("j")
        assert client.read("m", 5, 5) == b"jello"
    with client.export("m", writable=False) as memory:
        assert not memory.writable
        with pytest.raises(PermissionError):
            mmap.mmap(memory.fd, memory.size)
    (stat,) = client.execute("x-memdev-stat")
    assert stat["exports"] == 2
    # memd keeps none of what it gave away.
    held = settle(
        lambda: sum(n for name, n in descriptors(memd.server.pid).items() if "memfd:" in name),
        lambda count: count == 1,
    )
    assert held == 1


def test_refused_exports_do_not_shift_the_next(client: Client) -> None:
    add(client, "ram")
    with pytest.raises(QMPError, match="share=on"):
        client.export("m")
    client.execute("object-del", {"id": "m"})
    add(client)
    with client.export("m") as memory:
        assert os.fstat(memory.fd).st_size == MIB


def test_more_than_goes_at_once(client: Client) -> None:
    add(client, size=40 * MIB)
    data = os.urandom(MIB) * 33
    client.write("m", 3, data)
    assert client.read("m", 3, len(data)) == data
    assert client.read("m", 0, 0) == b""


@pytest.fixture
def without_descriptors(memd: Side, directory: Path) -> Iterator[Path]:
    """A socket that leads to memd and passes no descriptors on, as one that ssh(1) forwards."""
    path = directory / "forwarded"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as server:
        listener.bind(str(path))
        listener.listen()
        server.connect(str(memd.server.path))

        def pass_on() -> None:
            peer, _ = listener.accept()

            def there() -> None:
                while data := peer.recv(1 << 20):
                    server.sendall(data)
                server.shutdown(socket.SHUT_RDWR)

            going = threading.Thread(target=there)
            going.start()
            while data := server.recv(1 << 20):
                peer.sendall(data)
            going.join()
            peer.close()

        thread = threading.Thread(target=pass_on)
        thread.start()
        yield path
        thread.join()


def test_where_no_descriptor_passes(without_descriptors: Path) -> None:
    with Client(without_descriptors, timeout=60) as client:
        add(client, "ram", 8 * MIB)
        data = os.urandom(2 * MIB)
        client.write("m", 3, data)
        assert client.read("m", 3, len(data)) == data
        client.execute("object-del", {"id": "m"})


def test_no_copy_in_the_text(client: Client) -> None:
    """What is long goes beside the messages, and what goes wrong is told as ever."""
    add(client, "ram", 8 * MIB)
    data = os.urandom(3 * MIB)
    client.write("m", MIB, data)
    client.write("m", 0, bytearray(data))
    client.write("m", 0, memoryview(data)[: 2 * MIB])
    assert client.read("m", 0, 4 * MIB) == data + data[2 * MIB :]
    pieces: list[bytes] = []
    client.read_each("m", 0, 7 * MIB, lambda piece: pieces.append(bytes(piece)))
    assert b"".join(pieces) == client.read("m", 0, 7 * MIB)
    with pytest.raises(QMPError, match="not within the 8388608 bytes"):
        client.write("m", 7 * MIB, data)
    with pytest.raises(QMPError, match="not found"):
        client.read("none", 0, MIB)
    assert client.read("m", 7 * MIB, MIB) == bytes(MIB)


@pytest.mark.parametrize("size", [0, 1, 300 << 10, 20 * MIB])
def test_what_is_filled_in_is_written(client: Client, size: int) -> None:
    add(client, size=20 * MIB)
    data = os.urandom(size)
    assert client.write_each("m", 0, io.BytesIO(data).readinto) == size
    assert client.read("m", 0, size) == data
    with pytest.raises(QMPError, match="not found"):
        client.write_each("none", 0, io.BytesIO(data).readinto)


def test_what_is_filled_in_is_written_where_no_descriptor_passes(
    without_descriptors: Path,
) -> None:
    with Client(without_descriptors, timeout=60) as client:
        add(client, "ram", 20 * MIB)
        data = os.urandom(10 * MIB)
        assert client.write_each("m", 7, io.BytesIO(data).readinto) == len(data)
        assert client.read("m", 7, len(data)) == data
        client.execute("object-del", {"id": "m"})


def test_descriptors_to_the_server(client: Client) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    assert client.execute("getfd", {"fdname": "x"}, fds=[fd]) == {}
    os.close(fd)
    assert client.execute("closefd", {"fdname": "x"}) == {}


def test_events(client: Client) -> None:
    client.execute("stop")
    client.execute("cont")
    assert client.wait_event("RESUME")["event"] == "RESUME"
    assert [each["event"] for each in client.events] == ["STOP"]
    assert client.wait_event()["event"] == "STOP"
    with pytest.raises(TimeoutError):
        client.wait_event("SHUTDOWN", timeout=0.01)
    assert client.execute("query-name") == {}


def test_events_as_they_come(client: Client) -> None:
    seen: list[str] = []
    client.on_event = lambda event: seen.append(event["event"])
    client.execute("stop")
    client.execute("cont")
    assert seen == ["STOP", "RESUME"]
    assert not client.events
    client.on_event = None
    client.execute("stop")
    assert [each["event"] for each in client.events] == ["STOP"]
    client.execute("cont")


def test_patience_may_change(directory: Path) -> None:
    path = directory / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b'{"QMP": {}}\r\n')
                peer.recv(1000)
                peer.sendall(b'{"return": {}, "id": 1}\r\n')
                # Whatever it is asked, it says nothing until the client has left.
                while peer.recv(1000):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(path, timeout=60) as client:
            client.set_timeout(0.01)
            assert client.timeout == 0.01
            with pytest.raises(TimeoutError):
                client.execute("query-name")
        thread.join()


def test_the_end(start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    with Client(server.path, timeout=60) as client:
        client.execute("quit")
        with pytest.raises(ConnectionError):
            client.execute("query-name")
    assert server.wait() == 0
    with pytest.raises(OSError):
        Client(server.path)


def test_over_tcp(start_memd: Callable[..., Server]) -> None:
    """No descriptor can come along, and the rest is the same."""
    port = free_port()
    start_memd("--qmp", f"tcp:127.0.0.1:{port},server=on,wait=off")
    with Client(("127.0.0.1", port), timeout=60) as client:
        add(client)
        with pytest.raises(QMPError, match="this connection carries no descriptors"):
            client.export("m")
        assert client.read("m", 0, 4) == bytes(4)


def test_a_server_that_is_late(directory: Path) -> None:
    """A command that was given up is answered later, its descriptor closed."""
    path = directory / "sock"
    before = descriptors(os.getpid())
    silent = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer, open("/dev/null") as null:
                peer.sendall(b'{"QMP": {}}\r\n')
                peer.recv(1000)
                peer.sendall(b'{"return": {}, "id": 1}\r\n')
                peer.recv(1000)
                silent.wait(60)
                peer.recv(1000)
                late = b'{"return": {}, "id": 2}\r\n'
                socket.send_fds(peer, [late], [null.fileno()])
                peer.sendall(b'{"return": 5, "id": 3}\r\n')

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(path, timeout=60) as client:
            client.set_timeout(0.1)
            with pytest.raises(TimeoutError):
                client.export("m")
            client.set_timeout(60)
            silent.set()
            assert client.execute("query-name") == 5
            thread.join()
    assert descriptors(os.getpid()) <= before


@pytest.mark.parametrize("text", ["\udcff", "x" * (70 << 20)])
def test_a_command_that_the_server_cannot_read(client: Client, text: str) -> None:
    """It ends with the error that was said without an id, and the next ones are answered."""
    for _ in range(2):
        with pytest.raises(QMPError, match="JSON"):
            client.execute("object-del", {"id": text})
        assert client.execute("query-name") == {}


def test_pretty(start_memd: Callable[..., Server], directory: Path) -> None:
    path = directory / "pretty"
    start_memd("--qmp", f"unix:{path},server=on,wait=off,pretty=on")
    with Client(path, timeout=60) as client:
        assert client.execute("query-status")["running"] is True
        client.execute("stop")
        assert client.wait_event()["event"] == "STOP"


@contextlib.contextmanager
def deaf_server(path: Path) -> Iterator[socket.socket]:
    """Greets a client and reads nothing from it then."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as clients:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            clients.enter_context(peer)
            peer.sendall(b'{"QMP": {}}\r\n')
            peer.recv(1000)
            peer.sendall(b'{"return": {}, "id": 1}\r\n')

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener
        thread.join()


def test_a_command_that_was_sent_in_part(directory: Path) -> None:
    """What follows would be read as the rest of it."""
    path = directory / "sock"
    with deaf_server(path), Client(path, timeout=60) as client:
        client.set_timeout(0.05)
        with pytest.raises(TimeoutError):
            client.execute("x", {"a": "x" * (8 << 20)})
        with pytest.raises(ConnectionError, match="sent in part"):
            client.execute("query-name")


def test_an_export_without_room_for_its_descriptor(client: Client) -> None:
    """An error, and not the descriptor -1, which mmap(2) takes for memory of its own."""
    add(client)
    before = descriptors(os.getpid())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limit[1]))
    try:
        with pytest.raises(OSError) as lost:
            client.export("m")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert lost.value.errno == errno.EMFILE
    assert descriptors(os.getpid()) <= before
    with client.export("m") as memory:
        assert os.fstat(memory.fd).st_size == MIB
