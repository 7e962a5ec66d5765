from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qom import MemoryRegion, Tree


@pytest.mark.parametrize(
    ("path", "type_name"),
    [
        ("/", "container"),
        ("/backend", "container"),
        ("/chardevs", "container"),
        ("/objects", "container"),
        ("/machine", "none-machine"),
        ("/machine/peripheral", "container"),
        ("/machine/peripheral-anon", "container"),
        ("/machine/unattached", "container"),
        ("/machine/unattached/io[0]", "memory-region"),
        ("/machine/unattached/system[0]", "memory-region"),
        ("/machine/unattached/sysbus", "System"),
    ],
)
def test_what_stands(path: str, type_name: str) -> None:
    for compat in Compat:
        assert Tree(compat).resolve(path).get_property("type") == type_name


def test_what_only_a_later_release_has() -> None:
    assert Tree(Compat.V11_1).resolve("/audiodevs").get_property("type") == "container"
    assert Tree(Compat.V10_0).lookup("/audiodevs") == (None, False)


@pytest.mark.parametrize(("name", "size"), [("io[0]", 1 << 16), ("system[0]", (1 << 64) - 1)])
def test_regions_of_the_machine(name: str, size: int) -> None:
    assert Tree().resolve(name).get_property("size") == size


def test_a_memory_region() -> None:
    region = MemoryRegion(Tree(), 12345)
    values = {name: region.get_property(name) for name in region.qom_type.all_properties}
    assert values == {
        "type": "memory-region",
        "container": "",
        "addr": 0,
        "size": 12345,
        "priority": 0,
    }
    for name in values:
        with pytest.raises(QMPError) as caught:
            region.set_property(name, 1)
        assert caught.value.desc == f"Property 'memory-region.{name}' is not writable"


def test_the_bus() -> None:
    bus = Tree().resolve("sysbus")
    assert bus.get_property("realized") is False
    bus.set_property("realized", True)
    assert bus.get_property("realized") is True
    bus.set_property("hotplug-handler", "")
    assert bus.get_property("hotplug-handler") == ""
    with pytest.raises(QMPError) as caught:
        bus.set_property("hotplug-handler", "/machine")
    assert caught.value.desc == (
        "Invalid parameter type for 'hotplug-handler', expected: hotplug-handler"
    )
