"""The daemon with --test-faults: its two sockets, and whose end is its end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from memd.testing import Server
from tests.differential.server import PATIENCE, Monitor
from tests.faulty.conftest import Connect


def test_nothing_goes_wrong_over_the_control_socket(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(error={"desc": "no"})
    server.fault(greeting=True, stall=True)
    server.fault(event="", drop=True)
    control = Monitor(server.control)
    assert control.execute("stop") == {"return": {}}
    assert control.events == []
    assert client.execute("query-name")["error"]["desc"] == "no"
    assert client.events == []
    # Neither was it recorded, nor counted.
    assert {entry["connection"] for entry in server.transcript} == {1}
    assert [message["execute"] for message in server.sent] == ["qmp_capabilities", "query-name"]
    control.close()


def test_it_ends_with_who_started_it() -> None:
    server = Server()
    with server:
        client = server.connect(timeout=PATIENCE)
        assert server._lifeline is not None
        server._lifeline.close()
        assert server.wait() == 0
        assert client.wait_event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-signal"}
        assert not os.path.exists(server.socket)
        assert not os.path.exists(server.control)


def test_it_ends_when_who_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from memd.testing import Server\n"
        "server = Server()\n"
        "server.start()\n"
        "print(server.pid, server.socket, server.control, flush=True)\n"
        "time.sleep(600)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, *paths = starter.stdout.readline().split()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(paths[0])
        starter.kill()
        starter.wait()
        starter.stdout.close()
        while client.recv(65536):
            pass
    with contextlib.suppress(OSError):
        while Path(f"/proc/{pid}/cmdline").read_bytes():
            pass
    assert not any(map(os.path.exists, paths))


def test_a_control_socket_that_was_listened_on_may_be_left(server: Server) -> None:
    Monitor(server.control).close()
    assert server.tell("query-name") == {}


def test_an_option_of_its_own_gives_the_commands(directory: Path) -> None:
    argv = [sys.executable, "-m", "memd", "--test-faults"]
    from tests.differential.server import Server as Process

    process = Process("memd", argv, directory)
    monitor = process.monitor()
    assert monitor.execute("x-test-fault-add", {"command": "stop", "drop": True})["return"]
    assert monitor.execute("x-test-answer", {"command": "a", "return": 1})["return"]
    assert monitor.execute("a") == {"return": 1}
    monitor.close()
    # Nobody is its lifeline.
    assert process.monitor().execute("a") == {"return": 1}
    process.stop()


def test_who_is_not_for_control_is_no_lifeline(directory: Path) -> None:
    """Also where memd has connected."""
    path = directory / "listener"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE)
        with Server(["--qmp", f"unix:{path}"]) as server:
            client, _address = listener.accept()
            client.settimeout(PATIENCE)
            assert b"QMP" in client.recv(65536)
            client.close()
            while not any(entry.get("end") for entry in server.transcript):
                pass
            assert server.alive
            assert server.connect().execute("query-name") == {}
