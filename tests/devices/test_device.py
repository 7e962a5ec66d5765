"""What all devices have in common."""

from __future__ import annotations

from typing import Any

import pytest

from tests.devices.bench import Bench


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hotplugged", True),
        ("hotpluggable", True),
        ("parent_bus", ""),
        ("size", 1),
        ("legacy-memdev", "m"),
    ],
)
def test_what_is_told_only(bench: Bench, name: str, value: Any) -> None:
    assert bench.refuse("pc-dimm", id="d0", **{name: value}) == (
        # Arguments of a command are spelled with dashes here.
        f"Property 'pc-dimm.{name}' is not writable"
        if "_" not in name
        else "Property 'pc-dimm.parent-bus' not found"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"foo": 1}, "Property 'pc-dimm.foo' not found"),
        ({"addr": "0x100000000"}, "Parameter 'addr' expects uint64"),
        ({"slot": "0"}, "Invalid parameter type for 'slot', expected: integer"),
        ({"slot": 1 << 31}, "Parameter 'slot' expects int32_t"),
        ({"node": -1}, "Parameter 'node' expects uint32_t"),
        ({"memdev": 1}, "Invalid parameter type for 'memdev', expected: string"),
        ({"memdev": "d"}, "Invalid parameter type for 'memdev', expected: memory-backend"),
        ({"memdev": "nope", "foo": 1}, "Device 'nope' not found"),
        ({"memdev": ""}, "'memdev' property must be set"),
        ({"realized": 1}, "Invalid parameter type for 'realized', expected: boolean"),
    ],
)
def test_properties(bench: Bench, options: dict[str, Any], text: str) -> None:
    bench.add("pc-dimm", id="d")
    assert bench.refuse("pc-dimm", id="d0", **options) == text


@pytest.mark.parametrize("path", ["/objects/m0", "objects/m0", "m0"])
def test_backends_by_path(bench: Bench, path: str) -> None:
    bench.ram("m0")
    assert bench.add("pc-dimm", id="d0", memdev=path) == {}
    assert bench.get("/machine/peripheral/d0", "memdev") == "/objects/m0"


def test_a_name_that_two_have(bench: Bench) -> None:
    bench.ram("x")
    assert bench.add("pc-dimm", id="x", memdev="x") == {}
    assert bench.refusal("qom-get", path="x", property="type") == (
        "DeviceNotFound",
        "Device 'x' not found",
    )
    # Of the type that is wanted there is but one.
    assert bench.refuse("pc-dimm", id="y", memdev="x") == "can't use already busy memdev: x"


def test_a_backend_that_went_meanwhile(bench: Bench) -> None:
    """A device that was refused does not hold on to anything."""
    bench.ram("m0")
    assert bench.refuse("pc-dimm", id="d0", memdev="m0", node=1)
    assert bench("object-del", id="m0") == {}
