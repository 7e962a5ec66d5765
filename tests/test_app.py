"""The daemon as its command line composes it: monitors, accelerators, ways to start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.harness_server import Accepted, qemu_system_memd
from tests.conftest import NOT_HERE
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, TREE, Monitor, Server, memd_argv
from tests.tls import Certificates, server_options

Start = Callable[..., Server]
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(TREE))


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a `qemu-system-memd` that serves a socket of its own besides."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        place = directory / f"server{len(servers)}"
        place.mkdir()
        argv = [*qemu_system_memd(), "-machine", "none", *options]
        servers.append(Server("qemu-system-memd", argv, place))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def run(*options: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a `qemu-system-memd` that is to end by itself."""
    argv = [*(prefix or []), *qemu_system_memd(), "-machine", "none", *options]
    return subprocess.run(
        argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(str(path))
        sock.listen(4)
        yield sock


def status(server: Server) -> str:
    return str(server.monitor().execute("query-status")["return"]["status"])


def test_run_states_at_the_start(start: Start) -> None:
    assert status(start()) == "running"
    assert status(start("-S")) == "prelaunch"
    server = start("-S", "--preconfig")
    monitor = server.monitor()
    assert monitor.execute("x-exit-preconfig") == {"return": {}}
    assert monitor.execute("query-status")["return"]["status"] == "prelaunch"
    monitor.execute("cont")
    assert [event["event"] for event in monitor.events] == ["RESUME"]


def test_what_it_is_called(start: Start) -> None:
    uuid = "6F2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f"
    monitor = start("-name", "guest=vm1,debug-threads=on", "-uuid", uuid).monitor()
    assert monitor.execute("query-name")["return"] == {"name": "vm1"}
    assert monitor.execute("query-uuid")["return"] == {"UUID": uuid.lower()}


@pytest.mark.parametrize(
    "options",
    [
        ["-accel", "kvm"],
        ["-accel", "kvm", "-accel", "tcg"],
        ["-machine", "none,accel=kvm:tcg"],
        ["-enable-kvm"],
    ],
)
def test_kvm_is_used_where_it_can_be(start: Start, options: list[str]) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip(f"{NOT_HERE}KVM")
    answer = start(*options).monitor().execute("query-kvm")
    assert answer["return"] == {"enabled": True, "present": True}


@pytest.mark.parametrize("options", [[], ["-accel", "tcg"], ["-accel", "tcg", "-accel", "kvm"]])
def test_kvm_is_not_used_unasked(start: Start, options: list[str]) -> None:
    assert start(*options).monitor().execute("query-kvm")["return"]["enabled"] is False


def test_kvm_that_is_not_there() -> None:
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{NOT_HERE}mount namespaces")
    done = run("-accel", "kvm", "-qmp", "stdio", prefix=hidden)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "qemu-system-memd: Could not access KVM kernel module: No such file or directory",
        "qemu-system-memd: failed to initialize kvm: No such file or directory",
    ]
    done = run("-accel", "kvm", "-accel", "tcg", "-qmp", "unix:/nonexistent/x", prefix=hidden)
    assert done.stderr.splitlines()[:3] == [
        "qemu-system-memd: Could not access KVM kernel module: No such file or directory",
        "qemu-system-memd: failed to initialize kvm: No such file or directory",
        "qemu-system-memd: falling back to tcg",
    ]


def test_an_accelerator_of_11_1_that_is_not_there() -> None:
    if os.path.exists("/dev/mshv"):
        pytest.skip(f"{NOT_HERE}a machine without mshv")
    done = run("-compat", "11.1", "-accel", "mshv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "qemu-system-memd: Failed to open /dev/mshv: No such file or directory",
        "qemu-system-memd: failed to initialize mshv: Operation not permitted",
    ]


def test_started_as_libvirt_starts_it(directory: Path) -> None:
    """Once the one that was started is gone: a socket, a pidfile, and nobody at its output."""
    path, pidfile = directory / "qmp.monitor", directory / "qmp.pid"
    options = [
        *["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg"],
        *("-qmp", f"unix:{path},server=on,wait=off"),
        *("-pidfile", str(pidfile), "-daemonize"),
    ]
    # `run` reads both to their end, which comes when no process holds them.
    done = run(*options)
    pid = int(pidfile.read_text())
    try:
        assert done.returncode == 0
        assert done.stdout == ""
        monitor = Monitor(path)
        assert monitor.execute("query-target")["return"]["arch"] == os.uname().machine
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    finally:
        os.kill(pid, signal.SIGTERM)
    assert monitor.read_event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-signal"}
    assert monitor.at_end()
    monitor.close()
    assert settle(lambda: (path.exists(), pidfile.exists()), lambda now: now == (False, False)) == (
        False,
        False,
    )


def test_it_connects_again(start: Start, directory: Path) -> None:
    path = directory / "there"
    server = start(
        "-chardev", f"socket,id=c0,path={path},reconnect-ms=10", "-mon", "c0,mode=control"
    )
    text = f"Unable to connect character device c0: Failed to connect to '{path}'"
    assert server.stderr().count(text) == 1
    for _ in range(2):
        with listening(path) as sock:
            for _ in range(2):
                client, _address = sock.accept()
                connection = Accepted(client)
                assert connection.execute("qmp_capabilities") == {"return": {}}
                # Cut off, it comes back too.
                connection.close()
        path.unlink()
    # Nobody listens: what is tried in vain is told once.
    assert status(server) == "running"


def test_without_reconnect_it_stays_alone(start: Start, directory: Path) -> None:
    with listening(directory / "there") as sock:
        server = start(
            "-chardev", f"socket,id=c0,path={directory}/there", "-mon", "c0,mode=control"
        )
        client, _address = sock.accept()
        Accepted(client).close()
        names = settle(lambda: filenames(server), lambda seen: "disconnected" in seen["c0"])
        assert names["c0"] == f"disconnected:unix:{directory}/there"


