from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.devices import register
from memd.devices.kinds import NONE, find_kind, machine_kinds
from memd.qom import Tree


@pytest.mark.parametrize("compat", Compat)
def test_each_goes_by_two_names(compat: Compat) -> None:
    for kind in machine_kinds(compat):
        assert find_kind(kind.kind, compat) is not None
        found = find_kind(kind.name, compat)
        assert found is not None
        assert found.type_name == f"{kind.name}-machine"
    assert find_kind("none", compat) is NONE
    assert find_kind("pc-q35-1.0", compat) is None
    assert find_kind("", compat) is None


def test_names_are_a_releases() -> None:
    names = [[kind.name for kind in machine_kinds(compat)] for compat in Compat]
    assert names[0] == ["none", "pc-i440fx-10.0", "pc-q35-10.0", "virt-10.0"]
    assert names[1] == ["none", "pc-i440fx-11.1", "pc-q35-11.1", "virt-11.1"]


def test_properties_are_named_once() -> None:
    for compat in Compat:
        for kind in machine_kinds(compat):
            names = [row[0] for row in kind.properties]
            assert len(names) == len(set(names))
            assert ("nvdimm" in names) == (kind is not NONE)


def test_what_machines_for_pcs_derive_from() -> None:
    """libvirt asks for it, and gives up where there is none."""
    for compat, described in ((Compat.V10_0, False), (Compat.V11_1, True)):
        tree = Tree(compat)
        register(tree)
        pc = tree.type_by_name("generic-pc-machine")
        assert pc is not None
        for name in ("x86-machine", "machine", "object", "hotplug-handler", "nmi"):
            assert pc.is_a(name)
        assert {"memory-backend", "smm"} <= set(pc.all_properties)
        assert (pc.all_properties["fd-bootchk"].description is not None) == described
