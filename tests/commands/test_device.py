"""Devices, where there is no machine for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.commands.fakes import Console


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Parameter 'driver' is missing"),
        ({"driver": 3}, "Parameter 'driver' is missing"),
        ({"driver": "nope-dev"}, "'nope-dev' is not a valid device model name"),
        ({"driver": "pc-dimm", "foo": 1}, "Device 'pc-dimm' can not be hotplugged on this machine"),
        ({"driver": "nvdimm"}, "Device 'nvdimm' can not be hotplugged on this machine"),
        ({"driver": "pc-dimm", "bus": "b"}, "Bus 'b' not found"),
        ({"driver": "virtio-mem-pci"}, "No 'PCI' bus found for device 'virtio-mem-pci'"),
    ],
)
def test_adding(arguments: dict[str, Any], text: str) -> None:
    assert Console().refusal("device_add", **arguments) == ("GenericError", text)


def test_removing() -> None:
    assert Console().refusal("device_del", id="d0") == ("DeviceNotFound", "Device 'd0' not found")


def test_there_is_no_memory() -> None:
    assert Console()("query-memory-devices") == []
    assert Console()("query-memory-size-summary") == {"base-memory": 0, "plugged-memory": 0}