def filenames(server: Server) -> dict[str, str]:
    answer = server.monitor().execute("query-chardev")["return"]
    return {each["label"]: each["filename"] for each in answer}


def test_a_client_that_finds_nobody() -> None:
    done = run("-chardev", "socket,id=c0,path=/nonexistent/x", "-mon", "c0,mode=control")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "qemu-system-memd: -chardev socket,id=c0,path=/nonexistent/x: "
        "Failed to connect to '/nonexistent/x': No such file or directory"
    ]


def test_character_devices_that_nothing_sits_on(start: Start, directory: Path) -> None:
    server = start(
        *("-chardev", "null,id=n0"),
        *("-chardev", f"socket,id=s0,path={directory}/s0,server=on,wait=off"),
        *("-chardev", "socket,id=t0,host=127.0.0.1,port=0,server=on,wait=off"),
    )
    names = filenames(server)
    assert names["n0"] == "null"
    assert names["s0"] == f"disconnected:unix:{directory}/s0,server=on"
    assert names["t0"].startswith("disconnected:tcp:127.0.0.1:")
    answer = server.monitor().execute("query-chardev")["return"]
    used = {each["label"]: each["frontend-open"] for each in answer}
    assert used == {"n0": False, "s0": False, "t0": False, "compat_monitor0": True}
    server.stop()
    assert not (directory / "s0").exists()


def test_both_ends_of_a_connection_over_tcp(start: Start) -> None:
    server = start("-qmp", "tcp:127.0.0.1:0,server=on,wait=off")
    name = filenames(server)["compat_monitor0"]
    assert name.startswith("disconnected:tcp:127.0.0.1:")
    here = name.removeprefix("disconnected:tcp:").removesuffix(",server=on")
    with socket.create_connection(("127.0.0.1", int(here.rpartition(":")[2]))) as client:
        assert client.recv(1)
        there = ":".join(map(str, client.getsockname()))
        assert filenames(server)["compat_monitor0"] == f"tcp:{here},server=on <-> {there}"


def test_another_clients_connection_is_cut(start: Start, directory: Path) -> None:
    server = start("-qmp", f"unix:{directory}/other,server=on,wait=off")
    other = Monitor(directory / "other")
    instances = [{"type": "chardev", "id": "compat_monitor0"}]
    assert server.monitor().execute("yank", {"instances": instances}) == {"return": {}}
    assert other.at_end()
    other.close()
    assert status(server) == "running"


def test_qtest_as_a_server(start: Start, directory: Path) -> None:
    log = directory / "log"
    server = start("-qtest", f"unix:{directory}/qtest,server=on,wait=off", "-qtest-log", str(log))
    with socket.socket(socket.AF_UNIX) as harness:
        harness.settimeout(PATIENCE)
        harness.connect(f"{directory}/qtest")
        harness.sendall(b"endianness\n")
        assert harness.recv(100).startswith(b"OK ")
        instances: list[dict[str, Any]] = [{"type": "chardev", "id": "qtest"}]
        assert server.monitor().execute("yank", {"instances": instances}) == {"return": {}}
        assert harness.recv(100) == b""
    assert "OPENED" in log.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-qtest", "stdio"], "the qtest protocol is spoken on sockets only"),
        (
            ["-qtest", "null", "-qtest-log", "/nonexistent/log"],
            "could not open '/nonexistent/log': No such file or directory",
        ),
        (
            ["-monitor", "null", "-S"],
            "-monitor null: only monitors in control mode (QMP) are served",
        ),
    ],
)
def test_what_is_refused(options: list[str], text: str) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [f"qemu-system-memd: {text}"]


REFUSED = "refusing to serve QMP {} beyond this machine"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_tcp_beyond_this_machine(
    start: Start, start_memd: Start, directory: Path, address: str
) -> None:
    if address.startswith("[") and not has_ipv6():
        pytest.skip(f"{NOT_HERE}IPv6")
    options = ("-qmp", f"tcp:{address},server=on,wait=off")
    memd = subprocess.run(
        [*memd_argv(), *options], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert memd.returncode == 1
    assert REFUSED.format("in clear") in memd.stderr
    for server in (start_memd("--insecure-tcp", *options), start(*options)):
        port = filenames(server)["compat_monitor0"].partition(",")[0].rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port))) as client:
            assert client.recv(1) == b"{"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_tcp_over_ipv6(start_memd: Start) -> None:
    if not has_ipv6():
        pytest.skip(f"{NOT_HERE}IPv6")
    server = start_memd("-qmp", "tcp:[::1]:0,server=on,wait=off")
    name = filenames(server)["compat_monitor0"]
    assert name.startswith("disconnected:tcp:[::1]:")
    port = int(name.partition(",")[0].rpartition(":")[2])
    with socket.create_connection(("::1", port)) as client:
        assert client.recv(1) == b"{"


def test_tls_beyond_this_machine(start_memd: Start, certificates: Certificates) -> None:
    """Peers that prove who they are may come from anywhere."""
    start_memd(*server_options(certificates.good, host="0.0.0.0"))
    options = server_options(certificates.good, host="0.0.0.0", verify_peer="off")
    memd = subprocess.run(
        [*memd_argv(), *options], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert memd.returncode == 1
    assert REFUSED.format("to just anybody") in memd.stderr
    start_memd("--insecure-tcp", *options)


def test_credentials_that_can_not_be_used(directory: Path) -> None:
    done = run(*server_options(directory))
    assert done.returncode == 1
    missing = f"Unable to access credentials {directory}/ca-cert.pem: No such file or directory"
    assert done.stderr == f"qemu-system-memd: {missing}\n"
