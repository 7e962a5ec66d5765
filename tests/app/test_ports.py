"""Monitors and character devices: who is let in, and who is called."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests import NOT_THERE, prefork
from tests.app.starting import Start, filenames, listening, run, status
from tests.clients.harness_server import Accepted
from tests.conftest import NOT_HERE
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, Monitor, memd_argv
from tests.tls import Certificates, is_served, server_options


def test_it_connects_again(start: Start, directory: Path) -> None:
    path = directory / "there"
    server = start(
        "-chardev", f"socket,id=c0,path={path},reconnect-ms=10", "-mon", "c0,mode=control"
    )
    text = f"Unable to connect character device c0: Failed to connect to '{path}'"
    assert server.stderr(text).count(text) == 1
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


def test_a_client_that_finds_nobody() -> None:
    done = run("-chardev", f"socket,id=c0,path={NOT_THERE}/x", "-mon", "c0,mode=control")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"qemu-system-memd: -chardev socket,id=c0,path={NOT_THERE}/x: "
        f"Failed to connect to '{NOT_THERE}/x': No such file or directory"
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


def test_who_is_at_the_other_end_of_a_console(start: Start, directory: Path) -> None:
    with listening(directory / "there") as sock:
        server = start("-machine", "q35", "-serial", f"unix:{directory}/there")
        console, _address = sock.accept()
        with console:
            assert filenames(server)["serial0"] == f"unix:{directory}/there"
            console.sendall(b"not read\n")
        assert filenames(server)["serial0"] == f"disconnected:unix:{directory}/there"
        sock.settimeout(PATIENCE)
        backend = {
            "type": "socket",
            "data": {
                "server": False,
                "addr": {"type": "unix", "data": {"path": f"{directory}/there"}},
            },
        }
        monitor = server.monitor()
        assert monitor.execute("chardev-add", {"id": "c", "backend": backend}) == {"return": {}}
        other, _address = sock.accept()
        with other:
            instances = [{"type": "chardev", "id": "c"}]
            assert monitor.execute("yank", {"instances": instances}) == {"return": {}}
            assert other.recv(1) == b""


def test_what_clients_had_made_goes_with_the_process(start: Start, directory: Path) -> None:
    """Sockets that are listened at, and the link to a terminal."""
    server = start("-S", "-incoming", "defer")
    names = ("device", "incoming", "server", "terminal")
    device, incoming, nbd, terminal = (f"{directory}/{name}" for name in names)
    address = {"addr": {"type": "unix", "data": {"path": device}}, "server": True, "wait": False}
    monitor = server.monitor()
    for command, arguments in (
        ("chardev-add", {"id": "c", "backend": {"type": "socket", "data": address}}),
        ("chardev-add", {"id": "p", "backend": {"type": "pty", "data": {"path": terminal}}}),
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": nbd}}}),
        ("migrate-incoming", {"uri": f"unix:{incoming}"}),
    ):
        assert "return" in monitor.execute(command, arguments)
    assert {*names} <= {*os.listdir(directory)}
    server.stop()
    assert {*names}.isdisjoint(os.listdir(directory))


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
            ["-qtest", "null", "-qtest-log", f"{NOT_THERE}/log"],
            f"could not open '{NOT_THERE}/log': No such file or directory",
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
    memd = prefork.run([*memd_argv(), *options])
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
    memd = prefork.run([*memd_argv(), *options])
    assert memd.returncode == 1
    assert REFUSED.format("to clients without certificates") in memd.stderr
    start_memd("--insecure-tcp", *options)


def address_for_others() -> str | None:
    """An address of this machine that others reach; None for none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Nothing is sent: the kernel chooses the address that it would send from.
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(sock.getsockname()[0])


def test_strangers_where_a_client_has_opened_the_credentials(
    start_memd: Start, certificates: Certificates
) -> None:
    """A client from another machine shows a certificate, whatever is set."""
    host = address_for_others()
    if host is None:
        pytest.skip(f"{NOT_HERE}an address that others reach")
    server = start_memd(*server_options(certificates.good, host="0.0.0.0"))
    port = int(filenames(server)["secure"].partition(",")[0].rpartition(":")[2])
    good = certificates.client_context()
    assert is_served(port, good, host)
    change = {"path": "/objects/tls0", "property": "verify-peer", "value": False}
    assert server.monitor().execute("qom-set", change) == {"return": {}}
    assert not is_served(port, good, host)
    assert is_served(port, good)


def test_credentials_that_a_client_has_opened(
    start_memd: Start, certificates: Certificates
) -> None:
    """Where certificates stand for users, nobody is let in without, whatever is set."""
    options = server_options(certificates.good)
    server = start_memd(*options, "--allow-user", "0")
    port = int(filenames(server)["secure"].partition(",")[0].rpartition(":")[2])
    good = certificates.client_context()
    assert is_served(port, good)
    change = {"path": "/objects/tls0", "property": "verify-peer", "value": False}
    assert server.monitor().execute("qom-set", change) == {"return": {}}
    assert not is_served(port, good)
    told = "refused a client: 'tls0' has verify-peer=off"
    assert told in server.stderr(told)
    change["value"] = True
    assert server.monitor().execute("qom-set", change) == {"return": {}}
    assert is_served(port, good)


def test_credentials_that_can_not_be_used(directory: Path) -> None:
    done = run(*server_options(directory))
    assert done.returncode == 1
    missing = f"Unable to access credentials {directory}/ca-cert.pem: No such file or directory"
    assert done.stderr == f"qemu-system-memd: {missing}\n"
