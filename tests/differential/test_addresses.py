"""On which addresses of a host TCP connections are taken: ipv4=, ipv6=, empty hosts, names."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from tests import prefork
from tests.differential.server import memd_argv, qemu_argv, qemu_compat, running
from tests.ports import free_port

HOSTS = ("", "127.0.0.1", "::", "::1", "localhost")
SWITCHES = ("", "=on", "=off")

Case = tuple[str, str]
"""A host, and the options after it."""


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


def cases() -> list[Case]:
    """Those in which there is something to listen on."""
    found = []
    for host, ipv4, ipv6 in itertools.product(HOSTS, SWITCHES, SWITCHES):
        family = socket.AF_UNSPEC
        if ipv4 == ipv6 == "=off":
            continue
        if ipv4 != ipv6:
            only_4 = ipv6 == "=off" or (ipv4 == "=on" and ipv6 == "")
            family = socket.AF_INET if only_4 else socket.AF_INET6
        try:
            socket.getaddrinfo(host or None, 1, family, socket.SOCK_STREAM)
        except socket.gaierror:
            continue
        options = ",".join(f"{key}{value}" for key, value in (("ipv4", ipv4), ("ipv6", ipv6)))
        found.append((host, ",".join(each for each in options.split(",") if "=" in each)))
    return found


def taken(name: str, argv: list[str], directory: Path) -> dict[Case, set[str]]:
    """The addresses of this machine at which a server's listening devices take connections."""
    directory.mkdir()
    asked = cases()
    ports = [free_port("::") for _ in asked]
    for number, ((host, options), port) in enumerate(zip(asked, ports, strict=True)):
        device = f"socket,id=c{number},host={host},port={port},server=on,wait=off"
        argv = [*argv, "-chardev", f"{device},{options}".rstrip(",")]
    with running(name, argv, directory) as server:
        # It is greeted once everything is there.
        server.monitor()
        found: dict[Case, set[str]] = {case: set() for case in asked}
        for case, port in zip(asked, ports, strict=True):
            for address in ("127.0.0.1", "::1"):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket.socket(family) as client:
                    if client.connect_ex((address, port)) == 0:
                        found[case].add(address)
    return found


def test_where_connections_are_taken(directory: Path) -> None:
    if not has_ipv6():
        pytest.skip("not here: there is no IPv6")
    memd = taken("memd", [*memd_argv(qemu_compat()), "--insecure-tcp"], directory / "m")
    assert memd["", ""] == {"127.0.0.1", "::1"}
    assert memd["", "ipv4=off"] == {"::1"}
    assert memd["", "ipv6=off"] == {"127.0.0.1"}
    assert memd == taken("qemu", qemu_argv(), directory / "q")


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("127.0.0.1", "ipv6=on"),
        ("127.0.0.1", "ipv4=off"),
        ("::1", "ipv4=on"),
        ("localhost", "ipv4=off,ipv6=off"),
    ],
)
def test_an_address_of_the_other_family(directory: Path, host: str, options: str) -> None:
    argument = f"socket,id=c,host={host},port=1,server=on,wait=off,{options}"
    # One that starts all the same ends by this.
    leave = '{"execute": "qmp_capabilities"} {"execute": "quit"}'
    texts = []
    for argv in (memd_argv(qemu_compat()), qemu_argv()):
        command = [*argv, "-qmp", "stdio", "-chardev", argument]
        done = prefork.run(command, cwd=directory, text=leave)
        assert done.returncode == 1
        texts.append(done.stderr.strip().partition(": ")[2])
    assert texts[0] == texts[1]
