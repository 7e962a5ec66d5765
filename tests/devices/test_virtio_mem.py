"""virtio-mem: a machine has more or less of a backend, and the host gets the rest."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.devices.virtio_mem import STEP
from memd.errors import QMPError
from memd.faulty.kernel import FaultyHost
from memd.hostmem import libc
from memd.hostmem.host import Host
from memd.json_types import JSON
from tests.devices.bench import MIB, Bench

V0 = "/machine/peripheral/v0"


def changed(size: int, id: str | None = "v0", path: str = V0) -> tuple[str, JSON]:
    data: dict[str, JSON] = {"size": size, "qom-path": path}
    if id is not None:
        data["id"] = id
    return ("MEMORY_DEVICE_SIZE_CHANGE", data)


def request(bench: Bench, size: JSON, path: str = "v0") -> str:
    """Ask for a size; the text of the refusal, if there is one."""
    try:
        bench("qom-set", path=path, property="requested-size", value=size)
    except QMPError as error:
        return error.desc
    return ""


def resident(bench: Bench, id: str) -> int:
    found: int = bench("x-memdev-stat", id=id)[0]["resident"]
    return found


def fill(bench: Bench, id: str) -> None:
    """Write to every page of a backend."""
    region = bench.backend(id).region
    assert libc.madvise(region.address, region.length, libc.MADV_POPULATE_WRITE) == 0


def test_nothing_is_plugged_at_first(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0")
    assert bench.info("v0") == {
        "memdev": "/objects/m0",
        "memaddr": 4 << 30,
        "block-size": 2 * MIB,
        "size": 0,
        "node": 0,
        "max-size": 32 * MIB,
        "requested-size": 0,
        "id": "v0",
    }
    assert bench.take() == []


def test_the_guest_follows(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", requested_size=8 * MIB)
    assert bench.info("v0")["size"] == 0, "the guest has not been asked yet"
    assert bench.take() == [changed(8 * MIB)]
    assert bench.info("v0")["size"] == 8 * MIB
    bench.clock.wind(2)
    # By the bare id, which a management stack takes for the path.
    assert request(bench, 16 * MIB) == ""
    assert bench.take() == [changed(16 * MIB)]
    assert bench("query-memory-size-summary")["plugged-memory"] == 16 * MIB


def test_one_event_a_second(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0")
    for size in (2, 4, 6):
        request(bench, size * MIB)
        bench.clock.wind()
    assert bench.take() == [changed(2 * MIB)]
    bench.clock.wind(1)
    assert bench.take() == [changed(6 * MIB)]


def test_what_is_unplugged_goes_back_to_the_host(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", requested_size=32 * MIB)
    bench.take()
    fill(bench, "m0")
    assert resident(bench, "m0") == 32 * MIB
    request(bench, 8 * MIB)
    assert resident(bench, "m0") == 32 * MIB, "the guest has not been asked yet"
    bench.take()
    assert resident(bench, "m0") == 8 * MIB
    request(bench, 0)
    bench.take()
    assert resident(bench, "m0") == 0


def test_of_a_shared_file_blocks_go_back(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * (8 * MIB))
    bench.file("f0", path, share=True)
    bench.add("virtio-mem-pci", id="v0", memdev="f0", requested_size=8 * MIB)
    assert path.stat().st_blocks == 0, "it begins empty"
    bench.take()
    fill(bench, "f0")
    assert path.stat().st_blocks * 512 == 8 * MIB
    request(bench, 2 * MIB)
    bench.take()
    assert path.stat().st_blocks * 512 == 2 * MIB
    assert path.stat().st_size == 8 * MIB


def test_it_populates_what_is_plugged(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", prealloc=True, requested_size=4 * MIB)
    bench.take()
    assert resident(bench, "m0") == 4 * MIB
    request(bench, 8 * MIB)
    bench.take()
    assert resident(bench, "m0") == 8 * MIB


def test_what_can_not_be_populated_is_not_plugged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    lack = errno.ENOMEM

    def refusal(kind: str) -> int:
        if kind != "populate":
            return 0
        # There is some memory, and then none.
        libc.madvise(bench.backend("m0").region.address, MIB, libc.MADV_POPULATE_WRITE)
        return lack

    bench.daemon.tree.host = FaultyHost(refusal)
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", prealloc=True)
    request(bench, 4 * MIB)
    assert bench.take() == []
    assert (bench.info("v0")["size"], resident(bench, "m0")) == (0, 0)
    assert "Cannot allocate memory" in caplog.text
    assert not bench.backend("m0").region.pinned
    lack = 0
    request(bench, 6 * MIB)
    assert bench.take() == [changed(6 * MIB)]


def test_asked_for_something_else_meanwhile(bench: Bench) -> None:
    """What takes long runs beside the loop; then the guest goes on from there."""
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", prealloc=True)
    bench.waits = True
    request(bench, 4 * MIB)
    bench.take()
    request(bench, 2 * MIB)
    assert bench.take() == []
    [changing] = bench.spawned
    changing.finish()
    assert bench.info("v0")["size"] == 2 * MIB
    assert resident(bench, "m0") == 2 * MIB


@pytest.mark.parametrize("options", [{"running": False}, {"guest_reacts": "after"}])
def test_asked_often_it_reacts_once(make_bench: Callable[..., Bench], options: Any) -> None:
    bench = make_bench(guest_delay_ms=1000, **options)
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0")
    for size in (2, 4, 6, 8):
        request(bench, size * MIB)
    assert bench.clock.expects <= 1
    bench("cont")
    bench.clock.wind(1)
    assert bench.take() == [changed(8 * MIB)]
    bench.clock.wind(5)
    assert bench.take() == []


class Unpopulated(Host):
    """Tells that pages were made, and makes none.

    Attributes:
        told: how many bytes at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def advise(self, address: int, length: int, advice: int) -> int:
        if advice == libc.MADV_POPULATE_WRITE:
            self.told.append(length)
            return 0
        return super().advise(address, length, advice)


