"""Templates are stored and served inside of the sandbox, and served on over a restart."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Iterator

import pytest

from memd.client import Client
from tests.pages.destination import Destination
from tests.pages.streams import MEMORY, PAGE, ROM, stream
from tests.systemd.machine import Machine

STATE = "/var/lib/memd"
OPTIONS = f"[Service]\nEnvironment=MEMD_OPTIONS='--templates {STATE}/templates'\n"

END = struct.pack(">BIQBIB", 3, 1, 0x10, 0x7E, 1, 0)
LOADED = struct.pack(">HHI", 2, 4, 3)
HAS_ALL = struct.pack(">HHI", 1, 4, 0)


def ask(at: int) -> bytes:
    return struct.pack(">HHQI", 3, 16, at, PAGE) + b"\x03ram"


@contextlib.contextmanager
def waiting(machine: Machine, name: str) -> Iterator[socket.socket]:
    """A socket in the place of a QEMU that waits for a migration."""
    path = machine.path(f"{STATE}/{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        os.chmod(path, 0o777)
        listening.listen(1)
        listening.settimeout(60)
        yield listening
    path.unlink()


def read_to(source: socket.socket, end: bytes) -> bytes:
    """What comes up to and with these bytes."""
    data = b""
    while not data.endswith(end):
        more = source.recv(1 << 20)
        assert more, "memd has left"
        data += more
    return data


@pytest.fixture
def templates(fresh: Machine) -> Iterator[Client]:
    """A client of a memd that has the template `t`."""
    fresh.drop_in("memd.service", OPTIONS)
    fresh.systemctl("start", "memd.service")
    state = fresh.path(STATE)
    content = bytes(range(256)) * 16
    (state / "memory").write_bytes(content * (MEMORY // PAGE))
    (state / "devices").write_bytes(stream())
    for name in ("memory", "devices"):
        os.chmod(state / name, 0o644)
    with fresh.client() as client:
        files = {"filename": f"{STATE}/memory", "devices": f"{STATE}/devices"}
        client.execute("x-template-save", {"name": "t", **files})
        yield client
    fresh.systemctl("stop", "memd.socket", "memd.service")
    shutil.rmtree(state / "templates")
    for name in ("memory", "devices"):
        (state / name).unlink()


def test_serve(fresh: Machine, templates: Client) -> None:
    with waiting(fresh, "clone") as listening:
        templates.execute("x-template-serve", {"name": "t", "uri": f"unix:{STATE}/clone"})
        source, _address = listening.accept()
        with source:
            source.sendall(LOADED)
            destination = Destination()
            destination.take(read_to(source, END))
            source.sendall(HAS_ALL)
        assert destination.content("ram") == bytes(range(256)) * 16 * (MEMORY // PAGE)
        assert destination.content("rom") == ROM + bytes(PAGE)
        told = templates.wait_event("X_TEMPLATE_SERVED", timeout=60)["data"]
        assert told["outcome"] == "complete"


def test_a_restart_interrupts_nobody(fresh: Machine, templates: Client) -> None:
    """The process that serves goes on, and is sent everything that is left."""
    with waiting(fresh, "clone") as listening:
        request = {"name": "t", "uri": f"unix:{STATE}/clone", "record": True}
        templates.execute("x-template-serve", request)
        source, _address = listening.accept()
        with source:
            source.sendall(LOADED + ask(PAGE))
            data = read_to(source, bytes(range(256)) * 16)
            fresh.systemctl("restart", "memd.service")
            destination = Destination()
            destination.take(data + read_to(source, END))
            source.sendall(HAS_ALL)
        assert destination.content("ram") == bytes(range(256)) * 16 * (MEMORY // PAGE)
    with fresh.client() as client:
        assert [each["name"] for each in client.execute("x-template-list")] == ["t"]
