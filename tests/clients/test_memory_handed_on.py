"""memd's memory in the hands of others: a process that maps it, and a real QEMU."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client, QMPError
from tests.conftest import NOT_HERE, need_shm
from tests.differential.harness import Side, settle
from tests.differential.kernel import descriptors
from tests.differential.server import TREE, Monitor, Server, qemu_binary, running, starter

PAGE = 4096
MIB = 1 << 20
SIZE = 32 * MIB
NOBODY = 65534
PYTHON = ("/usr/bin/python3", "-B")

TAKER = """
import mmap, sys
fd, size, offset = map(int, sys.argv[1:])
memory = mmap.mmap(fd, size, offset=offset)
assert memory[5:10] == b"hello", memory[5:10]
memory[5:10] = b"world"
memory[size - 1] = 7
"""


@pytest.fixture
def client(memd: Side) -> Iterator[Client]:
    with Client(memd.server.path, timeout=60) as client:
        yield client


def add(client: Client, kind: str, id: str = "m", **options: Any) -> None:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    client.execute("object-add", {"qom-type": f"memory-backend-{kind}", "id": id, **named})


def stat(client: Client, id: str = "m") -> Any:
    (found,) = client.execute("x-memdev-stat", {"id": id})
    return found


@pytest.fixture
def qemu(directory: Path) -> Iterator[Callable[..., Server]]:
    """Starts QEMUs with further options."""
    with starter("QEMU", [*qemu_binary(), "-nodefaults", "-nographic"], directory) as start:
        yield start


def machine(backend: str, *, stopped: bool = True) -> list[str]:
    """A machine whose memory is one of the backend's id `ram`."""
    options = ["-machine", "q35,memory-backend=ram", "-accel", "tcg", "-m", "32M"]
    return [*options, "-object", f"{backend},id=ram,size=32M", *(["-S"] if stopped else [])]


def guest_memory(monitor: Monitor, to: Path, start: int = MIB, size: int = 2 * MIB) -> bytes:
    """What the machine has at its physical addresses, as QEMU's `pmemsave` tells."""
    arguments = {"val": start, "size": size, "filename": str(to)}
    assert monitor.execute("pmemsave", arguments) == {"return": {}}
    return to.read_bytes()


