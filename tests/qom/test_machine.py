from __future__ import annotations

from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import DEVICE_NOT_FOUND, GENERIC_ERROR, QMPError
from tests.qom.stand_ins import add, new_tree, refusal

NAMES_10_0 = {
    "type",
    "kernel",
    "dt-compatible",
    "boot",
    "memory",
    "initrd",
    "confidential-guest-support",
    "aux-ram-share",
    "graphics",
    "usb",
    "firmware",
    "memory-encryption",
    "dump-guest-core",
    "smp",
    "shim",
    "smp-cache",
    "dumpdtb",
    "phandle-start",
    "memory-backend",
    "mem-merge",
    "dtb",
    "append",
    "suppress-vmdesc",
}


@pytest.mark.parametrize(
    ("compat", "names"),
    [
        (Compat.V10_0, NAMES_10_0),
        (Compat.V11_1, NAMES_10_0 | {"x-change-vmfd-on-reset", "spcr"}),
    ],
)
def test_all_properties_can_be_read(compat: Compat, names: set[str]) -> None:
    machine = new_tree(compat).machine
    assert machine.qom_type.all_properties.keys() == names
    for name in names:
        machine.get_property(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel", "/boot/vmlinuz"),
        ("append", ""),
        ("usb", True),
        ("mem-merge", False),
        ("phandle-start", -5),
        ("boot", {"order": "cd", "menu": True}),
    ],
)
def test_what_is_set_is_read_again(name: str, value: Any) -> None:
    machine = new_tree().machine
    machine.set_property(name, value)
    assert machine.get_property(name) == value
    assert new_tree().machine.get_property(name) != value or value == ""


@pytest.mark.parametrize(
    ("value", "kept"), [(2**31, -(2**31)), (2**62, 0), (-1, -1), (2**32 + 7, 7)]
)
def test_an_integer_of_32_bits(value: int, kept: int) -> None:
    machine = new_tree().machine
    machine.set_property("phandle-start", value)
    assert machine.get_property("phandle-start") == kept


def test_its_memory_backend() -> None:
    tree = new_tree()
    [backend] = add(tree, "m0")
    tree.machine.set_property("memory-backend", "m0")
    assert tree.machine.get_property("memory-backend") == "/objects/m0"
    assert tree.resolve("/machine/memory-backend") is backend
    tree.machine.set_property("memory-backend", "")
    assert tree.machine.get_property("memory-backend") == ""


@pytest.mark.parametrize(
    ("name", "value", "error_class", "text"),
    [
        (
            "memory-encryption",
            "zz",
            GENERIC_ERROR,
            "No such memory encryption object 'zz'",
        ),
        (
            "memory-encryption",
            "m0",
            GENERIC_ERROR,
            "Invalid parameter type for 'confidential-guest-support',"
            " expected: confidential-guest-support",
        ),
        ("confidential-guest-support", "zz", DEVICE_NOT_FOUND, "Device 'zz' not found"),
        (
            "memory-backend",
            "/machine",
            GENERIC_ERROR,
            "Invalid parameter type for 'memory-backend', expected: memory-backend",
        ),
        ("usb", "on", GENERIC_ERROR, "Invalid parameter type for 'usb', expected: boolean"),
        (
            "phandle-start",
            2**63,
            GENERIC_ERROR,
            "Invalid parameter type for 'phandle-start', expected: integer",
        ),
        ("unattached", "x", GENERIC_ERROR, "Property 'none-machine.unattached' is not writable"),
    ],
)
def test_refusals(name: str, value: Any, error_class: str, text: str) -> None:
    tree = new_tree()
    add(tree, "m0")
    before = tree.machine.get_property(name)
    with pytest.raises(QMPError) as caught:
        tree.machine.set_property(name, value)
    assert refusal(caught.value) == (error_class, text)
    assert tree.machine.get_property(name) == before
