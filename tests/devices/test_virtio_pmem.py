"""virtio-pmem: all of a backend, and for good."""

from __future__ import annotations

from pathlib import Path

from tests.devices.bench import GIB, MIB, Bench


def test_plugged_in(bench: Bench) -> None:
    bench.ram("m0", 4 * MIB)
    assert bench.add("virtio-pmem-pci", id="p0", memdev="m0") == {}
    assert bench("query-memory-devices") == [
        {
            "type": "virtio-pmem",
            "data": {"memdev": "/objects/m0", "memaddr": 4 * GIB, "size": 4 * MIB, "id": "p0"},
        }
    ]
    assert bench("query-memory-size-summary")["plugged-memory"] == 4 * MIB
    assert bench.take() == []


def test_it_stays(bench: Bench) -> None:
    bench.add("virtio-pmem-pci", id="p0")
    assert bench.refusal("device_del", id="p0")[1] == (
        "this virtio based memory devices cannot be unplugged"
    )


def test_a_backend_has_one_device(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    assert bench.refuse("virtio-pmem-pci", id="p0", memdev="mem-d0") == (
        "can't use already busy memdev: mem-d0"
    )


def test_read_only_memory_will_do(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(2 * MIB))
    bench.file("f0", path, readonly=True)
    assert bench.add("virtio-pmem-pci", id="p0", memdev="f0") == {}
