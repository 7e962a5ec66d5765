"""Character devices as clients see them, and cutting their connections."""

from __future__ import annotations

from typing import Any

import pytest

from memd.hostmem.sockets import host_and_port
from memd.qom import ChardevObject
from tests.commands.fakes import Console

UNIX = {"type": "unix", "path": "/run/x"}
TCP = {"type": "inet", "host": "::1", "port": "4444"}
ENDS = ("127.0.0.1:1", "127.0.0.1:2")


def add(console: Console, name: str, backend: str, addr: Any = None, **more: Any) -> ChardevObject:
    tree = console.daemon.tree
    chardev = ChardevObject(tree, backend, addr)
    for key, value in more.items():
        setattr(chardev, key, value)
    tree.chardevs.add_child(name, chardev)
    return chardev


@pytest.mark.parametrize(
    ("backend", "addr", "more", "filename"),
    [
        ("stdio", None, {}, "stdio"),
        ("null", None, {}, "null"),
        ("socket", UNIX, {}, "disconnected:unix:/run/x"),
        ("socket", UNIX, {"server": True}, "disconnected:unix:/run/x,server=on"),
        ("socket", UNIX, {"server": True, "connected": True}, "unix:/run/x,server=on"),
        ("socket", TCP, {"server": True}, "disconnected:tcp:[::1]:4444,server=on"),
        ("socket", TCP, {"ends": ENDS}, "disconnected:tcp:[::1]:4444"),
        (
            *("socket", TCP, {"connected": True, "server": True, "ends": ENDS}),
            "tcp:127.0.0.1:1,server=on <-> 127.0.0.1:2",
        ),
    ],
)
def test_how_it_is_called(backend: str, addr: Any, more: dict[str, Any], filename: str) -> None:
    console = Console()
    add(console, "c0", backend, addr, users=1, **more)
    assert console("query-chardev") == [
        {"label": "c0", "filename": filename, "frontend-open": True}
    ]


def test_addresses() -> None:
    assert host_and_port("10.0.0.1", 5) == "10.0.0.1:5"
    assert host_and_port("fe80::1", "5") == "[fe80::1]:5"


def test_sockets_can_be_cut() -> None:
    console = Console()
    cut: list[str] = []
    add(console, "io", "stdio")
    for name in ("a", "b", "idle"):
        chardev = add(console, name, "socket", UNIX)
        if name != "idle":
            chardev.on_yank = lambda name=name: cut.append(name)
    assert console("query-yank", oob=True) == [
        {"type": "chardev", "id": name} for name in ("a", "b", "idle")
    ]
    assert console("yank", oob=True, instances=[{"type": "chardev", "id": "b"}]) == {}
    assert console("yank", instances=[{"type": "chardev", "id": "idle"}]) == {}
    assert cut == ["b"]


@pytest.mark.parametrize(
    "instance",
    [
        {"type": "chardev", "id": "nope"},
        {"type": "chardev", "id": "io"},
        {"type": "block-node", "node-name": "n"},
        {"type": "migration"},
    ],
)
def test_one_that_is_not_there_spares_all(instance: dict[str, str]) -> None:
    console = Console()
    cut: list[str] = []
    add(console, "io", "stdio")
    add(console, "a", "socket", UNIX, on_yank=lambda: cut.append("a"))
    there = {"type": "chardev", "id": "a"}
    assert console.refusal("yank", instances=[there, instance]) == (
        "DeviceNotFound",
        "Instance not found",
    )
    assert cut == []
