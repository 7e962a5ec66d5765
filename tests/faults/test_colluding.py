"""Users who together take all that they can: others are served all the same.

Real users on real sockets. One after the other takes connections, descriptors, sets of
them, bytes of secrets and threads until memd refuses each.
"""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.differential.kernel import descriptors
from tests.differential.server import Server
from tests.faults.conftest import arguments
from tests.users import STRANGER, need_root, run_as

OPEN = 256
"""Descriptors that the daemon may have: what they can take is soon taken."""

CLIENT = """
class Client:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(sys.argv[1])
        self.lines = self.socket.makefile("rb")
        self.served = bool(self.lines.readline())
        self.served = self.served and self.ask("qmp_capabilities") == {"return": {}}
    def send(self, name, /, fds=(), **arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        data = json.dumps({"execute": name, "arguments": arguments}).encode()
        sent = socket.send_fds(self.socket, [data], fds)
        self.socket.sendall(data[sent:])
    def ask(self, name, /, fds=(), **arguments):
        self.send(name, fds, **arguments)
        while "event" in (answer := json.loads(self.lines.readline())):
            pass
        return answer
"""

TAKE = (
    CLIENT
    + """
name, taken, first, null = sys.argv[2], {}, Client(), os.open(os.devnull, os.O_RDONLY)
def until_refused(what, take):
    taken[what], told = 0, {"return": {}}
    while "return" in told and taken[what] < 5000:
        told = take(f"{name}-{what}-{taken[what]}")
        taken[what] += "return" in told
    assert "error" in told, (what, taken)
def secret(id):
    return first.ask("object-add", qom_type="secret", id=id, data="x" * 1000000)
def left(id):
    return first.ask("add-fd", fds=[null])
def memory(id):
    return first.ask("object-add", qom_type="memory-backend-memfd", id=id, size=4096)
until_refused("secrets", secret)
until_refused("sets", left)
until_refused("objects", memory)
clients = [first]
while (client := Client()).served:
    clients.append(client)
taken["clients"] = len(clients)
add = {"qom_type": "memory-backend-ram", "size": 16 << 20, "prealloc": True}
for number, client in enumerate(clients[1:]):
    for _ in range(50):
        client.send("object-add", id=f"{name}-p{number}", **add)
        client.send("object-del", id=f"{name}-p{number}")
print(json.dumps(taken), flush=True)
sys.stdin.read()
"""
)
"""Takes until it is refused, has work done in threads without an end, and says what it got."""

SAVE = (
    CLIENT
    + """
name, directory, first = sys.argv[2], sys.argv[3], Client()
assert "return" in first.ask("object-add", qom_type="memory-backend-memfd", id=name, size=1 << 24)
count = 0
while "return" in first.ask("x-template-save", name=f"{name}-{count}", id=name):
    count += 1
clients = [Client() for _ in range(10)]
for number in range(100):
    for client in clients:
        client.send("x-memdev-save", id=name, filename=f"{directory}/{name}-{number}")
print(count, flush=True)
sys.stdin.read()
"""
)
"""Awaits machines to make templates of until it is refused, and saves without an end."""

USE = (
    CLIENT
    + """
client, null = Client(), os.open(os.devnull, os.O_RDONLY)
told = [client.served]
for name, fds, arguments in (
    ("query-status", (), {}),
    ("object-add", (), {"qom_type": "secret", "id": "u", "data": "x" * 1000}),
    ("object-del", (), {"id": "u"}),
    ("object-add", (), {"qom_type": "memory-backend-memfd", "id": "u", "size": 4096}),
    ("object-del", (), {"id": "u"}),
    ("object-add", (), {"qom_type": "memory-backend-ram", "id": "u", "size": 1 << 20,
                        "prealloc": True}),
    ("object-del", (), {"id": "u"}),
    ("getfd", (null,), {"fdname": "u"}),
    ("closefd", (), {"fdname": "u"}),
):
    told.append("return" in client.ask(name, fds, **arguments))
print(json.dumps(told))
"""
)
"""Does a little of each."""


@pytest.fixture
def server(start_memd: Callable[..., Server], directory: Path) -> Iterator[Server]:
    """A daemon that has few descriptors, a store of templates, and users."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN, hard))
    try:
        users = [("--allow-user", str(STRANGER + number)) for number in range(4)]
        store = ("--templates", str(directory / "store"))
        server = start_memd(*store, *(word for each in users for word in each))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for path in (directory, server.path.parent):
        path.chmod(0o755)
    yield server
    assert server.alive()


def told(process: subprocess.Popen[bytes]) -> Any:
    """What a user's program says."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline() or b"null")


@need_root
def test_two_users_together_keep_nobody_out(server: Server) -> None:
    path, others = str(server.path), [STRANGER + 2, STRANGER + 3, 0]
    with ExitStack() as stack:
        taken = []
        for user in (STRANGER, STRANGER + 1):
            taker = stack.enter_context(run_as(user, TAKE, path, f"u{user}"))
            taken.append(told(taker))
            # Each user on its own, too.
            for other in others:
                with run_as(other, USE, path) as process:
                    assert told(process) == [True] * 10, other
        # The first got more of each than the second, who got something.
        first, second = taken
        for what, count in first.items():
            assert count > second[what] > 0, (what, taken)
        assert sum(descriptors(server.pid).values()) < OPEN
        monitor = server.monitor()
        assert monitor.execute("object-add", arguments()) == {"return": {}}
        assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    # Their clients are gone, and what they have left is theirs.
    with run_as(STRANGER + 2, USE, path) as process:
        assert told(process) == [True] * 10


@need_root
def test_saves_of_two_users_keep_nobody_out(server: Server, directory: Path) -> None:
    path, counts = str(server.path), []
    with ExitStack() as stack:
        for user in (STRANGER, STRANGER + 1, 0):
            arguments = path, f"u{user}", str(directory)
            counts.append(told(stack.enter_context(run_as(user, SAVE, *arguments))))
            for other in (STRANGER + 2, STRANGER + 3, 0):
                with run_as(other, USE, path) as process:
                    assert told(process) == [True] * 10, other
        assert counts[0] > counts[1] > 0, counts
        assert counts[2] > 0, counts