@pytest.mark.parametrize(
    ("kind", "options"), [("memfd", {}), ("shm", {}), ("ram", {"share": True}), ("file", {})]
)
def test_another_process_maps_it(
    client: Client, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if kind == "file":
        options = {"mem_path": str(tmp_path / "file"), "share": True, "offset": PAGE}
    add(client, kind, size=MIB, **options)
    client.write("m", 5, b"hello")
    with client.export("m") as memory:
        arguments = map(str, (memory.fd, memory.size, memory.offset))
        subprocess.run([sys.executable, "-c", TAKER, *arguments], pass_fds=[memory.fd], check=True)
    assert client.read("m", 4, 7) == b"\0world\0"
    assert client.read("m", MIB - 1, 1) == b"\7"
    assert stat(client)["exports"] == 1


def test_a_qemu_without_machine_opens_the_path(client: Client, qemu: Callable[..., Server]) -> None:
    add(client, "memfd", size=SIZE)
    with client.export("m") as memory:
        backend = f"memory-backend-file,id=ram,size=32M,share=on,mem-path={memory.path}"
        server = qemu("-machine", "none", "-object", backend)
        monitor = server.monitor()
        (found,) = monitor.execute("query-memdev")["return"]
        assert (found["id"], found["size"], found["share"]) == ("ram", SIZE, True)
        rows = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
        inode = str(os.fstat(memory.fd).st_ino)
        assert [row.split()[1] for row in rows if row.split()[4] == inode] == ["rw-s"]


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_a_machine_runs_in_it(
    client: Client, qemu: Callable[..., Server], directory: Path, by_descriptor: bool
) -> None:
    """What memd writes the machine has, and what its firmware writes memd reads."""
    add(client, "memfd", size=SIZE)
    data = os.urandom(2 * MIB)
    client.write("m", MIB, data)
    with client.export("m") as memory:
        # Its own path, or that of the descriptor that was handed out.
        path = f"/proc/{os.getpid()}/fd/{memory.fd}" if by_descriptor else memory.path
        # Greeted by it, it has the memory.
        monitor = qemu(*machine(f"memory-backend-file,share=on,mem-path={path}")).monitor()
    assert guest_memory(monitor, directory / "saved") == data
    client.write("m", MIB + 5, b"hello")
    assert guest_memory(monitor, directory / "saved", MIB, 12) == data[:5] + b"hello" + data[10:12]
    assert client.read("m", 0x400, 256) == bytes(256)
    monitor.execute("cont")
    # The firmware fills the BIOS data area.
    area = settle(lambda: client.read("m", 0x400, 256), lambda found: found != bytes(256))
    assert area != bytes(256)


def test_a_template(client: Client, qemu: Callable[..., Server], directory: Path) -> None:
    """A machine's memory is saved by memd, and starts others that leave it as it is."""
    add(client, "memfd", size=SIZE)
    client.write("m", MIB, b"the template")
    template = directory / "template"
    client.execute("x-memdev-save", {"id": "m", "filename": str(template)})
    assert template.stat().st_blocks * 512 == PAGE
    before = hashlib.sha256(template.read_bytes()).digest()
    clone = f"memory-backend-file,share=off,readonly=on,rom=off,mem-path={template}"
    monitor = qemu(*machine(clone)).monitor()
    assert guest_memory(monitor, directory / "saved", MIB, 12) == b"the template"
    monitor.execute("cont")
    area = settle(
        lambda: guest_memory(monitor, directory / "saved", 0x400, 256),
        lambda found: found != bytes(256),
    )
    assert area != bytes(256)
    assert hashlib.sha256(template.read_bytes()).digest() == before


def test_a_read_only_nvdimm(client: Client, qemu: Callable[..., Server], tmp_path: Path) -> None:
    """The path of read-only memory serves one that opens it read-only."""
    path = tmp_path / "image"
    path.write_bytes(b"n" * SIZE)
    add(client, "file", size=SIZE, mem_path=str(path), readonly=True, share=True)
    with client.export("m") as memory:
        assert not memory.writable
        nvdimm = f"memory-backend-file,id=nv,size=32M,readonly=on,mem-path={memory.path}"
        server = qemu(
            *("-machine", "q35,nvdimm=on", "-accel", "tcg", "-m", "64M,slots=2,maxmem=128M"),
            *("-object", nvdimm, "-device", "nvdimm,id=nv0,memdev=nv,unarmed=on", "-S"),
        )
        (device,) = server.monitor().execute("query-memory-devices")["return"]
        assert device["data"]["size"] == SIZE


def test_eight_clones(client: Client, tmp_path: Path) -> None:
    """Each has the template and its own changes, counted to the page."""
    template = tmp_path / "template"
    content = os.urandom(4 * MIB)
    template.write_bytes(content)
    before = hashlib.sha256(content).digest()
    clones = range(8)
    for clone in clones:
        add(
            client,
            "file",
            f"c{clone}",
            size=4 * MIB,
            mem_path=str(template),
            readonly=True,
            rom="off",
        )
        assert stat(client, f"c{clone}")["private-dirty"] == 0
    for clone in clones:
        for page in range(clone + 1):
            client.write(f"c{clone}", page * 32 * PAGE + clone, bytes([clone]) * 3)
    for clone in clones:
        expected = bytearray(content)
        for page in range(clone + 1):
            at = page * 32 * PAGE + clone
            expected[at : at + 3] = bytes([clone]) * 3
        assert client.read(f"c{clone}", 0, 4 * MIB) == expected
        assert stat(client, f"c{clone}")["private-dirty"] == (clone + 1) * PAGE
        client.execute("x-memdev-save", {"id": f"c{clone}", "filename": f"{tmp_path}/c{clone}"})
        assert (tmp_path / f"c{clone}").read_bytes() == expected
    assert hashlib.sha256(template.read_bytes()).digest() == before


@need_shm
def test_memd_outlives_a_taker_that_truncates(client: Client, memd: Side) -> None:
    """shm and ram are not sealed: a taker that may write may make them shorter."""
    add(client, "shm", size=MIB)
    client.write("m", 0, b"x" * MIB)
    with client.export("m") as memory:
        os.ftruncate(memory.fd, PAGE)
        assert client.read("m", 0, PAGE) == b"x" * PAGE
        for length in (1, 2 * PAGE, MIB - PAGE):
            with pytest.raises(QMPError, match="truncated to 4096 bytes"):
                client.read("m", PAGE, length)
            with pytest.raises(QMPError, match="truncated to 4096 bytes"):
                client.write("m", PAGE, bytes(length))
        with pytest.raises(QMPError, match="truncated to 4096 bytes"):
            client.execute("x-memdev-save", {"id": "m", "filename": f"{memd.scratch}/saved"})
        assert not (memd.scratch / "saved").exists()
        assert stat(client)["resident"] == PAGE
    client.execute("object-del", {"id": "m"})
    add(client, "memfd", size=MIB)
    with client.export("m") as memory, pytest.raises(PermissionError):
        os.ftruncate(memory.fd, PAGE)
    assert memd.server.alive()


def test_a_full_disk(client: Client, directory: Path, mount: Callable[..., None]) -> None:
    small = directory / "small"
    mount("tmpfs", small, "size=128k")
    add(client, "file", size=MIB, mem_path=str(small / "file"), share=True)
    client.write("m", 0, b"x" * 16 * PAGE)
    with pytest.raises(QMPError, match="No space left on device"):
        client.write("m", PAGE, b"y" * (MIB // 2))
    assert client.read("m", 0, 16 * PAGE) == b"x" * 16 * PAGE
    with pytest.raises(QMPError, match="No space left on device"):
        client.execute("x-memdev-save", {"id": "m", "filename": str(small / "saved")})
    assert os.listdir(small) == ["file"]
    client.execute("object-del", {"id": "m"})


def test_takers_that_leave_at_once(client: Client, memd: Side) -> None:
    """A descriptor whose answer nobody reads is closed too."""
    add(client, "memfd", size=MIB)
    request = b'{"execute": "x-memdev-export", "arguments": {"id": "m"}}'
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(str(memd.server.path))
            hasty.sendall(b'{"execute": "qmp_capabilities"}' + request * 3)

    def held() -> int:
        return sum(n for name, n in descriptors(memd.server.pid).items() if "memfd:" in name)

    assert settle(held, lambda count: count == 1) == 1


def test_denying_private_discard(start_memd: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    for options in ((), ("--deny-private-discard",)):
        server = start_memd(*options)
        with Client(server.path, timeout=60) as client:
            add(client, "file", size=MIB, mem_path=str(path))
            arguments = {"id": "m", "offset": 0, "length": PAGE}
            if options:
                with pytest.raises(QMPError, match="--deny-private-discard"):
                    client.execute("x-memdev-discard", arguments)
            else:
                for _ in range(2):
                    client.execute("x-memdev-discard", arguments)
                told = "a private mapping of a file"
                assert server.stderr(told).count(told) == 1
                assert path.read_bytes() == bytes(PAGE) + b"f" * (MIB - PAGE)


def as_nobody(*command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a user without rights."""
    return subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, **options
    )


@pytest.fixture
def for_everybody() -> Iterator[Path]:
    """A directory of the user without rights, and a Python that it can run memd with."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root, to become somebody else")
    if shutil.which("setpriv") is None:
        pytest.skip(f"{NOT_HERE}setpriv")
    works = "import memd, sys; sys.exit(sys.version_info < (3, 11))"
    if as_nobody("/usr/bin/env", "-C", str(TREE), *PYTHON, "-c", works).returncode:
        pytest.skip(f"{NOT_HERE}a Python and a checkout that every user can read")
    path = Path(tempfile.mkdtemp(prefix="memd-test-", dir="/tmp"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("kind", ["memfd", "shm"])
def test_without_root(for_everybody: Path, kind: str) -> None:
    """The path is there for processes of the same user, and for these alone."""
    argv = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *PYTHON]
    with (
        running("memd", [*argv, "-m", "memd"], for_everybody) as server,
        Client(server.path, timeout=60) as client,
    ):
        add(client, kind, size=MIB)
        client.write("m", 0, b"hello")
        for writable in (False, True):
            with client.export("m", writable=writable) as memory:
                assert os.pread(memory.fd, 5, 0) == b"hello"
                path = memory.path
        done = as_nobody("/bin/sh", "-c", f"head -c 5 {path}; exec 9<>{path} && echo open")
        assert done.stdout == b"helloopen\n"
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec 9<{path}"], user=NOBODY - 1, capture_output=True, check=False
        )
        assert done.returncode != 0
        client.execute("x-memdev-save", {"id": "m", "filename": f"{for_everybody}/saved"})
        assert (for_everybody / "saved").read_bytes()[:5] == b"hello"
