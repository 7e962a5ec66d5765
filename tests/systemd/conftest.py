"""One container with systemd as process 1, for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.client import Client
from tests import rootfs
from tests.conftest import NOT_HERE
from tests.systemd.machine import MODULES, CannotBoot, Machine, install


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The container; booted once, in a second."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    unshare = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if unshare.returncode:
        pytest.skip(f"{NOT_HERE}mount namespaces")
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("needs systemd-nspawn(1): it is not on PATH")
    if not rootfs.place("systemd").is_dir():
        pytest.skip("needs a root file system: python3 tests/rootfs.py systemd makes it")
    directory = Path(tempfile.mkdtemp(prefix="memd-test-"))
    try:
        try:
            machine = Machine(directory, install(directory))
        except CannotBoot as missing:
            pytest.skip(f"{NOT_HERE}{missing}")
        # As packages do, once they are installed.
        machine.run("python3", "-m", "compileall", "-q", MODULES)
        if os.path.exists("/dev/kvm"):
            # What udev does, which does not run in containers.
            machine.run("mknod", "-m", "660", "/dev/kvm", "c", "10", "232")
            machine.run("chgrp", "kvm", "/dev/kvm")
        yield machine
        machine.shut_down()
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def fresh(machine: Machine) -> Iterator[Machine]:
    """The container in which no memd runs, listens or has left something."""
    yield machine
    machine.reset()


@pytest.fixture(scope="module")
def running(machine: Machine) -> Iterator[Machine]:
    """The container in which memd.service runs as it was installed; for all tests of a module.

    No test of such a module may have it `fresh`.
    """
    machine.systemctl("start", "memd.service")
    yield machine
    machine.reset()


@pytest.fixture
def client(running: Machine) -> Iterator[Client]:
    """A client, outside of the container, of the memd that runs in it."""
    with running.client() as client:
        yield client
        for item in client.execute("qom-list", {"path": "/objects"}):
            if item["type"].startswith("child<memory-backend-"):
                client.execute("object-del", {"id": item["name"]})
        for item in client.execute("qom-list", {"path": "/objects"}):
            if item["type"] == "child<thread-context>":
                client.execute("object-del", {"id": item["name"]})
