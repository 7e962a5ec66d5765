"""What a test has a daemon say by itself, and what it asks about what was said."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from memd.errors import QMPError
from memd.testing import Server, Unexpected
from tests.faulty.conftest import Connect


def test_an_event_says_what_it_is_told_of_its_time(server: Server, connect: Connect) -> None:
    client = connect()
    server.emit("A", {"x": 1}, timestamp={"seconds": 1, "microseconds": 2})
    server.emit("B", timestamp=None)
    server.fault(event="STOP", timestamp={"seconds": 3, "microseconds": 4})
    client.execute("stop")
    assert client.events == [
        {"event": "A", "data": {"x": 1}, "timestamp": {"seconds": 1, "microseconds": 2}},
        {"event": "B"},
        {"event": "STOP", "timestamp": {"seconds": 3, "microseconds": 4}},
    ]


def test_events_before_negotiation_and_to_one_client(server: Server, connect: Connect) -> None:
    first, second = connect(), connect(negotiate=False)
    server.emit("A")
    server.emit("B", early=True)
    server.emit("C", client=1)
    server.emit("D", client=2)
    second.execute("qmp_capabilities")
    first.execute("query-name")
    assert [event["event"] for event in second.events] == ["B"]
    assert [event["event"] for event in first.events] == ["A", "B", "C"]
    with pytest.raises(QMPError, match="client 3 is not connected"):
        server.emit("E", client=3)


def test_bytes_out_of_the_blue(server: Server, connect: Connect) -> None:
    client = connect(negotiate=False)
    server.send(b'{"event": "\xff"}\r\n', client=1)
    server.tell("x-test-send", {"raw": '{"QMP": 1}\r\n'})
    assert client.read_line() == b'{"event": "\xff"}\r\n'
    assert client.read_line() == b'{"QMP": 1}\r\n'
    told = base64.b64encode(b"\0\xff\r\n").decode()
    server.fault(command="query-name", raw_base64=told)
    client.execute("qmp_capabilities")
    client.send(b'{"execute": "query-name"}')
    assert client.read_line() == b"\0\xff\r\n"
    for wrong in ({}, {"raw": "a", "raw-base64": "YQ=="}, {"raw-base64": "%"}):
        with pytest.raises(QMPError, match="raw"):
            server.tell("x-test-send", wrong)


def test_the_capabilities_of_the_greeting(server: Server, connect: Connect) -> None:
    server.fault(greeting=True, capabilities=["oob", "fast"])
    greeting = connect().greeting
    assert greeting["QMP"]["capabilities"] == ["oob", "fast"]
    assert greeting["QMP"]["version"]["qemu"]["major"] == 10


def test_told_commands_are_listed_if_told_to(server: Server, connect: Connect) -> None:
    client = connect()

    def listed() -> tuple[set[str], set[str]]:
        commands = client.execute("query-commands")["return"]
        schema = client.execute("query-qmp-schema")["return"]
        described = {each["name"] for each in schema if each["meta-type"] == "command"}
        names = {each["name"] for each in schema}
        for each in schema:
            assert {each.get("arg-type"), each.get("ret-type")} - {None} <= names
        return {each["name"] for each in commands}, described

    before = listed()
    server.answer("query-told", 1)
    server.answer("query-name", {}, listed=True)
    assert listed() == before
    server.answer("query-told", 1, listed=True)
    assert listed() == tuple({*each, "query-told"} for each in before)
    with pytest.raises(QMPError, match="'listed' goes with"):
        server.fault(command="stop", error={"desc": "x"}, listed=True)


def test_what_clients_sent_is_expected(server: Server, connect: Connect) -> None:
    client = connect()
    client.execute("stop")
    named: dict[str, Any] = {"commands": ["qmp_capabilities", {"execute": "stop"}]}
    assert server.tell("x-test-expect", named) == {}
    with pytest.raises(QMPError, match="expected:\n > stop"):
        server.tell("x-test-expect", {"commands": ["stop"]})
    for wrong in (1, {}, {"execute": 1}, {"execute": "stop", "arguments": 1}):
        with pytest.raises(QMPError, match="expects names, or objects"):
            server.tell("x-test-expect", {"commands": [wrong]})


def test_a_conversation_is_compared(server: Server, connect: Connect, tmp_path: Path) -> None:
    def talk() -> None:
        client = connect()
        client.execute("stop")
        client.close()

    talk()
    file = tmp_path / "t"
    server.save_transcript(file)
    said = server.transcript
    server.reset()
    talk()
    server.compare(file)
    server.tell("x-test-compare", {"messages": said})
    connect().execute("cont")
    with pytest.raises(Unexpected, match="client 2, message 1"):
        server.compare(file)
    file.write_text("x")
    with pytest.raises(Unexpected, match="is not a transcript: line 1"):
        server.compare(file)
    with pytest.raises(QMPError, match="One of 'filename' and 'messages'"):
        server.tell("x-test-compare", {})
    with pytest.raises(QMPError, match="'messages' is not a transcript: line 2"):
        server.tell("x-test-compare", {"messages": [json.loads(json.dumps(said[0])), 5]})