def test_step_by_step(bench: Bench) -> None:
    """A large change ends half-way where something else is requested."""
    host = bench.daemon.tree.host = Unpopulated()
    bench.ram("m0", 8 * STEP)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", prealloc=True)
    bench.waits = True
    request(bench, 8 * STEP)
    bench.clock.wind()
    [changing] = bench.spawned
    sizes = []
    while changing.wait is not None:
        changing.step()
        sizes.append(bench.info("v0")["size"])
        if len(sizes) == 2:
            request(bench, 2 * MIB)
    # The third step is done, and then taken back.
    assert sizes[:2] == [STEP, 2 * STEP]
    assert sizes[-1] == 2 * MIB
    assert sum(host.told) == 3 * STEP


@pytest.mark.parametrize("reacts", ["never", "refuses"])
def test_who_does_not_follow(make_bench: Callable[..., Bench], reacts: str) -> None:
    bench = make_bench(guest_reacts=reacts)
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", requested_size=8 * MIB)
    assert bench.take() == []
    row = bench.info("v0")
    assert (row["size"], row["requested-size"]) == (0, 8 * MIB)


def test_what_was_there_from_the_start(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("q35", running=False, started=False)
    bench.add("virtio-mem-pci", id="v0", requested_size=2 * MIB)
    bench.machine.started = True
    assert bench.take() == []
    bench("cont")
    assert bench.take() == [changed(2 * MIB)]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (MIB, "'requested-size' has to be multiples of 'block-size' (0x200000)"),
        (34 * MIB, "'requested-size' cannot exceed the memory backend size(0x2000000)"),
        ("4M", "Parameter 'requested-size' expects uint64"),
    ],
)
def test_sizes_that_are_refused(bench: Bench, size: JSON, text: str) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0")
    assert request(bench, size) == text
    assert bench.info("v0")["requested-size"] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"block_size": 4096}, "'block-size' property has to be at least 0x100000"),
        ({"block_size": 3 * MIB}, "'block-size' property has to be a power of two"),
        ({"block_size": MIB, "memaddr": 5 * MIB}, "address must be aligned to 0x200000 bytes"),
        (
            {"requested_size": MIB},
            "'requested-size' property has to be multiples of 'block-size' (0x200000)",
        ),
        (
            {"block_size": 16 * MIB, "memaddr": 1 << 21},
            "address must be aligned to 0x1000000 bytes",
        ),
        (
            {"block_size": 64 * MIB},
            "'memdev' property memdev size has to be multiples of'block-size' (0x4000000)",
        ),
        ({"node": 1}, "'node' property has value '1', which exceedsthe number of numa nodes: 1"),
        (
            {"dynamic_memslots": True, "unplugged_inaccessible": "auto"},
            "'dynamic-memslots' property set to 'on' requires 'unplugged-inaccessible' to be 'on'",
        ),
    ],
)
def test_devices_that_are_refused(bench: Bench, options: dict[str, Any], text: str) -> None:
    bench.ram("m0", 32 * MIB)
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="m0", **options) == text
    assert bench("object-del", id="m0") == {}


