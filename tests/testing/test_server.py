"""A daemon for the length of a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client
from memd.errors import QMPError
from memd.testing import Server, ServerDied, Unexpected
from tests.differential.server import TREE, Monitor


def test_from_start_to_end() -> None:
    server = Server(["--name", "vm1"], [{"command": "stop", "error": {"desc": "no"}}])
    assert not server.alive
    assert not os.path.exists(server.socket)
    with server, server.connect() as client:
        assert server.alive
        assert os.stat(server.socket).st_mode & 0o777 == 0o600
        assert client.execute("query-name") == {"name": "vm1"}
        with pytest.raises(QMPError, match="no"):
            client.execute("stop")
        os.kill(server.pid, 0)
    assert not server.alive
    assert not os.path.exists(server.socket)
    assert not os.path.exists(server.control)
    # What ended is not ended again, and may be started again.
    server.stop()
    with pytest.raises(RuntimeError, match="was not started"):
        _ = server.pid
    with server:
        assert server.connect().execute("query-name") == {"name": "vm1"}
        with pytest.raises(RuntimeError, match="was started before"):
            server.start()


def test_it_is_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Ctrl-C at a terminal nor a service manager of the tests is its business."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    with Server() as server:
        assert os.getpgid(server.pid) == server.pid
        environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        assert not [each for each in environment if each.startswith(b"NOTIFY_SOCKET")]
        assert server.connect().execute("query-name") == {}


def test_modules_of_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What lies in the directory that tests are run in is not the daemon's business."""
    for name in ("queue", "memd"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the tests')\n")
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        assert server.connect().execute("query-name") == {}


def test_what_can_not_start() -> None:
    server = Server(["--object", "memory-backend-ram,id=m0"])
    with pytest.raises(ServerDied, match="Parameter 'size' is missing"):
        server.start()
    assert not server.alive
    assert "'size' is missing" in server.log
    with pytest.raises(QMPError, match="'foo' is unexpected"):
        Server(faults=[{"foo": 1}]).start()


def test_one_that_dies() -> None:
    server = Server()
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    with pytest.raises(ServerDied, match="ended with status -9"):
        server.stop()
    assert not os.path.exists(server.socket)
    server.stop()


def test_one_that_is_told_to_die() -> None:
    with Server() as server:
        server.kill()
        assert server.wait() == -signal.SIGKILL
    with Server() as server:
        server.connect().execute("quit")
        assert server.wait() == 0
    with Server() as server, pytest.raises(TimeoutError, match=r"still runs after 0\.01 sec"):
        server.wait(0.01)


def test_one_that_does_not_end_is_killed() -> None:
    server = Server()
    server.start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(0.1)
    assert not server.alive


def test_the_log() -> None:
    with Server(["--object", "memory-backend-ram,id=m0,size=4k"]) as server:
        assert server.log == ""
    program = (
        "import sys; print('some words', file=sys.stderr); import memd.cli.main as m; m.main()"
    )
    server = Server(command=(sys.executable, "-c", program))
    with server:
        assert server.log == "some words\n"
    assert server.log == "some words\n"


async def test_the_same_for_asyncio() -> None:
    async with Server() as server:
        client = await server.connect_async()
        assert await client.execute("query-name") == {}
        server.emit("HELLO")
        assert (await client.events.get())["event"] == "HELLO"
        server.expect("qmp_capabilities", "query-name")
    assert not server.alive


def test_whose_behaviour() -> None:
    with Server(compat="11.1") as server:
        assert server.connect().greeting["QMP"]["version"]["qemu"]["major"] == 11
        server.check_schema()


@pytest.mark.parametrize(("name", "there"), [("d" * 100, False), ("a,b", True)])
def test_deep_temporary_directories(directory: Path, name: str, there: bool) -> None:
    place = directory / name
    place.mkdir()
    script = (
        "from memd.testing import Server\n"
        "with Server() as server:\n"
        "    print(server.socket, server.connect().execute('query-name'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=TREE,
        env={**os.environ, "TMPDIR": str(place)},
    )
    socket, _, answer = done.stdout.rstrip().rpartition(" ")
    assert answer == "{}"
    assert Path(socket).parent == place if there else socket.startswith("/tmp/")


def test_faults_come_and_go(server: Server) -> None:
    client = server.connect()
    name = server.fault(command="query-name", error={"desc": "no"}, answer_id=None)
    assert [each["id"] for each in server.faults] == [name]
    assert server.faults[0]["fault"]["answer-id"] is None
    server.remove_fault(name)
    assert server.faults == []
    server.answer("device_add", {"a": 1})
    assert client.execute("device_add") == {"a": 1}


@pytest.fixture
def new_server() -> Iterator[Server]:
    """One that nothing was said to."""
    with Server() as server:
        yield server


def test_a_reset_leaves_nothing(new_server: Server) -> None:
    server = new_server
    client = server.connect()
    memory = {"qom-type": "memory-backend-ram", "size": 4096}
    # The context can go only after the memory that uses it.
    client.execute("object-add", {"qom-type": "thread-context", "id": "a"})
    client.execute("object-add", {**memory, "id": "b", "prealloc-context": "/objects/a"})
    client.execute("stop")
    client.execute("set-action", {"shutdown": "pause"})
    with open(os.devnull) as null:
        client.execute("getfd", {"fdname": "null"}, fds=[null.fileno()])
        client.execute("add-fd", {"fdset-id": 3}, fds=[null.fileno()])
    capability = {"capability": "xbzrle", "state": True}
    client.execute("migrate-set-capabilities", {"capabilities": [capability]})
    server.fault(command="stop", error={"desc": "no"})
    # One that would be made for ever.
    server.fault(syscall="populate", stall=True)
    endless = {**memory, "qom-type": "memory-backend-ram", "id": "c", "prealloc": True}
    maker = Monitor(server.socket)
    maker.send(json.dumps({"execute": "object-add", "arguments": endless}).encode())
    while not server.faults[-1]["applied"]:
        pass
    server.reset()
    assert maker.read_answer()["error"]["class"] == "GenericError"
    maker.close()
    assert server.sent == []
    assert server.faults == []
    assert client.execute("qom-list", {"path": "/objects"}) == [{"name": "type", "type": "string"}]
    assert client.execute("query-status")["running"] is True
    capabilities = client.execute("query-migrate-capabilities")
    assert not [each for each in capabilities if each["state"]]
    assert client.execute("query-fdsets") == []
    with pytest.raises(QMPError, match="named 'null' not found"):
        client.execute("closefd", {"fdname": "null"})
    # Were it still to pause, it would stay.
    client.execute("system_reset")
    assert client.execute("query-status")["running"] is True
    with pytest.raises(QMPError):
        client.execute("query-foo")
    server.tell("x-test-reset")
    assert server.sent == []
    server.check_schema()
    with pytest.raises(Unexpected, match="there is no command 'query-foo'"):
        server.check_schema(all=True)


def state(client: Client) -> dict[str, Any]:
    """What can be asked of a stand-in, as far as it does not change by itself."""
    asked: tuple[tuple[str, Any], ...] = (
        *((f"query-{name}", None) for name in ("memdev", "memory-devices", "memory-size-summary")),
        *((f"query-{name}", None) for name in ("chardev", "block", "named-block-nodes", "status")),
        *(
            (f"query-{name}", None)
            for name in ("migrate-parameters", "fdsets", "hotpluggable-cpus")
        ),
        *(("qom-list", {"path": path}) for path in ("/", "/objects", "/machine/peripheral")),
        ("qom-list", {"path": "/machine"}),
        ("qom-get", {"path": "/machine/peripheral/v0", "property": "requested-size"}),
        ("qom-get", {"path": "/objects/m0", "property": "merge"}),
        ("query-name", None),
    )
    return {
        f"{command} {arguments}": client.execute(command, arguments) for command, arguments in asked
    }


def test_a_reset_makes_everything_anew(tmp_path: Path) -> None:
    """What the command line describes is there, as it was; what clients made is not."""
    program = "import sys; from memd.cli.qemu_system import main; sys.exit(main())"
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    options = (
        *("-S", "-clients", "many", "-name", "vm", "-machine", "q35,memory-backend=m0"),
        *("-m", "64M,slots=4,maxmem=1G", "-object", "memory-backend-memfd,id=m0,size=64M"),
        *("-object", "memory-backend-ram,id=m1,size=128M"),
        *("-device", "virtio-mem-pci,id=v0,memdev=m1,requested-size=2M"),
        *("-chardev", "null,id=c0", "-serial", "chardev:c0", "-netdev", "user,id=n0"),
        *("-blockdev", f"file,node-name=b0,filename={disk}"),
        *("-device", "pcie-root-port,id=p0", "-device", "pcie-root-port,id=p1,chassis=1"),
        *("-device", "virtio-net-pci,id=e0,netdev=n0,bus=p1"),
    )
    throttled = {"driver": "throttle", "node-name": "b2", "throttle-group": "t0", "file": "b0"}
    with Server(options, command=(sys.executable, "-c", program)) as server:
        client = server.connect()
        # Its own connection is seen, too.
        assert server.faults == []
        first = state(client)
        for _round in range(2):
            for command, arguments in (
                ("object-add", {"qom-type": "memory-backend-ram", "id": "m2", "size": 1 << 27}),
                ("device_add", {"driver": "pc-dimm", "id": "d0", "memdev": "m2"}),
                ("qom-set", {"path": "v0", "property": "requested-size", "value": 8 << 20}),
                ("qom-set", {"path": "/objects/m0", "property": "merge", "value": False}),
                ("netdev_add", {"type": "user", "id": "n1"}),
                ("netdev_del", {"id": "n0"}),
                ("device_add", {"driver": "virtio-rng-pci", "id": "r0", "bus": "p0"}),
                ("blockdev-add", {"driver": "null-co", "node-name": "b1"}),
                ("chardev-add", {"id": "c1", "backend": {"type": "null", "data": {}}}),
                ("migrate-set-parameters", {"downtime-limit": 7}),
                ("object-add", {"qom-type": "rng-random", "id": "rng0"}),
                ("object-add", {"qom-type": "throttle-group", "id": "t0"}),
                ("blockdev-add", throttled),
                ("cont", None),
                ("device_del", {"id": "e0"}),
                ("stop", None),
            ):
                client.execute(command, arguments)
            assert state(client) != first
            server.reset()
            assert state(client) == first
            assert client.execute("query-version")["qemu"]["major"] == 10
        # All that was free at the start is free again.
        client.execute("device_add", {"driver": "virtio-rng-pci", "id": "r0", "bus": "p0"})
        client.execute("blockdev-del", {"node-name": "b0"})


def test_what_can_not_be_made_again(tmp_path: Path) -> None:
    made = f"memory-backend-file,id=m0,size=4K,readonly=on,mem-path={tmp_path / 'f'}"
    (tmp_path / "f").write_bytes(bytes(4096))
    with Server(["--object", made]) as server:
        (tmp_path / "f").unlink()
        with pytest.raises(QMPError, match="can't open backing store"):
            server.reset()
        (tmp_path / "f").write_bytes(bytes(4096))
        server.reset()
        assert len(server.connect().execute("query-memdev")) == 1


def test_resets_at_once() -> None:
    """Several tests' ends come one after the other."""
    options = ["--object", "memory-backend-memfd,id=m0,size=64M,prealloc=on"]
    with Server(options) as server:
        controls = [Monitor(server.control) for _ in range(4)]
        for each in controls:
            each.send(b'{"execute": "x-test-reset"}\n')
        assert [each.read_answer() for each in controls] == [{"return": {}}] * 4
        for each in controls:
            each.close()
        assert len(server.connect().execute("query-memdev")) == 1


def test_what_is_made_again_is_nobodys() -> None:
    """What the command line says counts for no user when a client has it done again, too."""
    options = ["--object", "memory-backend-memfd,id=m0,size=2M", "--max-memory-per-user", "1M"]
    with Server(options) as server:
        server.reset()
        assert len(server.connect().execute("query-memdev")) == 1


def test_the_control_socket_gets_no_events(server: Server) -> None:
    control, client = Monitor(server.control), Monitor(server.socket)
    server.emit("BALLOON_CHANGE", {"actual": 1})
    client.execute("stop")
    assert [event["event"] for event in client.events] == ["BALLOON_CHANGE", "STOP"]
    control.execute("query-name")
    assert control.events == []
    control.close()
    client.close()


def test_what_was_sent(server: Server) -> None:
    client = server.connect()
    client.execute("query-name")
    assert [message["execute"] for message in server.sent] == ["qmp_capabilities", "query-name"]
    server.expect("qmp_capabilities", "query-name")
    server.expect("query-name", only=False)
    with pytest.raises(Unexpected):
        server.expect("query-name")
    with pytest.raises(Unexpected):
        server.expect("query-name", "qmp_capabilities", only=False)


def test_against_the_schema(server: Server) -> None:
    client = server.connect()
    client.execute("query-status")
    server.check_schema()
    server.answer("query-status", {"running": "yes"})
    client.execute("query-status")
    with pytest.raises(Unexpected, match="what query-status returns"):
        server.check_schema()
    server.check_schema(answers=False)
    with pytest.raises(QMPError):
        client.execute("query-foo")
    with pytest.raises(Unexpected, match="there is no command 'query-foo'"):
        server.check_schema(answers=False)


def test_recorded_of_it_and_replayed(server: Server, tmp_path: Path) -> None:
    with server.connect() as client:
        client.execute("stop")
    path = tmp_path / "recorded"
    server.save_transcript(path)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    server.reset()
    server.replay(path)
    again = Monitor(server.socket)
    again.execute("cont")
    with pytest.raises(Unexpected, match=r'"stop"\} is expected(.|\n)*1 recorded messages'):
        server.check_replay()
    assert again.execute("stop") == {"return": {}}
    assert [event["event"] for event in again.events] == ["STOP"]
    again.close()


def test_in_place_of_a_qemu() -> None:
    program = "import sys; from memd.cli.qemu_system import main; sys.exit(main())"
    command = (sys.executable, "-c", program)
    with Server(["-machine", "q35", "-S"], command=command) as server:
        client = server.connect()
        assert client.execute("query-status")["status"] == "prelaunch"
        server.fault(command="query-machines", error={"desc": "no"})
        with pytest.raises(QMPError, match="no"):
            client.execute("query-machines")
