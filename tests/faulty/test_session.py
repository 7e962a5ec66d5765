"""Sessions: whose messages go wrong, and what is recorded of them."""

from __future__ import annotations

from typing import Any

from memd.testing import Server
from tests.faulty.conftest import Connect


def said(server: Server, connection: int) -> list[tuple[str, Any]]:
    """What was said on a connection after its negotiation: by whom, and what."""
    entries = [entry for entry in server.transcript if entry["connection"] == connection]
    return [
        (entry["from"], entry.get("message", entry.get("text", entry.get("end"))))
        for entry in entries[3:]
    ]


def test_clients_are_told_apart(server: Server, connect: Connect) -> None:
    first, second = connect(), connect()
    server.fault(client=2, error={"desc": "not you"})
    server.fault(monitor="compat_monitor0", command="query-uuid", error={"desc": "no"})
    server.fault(monitor="nowhere", error={"desc": "never"})
    assert first.execute("query-name") == {"return": {}}
    assert second.execute("query-name")["error"]["desc"] == "not you"
    assert first.execute("query-uuid")["error"]["desc"] == "no"


def test_commands_are_told_apart(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="object-add", arguments={"id": "m1"}, error={"desc": "not m1"})
    memory = {"qom-type": "memory-backend-ram", "size": 4096}
    assert client.execute("object-add", {**memory, "id": "m0"}) == {"return": {}}
    assert client.execute("object-add", {**memory, "id": "m1"})["error"]["desc"] == "not m1"
    assert server.faults[0]["seen"] == server.faults[0]["applied"] == 1


def test_what_is_no_command_can_be_met(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(answer_id=5)
    client.send(b"{]")
    error = client.read()
    assert (error["error"]["class"], error["id"]) == ("GenericError", 5)
    assert client.execute("query-name", id=1) == {"return": {}, "id": 5}


def test_a_large_message_goes_wrong_and_is_recorded(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="query-name", error={"desc": "no"})
    arguments = {"x" * (1 << 18): 1}
    assert client.execute("query-name", arguments)["error"]["desc"] == "no"
    assert said(server, 1)[0] == ("client", {"execute": "query-name", "arguments": arguments})


def test_everything_is_recorded_in_order(server: Server, connect: Connect) -> None:
    client = connect()
    client.execute("stop", id="a")
    client.send(b"{]")
    client.read()
    client.execute("cont")
    client.close()
    heard = said(server, 1)
    while heard[-1] != ("client", True):
        heard = said(server, 1)
    events = [what for who, what in heard if isinstance(what, dict) and "event" in what]
    assert [event["event"] for event in events] == ["STOP", "RESUME"]
    assert [what for what in heard if what[1] not in events] == [
        ("client", {"execute": "stop", "id": "a"}),
        ("server", {"return": {}, "id": "a"}),
        ("client", "JSON parse error, expecting value"),
        (
            "server",
            {"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}},
        ),
        ("client", {"execute": "cont"}),
        ("server", {"return": {}}),
        ("client", True),
    ]


def test_what_was_answered_is_known(server: Server, connect: Connect) -> None:
    client = connect()
    server.answer("query-foo", {"x": 1})
    client.execute("query-foo")
    client.execute("query-name")
    answers = [
        (entry.get("command"), entry.get("fault"))
        for entry in server.transcript
        if entry["from"] == "server"
    ]
    assert answers == [
        (None, None),
        ("qmp_capabilities", None),
        ("query-foo", True),
        ("query-name", None),
    ]


def test_a_long_answer_goes_wrong_as_any(server: Server, connect: Connect) -> None:
    client = connect()
    memory = {"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20}
    client.execute("object-add", memory)
    server.fault(command="x-memdev-read", answer_id="other", times=1)
    for id in ("other", "b"):
        read = {"id": "m0", "offset": 0, "length": 1 << 20}
        answer = client.execute("x-memdev-read", read, id="b")
        assert (answer["id"], len(answer["return"]["data"])) == (id, 1398104)
        assert said(server, 1)[-1] == ("server", answer)


def test_commands_about_faults_are_not_recorded_and_never_go_wrong(
    server: Server, connect: Connect
) -> None:
    client = connect()
    server.fault(error={"desc": "all is wrong"})
    assert client.execute("query-name")["error"]["desc"] == "all is wrong"
    before = len(server.transcript)
    assert len(client.execute("x-test-faults")["return"]) == 1
    assert client.execute("x-test-fault-del") == {"return": {}}
    assert len(server.transcript) == before
    assert client.execute("query-name") == {"return": {}}


def test_out_of_band_commands_overtake_one_that_is_delayed(
    server: Server, connect: Connect
) -> None:
    client = connect(negotiate=False)
    assert client.execute("qmp_capabilities", {"enable": ["oob"]}) == {"return": {}}
    server.fault(command="query-name", delay=100, answer_id="late")
    server.fault(command="query-yank", answer_id="soon")
    client.send(b'{"execute": "query-name", "id": 1}{"exec-oob": "query-yank", "id": 2}')
    assert [client.read_answer()["id"] for _ in range(2)] == ["soon", "late"]
    # Of these it is the answer that is late, as they are run at once.
    server.fault(command="query-yank", delay=1, events_before=[{"event": "YANKED"}])
    client.send(b'{"execute": "query-name", "id": 1}{"exec-oob": "query-yank", "id": 2}')
    assert [client.read_answer()["id"] for _ in range(2)] == ["soon", "late"]
    assert [event["event"] for event in client.events] == ["YANKED"]


def test_who_leaves_during_a_delay_hurts_nobody(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(command="stop", delay=50, split=1)
    client.send(b'{"execute": "stop"}')
    client.close()
    other = connect()
    while other.execute("query-status")["return"]["running"]:
        pass
    assert other.execute("query-name") == {"return": {}}
