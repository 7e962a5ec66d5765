"""What a template is made of: refused where it is no machine's, and left as it was."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.pages.capture import capture
from tests.conftest import NOT_HERE
from tests.differential.server import Monitor, Server
from tests.pages.streams import MEMORY, PAGE, stream


@pytest.fixture
def monitor(start_memd: Callable[..., Server], directory: Path) -> Monitor:
    """A memd with a store, and a backend that could be the memory of a small machine."""
    server = start_memd("--templates", str(directory / "store"))
    monitor = server.monitor()
    backend = {"qom-type": "memory-backend-memfd", "id": "vm", "size": MEMORY}
    assert monitor.execute("object-add", backend) == {"return": {}}
    return monitor


def send(uri: str, data: bytes) -> None:
    """Be the machine that migrates to memd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(uri.removeprefix("unix:"))
        sock.sendall(data)


def saved(monitor: Monitor, data: bytes, **arguments: object) -> dict[str, object]:
    """What is told of a template of which this is the stream."""
    request = {"name": "t", "id": "vm", **arguments}
    uri = monitor.execute("x-template-save", request)["return"]["uri"]
    send(uri, data)
    told: dict[str, object] = monitor.read_event("X_TEMPLATE_SAVED")["data"]
    assert not Path(uri.removeprefix("unix:")).exists()
    return told


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", "the devices are no migration stream", id="nothing"),
        pytest.param(
            b"GET / HTTP/1.1\r\n\r\n", "the devices are no migration stream", id="no-stream"
        ),
        pytest.param(stream(version=9), "is of version 9; memd knows 3", id="version"),
        pytest.param(stream()[:-30], "the migration stream is cut", id="cut"),
        pytest.param(
            stream(blocks=(("ram", 2 * MEMORY), ("rom", 2 * PAGE))),
            "the stream is of another machine",
            id="another-machine",
        ),
    ],
)
def test_streams_that_are_refused(monitor: Monitor, data: bytes, error: str) -> None:
    """Nothing of it stays, and the name is free."""
    told = saved(monitor, data)
    assert error in str(told["error"])
    assert monitor.execute("x-template-list") == {"return": []}
    assert "error" not in saved(monitor, stream())
    assert [each["name"] for each in monitor.execute("x-template-list")["return"]] == ["t"]
    shown = monitor.execute("x-template-query", {"name": "t"})["return"]
    assert (shown["machine"], shown["memory"], shown["clones"]) == ("q35x", "ram", [])
    assert shown["blocks"] == [
        {"id": "ram", "length": MEMORY, "page-size": 4096},
        {"id": "rom", "length": PAGE + 100, "page-size": 4096},
    ]


def test_refusals(monitor: Monitor, directory: Path) -> None:
    def refused(**arguments: object) -> str:
        return str(monitor.execute("x-template-save", {"name": "t", **arguments})["error"]["desc"])

    private = {"qom-type": "memory-backend-ram", "id": "own", "size": MEMORY}
    assert monitor.execute("object-add", private) == {"return": {}}
    (directory / "odd").write_bytes(b"x" * 5000)
    assert refused() == "the memory is named by either 'id' or 'filename'"
    assert refused(id="none") == "Device 'none' not found"
    assert refused(id="own") == "the memory of 'own' is memd's alone: no machine can have run in it"
    assert "which are no whole pages" in refused(filename=f"{directory}/odd")
    assert "No such file" in refused(filename=f"{directory}/none")
    assert "No such file" in refused(id="vm", devices=f"{directory}/none")
    assert "not found" in refused(id="vm", base="none")
    assert "no name of a template" in refused(id="vm", name="a/b")
    assert monitor.execute("x-template-list") == {"return": []}


def test_a_name_is_taken_from_the_beginning(monitor: Monitor) -> None:
    request = {"name": "t", "id": "vm"}
    uri = monitor.execute("x-template-save", request)["return"]["uri"]
    assert "t" in monitor.execute("x-template-save", request)["error"]["desc"]
    send(uri, stream())
    assert monitor.read_event("X_TEMPLATE_COPIED")["data"]["shared"] is False
    assert "error" not in monitor.read_event("X_TEMPLATE_SAVED")["data"]
    assert "t" in monitor.execute("x-template-save", request)["error"]["desc"]


def content(directory: Path) -> tuple[int, bytes]:
    """A file with holes: its descriptor, and what it reads as."""
    fd = os.open(directory / "memory", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 4 << 20)
    os.pwrite(fd, random.Random(3).randbytes(1 << 20), 1 << 20)
    return fd, os.pread(fd, 4 << 20, 0)


def test_a_copy_has_the_holes(directory: Path) -> None:
    fd, data = content(directory)
    copy, _shared = capture(fd, 0, 4 << 20, str(directory), lambda _done: None)
    os.pwrite(fd, b"later", 1 << 20)
    assert os.pread(copy, 4 << 20, 0) == data
    assert os.fstat(copy).st_blocks * 512 < 2 << 20
    part, _shared = capture(fd, 1 << 20, 8192, str(directory), lambda _done: None)
    assert os.pread(part, 8192, 0) == b"later" + data[(1 << 20) + 5 : (1 << 20) + 8192]
    for each in (fd, copy, part):
        os.close(each)


def test_blocks_are_shared(directory: Path) -> None:
    """On XFS nothing is copied, and what is written later is not in the copy."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("needs mkfs.xfs(8): it is not on PATH")
    image, place = directory / "image", directory / "xfs"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False)
    if mounted.returncode:
        pytest.skip(f"{NOT_HERE}XFS in a file can't be mounted")
    try:
        fd, data = content(place)
        copy, shared = capture(fd, 0, 4 << 20, str(place), lambda _done: None)
        os.pwrite(fd, b"later", 1 << 20)
        assert shared
        assert os.pread(copy, 4 << 20, 0) == data
        os.close(fd)
        os.close(copy)
    finally:
        subprocess.run(["umount", str(place)], check=True)
