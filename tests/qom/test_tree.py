from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.compat import Compat
from memd.errors import DEVICE_NOT_FOUND, QMPError
from memd.qom import OBJECT, ObjectType, QObject, Tree
from tests.qom.stand_ins import Backend, add, add_context, new_tree, refusal
from tests.stepping import here


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Objects whose names meet those of others."""
    tree = new_tree()
    add_context(tree, "tc")
    add_context(tree, "lone")
    made = add(tree, "m0", "m1", "m2", "m3", "machine", "backend", "io", "size")
    for each in made[1:3]:
        each.set_property("prealloc-context", "tc")
    return tree


ONE = {
    "/": "/",
    "//": "/",
    "///": "/",
    "/objects": "/objects",
    "/objects/": "/objects",
    "//objects": "/objects",
    "objects": "/objects",
    "objects//": "/objects",
    "/objects/m0": "/objects/m0",
    "/objects//m0": "/objects/m0",
    "/objects/m0/": "/objects/m0",
    "/objects/m0//": "/objects/m0",
    "m0": "/objects/m0",
    "m0/": "/objects/m0",
    "objects/m0": "/objects/m0",
    "objects//m0": "/objects/m0",
    "m0[0]": "/objects/m0/m0[0]",
    "m0/m0[0]": "/objects/m0/m0[0]",
    "/objects/m0/m0[0]": "/objects/m0/m0[0]",
    "/objects/m1/prealloc-context": "/objects/tc",
    "/objects/m1/prealloc-context/": "/objects/tc",
    "m1/prealloc-context": "/objects/tc",
    "tc": "/objects/tc",
    "/machine": "/machine",
    "objects/machine": "/objects/machine",
    "objects/backend": "/objects/backend",
    "size": "/objects/size",
    "io": "/objects/io",
    "unattached/io[0]": "/machine/unattached/io[0]",
    "/machine/unattached/io[0]": "/machine/unattached/io[0]",
    "system[0]": "/machine/unattached/system[0]",
    "sysbus": "/machine/unattached/sysbus",
    "peripheral": "/machine/peripheral",
    "chardevs": "/chardevs",
}
NONE = [
    "/m0",
    "..",
    ".",
    "/..",
    "/objects/..",
    "/objects/./m0",
    "/objects/m0/m0[0]/container",
    "/objects/m0/prealloc-context",
    "/machine/memory-backend",
    "/machine/machine",
    "/objects/type",
    "type",
    "/objects/m0/size",
    "m0/size",
    "container",
    "hotplug-handler",
    "/objects/m0 ",
    " m0",
    "/objects/M0",
    "m0\\",
    "\0",
    "m0\0",
    "é",
    "zz/",
    "/objects/zz",
    "x" * 1000,
]
SEVERAL = ["", "machine", "backend", "io[0]", "machine/", "prealloc-context"]


@pytest.mark.parametrize("path", ONE)
def test_paths_that_lead_somewhere(tree: Tree, path: str) -> None:
    found = tree.resolve(path)
    assert tree.path_of(found) == ONE[path]
    assert tree.lookup(path) == (found, False)


@pytest.mark.parametrize("path", NONE)
def test_paths_that_lead_nowhere(tree: Tree, path: str) -> None:
    assert tree.lookup(path) == (None, False)
    with pytest.raises(QMPError) as caught:
        tree.resolve(path)
    assert refusal(caught.value) == (DEVICE_NOT_FOUND, f"Device '{path}' not found")


@pytest.mark.parametrize("path", SEVERAL)
def test_paths_that_lead_to_several(tree: Tree, path: str) -> None:
    assert tree.lookup(path) == (None, True)
    with pytest.raises(QMPError) as caught:
        tree.resolve(path)
    assert refusal(caught.value) == (DEVICE_NOT_FOUND, f"Device '{path}' not found")


def test_a_type_narrows_the_search(tree: Tree) -> None:
    machine, ambiguous = tree.lookup("machine", "memory-backend")
    assert machine is tree.objects.get("machine")
    assert not ambiguous
    assert tree.lookup("m0", "thread-context") == (None, False)
    assert tree.lookup("/objects/m0", "thread-context") == (None, False)
    assert tree.lookup("/objects/m0", "memory-backend")[0] is not None
    assert tree.lookup("prealloc-context", "thread-context") == (None, True)


def _everything(tree: Tree) -> list[QObject]:
    every = [tree.root]
    for at in every:
        every.extend(at.children.values())
    return every


def _step(at: QObject, part: str) -> QObject | None:
    child = at.children.get(part)
    prop = at.qom_type.all_properties.get(part)
    return child or (prop.target(at) if prop else None)


def _naive(tree: Tree, path: str) -> list[QObject]:
    """Where a partial path leads from every object there is."""
    found: list[QObject] = []
    for start in _everything(tree):
        at: QObject | None = start
        for part in path.split("/"):
            if part and at is not None:
                at = _step(at, part)
        if at is not None:
            found.append(at)
    return found


NAMES = "objects machine unattached io[0] io m0 m0[0] m1 m1[0] m1[1] prealloc-context tc type zz ."
PARTS = st.sampled_from(["", *NAMES.split()])


@given(st.lists(PARTS, max_size=4).map("/".join))
def test_partial_paths_are_looked_for_everywhere(tree: Tree, path: str) -> None:
    if path.startswith("/"):
        return
    found = _naive(tree, path)
    assert tree.lookup(path) == (found[0] if len(found) == 1 else None, len(found) > 1)


def test_what_is_listed_leads_back(tree: Tree) -> None:
    every = _everything(tree)
    assert len(every) > 25
    for each in every:
        assert tree.resolve(tree.path_of(each)) is each


class TestIds:
    DUPLICATE = "attempt to add duplicate property '{}' to object (type 'container')"

    def test_reserved_then_listed(self) -> None:
        tree = new_tree()
        backend = Backend(tree, "m0")
        tree.objects.reserve(backend)
        assert tree.objects.get("m0") is None
        assert tree.lookup("m0") == (None, False)
        tree.objects.attach(backend)
        tree.objects.release(backend)
        assert tree.objects.get("m0") is backend
        assert backend.parent is tree.objects

    def test_taken_while_it_is_made_and_while_it_is_there(self) -> None:
        tree = new_tree()
        first = Backend(tree, "m0")
        tree.objects.reserve(first)
        with pytest.raises(QMPError) as caught:
            tree.objects.reserve(Backend(tree, "m0"))
        assert caught.value.desc == self.DUPLICATE.format("m0")
        tree.objects.attach(first)
        tree.objects.release(first)
        with pytest.raises(QMPError) as caught:
            tree.objects.reserve(Backend(tree, "m0"))
        assert caught.value.desc == self.DUPLICATE.format("m0")

    def test_free_again(self) -> None:
        tree = new_tree()
        failed = Backend(tree, "m0")
        tree.objects.reserve(failed)
        tree.objects.release(failed)
        [backend] = add(tree, "m0")
        tree.objects.detach(backend)
        assert tree.objects.get("m0") is None
        assert backend.parent is None
        assert tree.path_of(backend) == ""
        add(tree, "m0")

    def test_the_containers_own_property_is_no_id(self) -> None:
        tree = new_tree()
        with pytest.raises(QMPError) as caught:
            tree.objects.reserve(Backend(tree, "type"))
        assert caught.value.desc == self.DUPLICATE.format("type")

    def test_two_objects_of_one_id(self) -> None:
        tree = new_tree()
        [backend] = add(tree, "m0")
        with pytest.raises(QMPError) as caught:
            tree.objects.attach(Backend(tree, "m0"))
        assert caught.value.desc == self.DUPLICATE.format("m0")
        assert tree.objects.get("m0") is backend

    def test_what_nobody_made_is_no_user_object(self) -> None:
        tree = new_tree()
        tree.objects.add_child("odd", QObject(tree.root.qom_type, tree))
        assert tree.objects.get("odd") is None


class TestTypes:
    def test_by_name(self) -> None:
        tree = new_tree()
        own = ObjectType("own", OBJECT)
        tree.add_type(own)
        assert tree.type_by_name("own") is own
        assert tree.type_by_name("zz") is None

    @pytest.mark.parametrize("compat", Compat)
    def test_each_has_its_ancestors_beside_it(self, compat: Compat) -> None:
        types = new_tree(compat).types()
        for name, each in types.items():
            assert each.name == name
            assert each.parent is None or types[each.parent.name] is each.parent
            assert each.interfaces <= types.keys()

    def test_trees_do_not_share_their_types(self) -> None:
        tree = new_tree()
        tree.add_type(ObjectType("own", OBJECT))
        assert new_tree().type_by_name("own") is None


class Stuck(Backend):
    """One that is not freed."""

    __slots__ = ()

    async def finalize(self) -> None:
        raise OSError("no")


def test_at_the_end_all_are_freed_but_those_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    tree = new_tree()
    for each in (Stuck(tree, "a"), Backend(tree, "b")):
        tree.objects.attach(each)
    ended: list[bool] = []
    tree.objects.delete_all(here).then(lambda: ended.append(True))
    assert ended == [True]
    assert tree.objects.each() == []
    assert caplog.messages == ["cannot free 'a'"]
