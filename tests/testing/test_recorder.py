"""Recording, a real QEMU's conversation too."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client
from memd.errors import QMPError
from memd.testing import Recorder, Server
from tests.descriptors import open_descriptors
from tests.differential.server import Monitor, qemu_argv, running


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def said(path: Path, connection: int = 1) -> list[tuple[str, Any]]:
    return [
        (entry["from"], entry.get("message", entry.get("text", "the end")))
        for entry in lines(path)
        if entry["connection"] == connection
    ]


def unread(sock: socket.socket) -> int:
    """Bytes that have come and were not read."""
    found = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def stop(recorder: Recorder) -> bool:
    """Have it end; whether it does."""
    stopping = threading.Thread(target=recorder.stop, daemon=True)
    stopping.start()
    stopping.join(30)
    return not stopping.is_alive()


def exchange(path: str) -> list[Any]:
    """What the tests have a server asked, and its answers, errors in the end."""
    found = []
    with Client(path, timeout=60) as client:
        found.append(client.greeting["QMP"]["capabilities"])
        for command, arguments in (
            ("query-status", None),
            ("object-add", {"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20}),
            ("query-memdev", None),
            ("object-add", {"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20}),
            ("cont", None),
            ("object-del", {"id": "m0"}),
        ):
            try:
                found.append(client.execute(command, arguments))
            except QMPError as error:
                found.append(error.desc)
        found.append([event["event"] for event in client.events])
    return found


def test_a_real_qemu_is_recorded_and_replayed(directory: Path) -> None:
    argv = qemu_argv()
    path = directory / "transcript"
    with running("qemu", [*argv, "-S"], directory) as qemu:
        with Recorder(str(directory / "r"), str(qemu.path), path) as recorder:
            recorded = exchange(recorder.path)
        assert not (directory / "r").exists()
    assert recorded[-1] == ["RESUME"]
    assert recorded[4] == "attempt to add duplicate property 'm0' to object (type 'container')"
    times = [entry["time"] for entry in lines(path)]
    assert times == sorted(times)
    with Server(replay=path) as server:
        assert exchange(server.socket) == recorded
        # Word for word, from the file and not from memd.
        again = Monitor(server.socket, negotiate=False)
        greeting = again.greeting
        again.close()
        assert greeting == next(each for who, each in said(path) if who == "server")
    with Server(replay=path) as server:
        assert exchange(server.socket) == recorded
        server.check_replay()


def test_in_order_and_as_it_is(server: Server, tmp_path: Path, directory: Path) -> None:
    path = tmp_path / "t"
    with Recorder(str(directory / "r"), server.socket, path) as recorder:
        first, second = Monitor(recorder.path), Monitor(recorder.path)
        first.send(b'{"execute":\n "query-name", "id": [1, 2.5]} {]')
        first.read(), first.read()
        second.send(b'{"execute": "query-uuid"}')
        # Its end is the last that it says, and all is answered.
        second.socket.shutdown(socket.SHUT_WR)
        assert "return" in second.read()
        assert second.at_end()
        first.close()
        second.close()
    assert said(path)[3:] == [
        ("client", {"execute": "query-name", "id": [1, 2.5]}),
        ("client", "JSON parse error, expecting value"),
        ("server", {"return": {}, "id": [1, 2.5]}),
        (
            "server",
            {"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}},
        ),
        ("client", "the end"),
        ("server", "the end"),
    ]
    # Its end and the answer come by two directions, in whatever order.
    first_word, *between, last_word = (who for who, _ in said(path, 2)[3:])
    assert (first_word, sorted(between), last_word) == ("client", ["client", "server"], "server")


def test_descriptors_go_through(server: Server, tmp_path: Path, directory: Path) -> None:
    before = len(open_descriptors())
    memory = {"qom-type": "memory-backend-memfd", "id": "m0", "size": 4096}
    with (
        Recorder(str(directory / "r"), server.socket, tmp_path / "t") as recorder,
        Client(recorder.path, timeout=60) as client,
        open(os.devnull) as file,
    ):
        assert client.execute("getfd", {"fdname": "f"}, fds=[file.fileno()]) == {}
        client.execute("object-add", memory)
        with client.export("m0") as export:
            assert os.fstat(export.fd).st_size == 4096
    assert len(open_descriptors()) == before


def test_descriptors_that_find_no_room(
    server: Server, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Recorder(str(directory / "r"), server.socket, directory / "t") as recorder,
        Client(recorder.path, timeout=60) as client,
        open(os.devnull) as file,
    ):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limit[1]))
        try:
            with pytest.raises(ConnectionError):
                client.execute("getfd", {"fdname": "f"}, fds=[file.fileno()] * 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert ("client", "the end") in said(directory / "t")
    assert "a client's descriptors find no room" in caplog.text


def test_nobody_there(directory: Path) -> None:
    with (
        Recorder(str(directory / "r"), str(directory / "none"), directory / "t") as recorder,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.settimeout(60)
        client.connect(recorder.path)
        assert client.recv(1) == b""
    assert lines(directory / "t") == []
    recorder.stop()


def test_clients_that_are_still_there_are_disconnected(server: Server, directory: Path) -> None:
    recorder = Recorder(str(directory / "r"), server.socket, directory / "t")
    recorder.start()
    client = Monitor(recorder.path)
    recorder.stop()
    assert client.at_end()
    client.close()
    assert [who for who, _ in said(directory / "t")] == ["server", "client", "server"]


def test_who_sends_much_before_it_reads(server: Server, directory: Path) -> None:
    """As without a recorder, the server takes it, and nobody else waits for this one."""
    count = 20_000
    recorder = Recorder(str(directory / "r"), server.socket, directory / "t")
    recorder.start()
    eager = Monitor(recorder.path)
    try:
        eager.socket.sendall(b'{"execute": "query-name"}\n' * count)
        # Others are served meanwhile, whatever is not read.
        with Client(recorder.path, timeout=60) as other:
            assert other.execute("query-status")["running"] is True
        for _ in range(count):
            assert eager.read_answer() == {"return": {}}
    finally:
        eager.close()
        ended = stop(recorder)
    assert ended
    assert sum(who == "client" for who, _ in said(directory / "t")) == count + 2


def test_it_ends_though_somebody_does_not_read(server: Server, directory: Path) -> None:
    recorder = Recorder(str(directory / "r"), server.socket, directory / "t")
    recorder.start()
    client = socket.socket(socket.AF_UNIX)
    client.connect(recorder.path)
    client.sendall(b'{"execute": "qmp_capabilities"}')
    # Answers of some hundred kilobytes each, which nobody reads.
    client.sendall(b'{"execute": "query-qmp-schema"}' * 100)
    # Until no more of them fits in between.
    lies = [-1, 0]
    while lies[-1] != lies[-2] or lies[-1] < 1000:
        time.sleep(0.2)
        lies.append(unread(client))
    ended = stop(recorder)
    client.close()
    assert ended