def test_backends_that_are_refused(bench: Bench, tmp_path: Path) -> None:
    def refuse(memdev: str) -> str:
        return bench.refuse("virtio-mem-pci", id="v0", memdev=memdev)

    bench.ram("pre", prealloc=True)
    assert refuse("pre") == (
        "'memdev' property specifies a memdev with preallocation enabled: pre. Instead, specify"
        " 'prealloc=on' for the virtio-mem device. "
    )
    bench.add("pc-dimm", id="d0", memdev="pre")
    assert refuse("pre") == "'memdev' property specifies a busy memdev: pre"
    path = tmp_path / "memory"
    path.write_bytes(b"x" * (2 * MIB))
    bench.file("rom", path, readonly=True)
    assert refuse("rom") == "'memdev' property specifies an unsupported memdev"
    bench.file("file", path, readonly=True, rom="off")
    assert refuse("file") == "Unexpected error discarding RAM: Operation not permitted"
    assert path.read_bytes() == b"x" * (2 * MIB)


def test_private_mappings_of_files(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * (2 * MIB))
    bench.file("f0", path)
    bench.machine.deny_private_discard = True
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="f0") == (
        "cannot discard memory of 'f0': it is a private mapping of a file,"
        " and --deny-private-discard is given"
    )
    assert path.read_bytes() == b"x" * (2 * MIB)
    bench.machine.deny_private_discard = False
    bench.add("virtio-mem-pci", id="v0", memdev="f0")
    assert path.read_bytes() == bytes(2 * MIB)
    assert caplog.text.count("changes the file for everybody else") == 1


def test_blocks_are_as_large_as_pages_at_least(
    bench: Bench, hugepages: Callable[[int], None]
) -> None:
    hugepages(2)
    bench("object-add", qom_type="memory-backend-memfd", id="h0", size=4 * MIB, hugetlb=True)
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="h0", block_size=MIB) == (
        "'block-size' property has to be at least the page size (0x200000)"
    )
    bench.add("virtio-mem-pci", id="v0", memdev="h0", prealloc=True, requested_size=2 * MIB)
    bench.take()
    assert resident(bench, "h0") == 2 * MIB
    request(bench, 0)
    bench.take()
    assert resident(bench, "h0") == 0


