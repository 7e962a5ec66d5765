"""Listening: modes, stale and live sockets, what is removed and what is left alone."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import socket
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from memd.server.listener import Listener, SocketFile, SocketFiles, listen_unix
from tests.descriptors import open_descriptors
from tests.users import STRANGER, need_root, run_as


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old = os.umask(0)
    try:
        listen_unix(str(path)).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_others_may_connect_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old = os.umask(0o077)
    try:
        listen_unix(str(path), 0o666).close()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


@pytest.mark.parametrize("what", ["socket", "empty file"])
def test_what_is_of_no_use_is_replaced(tmp_path: Path, what: str) -> None:
    path = str(tmp_path / "s")
    if what == "socket":
        listen_unix(path).close()
    else:
        Path(path).touch()
    with listen_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listen_unix(path):
        with pytest.raises(OSError, match="in use") as caught:
            listen_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_one_that_is_bound_and_does_not_listen_yet_is_waited_for(tmp_path: Path) -> None:
    """It looks stale; the one that makes it has locked the directory."""
    path = str(tmp_path / "s")
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as first, ThreadPoolExecutor() as pool:
        first.bind(path)
        second = pool.submit(listen_unix, path)
        # Were it not waited for, the second would have replaced it by then.
        time.sleep(0.1)
        first.listen()
        os.close(directory)
        assert isinstance(second.exception(), OSError)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            first.accept()[0].close()


@pytest.mark.parametrize("make", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, make: str) -> None:
    path = tmp_path / "s"
    if make == "file":
        path.write_text("precious")
    elif make == "directory":
        path.mkdir()
    else:
        (tmp_path / "target").write_text("precious")
        path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="in use"):
        listen_unix(str(path))
    assert path.exists()


def test_no_descriptor_is_left_when_it_fails(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        listen_unix(str(tmp_path / "missing" / "s"))
    with pytest.raises(OSError, match="too long"):
        listen_unix("/" + "x" * 200)
    assert open_descriptors() == before


def test_without_a_path_nobody_listens() -> None:
    """The kernel would choose an abstract name, which every user can connect to."""
    with pytest.raises(FileNotFoundError):
        listen_unix("")


async def at_once(remove: Callable[[], None], _seconds: float) -> None:
    remove()


async def test_the_file_that_was_made_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    files = SocketFiles()
    with listen_unix(str(path)):
        files.add(str(path))
        await files.remove(at_once)
    assert not path.exists()


async def test_a_file_that_is_made_after_the_end_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    files = SocketFiles()
    await files.remove(at_once)
    with listen_unix(str(path)):
        files.add(str(path))
    assert not path.exists()


def test_anothers_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen_unix(str(path)):
        made = SocketFile(str(path))
        path.unlink()
        with listen_unix(str(path)):
            made.remove()
            assert path.exists()


def test_a_file_that_can_not_be_removed(
    tmp_path: Path, append_only: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and the end goes on."""
    path = tmp_path / "s"
    listen_unix(str(path)).close()
    made = SocketFile(str(path))
    append_only(tmp_path)
    made.remove()
    assert caplog.messages == [f"cannot remove the socket '{path}': Operation not permitted"]


async def test_a_rush_of_clients_is_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    accepted: list[socket.socket] = []
    listener = Listener(asyncio.get_running_loop(), listen_unix(path), accepted.append)
    listener.start()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    for client in clients:
        client.connect(path)
    while len(accepted) < 50:
        await asyncio.sleep(0)
    for sock in (*clients, *accepted):
        sock.close()
    listener.close()


def use_up_descriptors() -> list[int]:
    used = []
    while True:
        try:
            used.append(os.dup(0))
        except OSError:
            return used


@need_root
async def test_out_of_descriptors_an_operator_gets_in() -> None:
    """Also behind others, who are turned away; the next one does once there is one to keep."""
    accepted: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        path = f"\0memd-test-{os.getpid()}"
        sock.bind(path)
        sock.listen(10)
        listener = Listener(asyncio.get_running_loop(), sock, accepted.append)
        stack.callback(listener.close)
        code = (
            "with socket.socket(socket.AF_UNIX) as client:\n"
            " client.connect('\\0' + sys.argv[1])\n print('came', flush=True)\n"
            " sys.exit(len(client.recv(1)))"
        )
        strangers = [stack.enter_context(run_as(STRANGER, code, path[1:])) for _ in range(3)]
        for each in strangers:
            assert each.stdout is not None
            assert each.stdout.readline() == b"came\n"
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for client in clients:
            client.connect(path)
        listener.start()
        used = use_up_descriptors()
        try:
            while not accepted:
                await asyncio.sleep(0.001)
            accepted[0].close()
            while len(accepted) < 2:
                await asyncio.sleep(0.001)
        finally:
            for fd in used:
                os.close(fd)
        assert [each.wait() for each in strangers] == [0, 0, 0]
        accepted[1].close()


async def test_out_of_descriptors_it_goes_on_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "s")
    accepted: list[socket.socket] = []
    listener = Listener(asyncio.get_running_loop(), listen_unix(path), accepted.append)
    listener.start()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            while not caplog.messages:
                await asyncio.sleep(0.001)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        # Now and then it tries again.
        assert {*caplog.messages} == {"cannot accept a client: Too many open files"}
        while not accepted:
            await asyncio.sleep(0.01)
    accepted[0].close()
    listener.close()
