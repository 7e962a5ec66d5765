"""What a template is made of: refused where it is not a machine's, and left as it was."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.pages.capture import RamFile, capture
from memd.pages.store import MOST_CHANGES
from memd.places import SHARE, Places
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
        pytest.param(b"", "the devices are not a migration stream", id="nothing"),
        pytest.param(
            b"GET / HTTP/1.1\r\n\r\n", "the devices are not a migration stream", id="no-stream"
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
    assert (shown["machine"], shown["clones"]) == ("q35x", [])
    assert shown["blocks"] == [
        {"id": "ram", "length": MEMORY, "page-size": 4096, "offset": 0},
        {"id": "rom", "length": PAGE + 100, "page-size": 4096},
    ]


def test_streams_that_do_not_come(monitor: Monitor) -> None:
    """They hold up no other command, and there are not more than a few."""
    user = os.geteuid()
    most = Places(MOST_CHANGES, SHARE).most(user)
    uris = []
    for number in range(most):
        answer = monitor.execute("x-template-save", {"name": f"t{number}", "id": "vm"})
        uris.append(answer["return"]["uri"])
    refused = monitor.execute("x-template-save", {"name": "more", "id": "vm"})["error"]["desc"]
    assert refused == f"{most} templates are being changed for user {user}; no more are"
    pulled = monitor.execute("x-template-pull", {"name": "other"})["error"]["desc"]
    assert pulled == "there is no template source"
    send(uris[3], stream())
    assert monitor.read_event("X_TEMPLATE_SAVED")["data"]["name"] == "t3"
    assert "return" in monitor.execute("x-template-save", {"name": "more", "id": "vm"})


def test_a_fifo_is_not_waited_for(monitor: Monitor, directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    request = {"name": "t", "id": "vm", "devices": f"{directory}/fifo"}
    refused = monitor.execute("x-template-save", request)["error"]["desc"]
    assert refused == "the devices are not a migration stream"
    refused = monitor.execute("x-template-save", {"name": "t", "filename": f"{directory}/fifo"})
    assert "Illegal seek" in refused["error"]["desc"]


def test_refusals(monitor: Monitor, directory: Path) -> None:
    def refused(**arguments: object) -> str:
        return str(monitor.execute("x-template-save", {"name": "t", **arguments})["error"]["desc"])

    private = {"qom-type": "memory-backend-ram", "id": "own", "size": MEMORY}
    assert monitor.execute("object-add", private) == {"return": {}}
    (directory / "odd").write_bytes(b"x" * 5000)
    assert refused() == "the memory is named by either 'id', 'filename' or 'memory'"
    assert refused(memory=[]) == "the memory is named by either 'id', 'filename' or 'memory'"
    twice = [{"block": "a", "id": "vm"}] * 2
    assert refused(memory=twice) == "the block 'a' is named twice"
    neither = "the block 'a' is named by either 'id' or 'filename'"
    assert refused(memory=[{"block": "a"}]) == neither
    assert refused(id="none") == "Device 'none' not found"
    assert refused(id="own") == "the memory of 'own' is memd's alone: no machine can have run in it"
    assert "which are not whole pages" in refused(filename=f"{directory}/odd")
    assert "No such file" in refused(filename=f"{directory}/none")
    assert "No such file" in refused(id="vm", devices=f"{directory}/none")
    assert "not found" in refused(id="vm", base="none")
    assert "not a name of a template" in refused(id="vm", name="a/b")
    assert monitor.execute("x-template-list") == {"return": []}


def test_memory_of_several_blocks(monitor: Monitor, directory: Path) -> None:
    """Each is named as in the stream; they follow each other in its order."""
    backend = {"qom-type": "memory-backend-memfd", "id": "vm2", "size": MEMORY}
    assert monitor.execute("object-add", backend) == {"return": {}}
    for id, letter in (("vm", "QUFB"), ("vm2", "QkJC")):
        assert monitor.execute("x-memdev-write", {"id": id, "offset": 0, "data": letter}) == {
            "return": {}
        }
    data = stream(blocks=(("/objects/a", MEMORY), ("b", MEMORY), ("rom", PAGE + 100)))
    (directory / "devices").write_bytes(data)

    def save(**memory: dict[str, str]) -> dict[str, object]:
        named = [{"block": block, **how} for block, how in memory.items()]
        arguments = {"name": "t", "memory": named, "devices": f"{directory}/devices"}
        return monitor.execute("x-template-save", {**arguments, "qemu-version": "10.0.2"})

    for wrong in ({"a": {"id": "vm"}, "c": {"id": "vm2"}}, {"a": {"id": "vm"}}):
        assert "error" in save(**wrong)
        assert monitor.execute("x-template-list") == {"return": []}
    refused = save(a={"id": "vm"}, c={"id": "vm2"})["error"]
    assert isinstance(refused, dict)
    assert refused["desc"] == "the machine's memory has the blocks /objects/a, b; given is a, c"
    assert save(b={"id": "vm"}, a={"id": "vm2"}) == {"return": {}}
    shown = monitor.execute("x-template-query", {"name": "t"})["return"]
    assert (shown["size"], shown["qemu-version"]) == (2 * MEMORY, "10.0.2")
    assert [each.get("offset") for each in shown["blocks"]] == [0, MEMORY, None]
    there = {"name": "t", "filename": f"{directory}/copy"}
    assert monitor.execute("x-template-export", there) == {"return": {}}
    copy = (directory / "copy").read_bytes()
    assert (copy[:3], copy[MEMORY : MEMORY + 3]) == (b"BBB", b"AAA")


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
    memory = RamFile(fd, 0, 4 << 20, 4096)
    copy, _shared = capture((memory,), str(directory), lambda _done: None)
    os.pwrite(fd, b"later", 1 << 20)
    assert os.pread(copy, 4 << 20, 0) == data
    assert os.fstat(copy).st_blocks * 512 < 2 << 20
    # Two blocks, one of them a part of the file.
    two = RamFile(fd, 1 << 20, 8192, 4096), memory
    part, _shared = capture(two, str(directory), lambda _done: None)
    later = data[: 1 << 20] + b"later" + data[(1 << 20) + 5 :]
    assert os.pread(part, 5 << 20, 0) == later[1 << 20 : (1 << 20) + 8192] + later
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
        memory = RamFile(fd, 0, 4 << 20, 4096)
        copy, shared = capture((memory, memory), str(place), lambda _done: None)
        os.pwrite(fd, b"later", 1 << 20)
        assert shared
        assert os.pread(copy, 8 << 20, 0) == data * 2
        os.close(fd)
        os.close(copy)
    finally:
        subprocess.run(["umount", str(place)], check=True)