def test_blocks_that_were_chosen(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", block_size=MIB)
    assert bench.info("v0")["block-size"] == MIB
    assert bench.refusal("qom-set", path="v0", property="block-size", value=MIB)[1] == (
        "'block-size' cannot be changed"
    )


def test_what_it_needs_to_go(bench: Bench) -> None:
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", requested_size=8 * MIB)
    refused = "virtio-mem device cannot get unplugged while"
    assert bench.refusal("device_del", id="v0")[1] == f"{refused} 'requested-size' != '0'"
    bench.take()
    still = f"{refused} some of its memory is still plugged"
    assert bench.refusal("device_del", id="v0")[1] == still
    request(bench, 0)
    assert bench.refusal("device_del", id="v0")[1] == still
    bench.take()
    assert bench("device_del", id="v0") == {}
    assert request(bench, 2 * MIB) == (
        "'requested-size' cannot be changed if the device is in the process of unplug"
    )
    # The guest said nothing of the size for a second, so this comes at once.
    assert bench.take() == [
        ("DEVICE_DELETED", {"path": f"{V0}/virtio-backend"}),
        ("DEVICE_DELETED", {"path": V0, "device": "v0"}),
    ]
    assert bench("object-del", id="m0") == {}


def test_memory_that_is_still_being_plugged_stays(bench: Bench) -> None:
    """Though nothing is there of it yet, and nothing is requested any more."""
    bench.ram("m0", 32 * MIB)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", prealloc=True)
    bench.waits = True
    request(bench, 32 * MIB)
    bench.take()
    request(bench, 0)
    text = "virtio-mem device cannot get unplugged while some of its memory is still plugged"
    assert bench.refusal("device_del", id="v0")[1] == text
    [changing] = bench.spawned
    changing.finish()
    assert (bench.info("v0")["size"], resident(bench, "m0")) == (0, 0)
    assert bench("device_del", id="v0") == {}
    assert [name for name, _data in bench.take()][-1] == "DEVICE_DELETED"


def test_accessible_memory_stays(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0", unplugged_inaccessible="auto")
    assert bench.get("v0", "unplugged-inaccessible") == "off"
    assert bench.refusal("device_del", id="v0")[1] == (
        "virtio-mem device cannot get unplugged while 'unplugged-inaccessible' != 'on'"
    )


def test_memory_that_costs_when_it_is_read(bench: Bench) -> None:
    bench.ram("m0", share=True)
    bench.add("virtio-mem-pci", id="v0", memdev="m0", unplugged_inaccessible="auto")
    assert bench.get("v0", "unplugged-inaccessible") == "on"
    assert bench("device_del", id="v0") == {}


def test_large_ones_are_emptied_beside_the_loop(bench: Bench) -> None:
    """Meanwhile the id, the place and the backend are taken, and nothing shows."""
    bench.ram("m0", 128 * MIB)
    bench.ram("m1", 128 * MIB)
    slow = bench.begin("device_add", driver="virtio-mem-pci", id="v0", memdev="m0")
    assert slow.wait is not None
    assert bench("query-memory-devices") == []
    assert bench.refusal("device_del", id="v0")[0] == "DeviceNotFound"
    assert bench.refuse("pc-dimm", id="v0") == "Duplicate device ID 'v0'"
    assert bench.refuse("pc-dimm", memdev="m0") == "can't use already busy memdev: m0"
    bench.add("virtio-mem-pci", id="v1", memdev="m1")
    slow.finish()
    assert bench.info("v0")["memaddr"] == 4 << 30
    assert bench.info("v1")["memaddr"] == (4 << 30) + 128 * MIB


def test_what_could_not_be_emptied_leaves_nothing(bench: Bench) -> None:
    failure = 0
    bench.daemon.tree.host = FaultyHost(lambda kind: failure if kind == "madvise" else 0)
    bench.ram("m0", 128 * MIB)
    failure = errno.EIO
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="m0") == (
        "Unexpected error discarding RAM: Input/output error"
    )
    failure = 0
    bench.add("virtio-mem-pci", id="v0", memdev="m0")
    assert bench.info("v0")["memaddr"] == 4 << 30
    assert bench.get("v0", "legacy-addr") == "02.0"
