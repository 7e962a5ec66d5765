"""Whatever it is told, and whatever its clients do: it lives, and lets everything go.

The seed is in a failure; `MEMD_SEED` repeats it.
"""

from __future__ import annotations

import json
import os
import random
import socket
from typing import Any

from memd.errors import QMPError
from memd.testing import Server
from tests.differential.harness import settle

ROUNDS = 25

COMMANDS = (
    *("query-status", "stop", "cont", "object-add", "object-del", "x-memdev-export", "qom-set"),
    *("query-yank", "qmp_capabilities", "nothing", "query-version"),
)
SCOPES: tuple[dict[str, Any], ...] = (
    {},
    {"greeting": True},
    {"event": ""},
    {"event": "STOP"},
    *({"command": command} for command in COMMANDS),
    *({"syscall": kind} for kind in ("open", "ftruncate", "mmap", "madvise", "populate")),
)
EFFECTS: dict[str, list[Any]] = {
    "delay": [1, 20],
    "stall": [True],
    "drop": [True],
    "raw": ["", "x", '{"a": 1}\r\n'],
    "split": [1, 40],
    "gather": [1, 3],
    "disconnect": ["instead", "before", "middle", "after"],
    "events-before": [[{"event": "A"}]],
    "events-after": [[{"event": "B", "data": [1]}]],
    "error": [{"desc": "no"}],
    "answer": [{}, None, "x"],
    "run": [True],
    "answer-id": [1, None],
    "no-id": [True],
    "errno": ["ENOMEM", "EINTR"],
    "client": [1, 2, 5],
    "nth": [1, 3],
    "times": [1, 2],
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "object-add": {"qom-type": "memory-backend-memfd", "id": "a", "size": 65536, "prealloc": True},
    "object-del": {"id": "a"},
    "x-memdev-export": {"id": "a"},
    "qom-set": {"path": "/objects/a", "property": "prealloc", "value": True},
}


def add_fault(server: Server, draw: random.Random) -> None:
    fault = dict(draw.choice(SCOPES))
    for name in draw.sample(list(EFFECTS), draw.randrange(1, 5)):
        fault[name] = draw.choice(EFFECTS[name])
    try:
        server.tell("x-test-fault-add", fault)
    except QMPError:
        # It contradicts itself.
        pass


def talk(client: socket.socket, draw: random.Random) -> None:
    """Send commands, and read what comes as long as something does."""
    enable = draw.choice([[], ["oob"]])
    messages = [{"execute": "qmp_capabilities", "arguments": {"enable": enable}}]
    for _ in range(draw.randrange(8)):
        name = draw.choice(COMMANDS)
        verb = draw.choice(["execute", "execute", "exec-oob"])
        messages.append({verb: name, "arguments": ARGUMENTS.get(name, {})})
    try:
        for message in messages:
            client.sendall(json.dumps(message).encode())
        if draw.random() < 0.2:
            client.sendall(b"{]")
        while draw.random() < 0.9 and client.recv(4096):
            pass
    except OSError:
        # Told to go, or nothing comes.
        pass


def test_random_faults() -> None:
    seed = os.environ.get("MEMD_SEED") or f"{random.SystemRandom().getrandbits(32)}"
    print(f"MEMD_SEED={seed}")
    draw = random.Random(seed)
    with Server() as server:
        server.tell("query-name")
        here = f"/proc/{server.pid}/fd"
        before = len(os.listdir(here))
        for _ in range(ROUNDS):
            add_fault(server, draw)
            clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for client in clients:
                client.connect(server.socket)
                client.settimeout(0.01)
                talk(client, draw)
                if draw.random() < 0.3:
                    client.close()
            if draw.random() < 0.2:
                server.tell("x-test-fault-del")
            for client in clients:
                client.close()
        server.reset()
        after = settle(lambda: len(os.listdir(here)), lambda now: now == before)
        assert (after, server.log) == (before, "")
        assert server.connect().execute("query-status") == {"running": True, "status": "running"}
