from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.config import MachineConfig, NumaNode
from memd.devices import register
from memd.devices.kinds import MachineKind, find_kind
from memd.devices.machine_object import (
    add_cpus,
    check_limits,
    cpu_places,
    cpus,
    machine_type,
    set_machine,
)
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import Tree


def kind_of(name: str) -> MachineKind:
    found = find_kind(name, Compat.V10_0)
    assert found is not None
    return found


def tree_with(name: str, config: MachineConfig, **values: JSON) -> Tree:
    tree = Tree()
    register(tree)
    set_machine(tree, kind_of(name), config, values)
    add_cpus(tree, kind_of(name), config)
    return tree


def value(tree: Tree, name: str) -> JSON:
    return tree.machine.get_property(name)


def test_a_machine_has_its_type_and_properties() -> None:
    tree = tree_with("q35", MachineConfig("q35", slots=2, maxmem=1 << 30), nvdimm=True, usb=True)
    assert value(tree, "type") == "pc-q35-10.0-machine"
    assert tree.machine.qom_type.is_a("generic-pc-machine")
    assert value(tree, "memory") == {"size": 128 << 20, "slots": 2, "max-size": 1 << 30}
    assert (value(tree, "nvdimm"), value(tree, "usb"), value(tree, "acpi")) == (True, True, "auto")
    assert value(tree, "boot") == {"order": "cad"}
    tree.machine.set_property("nvdimm", False)
    assert value(tree, "nvdimm") is False
    with pytest.raises(QMPError, match=r"^Parameter 'acpi' does not accept value 'x'$"):
        tree.machine.set_property("acpi", "x")


def test_the_machine_none_stays_what_it_is() -> None:
    tree = tree_with("none", MachineConfig(ram_size=4096))
    assert value(tree, "type") == "none-machine"
    assert value(tree, "memory") == {"size": 4096}
    assert cpus(tree) == []
    assert machine_type(tree, kind_of("none")) is tree.machine.qom_type


def test_virt_is_no_pc() -> None:
    tree = tree_with("virt", MachineConfig("virt"))
    assert value(tree, "type") == "virt-10.0-machine"
    assert not tree.machine.qom_type.is_a("generic-pc-machine")
    assert value(tree, "gic-version") == "2"


def test_cpus_are_names() -> None:
    smp = {"cpus": 2, "maxcpus": 4, "sockets": 2, "cores": 2}
    tree = tree_with("pc", MachineConfig("pc", smp=smp))
    paths = [tree.path_of(cpu) for cpu in cpus(tree)]
    assert paths == ["/machine/unattached/device[0]", "/machine/unattached/device[2]"]
    second = tree.resolve(paths[1])
    assert second.get_property("core-id") == 1
    assert second.get_property("die-id") == 0
    assert second.get_property("unavailable-features") == []
    assert second.get_property("realized") is True


def places(name: str, config: MachineConfig) -> list[dict[str, JSON]]:
    return list(cpu_places(kind_of(name), config))


def test_where_cpus_sit() -> None:
    one = {"socket-id": 0, "core-id": 0, "thread-id": 0}
    assert places("q35", MachineConfig("q35")) == [one]
    assert places("q35", MachineConfig("q35", own_node=True)) == [{"node-id": 0, **one}]
    assert places("virt", MachineConfig("virt")) == [{**one, "cluster-id": 0}]
    smp = {"maxcpus": 4, "sockets": 1, "dies": 2, "cores": 1, "threads": 2}
    assert places("q35", MachineConfig("q35", smp=smp))[3] == {
        "socket-id": 0,
        "die-id": 1,
        "core-id": 0,
        "thread-id": 1,
    }
    nodes = [NumaNode(0, cpus=[0]), NumaNode(1, cpus=[1])]
    config = MachineConfig("q35", smp={"maxcpus": 2, "cores": 2}, numa_nodes=nodes)
    assert [place["node-id"] for place in places("q35", config)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "slots", "maxmem", "message"),
    [
        ("q35", 256, 1 << 30, None),
        ("q35", 257, 1 << 30, "unsupported amount of memory slots: 257"),
        ("virt", 257, 1 << 30, "unsupported number of memory slots: 257"),
        ("pc", 1, (1 << 30) + 1, "maximum memory size must by aligned to multiple of 4096 bytes"),
        ("virt", 1, (1 << 30) + 1, None),
        ("none", 300, (1 << 30) + 1, None),
        ("q35", 300, 128 << 20, None),
    ],
)
def test_limits(name: str, slots: int, maxmem: int, message: str | None) -> None:
    config = MachineConfig(name, slots=slots, maxmem=maxmem)
    if message is None:
        check_limits(kind_of(name), config)
        return
    with pytest.raises(QMPError) as caught:
        check_limits(kind_of(name), config)
    assert caught.value.desc == message
