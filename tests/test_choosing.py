"""What docs/choosing.md says of the backends, each claim tried on a daemon."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client, Export
from memd.errors import QMPError
from tests.differential.harness import Side
from tests.differential.kernel import descriptors, open_files, regions, resident
from tests.differential.server import TREE, Server
from tests.kvm import needs_guest_memfd

MIB = 1 << 20
PAGE = mmap.PAGESIZE

F_GET_SEALS = 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4


class Daemon:
    """A daemon with a client: short ways to make backends."""

    def __init__(self, server: Server, client: Client) -> None:
        self.pid = server.pid
        self.client = client

    def add(self, kind: str, id: str = "m0", size: int = MIB, **options: Any) -> None:
        named = {name.replace("_", "-"): value for name, value in options.items()}
        arguments = {"qom-type": f"memory-backend-{kind}", "id": id, "size": size, **named}
        self.client.execute("object-add", arguments)

    def delete(self, id: str = "m0") -> None:
        self.client.execute("object-del", {"id": id})

    def refusal(self, work: Callable[[], object]) -> str:
        with pytest.raises(QMPError) as caught:
            work()
        return caught.value.desc

    def export(self, id: str = "m0", writable: bool | None = None) -> Export:
        return self.client.export(id, writable=writable)

    def stat(self, id: str = "m0") -> dict[str, Any]:
        (found,) = self.client.execute("x-memdev-stat", {"id": id})
        assert isinstance(found, dict)
        return found

    def resident(self) -> int:
        """Bytes that the backends' mappings have, by /proc/PID/smaps."""
        return sum(size for _length, size in resident(self.pid))

    def set_aside(self) -> list[str]:
        """What the daemon holds open."""
        return sorted(descriptors(self.pid).elements())


@pytest.fixture
def daemon(memd: Side) -> Iterator[Daemon]:
    """The daemon of the session, which has to be left without objects."""
    with Client(memd.server.path) as client:
        yield Daemon(memd.server, client)
        for found in client.execute("query-memdev"):
            client.execute("object-del", {"id": found["id"]})


def test_every_backend_is_told_of(daemon: Daemon) -> None:
    text = (TREE / "docs" / "choosing.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^## (memory-backend-\S+)$", text, re.M))
    types = daemon.client.execute("qom-list-types", {"implements": "memory-backend"})
    assert {each["name"] for each in types} == told


# memory-backend-ram


def test_ram_has_no_descriptor(daemon: Daemon) -> None:
    before = daemon.set_aside()
    daemon.add("ram")
    assert daemon.set_aside() == before
    assert "without a descriptor" in daemon.refusal(daemon.export)


def test_the_size_of_ram_need_not_be_whole_pages(daemon: Daemon) -> None:
    daemon.add("ram", size=PAGE + 1)
    assert [mapping.size for mapping in regions(daemon.pid, Path("/x"))] == [2 * PAGE]


def test_a_page_takes_memory_when_it_is_first_touched(daemon: Daemon) -> None:
    daemon.add("memfd", size=16 * MIB)
    assert daemon.resident() == 0
    daemon.client.write("m0", 0, b"x")
    assert 0 < daemon.resident() < 16 * MIB
    daemon.delete()
    daemon.add("ram", size=16 * MIB, prealloc=True)
    assert daemon.resident() == 16 * MIB


def test_shared_ram_is_a_memfd_whose_size_can_be_changed(daemon: Daemon) -> None:
    daemon.add("ram", share=True)
    with daemon.export() as memory:
        assert os.readlink(f"/proc/self/fd/{memory.fd}").startswith("/memfd:")
        assert fcntl.fcntl(memory.fd, F_GET_SEALS) == F_SEAL_SEAL
        os.ftruncate(memory.fd, 2 * MIB)


# memory-backend-memfd


@pytest.mark.parametrize(
    "kind", ["memfd", "shm", pytest.param("guest-memfd", marks=needs_guest_memfd)]
)
def test_another_process_sees_what_is_written(daemon: Daemon, kind: str) -> None:
    daemon.add(kind)
    with daemon.export() as memory, mmap.mmap(memory.fd, memory.size) as here:
        daemon.client.write("m0", 5, b"hello")
        assert here[5:10] == b"hello"
        here[5:10] = b"world"
        assert daemon.client.read("m0", 5, 5) == b"world"


