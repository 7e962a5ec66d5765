"""`pc-dimm` and `nvdimm`: their places, their backends, and how they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from tests.devices.bench import GIB, MIB, Bench


def ost(source: int, status: int, device: str | None = "d0", slot: str = "0") -> Any:
    info: dict[str, Any] = {"source": source, "status": status, "slot": slot, "slot-type": "DIMM"}
    if device is not None:
        info["device"] = device
    return ("ACPI_DEVICE_OST", {"info": info})


DELETED = ("DEVICE_DELETED", {"path": "/machine/peripheral/d0", "device": "d0"})


def test_plugged_in(bench: Bench) -> None:
    bench.ram("m0", 128 * MIB)
    assert bench.add("pc-dimm", id="d0", memdev="m0") == {}
    assert bench("query-memory-devices") == [
        {
            "type": "dimm",
            "data": {
                "memdev": "/objects/m0",
                "hotplugged": True,
                "addr": 4 * GIB,
                "hotpluggable": True,
                "size": 128 * MIB,
                "slot": 0,
                "node": 0,
                "id": "d0",
            },
        }
    ]
    assert bench("query-memory-size-summary") == {
        "base-memory": 256 * MIB,
        "plugged-memory": 128 * MIB,
    }
    assert bench.take() == [ost(1, 0)]


def test_in_use(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    bench.add("pc-dimm", id="d0")
    assert bench.refusal("object-del", id="mem-d0")[1] == (
        "object 'mem-d0' is in use, can not be deleted"
    )
    later = make_bench(compat=Compat.V11_1)
    later.add("pc-dimm", id="d0")
    assert later.refusal("object-del", id="mem-d0")[1] == (
        "Cannot delete host memory backend 'mem-d0' which is mapped"
    )


def test_it_goes_where_the_guest_is_willing(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    bench.take()
    assert bench("device_del", id="d0") == {}
    assert bench.info("d0") is not None, "the guest has not been asked yet"
    # Not known any more by then: who was in the slot.
    assert bench.take() == [ost(3, 0x84), DELETED, ost(3, 0, None)]
    assert bench("query-memory-devices") == []
    assert bench("object-del", id="mem-d0") == {}
    assert bench.refusal("device_del", id="d0") == ("DeviceNotFound", "Device 'd0' not found")


def test_it_stays_where_the_guest_refuses(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(guest_reacts="refuses")
    bench.add("pc-dimm", id="d0")
    bench.take()
    for _time in range(2):
        assert bench("device_del", id="d0") == {}
        assert bench.take() == [ost(3, 0x84), ost(3, 0x82)]
    assert bench.info("d0") is not None


@pytest.mark.parametrize("options", [{"guest_reacts": "never"}, {"running": False}])
def test_nobody_reacts(make_bench: Callable[..., Bench], options: dict[str, Any]) -> None:
    bench = make_bench(**options)
    bench.add("pc-dimm", id="d0")
    # Of a DIMM it can be asked again and again.
    assert bench("device_del", id="d0") == bench("device_del", id="d0") == {}
    assert bench.take() == []
    assert bench.info("d0") is not None


def test_asked_twice_it_goes_once(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    bench("device_del", id="d0")
    bench("device_del", id="d0")
    assert bench.take().count(DELETED) == 1


def test_without_an_id(bench: Bench) -> None:
    bench.add("pc-dimm")
    assert bench.take() == [ost(1, 0, None)]
    path = "/machine/peripheral-anon/device[0]"
    assert bench.get(path, "slot") == 0
    assert "id" not in bench("query-memory-devices")[0]["data"]
    bench("device_del", id=path)
    assert ("DEVICE_DELETED", {"path": path}) in bench.take()


def test_what_was_there_from_the_start_is_not_reported(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("q35", started=False, running=False)
    bench.add("pc-dimm", id="d0")
    assert bench.info("d0")["hotplugged"] is False
    bench.machine.started = True
    bench("cont")
    assert bench.take() == []
    bench("device_del", id="d0")
    assert DELETED in bench.take()


def test_slots_and_addresses_of_what_went_are_free(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    bench.add("pc-dimm", id="d1")
    bench("device_del", id="d0")
    bench.take()
    bench.add("pc-dimm", id="d2")
    row = bench.info("d2")
    assert (row["slot"], row["addr"]) == (0, 4 * GIB)


def test_refused_after_the_slot_and_the_place(bench: Bench) -> None:
    bench.ram("m0")
    bench.add("pc-dimm", id="d0", memdev="m0")
    busy = {"id": "d1", "memdev": "m0"}
    assert bench.refuse("pc-dimm", **busy) == "can't use already busy memdev: m0"
    assert bench.refuse("pc-dimm", node=1, **busy) == (
        "'DIMM property node has value 1' which exceeds the number of numa nodes: 1"
    )
    assert bench.refuse("pc-dimm", node=1, addr=3, **busy) == (
        "address must be aligned to 0x200000 bytes"
    )
    assert bench.refuse("pc-dimm", id="d1", addr=3) == "'memdev' property must be set"
    assert bench.refuse("pc-dimm", id="d1", slot=0) == "slot 0 is busy"
    assert bench.info("d1") is None
    # Nothing was taken by any of them.
    bench.add("pc-dimm", id="d1")
    assert bench.info("d1")["slot"] == 1


def test_its_region_shows_where_it_is(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0", addr=4 * GIB + 4 * MIB)
    path = "/objects/mem-d0/mem-d0[0]"
    assert bench.get(path, "addr") == 4 * MIB
    assert bench.get(path, "container") == "/machine/device-memory[0]"
    bench("device_del", id="d0")
    bench.take()
    assert (bench.get(path, "addr"), bench.get(path, "container")) == (0, "")


# NVDIMMs


def file_backend(bench: Bench, tmp_path: Path, **options: Any) -> str:
    path = tmp_path / "pmem"
    path.write_bytes(bytes(4 * MIB))
    bench.file("f0", path, **options)
    return "f0"


def test_labels_are_not_memory(bench: Bench) -> None:
    bench.ram("m0", 4 * MIB)
    assert bench.add("nvdimm", id="n0", memdev="m0", label_size=128 << 10) == {}
    assert bench.info("n0")["size"] == 2 * MIB, "whole pages are left"
    assert bench.get("/machine/peripheral/n0", "label-size") == 128 << 10
    assert bench.get("/machine/peripheral/n0/nvdimm-memory[0]", "size") == 2 * MIB
    assert bench.get("/objects/m0/m0[0]", "container") == "", "its own region is what shows"
    assert bench.take() == [], "a guest does not acknowledge it"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (4096, "Property 'nvdimm.label-size' (0x1000) is required at least 0x20000"),
        (
            2 * MIB,
            "the size of memdev m0 (0x200000) is too small to contain nvdimm label (0x200000)"
            " and aligned PMEM (0x200000)",
        ),
    ],
)
def test_labels_that_do_not_fit(bench: Bench, label: int, text: str) -> None:
    bench.ram("m0")
    assert bench.refuse("nvdimm", id="n0", memdev="m0", label_size=label) == text


@pytest.mark.parametrize("unarmed", [None, False, True])
@pytest.mark.parametrize(
    ("options", "rom"),
    [
        ({"readonly": True, "share": True}, True),
        ({"readonly": True}, True),
        # Its memory can be written; that the file can't is another matter.
        ({"readonly": True, "rom": "off"}, False),
        ({"share": True}, False),
    ],
)
def test_what_is_read_only_is_unarmed(
    bench: Bench, tmp_path: Path, options: dict[str, Any], rom: bool, unarmed: bool | None
) -> None:
    memdev = file_backend(bench, tmp_path, **options)
    given = {} if unarmed is None else {"unarmed": unarmed}
    if rom and not unarmed:
        assert bench.refuse("nvdimm", id="n0", memdev=memdev, **given) == (
            "'unarmed' property must be 'on' since memdev f0 is read-only"
        )
        assert bench("object-del", id=memdev) == {}
    else:
        assert bench.add("nvdimm", id="n0", memdev=memdev, **given) == {}
        assert bench.get("/machine/peripheral/n0", "unarmed") is bool(unarmed)


def test_dimms_may_be_read_only(bench: Bench, tmp_path: Path) -> None:
    assert bench.add("pc-dimm", id="d0", memdev=file_backend(bench, tmp_path, readonly=True)) == {}


def test_nvdimms_stay(bench: Bench) -> None:
    bench.add("nvdimm", id="n0")
    assert bench.refusal("device_del", id="n0")[1] == (
        "nvdimm device hot unplug is not supported yet."
    )


def test_machines_without_nvdimms(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(nvdimm=False)
    assert bench.refuse("nvdimm", id="n0", slot=99) == (
        "nvdimm is not enabled: missing 'nvdimm' in '-M'"
    )


@pytest.mark.parametrize("uuid", ["", "auto", "00112233445566778899aabbccddeeff", "0" * 36])
def test_uuids_that_are_none(bench: Bench, uuid: str) -> None:
    assert bench.refuse("nvdimm", id="n0", uuid=uuid) == "Property 'nvdimm.uuid' has invalid value"


def test_a_uuid(bench: Bench) -> None:
    bench.add("nvdimm", id="n0", uuid="00112233-4455-6677-8899-AABBCCDDEEFF")
    uuid = bench.get("/machine/peripheral/n0", "uuid")
    assert uuid == "00112233-4455-6677-8899-aabbccddeeff"


# What is fixed once they are plugged in


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("addr", "x", "Attempt to set property 'addr' on device 'n0' (type 'nvdimm')"),
        ("slot", 1, "Attempt to set property 'slot' on device 'n0' (type 'nvdimm')"),
        ("unarmed", True, "Attempt to set property 'unarmed' on device 'n0' (type 'nvdimm')"),
        ("memdev", "m", "Attempt to set link property 'memdev' on device 'n0' (type 'nvdimm')"),
    ],
)
def test_what_is_fixed(bench: Bench, name: str, value: Any, text: str) -> None:
    bench.ram("m")
    bench.add("nvdimm", id="n0")
    path = "/machine/peripheral/n0"
    refused = bench.refusal("qom-set", path=path, property=name, value=value)[1]
    assert refused == f"{text} after it was realized"
    refused = bench.refusal("qom-set", path=path, property="label-size", value="x")[1]
    assert refused == "cannot change property value"


def test_it_stays_real(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    path = "/machine/peripheral/d0"
    assert bench("qom-set", path=path, property="realized", value=True) == {}
    assert bench.refusal("qom-set", path=path, property="realized", value=False)[1] == (
        "Property 'pc-dimm.realized' can't be turned off: use device_del"
    )
    assert bench.get(path, "realized") is True
