"""Who has connected, and who may."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from memd.server.peer import peer_of
from tests.users import NOBODY, need_root, run_as

CONNECT = """
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.recv(1)
"""


def test_a_connected_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert peer is not None
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == frozenset(os.getgroups())


def test_what_is_no_connected_unix_socket_has_none() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert peer_of(sock) is None
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert peer_of(client) is None


@need_root
@pytest.mark.parametrize("groups", [[], [50, 100], list(range(2000, 2300))])
def test_another_user(directory: Path, groups: list[int]) -> None:
    """More groups than are asked for come to none: nobody is let in by a guess."""
    directory.chmod(0o755)
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0o666)
        server.listen()
        with run_as(NOBODY, CONNECT, path, group=12345, groups=groups) as process:
            client, _address = server.accept()
            with client:
                peer = peer_of(client)
    assert peer is not None
    assert (peer.pid, peer.uid, peer.gid) == (process.pid, NOBODY, 12345)
    assert peer.groups == (frozenset(groups) if len(groups) < 256 else frozenset())
