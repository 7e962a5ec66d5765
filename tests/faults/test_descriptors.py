"""Descriptors that clients leave, send and do not read: what others can do meanwhile."""

from __future__ import annotations

import array
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client, QMPError
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import Server, memd_argv, qemu_system_memd, running

BOUNDS = ("--max-descriptors", "40", "--max-descriptors-per-user", "20")
OPEN = ("--max-clients", "200")


@pytest.fixture
def server(start_memd: Callable[..., Server]) -> Iterator[Server]:
    server = start_memd(*BOUNDS, *OPEN)
    with Client(server.path, timeout=60) as client:
        client.execute(
            "object-add", {"qom-type": "memory-backend-memfd", "id": "m", "size": 1 << 20}
        )
    before = settle(lambda: held(server), lambda now: now == held(server))
    yield server
    with Client(server.path, timeout=60) as client:
        for each in client.execute("query-fdsets"):
            client.execute("remove-fd", {"fdset-id": each["fdset-id"]})
    assert settle(lambda: held(server), lambda now: now <= before) <= before


def held(server: Server) -> int:
    return sum(descriptors(server.pid).values())


def held_at_rest(server: Server) -> int:
    """What it holds once it serves and nobody is connected."""
    with Client(server.path, timeout=60) as client:
        client.execute("query-name")
        return held(server) - 1


def request(name: str, **arguments: object) -> bytes:
    return json.dumps({"execute": name, "arguments": arguments}).encode()


def connect(server: Server, stack: ExitStack, *, negotiate: bool = True) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.settimeout(60)
    sock.connect(str(server.path))
    sock.recv(4096)
    if negotiate:
        sock.sendall(request("qmp_capabilities"))
        assert json.loads(sock.recv(4096)) == {"return": {}}
    return sock


def until_refused(ask: Callable[[], object], text: str = "--max-descriptors") -> int:
    """How often it can be asked before there are too many descriptors."""
    for asked in range(300):
        try:
            ask()
        except QMPError as refused:
            if text not in refused.desc:
                raise
            return asked
    raise AssertionError("it is not refused")


def read_exports(sock: socket.socket, number: int) -> int:
    """Read so many answers; how many descriptors came along."""
    data, came = b"", 0
    while data.count(b"\n") < number:
        more, fds, _flags, _address = socket.recv_fds(sock, 65536, 100)
        assert more
        data += more
        came += len(fds)
        for fd in fds:
            os.close(fd)
    return came


def test_those_that_are_left(server: Server) -> None:
    """A clear error beyond the bound, in every command that takes one; others go on."""
    with open(os.memfd_create("given")) as given, Client(server.path, timeout=60) as client:
        assert until_refused(lambda: client.execute("add-fd", fds=[given.fileno()])) >= 20
        left = len(client.execute("query-fdsets"))
        assert 20 <= left <= 24
        with pytest.raises(QMPError, match="--max-descriptors"):
            client.execute("getfd", {"fdname": "x"}, fds=[given.fileno()])
        with pytest.raises(QMPError, match="--max-descriptors"):
            client.export("m")
        with Client(server.path, timeout=60) as other:
            options = {"qom-type": "memory-backend-memfd", "id": "n", "size": 1 << 20}
            other.execute("object-add", options)
            other.execute("object-del", {"id": "n"})
        # A memfd's place is free as soon as it is given up; a device is closed by a thread.
        client.execute("remove-fd", {"fdset-id": 0})
        client.execute("getfd", {"fdname": "x"}, fds=[given.fileno()])
        client.execute("closefd", {"fdname": "x"})
        client.export("m").close()


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A daemon that is started now has 256, as it inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


KEPT: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "object": (
        "object-add",
        {"qom-type": "memory-backend-memfd", "size": 4096},
        "object-del",
        "id",
    ),
    "file": (
        *("blockdev-add", {"driver": "file", "filename": sys.executable, "read-only": True}),
        *("blockdev-del", "node-name"),
    ),
    "chardev": ("chardev-add", {"backend": {"type": "pty", "data": {}}}, "chardev-remove", "id"),
}
"""What keeps descriptors open: how it is made and removed, and which argument names it."""


NBD: tuple[str, dict[str, Any]] = (
    "nbd-server-start",
    {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}},
)
MIGRATE = ("migrate", {"uri": "file:/dev/null"})


def add_next(client: Client, kind: str, numbers: Iterator[int]) -> None:
    add, arguments, _remove, name = KEPT[kind]
    client.execute(add, {**arguments, name: f"m{next(numbers)}"})


