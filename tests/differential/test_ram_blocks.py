"""RAM blocks: which backends have one, and what it is called once a machine or a device has it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.standin import standin_pair, tell
from tests.seeds import seed_of_run

MIB = 1 << 20
ROW = re.compile(r"(.*B)  (0x\w{16})( 0x\w{16} 0x\w{16}) 0x\w{16}(  r[ow])")
QEMUS_OWN = re.compile(r"/rom@\S+ |pc\.bios |pc\.rom ")


def blocks(side: Side, *, offsets: bool) -> Any:
    """The lines but for host addresses, and for offsets, which depend on QEMU's own blocks."""
    said = side.ask("human-monitor-command", {"command-line": "info ramblock"})["return"]
    answer = side.ask("x-query-ramblock")["return"]["human-readable-text"]
    shape = re.compile(r"0x\w{16}  ")
    assert shape.sub("", answer) == shape.sub("", said.replace("\r\n", "\n"))
    heading, *lines = said.split("\r\n")
    told = [heading, lines.pop()]
    for line in lines:
        if not QEMUS_OWN.match(line.lstrip()):
            row = ROW.fullmatch(line)
            assert row, line
            told.append(row[1] + (row[2] if offsets else "") + row[3] + row[4])
    return told


def compare(pair: Pair, rows: int, *, offsets: bool = False) -> None:
    told = pair.same("info ramblock", lambda side: blocks(side, offsets=offsets))
    assert len(told) == rows + 2, told


def backend(id: str, kind: str = "ram", size: int = MIB, **options: Any) -> tuple[str, Any]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return "object-add", {"qom-type": f"memory-backend-{kind}", "id": id, "size": size, **named}


def prepare(directory: Path) -> None:
    (directory / "f").write_bytes(bytes(8192))


FILE: dict[str, Any] = {"kind": "file", "size": 8192, "mem_path": "@DIR@/f"}

BACKENDS = (
    *(backend("m0"), backend("m1", "memfd", 2 * MIB), backend("m2", "shm")),
    *(backend("m3", size=5000), backend("m4", x_use_canonical_path_for_ramblock_id=True)),
    *(backend("m5", **FILE), backend("m6", **FILE, readonly=True)),
    *(backend("m7", **FILE, readonly=True, rom="off"), backend("m8", **FILE, share=True)),
    *(backend("m9", **FILE, share=True, readonly=True), backend("m10", size=0)),
    *(backend("m11", reserve=False, size=1 << 33), backend("m12", prealloc=True)),
    *(backend("m13", "file", 4096, mem_path="@DIR@/f", offset=4096), backend("m0")),
)


def test_of_backends(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none", prepare=prepare) as pair:
        compare(pair, 0, offsets=True)
        tell(pair, BACKENDS)
        compare(pair, 13, offsets=True)
        tell(pair, [("object-del", {"id": "m13"}), ("object-del", {"id": "m2"}), backend("m2")])
        compare(pair, 12, offsets=True)


KIB = 1 << 10
SIZES = (4 * KIB, 5000, 8 * KIB, 256 * KIB, 260 * KIB, 512 * KIB, 768 * KIB, MIB, 3 * MIB)


def test_offsets_after_blocks_have_gone(directory: Path) -> None:
    """A block goes into a gap that others have left: which one depends on all before it."""
    seed = seed_of_run()
    draw = random.Random(seed)
    print(f"MEMD_SEED={seed}")
    there: list[str] = []
    with standin_pair(directory, "-machine", "none") as pair:
        for number in range(300):
            if there and draw.random() < 0.47:
                id = there.pop(draw.randrange(len(there)))
                tell(pair, [("object-del", {"id": id})])
            else:
                there.append(f"m{number}")
                tell(pair, [backend(f"m{number}", size=draw.choice(SIZES))])
            if number % 20 == 19:
                compare(pair, len(there), offsets=True)


MEMORY = (
    "-machine none -m 32M",
    "-machine q35 -m 64M",
    "-machine pc -m 64M -mem-path @DIR@",
    "-machine q35,memory-backend=a -m 64M -object memory-backend-memfd,id=a,size=64M",
    "-machine pc,memory-backend=a -m 8M"
    " -object memory-backend-ram,id=a,size=8M,x-use-canonical-path-for-ramblock-id=on"
    " -object memory-backend-ram,id=b,size=8M",
    "-machine pc -m 64M -object memory-backend-ram,id=a,size=32M"
    " -object memory-backend-ram,id=b,size=32M -numa node,memdev=b -numa node,memdev=a",
    "-machine none -object memory-backend-ram,id=a,size=32M -device pc-dimm,memdev=a,id=d",
)


@pytest.mark.parametrize("options", MEMORY)
def test_of_a_machine(directory: Path, options: str) -> None:
    with standin_pair(directory, *options.split()) as pair:
        compare(pair, 1 + options.count("id=b"))


def test_of_devices(directory: Path) -> None:
    options = ["-machine", "q35,nvdimm=on", "-m", "16M,slots=9,maxmem=8G"]
    for number in range(8):
        on = ",x-use-canonical-path-for-ramblock-id=on" if number in (1, 5) else ""
        options += ["-object", f"memory-backend-ram,id=m{number},size=128M{on}"]
    for device in (
        *("pcie-root-port,id=rp0,slot=1", "pcie-root-port,id=rp1,slot=2,addr=7.2"),
        *("pcie-pci-bridge,id=pb,bus=rp1", "pci-bridge,id=br,bus=pb,chassis_nr=2,addr=3"),
        *("virtio-mem-pci,memdev=m0,addr=9", "virtio-mem-pci,memdev=m5,bus=br,addr=4"),
        "virtio-pmem-pci,memdev=m7",
    ):
        options += ["-device", device]
    with standin_pair(directory, *options, own=("-guest-reacts", "never")) as pair:
        compare(pair, 9)
        plug: list[tuple[str, Any]] = [
            ("device_add", {"driver": "pc-dimm", "id": "d1", "memdev": "m1"}),
            ("device_add", {"driver": "nvdimm", "id": "d2", "memdev": "m2"}),
            ("device_add", {"driver": "virtio-mem-pci", "id": "d3", "memdev": "m3", "bus": "rp0"}),
            ("device_add", {"driver": "virtio-mem-pci", "id": "d4", "memdev": "m3"}),
            ("device_add", {"driver": "pc-dimm", "id": "d4", "memdev": "m3"}),
        ]
        for step in plug:
            tell(pair, [step])
            compare(pair, 9)


def test_of_huge_pages(
    directory: Path, hugepages: Callable[[int], None], mount: Callable[..., None]
) -> None:
    hugepages(20)
    with standin_pair(directory, "-machine", "none") as pair:
        for side in (pair.reference, pair.subject):
            (side.scratch / "huge").mkdir()
            mount("hugetlbfs", side.scratch / "huge")
        steps = [backend("h0", "memfd", 4 * MIB, hugetlb=True), backend("m0", size=3 * MIB)]
        tell(pair, [*steps, backend("h1", "file", 2 * MIB, mem_path="@DIR@/huge")])
        compare(pair, 3, offsets=True)
