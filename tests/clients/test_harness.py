"""The conditions under which QEMU's own test harness meets a server.

The tests are this project's; what they ask is what QEMU's qmp-test and
qmp-cmd-test ask of the binary that they are given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.harness_server import HarnessServer
from tests.differential.server import Died

Start = Callable[..., HarnessServer]


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a server; each must end with status 0, and have printed nothing."""
    servers: list[HarnessServer] = []

    def start(*options: str) -> HarnessServer:
        place = directory / str(len(servers))
        place.mkdir()
        servers.append(HarnessServer(place, options))
        return servers[-1]

    yield start
    try:
        for server in servers:
            assert server.end() == 0, server.stderr
            assert server.stdout == b""
            assert server.stderr == ""
    finally:
        for server in servers:
            server.close()


def error_class(answer: dict[str, Any]) -> str:
    return str(answer["error"]["class"])


def test_the_protocol(start: Start) -> None:
    server = start()
    qmp = server.monitor
    assert "oob" in qmp.greeting["QMP"]["capabilities"]
    assert set(qmp.greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
    assert error_class(qmp.execute("query-version")) == "CommandNotFound"
    check_malformed(server)
    server.negotiate()
    assert error_class(qmp.execute("qmp_capabilities")) == "CommandNotFound"
    assert "return" in qmp.execute("query-version")
    check_malformed(server)
    answer = qmp.execute("query-name", id="cookie#1")
    assert answer == {"return": {}, "id": "cookie#1"}
    assert error_class(qmp.execute("human-monitor-command")) == "GenericError"
    assert qmp.execute("human-monitor-command", {})["error"]["desc"] == (
        "Parameter 'command-line' is missing"
    )


MALFORMED = (
    b"null\n",
    b"[null]\n",
    b"}\n",
    b"]\n",
    b"{\xff",
    b"{'bad \xff'\n",
    b"{'execute': 'x', 'id':'\n",
    b"{}\n",
    b"{'execute':1}\n",
    b"{'execute': 'query-name', 'arguments': 1}\n",
    b"{'execute': 'query-name', 'arguments': []}\n",
    b"{'execute': 'query-name', 'extra': true}\n",
)


def check_malformed(server: HarnessServer) -> None:
    """Each gets one GenericError, and what comes next is answered."""
    for data in MALFORMED:
        server.monitor.send(data)
        assert error_class(server.monitor.read_answer()) == "GenericError", data
        probe = server.monitor.execute("no-such-command", id="probe")
        assert (error_class(probe), probe["id"]) == ("CommandNotFound", "probe"), data


def test_out_of_band(start: Start) -> None:
    server = start()
    qmp = server.monitor
    refused = qmp.execute("qmp_capabilities", {"enable": ["unknown"]})
    assert error_class(refused) == "GenericError"
    server.negotiate("oob")
    fifo = server.directory / "fifo"
    os.mkfifo(fifo)

    def send_blocked(id: str) -> None:
        qmp.send(
            json.dumps(
                {
                    "execute": "blockdev-add",
                    "id": id,
                    "arguments": {
                        "driver": "blkdebug",
                        "node-name": id,
                        "config": str(fifo),
                        "image": {"driver": "null-co"},
                    },
                }
            ).encode()
        )

    def unblock() -> None:
        os.close(os.open(fifo, os.O_WRONLY))

    def oob(command: str, id: str, arguments: dict[str, Any]) -> dict[str, Any]:
        request = {"exec-oob": command, "id": id, "arguments": arguments}
        qmp.send(json.dumps(request).encode())
        answer = qmp.read_answer()
        assert answer["id"] == id
        return answer

    send_blocked("blocks-1")
    qmp.send(b'{"execute": "query-name", "id": "quick-1"}')
    # Both wait; what is out of band does not.
    assert error_class(oob("migrate-pause", "oob-1", {})) == "GenericError"
    assert error_class(oob("migrate-recover", "oob-2", {"uri": "tcp:0:1"})) == "GenericError"
    cuttable = oob("query-yank", "oob-3", {})["return"]
    assert sorted(each["id"] for each in cuttable) == ["char0", "qtest"]
    assert oob("yank", "oob-4", {"instances": []}) == {"return": {}, "id": "oob-4"}
    assert error_class(oob("query-name", "oob-5", {})) == "GenericError"
    unblock()
    assert [qmp.read_answer()["id"] for _ in range(2)] == ["blocks-1", "quick-1"]

    # Two that block, one after the other.
    send_blocked("blocks-2")
    send_blocked("blocks-3")
    oob("migrate-pause", "oob-6", {})
    unblock()
    assert qmp.read_answer()["id"] == "blocks-2"
    oob("migrate-pause", "oob-7", {})
    unblock()
    assert qmp.read_answer()["id"] == "blocks-3"


def test_a_client_that_leaves_while_its_command_blocks(directory: Path) -> None:
    """The daemon goes on, and ends when it is told to."""
    server = HarnessServer(directory)
    server.negotiate()
    os.mkfifo(directory / "fifo")
    arguments = {"driver": "blkdebug", "node-name": "n", "image": {"driver": "null-co"}}
    arguments["config"] = str(directory / "fifo")
    request = {"execute": "blockdev-add", "arguments": arguments}
    server.monitor.send(json.dumps(request).encode())
    server.monitor.close()
    assert server.ask_qtest(b"x\n").startswith(b"FAIL")
    try:
        assert server.end() == 0
    finally:
        server.close()


def test_preconfig(start: Start) -> None:
    server = start("--preconfig")
    qmp = server.monitor
    server.negotiate()
    assert "return" in qmp.execute("query-commands")
    assert qmp.execute("query-status")["return"]["status"] == "prelaunch"
    assert error_class(qmp.execute("query-cpus-fast")) == "GenericError"
    backend = {"qom-type": "memory-backend-ram", "id": "early", "size": 4096}
    assert qmp.execute("object-add", backend) == {"return": {}}
    assert qmp.execute("x-exit-preconfig") == {"return": {}}
    assert qmp.read_event("RESUME")
    assert qmp.execute("query-status")["return"] == {"status": "running", "running": True}
    assert error_class(qmp.execute("x-exit-preconfig")) == "GenericError"
    assert qmp.execute("query-cpus-fast") == {"return": []}
    assert len(qmp.execute("query-memdev")["return"]) == 1


def test_a_missing_argument_of_any_type(start: Start) -> None:
    server = start()
    server.negotiate()
    answer = server.monitor.execute("qom-set", {"path": "/machine", "property": "rtc-time"})
    assert error_class(answer) == "GenericError"
    assert answer["error"]["desc"] == "Parameter 'value' is missing"


SYS = Path("/sys/kernel/mm")

EXPECTED_ERRORS = {
    *("query-acpi-ospm-status", "query-balloon", "query-hotpluggable-cpus"),
    *("query-hv-balloon-status-report", "query-sev-capabilities", "query-sev-launch-measure"),
    *("query-sgx", "query-sgx-capabilities", "query-vm-generation-id", "x-query-usb"),
    *("x-query-virtio", "xen-event-list", "add-fd", "x-query-jit"),
}
"""Refused by a QEMU without a machine too, but for `x-query-jit`, which tells of QEMU's own
process, and `add-fd` for want of a descriptor."""


def test_every_query_of_the_schema_succeeds(start: Start) -> None:
    """Whatever needs no arguments and returns something."""
    server = start()
    qmp = server.monitor
    server.negotiate()
    entries = {entry["name"]: entry for entry in qmp.execute("query-qmp-schema")["return"]}
    asked = 0
    for name, entry in entries.items():
        if entry["meta-type"] != "command":
            continue
        members = entries[entry["arg-type"]].get("members", [])
        nothing = not entries[entry["ret-type"]].get("members", True)
        if nothing or any("default" not in member for member in members):
            continue
        answer = qmp.execute(name)
        failing = name in EXPECTED_ERRORS or (name == "x-hugepage-query" and not SYS.exists())
        assert ("error" in answer) is failing, (name, answer)
        asked += 1
    assert asked > 20


def test_object_add_and_del_in_their_failure_modes(start: Start) -> None:
    server = start()
    qmp = server.monitor
    server.negotiate()

    def add(expected: str | None, **arguments: Any) -> None:
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        answer = qmp.execute("object-add", given)
        assert answer.get("error", {}).get("class") == expected, answer

    def delete(expected: str | None, id: str = "ram1") -> None:
        answer = qmp.execute("object-del", {"id": id})
        assert answer.get("error", {}).get("class") == expected, answer

    add("GenericError")
    add("GenericError", qom_type="nonexistent")
    add("GenericError", qom_type="memory-backend-ram")
    add("GenericError", qom_type="memory-backend-ram", id="ram1")
    delete("GenericError")
    add("GenericError", qom_type="memory-backend-ram", id="ram1", size="1048576")
    delete("GenericError")
    add("GenericError", qom_type="memory-backend-ram", id="ram1", size=1048576, unknown=1)
    delete("GenericError")
    add(None, qom_type="memory-backend-ram", id="ram1", size=1048576)
    add("GenericError", qom_type="memory-backend-ram", id="ram1", size=1048576)
    delete(None)
    delete("GenericError")
    delete("GenericError", "nonexistent")
    assert error_class(qmp.execute("object-del")) == "GenericError"


def test_yanking_oneself_ends_the_connection(start: Start) -> None:
    server = start()
    server.negotiate()
    instances = [{"type": "chardev", "id": "char0"}]
    try:
        server.monitor.execute("yank", {"instances": instances})
        assert server.monitor.at_end()
    except Died:
        pass
    assert server.ask_qtest(b"endianness\n").startswith(b"OK ")


def test_the_end_waits_for_no_thread(start: Start) -> None:
    """The FIFO's writer never comes, and it ends all the same."""
    server = start()
    server.negotiate("oob")
    os.mkfifo(server.directory / "fifo")
    arguments = {"driver": "blkdebug", "node-name": "n", "image": {"driver": "null-co"}}
    arguments["config"] = str(server.directory / "fifo")
    request = {"execute": "blockdev-add", "arguments": arguments}
    server.monitor.send(json.dumps(request).encode() + b'{"exec-oob": "query-yank"}')
    assert "return" in server.monitor.read_answer()
