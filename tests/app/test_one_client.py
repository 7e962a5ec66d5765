"""One client at a time, as a QEMU has it, or any number."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from memd.client import Client
from tests.app.starting import ENVIRONMENT, Start, filenames, run
from tests.differential.server import PATIENCE, Monitor, qemu_argv, qemu_system_memd, running
from tests.tls import Certificates, is_served, server_options


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    try:
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


def is_greeted(client: socket.socket, seconds: float) -> bool:
    return bool(select.select([client], [], [], seconds)[0])


@pytest.mark.parametrize("name", ["QEMU", "memd"])
def test_a_second_client_waits_for_the_first_to_leave(name: str, directory: Path) -> None:
    argv = qemu_argv() if name == "QEMU" else [*qemu_system_memd(), "-machine", "none"]
    with running(name, argv, directory, directory) as server:
        for _round in range(3):
            first = Monitor(server.path)
            second, third = connected(server.path), connected(server.path)
            # The backlog is full.
            with pytest.raises(BlockingIOError):
                connected(server.path)
            first.execute("query-name")
            assert not is_greeted(second, 0.05)
            first.close()
            assert is_greeted(second, PATIENCE)
            assert second.recv(4096).startswith(b'{"QMP"')
            assert not is_greeted(third, 0.05)
            second.close()
            assert is_greeted(third, PATIENCE)
            third.close()


def test_any_number_if_told_so(start: Start) -> None:
    server = start()
    clients = [server.monitor() for _ in range(5)]
    assert all(each.execute("query-name") == {"return": {}} for each in clients)


def test_one_at_each_monitor(start: Start, directory: Path) -> None:
    other, control = directory / "other", directory / "control"
    server = start(
        "-clients",
        "one",
        "-qmp",
        f"unix:{other},server=on,wait=off",
        "-test-control",
        f"unix:{control},server=on,wait=off",
    )
    first, second = server.monitor(), Monitor(other)
    with connected(other) as waiting:
        assert not is_greeted(waiting, 0.05)
    # A test's own socket is for any number.
    third, fourth = Monitor(control), Monitor(control)
    for each in (first, second, third, fourth):
        assert each.execute("query-name") == {"return": {}}
        each.close()


def test_one_over_tls(start: Start, certificates: Certificates) -> None:
    """A handshake that fails leaves the place to the next, as does a client that goes."""
    server = start("-clients", "one", *server_options(certificates.good))
    port = int(filenames(server)["secure"].partition(",")[0].rpartition(":")[2])
    for _round in range(2):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"no TLS\r\n" * 10)
            # An alert, or a reset where some was not read.
            with contextlib.suppress(ConnectionResetError):
                client.recv(100)
        assert is_served(port, certificates.client_context())


def test_memd_too_if_told_so(start_memd: Start) -> None:
    server = start_memd("--clients", "one")
    first = server.monitor()
    with connected(server.path) as second:
        assert not is_greeted(second, 0.05)
        first.close()
        assert is_greeted(second, PATIENCE)


def test_memctl_says_so(start: Start) -> None:
    server = start("-clients", "one")
    with Client(server.path), connected(server.path), connected(server.path):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from memd.memctl.main import main; sys.exit(main())",
                "-s",
                str(server.path),
                "ls",
            ],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 3
    assert "It may serve one client at a time, as a QEMU does, and have one." in done.stderr


def test_what_it_can_not_be() -> None:
    done = run("-clients", "two")
    assert done.returncode == 1
    assert "Parameter 'clients' does not accept value 'two'" in done.stderr
