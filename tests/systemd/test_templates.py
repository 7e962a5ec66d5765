"""The template store within the service's sandbox, in the words of docs/systemd.md."""

from __future__ import annotations

import pytest

from memd.client import Client
from tests.pages.streams import MEMORY, stream
from tests.systemd.documents import drop_in
from tests.systemd.machine import Machine

pytestmark = pytest.mark.xdist_group("systemd")

STORE = "--templates /var/lib/memd/templates"

SHOW = """
import pathlib, sys
variables = pathlib.Path("/proc", sys.argv[1], "environ").read_bytes().split(b"\\0")
print(next(each for each in variables if each.startswith(b"REGISTRY_AUTH_FILE=")).decode())
"""


def save(client: Client, machine: Machine, name: str) -> None:
    """Store a template of a region, and devices from a file."""
    path = machine.path("/var/lib/memd/devices")
    path.write_bytes(stream())
    client.execute("object-add", {"qom-type": "memory-backend-memfd", "id": "m", "size": MEMORY})
    client.write("m", 4096, b"known bytes")
    told = {"name": name, "id": "m", "devices": "/var/lib/memd/devices"}
    client.execute("x-template-save", told)
    client.execute("object-del", {"id": "m"})


def test_a_store_in_the_state_directory(fresh: Machine) -> None:
    options = f"{STORE} --template-source file:/var/lib/memd/shared"
    fresh.path("/etc/memd/memd.conf").write_text(f"MEMD_OPTIONS={options}\n")
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        save(client, fresh, "a")
        client.execute("x-template-push", {"name": "a"})
        client.execute("x-template-delete", {"name": "a"})
        client.execute("x-template-pull", {"name": "a"})
        assert client.execute("x-template-verify", {"name": "a"})["damaged"] == []
        client.execute("x-template-export", {"name": "a", "filename": "/var/lib/memd/memory"})
    assert fresh.path("/var/lib/memd/memory").read_bytes()[4096:][:11] == b"known bytes"
    fresh.systemctl("restart", "memd.service")
    with fresh.client() as client:
        assert [each["name"] for each in client.execute("x-template-list")] == ["a"]


def test_what_to_log_in_with(fresh: Machine) -> None:
    """It is readable for root alone, and for the service."""
    fresh.path("/etc/memd/registry.json").write_text("{}")
    fresh.path("/etc/memd/registry.json").chmod(0o600)
    fresh.drop_in("memd.service", drop_in("memd.service.d/registry.conf"))
    fresh.systemctl("start", "memd.service")
    variable = fresh.run("python3", "-c", SHOW, fresh.show("memd.service", "MainPID"))
    assert variable.strip() == "REGISTRY_AUTH_FILE=/run/credentials/memd.service/registry"
