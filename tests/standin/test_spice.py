"""The SPICE display of a stand-in; what is expected was observed on QEMU 10.0.2 and 10.0.13."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests import NOT_THERE
from tests.differential.server import PATIENCE, qemu_system_memd, running
from tests.ports import free_port

NOT_IN_USE = {"class": "DeviceNotActive", "desc": "SPICE is not in use"}


@pytest.mark.parametrize("ticketing", ["on", "yes", "off"])
def test_a_display_on_a_socket(directory: Path, ticketing: str) -> None:
    path = str(directory / "spice")
    spice = f"unix=true,addr={path},disable-ticketing={ticketing},gl=no,port=0x0"
    line = [*qemu_system_memd(), "-machine", "q35", "-nodefaults", "-S", "-spice", spice]
    port = ("-chardev", "spiceport,id=c0,name=org.example.0")
    with running("memd", [*line, *port], directory) as server:
        monitor = server.monitor()
        assert monitor.execute("query-spice")["return"] == {
            "enabled": True,
            "migrated": False,
            "mouse-mode": "server",
            "channels": [],
            "auth": "spice" if ticketing == "off" else "none",
            "host": path,
        }
        password = {"protocol": "spice", "password": "x"}
        refused = {"class": "GenericError", "desc": "Could not set password"}
        answer = monitor.execute("set_password", password)
        assert answer == ({"return": {}} if ticketing == "off" else {"error": refused})
        soon = {"protocol": "spice", "time": "+5"}
        assert monitor.execute("expire_password", soon) == {"return": {}}
        bad = monitor.execute("expire_password", {"protocol": "spice", "time": "x"})
        assert bad["error"]["desc"] == "Parameter 'time' doesn't take value 'x'"
        moved = {"protocol": "spice", "hostname": "h"}
        answer = monitor.execute("client_migrate_info", moved)
        assert answer["error"]["desc"] == "parameter 'port' or 'tls-port' is required"
        assert monitor.execute("client_migrate_info", {**moved, "port": 1}) == {"return": {}}
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            assert client.recv(100) == b""


def test_a_display_at_two_ports(directory: Path) -> None:
    ports = {"port": free_port(), "tls-port": free_port()}
    where = ",".join(f"{name}={port}" for name, port in ports.items())
    spice = f"addr=127.0.0.1,{where},sasl=on,tls-channel=main,x509-dir={NOT_THERE},tls-ciphers=HIGH"
    line = [*qemu_system_memd(), "-machine", "none", "-spice", spice]
    with running("memd", line, directory) as server:
        monitor = server.monitor()
        told = monitor.execute("query-spice")["return"]
        assert told["auth"] == "sasl"
        assert told.items() >= ports.items()
        refused = {"class": "GenericError", "desc": "Could not set password"}
        password = {"protocol": "spice", "password": "x"}
        assert monitor.execute("set_password", password) == {"error": refused}
        for port in ports.values():
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                assert client.recv(100) == b""


def test_no_display(directory: Path) -> None:
    line = [*qemu_system_memd(), "-machine", "q35", "-nodefaults", "-S"]
    with running("memd", line, directory) as server:
        monitor = server.monitor()
        off = {"enabled": False, "migrated": False, "mouse-mode": "client"}
        assert monitor.execute("query-spice")["return"] == off
        for command, arguments in (
            ("set_password", {"password": "x"}),
            ("expire_password", {"time": "now"}),
            ("client_migrate_info", {"hostname": "h", "port": 1}),
        ):
            answer = monitor.execute(command, {"protocol": "spice", **arguments})
            assert answer["error"] == NOT_IN_USE
        for backend, why in (
            ({"type": "spiceport", "data": {"fqdn": "x"}}, "spice not enabled"),
            ({"type": "spicevmc", "data": {"type": "x"}}, "unsupported type name: x"),
        ):
            answer = monitor.execute("chardev-add", {"id": "c0", "backend": backend})
            assert answer["error"]["desc"] == f"Failed to add chardev 'c0': {why}"
