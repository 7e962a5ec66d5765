"""Sending as told: late, in pieces, together, in part, not at all."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

import pytest

from memd.faulty.connection import rewritten, told_event
from memd.server.stream import SocketStream
from memd.testing import Server
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, Died
from tests.faulty.conftest import Connect

ANSWER = b'{"return": {}}\r\n'


def reads(sock: socket.socket, until: bytes = b"\n") -> list[bytes]:
    """What each read gives, until a message has ended."""
    sock.settimeout(PATIENCE)
    found: list[bytes] = []
    while not (found and found[-1].endswith(until)):
        found.append(sock.recv(65536))
        assert found[-1], found
    return found


@pytest.mark.parametrize("size", [1, 7])
def test_pieces_come_one_by_one(server: Server, connect: Connect, size: int) -> None:
    client = connect()
    server.fault(split=size)
    client.send(b'{"execute": "query-status"}')
    pieces = reads(client.socket)
    assert {len(piece) for piece in pieces[:-1]} == {size}
    assert json.loads(b"".join(pieces)) == {"return": {"running": True, "status": "running"}}
    # A message that waits for its turn behind another one.
    client.send(b'{"execute": "stop"}')
    assert json.loads(b"".join(reads(client.socket)))["event"] == "STOP"
    pieces = reads(client.socket)
    assert {len(piece) for piece in pieces[:-1]} == {size}
    assert b"".join(pieces) == ANSWER


def test_a_client_that_reads_late_gets_every_piece(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(split=1, times=1)
    client.send(b'{"execute": "query-name"}')
    other = connect()
    for _ in range(3):
        assert other.execute("query-name") == {"return": {}}
    assert {len(piece) for piece in reads(client.socket)} == {1}


def test_answers_in_one_packet(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="query-name", gather=3, times=1)
    other = connect()
    for _ in range(2):
        client.send(b'{"execute": "query-name"}')
    # The daemon has read that, has had its turn after it, and sent nothing.
    assert not settle(SocketStream(client.socket).unread, lambda now: not now)
    other.execute("query-status")
    client.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.socket.recv(1)
    client.send(b'{"execute": "query-name"}')
    assert reads(client.socket) == [ANSWER * 3]


def test_packet_after_packet(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(gather=2)
    for _ in range(2):
        client.send(b'{"execute": "query-name"}' * 2)
        assert [client.read() for _ in range(2)] == [{"return": {}}] * 2
    client.send(b'{"execute": "query-name"}')
    client.send(b'{"execute": "query-name"}')
    assert reads(client.socket) == [ANSWER * 2]


def test_what_was_gathered_is_sent_at_the_end(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(gather=10)
    client.send(b'{"execute": "query-name"}' * 2)
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.read_line() for _ in range(2)] == [ANSWER, ANSWER]
    assert client.at_end()


def test_events_around_an_answer(server: Server, connect: Connect) -> None:
    client, other = connect(), connect()
    server.fault(
        command="query-name",
        times=1,
        events_before=[{"event": "A"}, {"event": "B", "data": {"n": 1}}],
        events_after=[{"event": "C"}],
    )
    client.send(b'{"execute": "query-name"}')
    before, second, answer, after = (client.read() for _ in range(4))
    assert set(before) == {"event", "timestamp"}
    assert (before["event"], second["event"], second["data"]) == ("A", "B", {"n": 1})
    assert (answer, after["event"]) == ({"return": {}}, "C")
    # They are that client's alone.
    assert other.execute("query-name") == {"return": {}}
    assert other.events == []


def test_before_the_greeting(server: Server, connect: Connect) -> None:
    server.fault(greeting=True, delay=60, events_before=[{"event": "EARLY"}], times=1)
    began = time.monotonic()
    client = socket.socket(socket.AF_UNIX)
    client.connect(server.socket)
    # Others are served meanwhile.
    assert "QMP" in connect().greeting
    with client, client.makefile("rb") as lines:
        assert json.loads(lines.readline())["event"] == "EARLY"
        assert time.monotonic() - began >= 0.06
        assert "QMP" in json.loads(lines.readline())


@pytest.mark.parametrize("members", [{"greeting": True}, {"command": "qmp_capabilities"}])
def test_what_stalls_never_comes(server: Server, connect: Connect, members: Any) -> None:
    server.fault(**members, stall=True, times=1)
    stalled = socket.socket(socket.AF_UNIX)
    stalled.connect(server.socket)
    stalled.sendall(b'{"execute": "qmp_capabilities"}{"execute": "query-name"}')
    other = connect()
    assert other.execute("query-name") == {"return": {}}
    stalled.setblocking(False)
    greeting = b"" if "greeting" in members else stalled.recv(65536)
    assert greeting.count(b"\n") == ("greeting" not in members)
    with pytest.raises(BlockingIOError):
        stalled.recv(1)
    # It is let go as soon as it leaves.
    stalled.shutdown(socket.SHUT_WR)
    stalled.settimeout(PATIENCE)
    assert stalled.recv(1) == b""
    stalled.close()


def test_what_stalls_after_a_while_lets_go_too(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="stop", events_before=[{"event": "A"}], split=1, gather=2)
    server.fault(event="STOP", delay=30, stall=True)
    client.send(b'{"execute": "stop"}')
    client.socket.shutdown(socket.SHUT_WR)
    assert client.at_end()


def test_ids(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(answer_id={"other": [1]}, times=1)
    server.fault(no_id=True, nth=2)
    assert client.execute("query-name", id=1) == {"return": {}, "id": {"other": [1]}}
    assert client.execute("query-name", id=2) == {"return": {}}
    assert client.execute("query-name", id=3) == {"return": {}, "id": 3}


def test_what_is_dropped_is_not_sent(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="query-name", drop=True, times=1)
    client.send(b'{"execute": "query-name", "id": 1}')
    assert client.execute("query-name", id=2) == {"return": {}, "id": 2}


def test_an_event_that_is_dropped(server: Server, connect: Connect) -> None:
    client, other = connect(), connect()
    server.fault(event="STOP", client=1, drop=True)
    assert client.execute("stop") == client.execute("cont") == {"return": {}}
    assert [event["event"] for event in client.events] == ["RESUME"]
    assert [other.read()["event"] for _ in range(2)] == ["STOP", "RESUME"]


def test_raw_bytes(server: Server, connect: Connect) -> None:
    server.fault(greeting=True, raw="HTTP/1.1 400 Bad Request\r\n\r\n", times=1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.socket)
        assert b"".join(reads(client, b"\r\n\r\n")) == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    monitor = connect()
    server.fault(command="stop", raw="\0é", times=1)
    monitor.send(b'{"execute": "stop"}{"execute": "query-name"}')
    assert monitor.read()["event"] == "STOP"
    assert monitor.read_line() == b"\0\xc3\xa9" + ANSWER


def test_the_connection_is_cut(server: Server, connect: Connect) -> None:
    """Each moment to do it, and whether the command was run by then."""
    for when, rest, run in (
        ("instead", b"", False),
        ("before", b"", True),
        ("middle", ANSWER[: len(ANSWER) // 2], True),
        ("after", ANSWER, True),
    ):
        client = connect()
        server.fault(command="stop", disconnect=when, times=1)
        client.send(b'{"execute": "stop"}{"execute": "cont"}')
        received = b""
        while chunk := client.socket.recv(65536):
            received += chunk
        event, _, answer = received.partition(b"\n") if run else (b"", b"", received)
        assert (b"STOP" in event, answer) == (run, rest), when
        # What came after it was not run.
        other = connect()
        assert other.execute("query-status")["return"]["running"] is not run
        other.execute("cont")


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_the_greeting_and_events_are_cut(server: Server, connect: Connect, when: str) -> None:
    client = connect()
    server.fault(greeting=True, disconnect=when, times=1)
    server.fault(event="STOP", client=1, disconnect=when)
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(PATIENCE)
        other.connect(server.socket)
        greeting = b"".join(iter(lambda: other.recv(65536), b""))
    assert (len(greeting) > 0, b"\n" in greeting) == (when != "before", when == "after")
    client.send(b'{"execute": "stop"}')
    event = b"".join(iter(lambda: client.socket.recv(65536), b""))
    assert (len(event) > 0, b"\n" in event) == (when != "before", when == "after")
    # It was run, and the others are told.
    assert connect().execute("query-status")["return"]["running"] is False


def test_an_event_that_is_late_keeps_its_place(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(event="", delay=30)
    client.send(b'{"execute": "stop"}{"execute": "query-name", "id": 1}')
    assert client.read()["event"] == "STOP"
    assert [client.read() for _ in range(2)] == [{"return": {}}, {"return": {}, "id": 1}]


def test_who_leaves_while_something_waits(server: Server, connect: Connect) -> None:
    effects: Any = ({"delay": 3_600_000}, {"split": 1}, {"gather": 5}, {"stall": True})
    for turn, members in enumerate(effects):
        # Three clients a turn, of whom the first one leaves.
        fault = server.fault(event="", client=3 * turn + 1, **members)
        client, other = connect(), connect()
        client.send(b'{"execute": "stop"}')
        while other.execute("query-status")["return"]["running"]:
            pass
        client.close()
        other.close()
        server.remove_fault(fault)
        connect().execute("cont")
    server.reset()
    assert server.log == ""


def test_a_long_answer_in_pieces(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="query-qmp-schema", split=1000)
    schema = client.execute("query-qmp-schema")["return"]
    assert schema == connect().execute("query-qmp-schema")["return"]


def test_how_much_is_sent_before_the_cut(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(disconnect="middle", cut=3)
    client.send(b'{"execute": "query-name"}')
    with pytest.raises(Died, match=r"""end of stream after b'\{"r'"""):
        client.read_line()


def test_descriptors_go_with_what_is_sent_and_stay_nowhere(
    server: Server, connect: Connect
) -> None:
    client = connect()
    memory = {"qom-type": "memory-backend-memfd", "id": "m0", "size": 4096}
    assert client.execute("object-add", memory) == {"return": {}}
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    server.fault(command="x-memdev-export", drop=True, nth=1)
    server.fault(command="x-memdev-export", split=5, nth=2)
    server.fault(command="x-memdev-export", stall=True, nth=3)
    for _ in range(3):
        client.send(b'{"execute": "x-memdev-export", "arguments": {"id": "m0"}}')
    client.socket.settimeout(PATIENCE)
    data, fds, _flags, _address = socket.recv_fds(client.socket, 65536, 16)
    assert (len(data), len(fds)) == (5, 1)
    os.close(fds[0])
    reads(client.socket)
    # The third holds its own.
    while len(os.listdir(f"/proc/{server.pid}/fd")) != before + 1:
        pass
    client.close()
    other = connect()
    # Its connection, for that of the one that left.
    while len(os.listdir(f"/proc/{server.pid}/fd")) != before:
        other.execute("query-name")


def test_descriptors_of_an_answer_to_a_client_that_was_disconnected_are_closed(
    server: Server, connect: Connect
) -> None:
    other = connect()
    memory = {
        "qom-type": "memory-backend-file",
        "id": "m0",
        "size": 4096,
        # On a disk, unlike what tests make where /tmp is a tmpfs: a thread exports it.
        "mem-path": os.path.realpath(sys.executable),
        "share": True,
        "readonly": True,
    }
    assert other.execute("object-add", memory) == {"return": {}}
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    server.fault(command="query-yank", disconnect="after")
    exports = 0
    answers = b"\n\n"
    # Until what is asked out of band has ended the connection before the thread was done.
    while answers.count(b"\n") > 1:
        client = connect(negotiate=False)
        client.send(b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}')
        assert client.read() == {"return": {}}
        client.send(
            b'{"execute": "x-memdev-export", "arguments": {"id": "m0"}}{"exec-oob": "query-yank"}'
        )
        answers = b""
        while received := client.socket.recv(65536):
            answers += received
        exports += 1
    # It is exported all the same.
    while other.execute("x-memdev-stat", {"id": "m0"})["return"][0]["exports"] < exports:
        pass
    open_now = settle(lambda: len(os.listdir(f"/proc/{server.pid}/fd")), lambda now: now <= before)
    assert open_now == before


def test_the_kernel_tells_what_was_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = SocketStream(ours)
        assert not stream.unread()
        ours.send(b"x")
        assert stream.unread()
        theirs.recv(1)
        assert not stream.unread()


def test_bytes_as_told() -> None:
    assert rewritten(ANSWER, {}) == ANSWER
    assert rewritten(b'{"return": 1, "id": 2}\r\n', {"no-id": True}) == b'{"return": 1}\r\n'
    spread = b'{\r\n    "return": 1\r\n}\r\n'
    assert b"\n    " in rewritten(spread, {"answer-id": 1})
    event = json.loads(told_event({"event": "A", "data": [1]}))
    assert (event["event"], event["data"], set(event["timestamp"])) == (
        "A",
        [1],
        {"seconds", "microseconds"},
    )