def test_the_size_of_a_memfd_is_sealed(daemon: Daemon) -> None:
    daemon.add("memfd")
    with daemon.export() as memory:
        assert fcntl.fcntl(memory.fd, F_GET_SEALS) == F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
        for size in (0, 2 * MIB):
            with pytest.raises(PermissionError):
                os.ftruncate(memory.fd, size)
    daemon.delete()
    daemon.add("memfd", seal=False)
    with daemon.export() as memory:
        os.ftruncate(memory.fd, 2 * MIB)


def test_huge_pages_of_a_memfd_need_no_mount(
    daemon: Daemon, hugepages: Callable[[int], None]
) -> None:
    hugepages(1)
    daemon.add("memfd", size=2 * MIB, hugetlb=True, hugetlbsize=2 * MIB)
    assert daemon.stat()["page-size"] == 2 * MIB


def test_a_memfd_outlives_the_daemon_in_a_process_that_holds_it(
    start_memd: Callable[..., Server],
) -> None:
    server = start_memd()
    with Client(server.path) as client:
        Daemon(server, client).add("memfd")
        client.write("m0", 0, b"kept")
        memory = client.export("m0")
    server.stop()
    with memory, mmap.mmap(memory.fd, memory.size) as here:
        assert here[:4] == b"kept"


def test_a_private_memfd_takes_memory_twice(daemon: Daemon) -> None:
    """By the kernel's numbers: the file's blocks, and the mapping's own pages."""
    size = 8 * MIB

    def taken() -> int:
        with daemon.export(writable=False) as memory:
            of_file = os.fstat(memory.fd).st_blocks * 512
        of_mapping: int = daemon.stat()["private-dirty"]
        return of_file + of_mapping

    for share, times in ((True, 1), (False, 2)):
        daemon.add("memfd", size=size, share=share, prealloc=True)
        assert taken() == times * size
        daemon.delete()
    daemon.add("ram", size=size, prealloc=True)
    assert daemon.stat()["private-dirty"] == size


def test_only_shm_counts_against_dev_shm(daemon: Daemon) -> None:
    there = os.stat("/dev/shm").st_dev
    for kind, counts in (("memfd", False), ("shm", True)):
        daemon.add(kind, kind)
        with daemon.export(kind) as memory:
            assert (os.fstat(memory.fd).st_dev == there) is counts


# memory-backend-file


def test_a_shared_file_is_there_after_a_restart(
    start_memd: Callable[..., Server], directory: Path
) -> None:
    path = str(directory / "memory")
    server = start_memd()
    with Client(server.path) as client:
        Daemon(server, client).add("file", mem_path=path, share=True)
        client.write("m0", 7, b"kept")
    server.stop()
    server = start_memd()
    with Client(server.path) as client:
        Daemon(server, client).add("file", mem_path=path, share=True)
        assert client.read("m0", 7, 4) == b"kept"


def test_a_template(daemon: Daemon, directory: Path) -> None:
    """Clones share what they don't write, and the file can't change."""
    path, size = directory / "template", 8 * MIB
    path.write_bytes(b"T" * size)
    for id in ("a", "b"):
        daemon.add("file", id, size, mem_path=str(path), readonly=True, rom="off")
    modes = {mode for _name, mode in open_files(daemon.pid, directory)}
    assert modes == {"read-only"}
    daemon.client.write("a", PAGE, b"mine")
    assert daemon.client.read("a", PAGE, 5) == b"mineT"
    assert daemon.client.read("b", PAGE, 5) == b"TTTTT"
    assert daemon.client.read("b", 0, size) == b"T" * size
    # One page was written, and is the only one that a clone has for itself.
    assert [daemon.stat(id)["private-dirty"] for id in ("a", "b")] == [PAGE, 0]
    assert "read-only" in daemon.refusal(
        lambda: daemon.client.execute("x-memdev-discard", {"id": "a", "offset": 0, "length": size})
    )
    assert path.read_bytes() == b"T" * size


def test_a_private_mapping_of_a_writable_file_makes_holes_in_it(
    daemon: Daemon, directory: Path
) -> None:
    path = directory / "template"
    path.write_bytes(b"T" * MIB)
    daemon.add("file", mem_path=str(path))
    daemon.client.write("m0", 0, b"mine")
    assert path.read_bytes() == b"T" * MIB
    daemon.client.execute("x-memdev-discard", {"id": "m0", "offset": 0, "length": PAGE})
    assert path.read_bytes() == bytes(PAGE) + b"T" * (MIB - PAGE)


