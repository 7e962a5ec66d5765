"""Commands that are answered as told, and those that tell it."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.faulty.dispatcher import OWN_HANDLERS
from memd.faulty.session import OWN
from memd.qapi import load_schema
from memd.testing import Server
from tests.differential.harness import Side, settle
from tests.differential.server import PATIENCE
from tests.faulty.conftest import Connect


def test_without_the_option_there_is_nothing_of_this(memd: Side) -> None:
    commands = {each["name"] for each in memd.ask("query-commands")["return"]}
    assert not {name for name in commands if name.startswith(OWN)}
    schema = memd.ask("query-qmp-schema")["return"]
    assert not [entry for entry in schema if entry["name"].startswith(OWN)]
    assert memd.ask("x-test-faults")["error"] == {
        "class": "CommandNotFound",
        "desc": "The command x-test-faults has not been found",
    }


def test_with_it_they_are_told_of(server: Server, connect: Connect) -> None:
    client = connect()
    commands = {each["name"] for each in client.execute("query-commands")["return"]}
    assert {name for name in commands if name.startswith(OWN)} == set(OWN_HANDLERS)
    described = client.execute("query-qmp-schema")["return"]
    names = {entry["name"] for entry in described if entry["meta-type"] == "command"}
    assert names == commands


@pytest.mark.parametrize("compat", list(Compat))
def test_every_command_of_the_schema_is_there(compat: Compat) -> None:
    ordinary, whole = load_schema(compat).commands, load_schema(compat, test=True).commands
    assert set(whole) - set(ordinary) == set(OWN_HANDLERS)


def test_they_are_checked_like_any_command(server: Server, connect: Connect) -> None:
    client = connect(negotiate=False)
    assert client.execute("x-test-faults")["error"]["class"] == "CommandNotFound"
    client.execute("qmp_capabilities", {"enable": ["oob"]})
    for name, arguments, text in (
        ("x-test-nothing", {}, "The command x-test-nothing has not been found"),
        ("x-test-fault-add", {"foo": 1}, "Parameter 'foo' is unexpected"),
        ("x-test-fault-add", {"delay": "1"}, "Parameter 'delay' expects uint64"),
        ("x-test-fault-del", {"id": "x"}, "fault 'x' not found"),
        ("x-test-replay-status", {}, "nothing is replayed"),
    ):
        assert client.execute(name, arguments)["error"]["desc"] == text
    client.send(b'{"exec-oob": "x-test-faults"}')
    desc = "The command x-test-faults does not support OOB"
    assert client.read_answer()["error"]["desc"] == desc


def test_commands_that_there_are_not(server: Server, connect: Connect) -> None:
    client = connect()
    server.answer("device_add", {"anything": [1, None]})
    server.answer("qom-fetch", "x")
    assert client.execute("device_add", {"driver": 5}, id=1) == {
        "return": {"anything": [1, None]},
        "id": 1,
    }
    assert client.execute("qom-fetch") == {"return": "x"}


def test_errors_of_any_kind(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="stop", error={"desc": 'a "text"\n', "class": "Wondrous"})
    server.fault(command="cont", error={"desc": ""})
    assert client.execute("stop")["error"] == {"class": "Wondrous", "desc": 'a "text"\n'}
    assert client.execute("cont")["error"] == {"class": "GenericError", "desc": ""}
    assert client.execute("query-status")["return"]["running"] is True
    assert client.events == []


def test_answered_as_told_though_it_is_run(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="stop", error={"desc": "no"}, run=True)
    server.fault(command="object-add", answer=[], run=True)
    assert client.execute("stop")["error"]["desc"] == "no"
    assert [event["event"] for event in client.events] == ["STOP"]
    assert client.execute("query-status")["return"]["running"] is False
    memory = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096, "prealloc": True}
    # This one is run beside the event loop.
    assert client.execute("object-add", memory) == {"return": []}
    assert [each["id"] for each in client.execute("query-memdev")["return"]] == ["m0"]
    # A refusal by the daemon itself is not covered up, and undoes what it has to.
    assert "error" in client.execute("object-add", memory)
    server.fault(syscall="populate", errno="ENOMEM", nth=1)
    for outcome in ("error", "return"):
        assert outcome in client.execute("object-add", {**memory, "id": "m1"})


def test_descriptors_of_answers_that_nobody_gets(server: Server, connect: Connect) -> None:
    """They are closed once each: neither kept, nor somebody else's closed with them."""
    client = connect()
    memory = {"qom-type": "memory-backend-memfd", "id": "m0", "size": 4096}
    assert client.execute("object-add", memory) == {"return": {}}
    export = {"execute": "x-memdev-export", "arguments": {"id": "m0"}}
    here = f"/proc/{server.pid}/fd"
    # The first fault of all opens a connection for faults.
    server.fault(command="x-memdev-export", error={"desc": "no"}, run=True, times=1)
    before = len(os.listdir(here))
    assert client.execute("x-memdev-export", {"id": "m0"})["error"]["desc"] == "no"
    # The client has left when its answer is sent; or that was seen before, by an event.
    for members, event in (({}, "cont"), ({"stall": True}, "stop")):
        server.fault(command="x-memdev-export", delay=50, times=1, **members)
        leaving = connect()
        leaving.send(json.dumps(export).encode())
        leaving.close()
        client.execute(event)
        after = settle(lambda: len(os.listdir(here)), lambda now: now == before)
        assert (after, server.log) == (before, "")
    client.execute("cont")
    assert client.execute("object-del", {"id": "m0"}) == {"return": {}}


