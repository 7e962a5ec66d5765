from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.config import MachineConfig
from memd.devices import register
from memd.devices.adding import add_device
from memd.devices.machine import Machine
from memd.devices.placeholders import PLACEHOLDERS
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here


@pytest.fixture
def machine() -> Machine:
    tree = Tree()
    register(tree)
    return Machine(tree, MachineConfig("q35", maxmem=1 << 30))


def refusal(machine: Machine, **args: JSON) -> str:
    with pytest.raises(QMPError) as caught:
        run_here(add_device(machine, args))
    return caught.value.desc


def test_a_port_is_a_bus(machine: Machine) -> None:
    port = {"driver": "pcie-root-port", "id": "pci.1", "bus": "pcie.0", "addr": "0x1.0x1"}
    run_here(add_device(machine, {**port, "port": 8, "chassis": 1, "multifunction": True}))
    found = machine.buses.find("pci.1", "virtio-mem-pci", on_pci=True, virtio=False)
    assert found is not None
    assert found.hotplug


def test_what_shows_of_it() -> None:
    tree = Tree()
    register(tree)
    machine = Machine(tree, MachineConfig("q35"))
    run_here(add_device(machine, {"driver": "pcie-root-port", "id": "p", "chassis": 3, "addr": 16}))
    port = tree.resolve("/machine/peripheral/p")
    shown = {name: port.get_property(name) for name in ("type", "chassis", "addr", "hotplug")}
    assert shown == {"type": "pcie-root-port", "chassis": 3, "addr": 16, "hotplug": True}
    assert (port.get_property("realized"), port.get_property("hotpluggable")) == (True, False)
    assert tree.resolve("/machine/peripheral/p/p").qom_type.name == "PCIE"
    assert machine.devices() == []
    with pytest.raises(QMPError, match=r"^Bus 'pcie.0' does not support hotplugging$"):
        machine.del_device("p")


@pytest.mark.parametrize("driver", sorted(PLACEHOLDERS))
@pytest.mark.parametrize("compat", Compat)
def test_each_can_be_had(driver: str, compat: Compat) -> None:
    tree = Tree(compat)
    register(tree)
    machine = Machine(tree, MachineConfig("q35"))
    needed = {"pci-bridge": {"chassis_nr": 1}, "pcie-root-port": {"slot": 1}}.get(driver, {})
    run_here(add_device(machine, {"driver": driver, **needed, "id": "d", "addr": "2.0"}))
    run_here(
        add_device(
            machine,
            {"driver": driver, **needed, "slot": 2}
            if "port" in driver
            else {"driver": driver, **needed},
        )
    )
    assert tree.resolve("/machine/peripheral/d").qom_type.name == driver
    assert tree.resolve("/machine/peripheral-anon/device[0]").qom_type.name == driver
    assert ("disable-acs" in tree.types()["pcie-root-port"].all_properties) == (
        compat is Compat.V10_0
    )


def test_refusals(machine: Machine) -> None:
    driver = "pcie-root-port"
    run_here(add_device(machine, {"driver": driver, "id": "a"}))
    assert refusal(machine, driver=driver, id="a") == "Duplicate device ID 'a'"
    assert refusal(machine, driver=driver, id="b") == "Can't add chassis slot, error -16"
    assert refusal(machine, driver=driver, chassis=300) == "Parameter 'chassis' expects uint8_t"
    assert refusal(machine, driver=driver, foo=1) == "Property 'pcie-root-port.foo' not found"
    assert refusal(machine, driver=driver, **{"x-speed": "3"}) == (
        "Parameter 'x-speed' does not accept value '3'"
    )
    assert machine.buses.pci is not None
    machine.buses.pci.occupy(31 * 8, "ICH9-LPC", multifunction=True)
    assert refusal(machine, driver=driver, addr="1f", chassis=9) == (
        "PCI: slot 31 function 0 not available for pcie-root-port, in use by ICH9-LPC,id=(null)"
    )
    # A refused one leaves its place to others.
    run_here(add_device(machine, {"driver": driver, "id": "b", "chassis": 1}))


def test_a_bridge_is_a_bus(machine: Machine) -> None:
    assert refusal(machine, driver="pci-bridge").startswith("Bridge chassis not specified.")
    run_here(
        add_device(machine, {"driver": "pci-bridge", "id": "b", "chassis_nr": 1, "shpc": False})
    )
    found = machine.buses.find("b", "virtio-mem-pci", on_pci=True, virtio=False)
    assert found is not None
    assert found.qom_type.name == "PCI"


def test_none_comes_later(machine: Machine) -> None:
    run_here(add_device(machine, {"driver": "pcie-root-port", "id": "p"}))
    machine.started = True
    for bus, message in (
        ("pcie.0", "Bus 'pcie.0' does not support hotplugging"),
        ("p", "memd takes a 'qemu-xhci' at the start only"),
    ):
        assert refusal(machine, driver="qemu-xhci", bus=bus) == message


def test_the_machine_none_has_no_place_for_them() -> None:
    tree = Tree()
    register(tree)
    machine = Machine(tree, MachineConfig())
    assert refusal(machine, driver="qemu-xhci") == "No 'PCI' bus found for device 'qemu-xhci'"