def test_readonly_alone_is_rom(daemon: Daemon, directory: Path) -> None:
    path = directory / "rom"
    path.write_bytes(b"R" * MIB)
    daemon.add("file", mem_path=str(path), readonly=True)
    assert "read-only memory (ROM)" in daemon.refusal(lambda: daemon.client.write("m0", 0, b"x"))
    (mapping,) = regions(daemon.pid, directory)
    assert mapping.permissions == "r--p"


def test_hugetlbfs_has_huge_pages(
    daemon: Daemon,
    directory: Path,
    mount: Callable[..., None],
    hugepages: Callable[[int], None],
) -> None:
    hugepages(1)
    mount("hugetlbfs", directory / "huge")
    daemon.add("file", size=2 * MIB, mem_path=str(directory / "huge"))
    assert daemon.stat()["page-size"] == 2 * MIB
    daemon.delete()


def test_a_file_in_a_directory_never_shows(daemon: Daemon, directory: Path) -> None:
    daemon.add("file", mem_path=str(directory), share=True)
    assert os.listdir(directory) == []
    with daemon.export() as memory:
        assert os.fstat(memory.fd).st_nlink == 0


def test_pmem_elsewhere_is_mapped_all_the_same(
    start_memd: Callable[..., Server], directory: Path
) -> None:
    path = directory / "nvdimm"
    path.write_bytes(bytes(MIB))
    server = start_memd()
    with Client(server.path) as client:
        Daemon(server, client).add("file", mem_path=str(path), share=True, pmem=True)
        (mapping,) = regions(server.pid, directory)
    # VmFlags `sf`: synchronous page faults, which is what MAP_SYNC asks for.
    assert "sf" not in mapping.flags
    lacking = "persistence across crashes"
    assert lacking in server.stderr(lacking)


# memory-backend-shm


def test_the_name_of_shm_is_gone(daemon: Daemon) -> None:
    daemon.add("shm")
    with daemon.export() as memory:
        there = os.fstat(memory.fd)
        assert there.st_nlink == 0
    assert there.st_ino not in {entry.inode() for entry in os.scandir("/dev/shm")}