def test_a_handshake_as_other_fakes_have_it(server: Server, connect: Connect) -> None:
    server.fault(command="qmp_capabilities", answer=[], run=True)
    client = connect(negotiate=False)
    assert client.execute("qmp_capabilities") == {"return": []}
    assert client.execute("query-name") == {"return": {}}


def test_a_delayed_command(server: Server, connect: Connect) -> None:
    client, other = connect(), connect()
    server.fault(command="stop", delay=80, times=1)
    began = time.monotonic()
    client.send(b'{"execute": "stop"}')
    assert client.read()["event"] == "STOP"
    assert client.read() == {"return": {}}
    assert time.monotonic() - began >= 0.08
    server.fault(command="stop", client=1, nth=1, delay=20)
    client.execute("cont")
    assert [other.read_event(name) for name in ("STOP", "RESUME")]
    client.send(b'{"execute": "stop"}')
    other.read_event("STOP")
    other.execute("query-name")
    # It was run after the delay, and its answer has not waited once more.
    client.socket.setblocking(False)
    assert client.socket.recv(65536).endswith(b'"STOP"}\r\n{"return": {}}\r\n')
    client.socket.settimeout(PATIENCE)
    server.fault(command="query-uuid", delay=1, error={"desc": "late"})
    assert client.execute("query-uuid")["error"]["desc"] == "late"


def test_a_delayed_command_keeps_nobody_else_waiting() -> None:
    """Nor does the end wait for it."""
    server = Server(faults=[{"command": "stop", "delay": 3_600_000}])
    with server:
        server.connect()._socket.sendall(b'{"execute": "stop"}')
        while not server.faults[0]["applied"]:
            pass
        assert server.connect().execute("query-status")["running"] is True
        began = time.monotonic()
    assert time.monotonic() - began < 60


def test_what_is_delayed_does_not_run_after_a_reset(server: Server, connect: Connect) -> None:
    client, gone = connect(), connect(negotiate=False)
    server.fault(delay=3_600_000)
    client.send(
        b'{"execute": "object-add", "arguments":'
        b' {"qom-type": "memory-backend-ram", "id": "late", "size": 65536}}'
    )
    gone.send(b'{"execute": "qmp_capabilities"}')
    settle(lambda: server.faults[0]["applied"], lambda applied: applied == 2)
    gone.socket.close()
    server.reset()
    assert client.read()["error"]["desc"] == "the daemon ends or is reset"
    found = client.execute("qom-list", {"path": "/objects"})["return"]
    assert [each["name"] for each in found] == ["type"]
    # The client that is there is the first one now.
    server.fault(client=1, command="stop", error={"desc": "first"})
    assert client.execute("stop")["error"]["desc"] == "first"
    assert server.log == ""


def test_a_version_of_ones_choice(server: Server, connect: Connect) -> None:
    version: dict[str, Any] = {"qemu": {"major": 2, "minor": 12, "micro": 1}, "package": "p"}
    server.fault(greeting=True, version=version)
    client = connect()
    assert client.greeting == {"QMP": {"version": version, "capabilities": ["oob"]}}
    assert client.execute("query-version")["return"] == version
    # The one that tells it sees what is really there.
    assert server.tell("query-version")["qemu"]["major"] == 10


def test_events_now(server: Server, connect: Connect) -> None:
    client, silent = connect(), connect(negotiate=False)
    server.emit("POWERDOWN")
    server.emit("NEW_ONE", {"a": 1})
    first, second = client.read(), client.read()
    assert (first["event"], set(first)) == ("POWERDOWN", {"event", "timestamp"})
    assert (second["event"], second["data"]) == ("NEW_ONE", {"a": 1})
    assert silent.execute("qmp_capabilities") == {"return": {}}
    assert silent.events == []


def test_the_transcript_in_parts(server: Server, connect: Connect) -> None:
    client = connect()
    first = server.tell("x-test-transcript")
    assert (len(first["messages"]), first["next"], first["lost"]) == (3, 3, 0)
    client.execute("query-name")
    later = server.tell("x-test-transcript", {"since": first["next"]})
    assert [entry["from"] for entry in later["messages"]] == ["client", "server"]
    assert len(server.transcript) == later["next"] == 5


def test_a_reset_forgets_everything(server: Server, connect: Connect) -> None:
    first = connect()
    server.fault(client=1, error={"desc": "first"})
    assert "error" in first.execute("stop")
    server.reset()
    assert (server.faults, server.transcript) == ([], [])
    # Who is there is counted first, who has left not at all.
    connect().close()
    server.reset()
    server.fault(client=1, command="stop", error={"desc": "first again"})
    server.fault(client=2, command="stop", error={"desc": "second"})
    assert connect().execute("stop")["error"]["desc"] == "second"
    assert first.execute("stop")["error"]["desc"] == "first again"
    assert {entry["connection"] for entry in server.transcript} == {1, 2}


def test_what_can_not_be_replayed(server: Server, tmp_path: Any) -> None:
    (tmp_path / "t").write_text("x")
    with pytest.raises(QMPError, match="is not a transcript: line 1"):
        server.replay(tmp_path / "t")
    with pytest.raises(QMPError, match="No such file or directory"):
        server.replay(tmp_path / "none")
