from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.devices import register
from memd.devices.kinds import NONE, find_kind, machine_kinds, recorded_kinds
from memd.qom import Tree
from memd.standin.catalogue import Catalogue, packaged


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
    for of_release, release in zip(names, ("10.0", "11.1"), strict=True):
        versioned = {f"pc-i440fx-{release}", f"pc-q35-{release}", f"virt-{release}"}
        assert set(of_release) == {"none", "microvm", "isapc", "x-remote", *versioned}


def test_properties_are_named_once() -> None:
    for compat in Compat:
        for kind in machine_kinds(compat):
            names = [row[0] for row in kind.properties]
            assert len(names) == len(set(names))
            assert ("nvdimm" in names) == (kind.kind not in ("none", "microvm", "x-remote"))


@pytest.mark.parametrize("compat", Compat)
def test_properties_are_those_of_the_recorded_machines(compat: Compat) -> None:
    catalogue = Catalogue(packaged(compat))
    types, every_row = catalogue.section("types"), catalogue.section("rows")
    kinds = recorded_kinds(compat, catalogue.section("machines"))
    assert len(kinds) >= 40
    for kind in kinds:
        found: set[tuple[str, str]] = set()
        name = kind.type_name
        assert kind is NONE or types[name]["parent"] == kind.above
        while name != "machine":
            rows = [every_row[number] for number in types[name]["added"]]
            found |= {(row[0], row[1]) for row in rows if "flash" not in row[0]}
            name = types[name]["parent"]
        assert {(row[0], row[1]) for row in kind.properties} == found or kind.kind == "none"


def test_machines_of_other_releases() -> None:
    listed = Catalogue(packaged(Compat.V10_0)).section("machines")
    old = find_kind("pc-q35-5.0", Compat.V10_0, listed)
    assert old is not None
    assert (old.kind, old.most_cpus, old.node_sizes, old.deprecated) == ("q35", 288, True, True)
    assert find_kind("pc-q35-5.0", Compat.V10_0) is None
    default = find_kind("pc", Compat.V10_0, listed)
    assert default is not None
    assert (default.name, default.default, default.deprecated) == ("pc-i440fx-10.0", True, False)


@pytest.mark.parametrize("name", ["pc-q35-rhel9.6.0", "pc-q35-noble-v2", "pc-q35-"])
def test_machines_of_distributions(name: str) -> None:
    (latest,) = (
        row
        for row in Catalogue(packaged(Compat.V10_0)).section("machines")
        if row["name"] == "pc-q35-10.0"
    )
    known, found = (
        find_kind("q35", Compat.V10_0, [{**latest, "name": each}]) for each in ("pc-q35-10.0", name)
    )
    assert known is not None
    assert found == known._replace(name=name)


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