def test_shm_beyond_its_limit_can_not_be_had(daemon: Daemon) -> None:
    room = os.statvfs("/dev/shm")
    size = (room.f_blocks * room.f_frsize // MIB + 64) * MIB
    # Mapped it is, whatever there is.
    daemon.add("shm", size=size)
    answer = daemon.client.execute(
        "x-memdev-explain", {"qom-type": "memory-backend-shm", "id": "m1", "size": size}
    )
    assert "space" in {warning["about"] for warning in answer["warnings"]}


@pytest.mark.parametrize("kind", ["shm", "guest-memfd"])
def test_it_is_always_shared(daemon: Daemon, kind: str) -> None:
    assert "share=off" in daemon.refusal(lambda: daemon.add(kind, share=False))


def test_shm_is_not_sealed_and_has_no_huge_pages(daemon: Daemon) -> None:
    daemon.add("shm")
    with daemon.export() as memory:
        os.ftruncate(memory.fd, 2 * MIB)
    assert daemon.refusal(lambda: daemon.add("shm", "m1", hugetlb=True)) == (
        "Parameter 'hugetlb' is unexpected"
    )


# memory-backend-guest-memfd


@needs_guest_memfd
def test_guest_memfd_is_used_like_any_shared_memory(daemon: Daemon) -> None:
    daemon.add("guest-memfd", size=4 * MIB, prealloc=True)
    (mapping,) = regions(daemon.pid, Path("/x"))
    assert mapping.permissions == "rw-s"
    assert daemon.resident() == 4 * MIB
    daemon.client.write("m0", PAGE - 2, b"data")
    assert daemon.client.read("m0", PAGE - 2, 4) == b"data"
    daemon.client.execute("x-memdev-discard", {"id": "m0", "offset": 0, "length": 4 * MIB})
    assert daemon.client.read("m0", PAGE - 2, 4) == bytes(4)


def memory_slot(machine: int, address: int, fd: int) -> None:
    """KVM_SET_USER_MEMORY_REGION2 of a guest_memfd's first MiB; raises `OSError`."""
    region = struct.pack("<IIQQQQII14Q", 0, 4, 0, MIB, address, 0, fd, 0, *[0] * 14)
    fcntl.ioctl(machine, 0x40A0AE49, region)


@needs_guest_memfd
def test_guest_memfd_belongs_to_its_virtual_machine(daemon: Daemon) -> None:
    daemon.add("guest-memfd")
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    machine = fcntl.ioctl(kvm, 0xAE01, 0)
    own = -1
    try:
        request = bytearray(struct.pack("<8Q", MIB, 3, *[0] * 6))
        own = fcntl.ioctl(machine, 0xC040AED4, request)
        with daemon.export() as memory:
            for fd, taken in ((memory.fd, False), (own, True)):
                with mmap.mmap(fd, MIB) as mapped:
                    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
                    if taken:
                        memory_slot(machine, address, fd)
                        continue
                    with pytest.raises(OSError, match="Invalid argument"):
                        memory_slot(machine, address, fd)
    finally:
        for fd in (own, machine, kvm):
            if fd >= 0:
                os.close(fd)


@needs_guest_memfd
def test_guest_memfd_has_no_huge_pages_and_no_seals(daemon: Daemon) -> None:
    for option in ("hugetlb", "seal"):
        arguments: dict[str, Any] = {option: True}
        text = daemon.refusal(functools.partial(daemon.add, "guest-memfd", **arguments))
        assert text == f"Parameter '{option}' is unexpected"
    daemon.add("guest-memfd")
    assert daemon.stat()["page-size"] == PAGE
    with daemon.export() as memory:
        with pytest.raises(OSError, match="Invalid argument"):
            fcntl.fcntl(memory.fd, F_GET_SEALS)
        with pytest.raises(OSError, match="Invalid argument"):
            os.ftruncate(memory.fd, 2 * MIB)


@needs_guest_memfd
def test_guest_memfd_can_not_be_read_as_a_file(daemon: Daemon) -> None:
    daemon.add("guest-memfd")
    with daemon.export() as memory, pytest.raises(OSError):
        os.pread(memory.fd, 1, 0)
    assert daemon.refusal(lambda: daemon.export(writable=False))


@needs_guest_memfd
def test_the_virtual_machine_of_guest_memfd_has_no_descriptor(daemon: Daemon) -> None:
    before = daemon.set_aside()
    daemon.add("guest-memfd")
    (more,) = [name for name in daemon.set_aside() if "kvm" in name]
    assert more == "anon_inode:[kvm-gmem]"
    daemon.delete()
    assert daemon.set_aside() == before


# All of them


def test_without_reserve_more_is_promised_than_there_is(daemon: Daemon) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii") != "0\n":
        pytest.skip("not here: the kernel's usual rule for promising memory")
    rows = Path("/proc/meminfo").read_text(encoding="ascii")
    there = sum(
        int(kib) << 10 for kib in re.findall(r"^(?:MemTotal|SwapTotal): *(\d+)", rows, re.M)
    )
    more = there + (1 << 30)
    assert "Cannot allocate memory" in daemon.refusal(lambda: daemon.add("ram", size=more))
    daemon.add("ram", size=more, reserve=False)


def test_merging_is_for_private_memory(daemon: Daemon) -> None:
    flags = {}
    for kind in ("ram", "memfd"):
        daemon.add(kind, merge=True)
        (mapping,) = regions(daemon.pid, Path("/x"))
        flags[kind] = "mg" in mapping.flags
        daemon.delete()
    assert flags == {"ram": True, "memfd": False}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ram", {"policy": "bind"}),
        ("memfd", {"policy": "bind"}),
        ("shm", {"policy": "bind"}),
        ("file", {"policy": "bind", "mem_path": "new"}),
        pytest.param("guest-memfd", {"policy": "bind"}, marks=needs_guest_memfd),
    ],
)
def test_what_fails_leaves_nothing(
    daemon: Daemon, directory: Path, kind: str, options: dict[str, Any]
) -> None:
    if "mem_path" in options:
        options = {**options, "mem_path": str(directory / "new")}
    before = daemon.set_aside()
    assert daemon.refusal(lambda: daemon.add(kind, **options)) == (
        "host-nodes must be set for policy bind"
    )
    assert daemon.set_aside() == before
    assert regions(daemon.pid, directory) == []
    assert os.listdir(directory) == []
    assert daemon.client.execute("query-memdev") == []
