"""Opening what monitors sit on: the refusals, in QEMU's words."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.hostmem.sockets import MOST_ADDRESSES, connect_tcp, listen_tcp
from memd.server.endpoint import is_loopback, open_fd, open_unix
from tests.descriptors import open_descriptors
from tests.ports import free_port

LOOPBACK = "127.0.0.1"


def refusal(work: Callable[[], object]) -> str:
    before = open_descriptors()
    with pytest.raises(QMPError) as caught:
        work()
    assert open_descriptors() == before, "a refusal leaves no descriptor"
    return caught.value.desc


def test_a_unix_socket_at_both_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with open_unix(path, server=True) as listening, open_unix(path, server=False) as client:
        served, _address = listening.accept()
        served.sendall(b"hello")
        assert client.recv(10) == b"hello"
        served.close()


def test_unix_refusals(tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "s")
    assert refusal(lambda: open_unix(missing, server=True)) == (
        f"Failed to bind socket to {missing}: No such file or directory"
    )
    assert refusal(lambda: open_unix(missing, server=False)) == (
        f"Failed to connect to '{missing}': No such file or directory"
    )
    for server in (True, False):
        assert refusal(lambda server=server: open_unix("/" + "x" * 107, server=server)) == (  # type: ignore[misc]
            f"UNIX socket path '/{'x' * 107}' is too long"
        )


def test_a_tcp_address_at_both_ends() -> None:
    with listen_tcp(LOOPBACK, "0")[0] as listening:
        port = str(listening.getsockname()[1])
        with connect_tcp(LOOPBACK, port) as client:
            served, _address = listening.accept()
            served.sendall(b"hello")
            assert client.recv(10) == b"hello"
            served.close()
        assert refusal(lambda: listen_tcp(LOOPBACK, port)) == (
            "Failed to find an available port: Address already in use"
        )
    other = str(free_port())
    assert refusal(lambda: connect_tcp(LOOPBACK, other)) == (
        f"Failed to connect to '{LOOPBACK}:{other}': Connection refused"
    )


def test_the_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a socket of its own, whatever number of them a name stands for."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{each}", 0))
        for each in range(1, MOST_ADDRESSES + 2)
    ]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args: found)
    assert refusal(lambda: listen_tcp("many", "0")) == (
        f"memd listens on {MOST_ADDRESSES} addresses of 'many' at most"
    )
    found.pop()
    made = listen_tcp("many", "0")
    assert len(made) == MOST_ADDRESSES
    for each in made:
        each.close()


def test_each_address_is_tried() -> None:
    """An empty host is this machine's, of both families; only one is listened on."""
    for host, family in (("127.0.0.1", "ipv4"), ("::1", "ipv6")):
        try:
            [listening] = listen_tcp(host, "0")
        except QMPError:
            pytest.skip(f"not here: nothing can listen on {host}")
        with listening:
            port = str(listening.getsockname()[1])
            connect_tcp("", port).close()
            connect_tcp("", port, family).close()
            other = "ipv4" if family == "ipv6" else "ipv6"
            refused = refusal(partial(connect_tcp, "", port, other))
            assert refused == f"Failed to connect to ':{port}': Connection refused"


def test_tcp_refusals() -> None:
    assert refusal(lambda: listen_tcp("192.0.2.1", "0")) == (
        "Failed to bind socket: Cannot assign requested address"
    )
    assert refusal(lambda: listen_tcp(LOOPBACK, "nosuch")) == (
        f"address resolution failed for {LOOPBACK}:nosuch: Servname not supported for ai_socktype"
    )


def test_inherited_sockets(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with open_fd(os.dup(listening.fileno()), server=True) as taken:
            assert not taken.get_inheritable()
            with open_unix(str(tmp_path / "s"), server=False):
                taken.accept()[0].close()


def test_what_is_inherited_must_be_a_socket() -> None:
    assert refusal(lambda: open_fd(999, server=True)) == "File descriptor '999' is not a socket"
    read, write = os.pipe()
    assert refusal(lambda: open_fd(read, server=False)) == (
        f"File descriptor '{read}' is not a socket"
    )
    os.close(read)
    os.close(write)
    one, other = socket.socketpair()
    fd = one.detach()
    with pytest.raises(QMPError, match="Failed to listen on fd socket: Invalid argument"):
        open_fd(fd, server=True)
    other.close()


def test_which_addresses_only_this_machine_reaches() -> None:
    with listen_tcp(LOOPBACK, "0")[0] as sock:
        assert is_loopback(sock)
    for sock in listen_tcp("", "0"):
        assert not is_loopback(sock)
        sock.close()
    one, other = socket.socketpair()
    assert is_loopback(one)
    one.close()
    other.close()
    # Of another family nobody knows who reaches it (AF_VSOCK is one).
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        assert not is_loopback(sock)
