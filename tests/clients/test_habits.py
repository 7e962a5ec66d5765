"""How management stacks connect: what they send, split, leave out and expect."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.server import Monitor

MIB = 1 << 20


def raw_client(memd: Side) -> tuple[socket.socket, Any]:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(memd.server.path))
    return client, client.makefile("rb")


def test_a_client_that_never_sends_a_newline(memd: Side) -> None:
    client, answers = raw_client(memd)
    with client, answers:
        assert "QMP" in json.loads(answers.readline())
        for request in (
            b'{"execute":"qmp_capabilities"}',
            b'{"execute":"query-status","id":"__qmp#00001"}',
            b'{"arguments":{"qom-type":"memory-backend-ram","id":"m0","size":4096},'
            b'"execute":"object-add"}',
        ):
            client.sendall(request)
            assert "return" in json.loads(answers.readline())


def test_a_strict_reader(memd: Side) -> None:
    """The greeting has these members alone, and every answer ends in CR LF."""
    client, answers = raw_client(memd)
    with client, answers:
        greeting = answers.readline()
        assert greeting.endswith(b"\r\n")
        qmp = json.loads(greeting)
        assert list(qmp) == ["QMP"]
        assert set(qmp["QMP"]) == {"version", "capabilities"}
        assert set(qmp["QMP"]["version"]) == {"qemu", "package"}
        assert set(qmp["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
        assert qmp["QMP"]["version"]["qemu"]["major"] >= 5
        client.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"nope"}\n')
        assert answers.readline() == b'{"return": {}}\r\n'
        error = answers.readline()
        assert error.endswith(b"\r\n")
        assert all(isinstance(member, str) for member in json.loads(error)["error"].values())


def test_connect_negotiate_leave_and_come_again(memd: Side) -> None:
    """A shim asks whether the monitor is there, and comes back for work; objects stay."""
    for number in range(20):
        monitor = memd.server.monitor()
        answer = monitor.execute(
            "object-add", {"qom-type": "memory-backend-ram", "id": f"m{number}", "size": 4096}
        )
        assert answer == {"return": {}}
        monitor.close()
    assert len(memd.objects()) == 20


def test_capabilities_belong_to_a_connection(memd: Side) -> None:
    first = memd.server.monitor()
    first.close()
    second = memd.server.monitor(negotiate=False)
    refused = second.execute("query-status")
    assert refused["error"]["class"] == "CommandNotFound"


def test_arguments_come_before_execute(memd: Side) -> None:
    """Keys in any order, and an empty arguments member with commands that take none."""
    for request in (
        b'{"arguments":{},"execute":"query-status"}\n',
        b'{"id":7,"arguments":{"path":"/objects"},"execute":"qom-list"}\n',
        b'{"arguments":{"enable":[]},"execute":"query-status"}\n',
    ):
        memd.monitor.send(request)
        answer = memd.monitor.read_answer()
        assert ("return" in answer) is (b"enable" not in request)


def test_a_half_close_gets_all_its_answers(memd: Side) -> None:
    client, answers = raw_client(memd)
    with client, answers:
        client.sendall(b'{"execute":"qmp_capabilities"}' + b'{"execute":"query-status"}' * 100)
        client.shutdown(socket.SHUT_WR)
        assert len(answers.readlines()) == 102


def test_a_descriptor_rides_on_a_command(memd: Side) -> None:
    """getfd and add-fd without a newline, the descriptor in the same message."""
    with open("/dev/null", "rb") as file:
        memd.monitor.send(b'{"arguments":{"fdname":"f0"},"execute":"getfd"}', [file.fileno()])
        assert memd.monitor.read_answer() == {"return": {}}
        memd.monitor.send(
            b'{"arguments":{"fdset-id":3,"opaque":"x"},"execute":"add-fd"}', [file.fileno()]
        )
        added = memd.monitor.read_answer()["return"]
        assert added["fdset-id"] == 3
    # They outlive the connection that brought them.
    again = memd.server.monitor()
    (fdset,) = again.execute("query-fdsets")["return"]
    assert fdset["fdset-id"] == 3
    assert again.execute("remove-fd", {"fdset-id": 3}) == {"return": {}}
    assert again.execute("closefd", {"fdname": "f0"}) == {"return": {}}


@pytest.mark.parametrize(
    "request_",
    [
        {"qom-type": "memory-backend-memfd", "id": "memdimm0", "share": True, "size": 128 * MIB},
        {
            "qom-type": "memory-backend-file",
            "id": "memdimm1",
            "mem-path": "@DIR@",
            "discard-data": True,
            "share": True,
            "prealloc": True,
            "prealloc-threads": 2,
            "size": 4 * MIB,
        },
        {
            "qom-type": "memory-backend-memfd",
            "id": "memvirtiomem1",
            "share": True,
            "reserve": False,
            "size": 256 * MIB,
        },
        {
            "qom-type": "memory-backend-memfd",
            "id": "ram-node0",
            "share": True,
            "size": 4 * MIB,
            "prealloc": True,
            "prealloc-context": "tc-ram-node0",
            "host-nodes": [0],
            "policy": "bind",
        },
    ],
    ids=lambda request: str(request["id"]),
)
def test_backends_as_libvirt_asks_for_them(memd: Side, request_: dict[str, Any]) -> None:
    context = request_.get("prealloc-context")
    if context:
        answer = memd.ask(
            "object-add", {"qom-type": "thread-context", "id": context, "node-affinity": [0]}
        )
        assert answer == {"return": {}}
    assert memd.ask("object-add", request_) == {"return": {}}
    if context:
        assert memd.ask("object-del", {"id": context}) == {"return": {}}
    assert [row.size for row in memd.regions()] == [request_["size"]]
    assert memd.ask("object-del", {"id": request_["id"]}) == {"return": {}}


def test_a_template_and_its_clones(memd: Side) -> None:
    """A shared writer makes a file, clones leave share out; then all go."""
    template = memd.scratch / "template"
    with template.open("wb") as file:
        file.truncate(8 * MIB)
    for name, more in (("template", {"share": True}), ("clone0", {}), ("clone1", {})):
        answer = memd.ask(
            "object-add",
            {
                "qom-type": "memory-backend-file",
                "id": name,
                "mem-path": "@DIR@/template",
                "size": 8 * MIB,
                **more,
            },
        )
        assert answer == {"return": {}}
    assert sorted(row.permissions for row in memd.regions()) == ["rw-p", "rw-p", "rw-s"]


def test_polling_status_until_the_end(start_memd: Any) -> None:
    server = start_memd()
    monitor: Monitor = server.monitor()
    for command, running in (("stop", False), ("cont", True)):
        monitor.execute(command)
        status = monitor.execute("query-status")["return"]
        assert status["running"] is running
        assert status["status"] == ("running" if running else "paused")
    monitor.execute("quit")
    monitor.read_event("SHUTDOWN")
    assert server.wait() == 0