@pytest.mark.usefixtures("few_descriptors")
def test_those_of_what_is_kept(directory: Path) -> None:
    """There is an end to one user's, which can connect then and delete some."""
    argv = [*qemu_system_memd(), "-machine", "none", "-nodefaults", "-nographic"]
    with running("memd", [*argv, "--clients", "many"], directory) as server:
        before = held_at_rest(server)
        for kind, (_add, _arguments, remove, name) in KEPT.items():
            for _ in range(2):
                with Client(server.path, timeout=60) as client:
                    made = until_refused(
                        partial(add_next, client, kind, count()), "descriptors are open for user"
                    )
                assert 40 < made < 200, kind
                with Client(server.path, timeout=60) as client:
                    ram = {"qom-type": "memory-backend-ram", "size": 4096, "id": "n"}
                    client.execute("object-add", ram)
                    client.execute("object-del", {"id": "n"})
                    for ask in (NBD, MIGRATE):
                        with pytest.raises(QMPError, match=r"Too many open files: .* are open for"):
                            client.execute(*ask)
                    for number in range(made):
                        client.execute(remove, {name: f"m{number}"})
                    client.execute(*NBD)
                    client.execute("nbd-server-stop")
        assert settle(lambda: held(server), lambda now: now <= before) <= before


@pytest.mark.usefixtures("few_descriptors")
def test_those_of_a_template_that_is_made(directory: Path) -> None:
    """Whatever number of files its memory is in, until it is made or given up."""
    file, store = directory / "memory", directory / "store"
    file.write_bytes(bytes(4096))
    argv = [*memd_argv(), "--templates", str(store)]
    with (
        running("memd", argv, directory) as server,
        Client(server.path, timeout=60) as client,
    ):

        def save(count: int) -> None:
            memory = [{"block": f"b{each}", "filename": str(file)} for each in range(count)]
            client.execute("x-template-save", {"name": f"t{count}", "memory": memory})

        with pytest.raises(QMPError, match=r"Too many open files: .* are open for"):
            save(220)
        save(120)
        # The stream of that one is waited for.
        with pytest.raises(QMPError, match=r"Too many open files: .* are open for"):
            save(119)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(store / "incoming" / "t120"))

        def is_saved() -> bool:
            try:
                save(118)
            except QMPError as refused:
                if "Too many open files" not in refused.desc:
                    raise
                return False
            return True

        assert settle(is_saved, bool)


def test_those_that_come_with_what_does_not_take_them(server: Server) -> None:
    """Seventy clients that never negotiate, a byte and 16 descriptors each."""
    before = descriptors(server.pid)["/dev/zero"]
    with ExitStack() as stack, open("/dev/zero") as null:
        for _ in range(70):
            sock = connect(server, stack, negotiate=False)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 16))
            sock.sendmsg([b"{"], [rights])
        with Client(server.path, timeout=60) as other:
            assert other.execute("query-name") == {}
        now = settle(lambda: descriptors(server.pid)["/dev/zero"], lambda now: now == before)
        assert now == before


def test_exports_that_are_not_read(server: Server) -> None:
    """One client's wait until it reads; it gets all of them then."""
    with ExitStack() as stack:
        before = held_at_rest(server)
        sock = connect(server, stack)
        sock.sendall(request("x-memdev-export", id="m") * 200)
        with Client(server.path, timeout=60) as other:
            other.export("m").close()
            assert held(server) <= before + 20
        assert read_exports(sock, 200) == 200


def test_exports_that_many_do_not_read(server: Server) -> None:
    """Beyond their user's share they are refused, till what was sent has been read."""
    with ExitStack() as stack:
        socks = [connect(server, stack) for _ in range(7)]
        for sock in socks:
            sock.sendall(request("x-memdev-export", id="m") * 100)
        with Client(server.path, timeout=60) as other:
            until_refused(lambda: other.export("m").close())
            assert other.execute("query-name") == {}
        # They leave, and with them what was on its way.
        stack.close()
        with Client(server.path, timeout=60) as other:

            def exports() -> bool:
                try:
                    other.export("m").close()
                except QMPError:
                    return False
                return True

            assert settle(exports, lambda now: now)


def test_a_connection_that_ends_with_unread_exports(server: Server) -> None:
    """They are on their way for as long as the client has them in its queue."""
    with ExitStack() as stack:
        for _ in range(2):
            sock = connect(server, stack)
            sock.sendall(request("x-memdev-export", id="m") * 15)
            sock.shutdown(socket.SHUT_WR)
        with Client(server.path, timeout=60) as other:

            def refused() -> bool:
                try:
                    other.export("m").close()
                except QMPError:
                    return True
                return False

            assert settle(refused, lambda now: now)
            stack.close()
            assert settle(refused, lambda now: not now) is False
