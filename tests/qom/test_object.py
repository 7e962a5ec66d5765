from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from memd.errors import QMPError
from memd.qom import QObject, UserCreatable
from tests.qom.stand_ins import Backend, add, add_context, new_tree
from tests.stepping import Running


def test_children() -> None:
    tree = new_tree()
    [backend] = add(tree, "m0")
    region = backend.children["m0[0]"]
    assert (region.parent, region.name) == (backend, "m0[0]")
    backend.remove_child("m0[0]")
    assert region.parent is None
    with pytest.raises(KeyError):
        backend.remove_child("m0[0]")
    with pytest.raises(KeyError):
        region.remove_child("x")


@pytest.mark.parametrize("name", ["m0[0]", "type", "size"])
def test_a_child_needs_a_name_of_its_own(name: str) -> None:
    tree = new_tree()
    [backend] = add(tree, "m0")
    with pytest.raises(QMPError) as caught:
        backend.add_child(name, QObject(backend.qom_type, tree))
    assert caught.value.desc == (
        f"attempt to add duplicate property '{name}' to object (type 'memory-backend-ram')"
    )
    assert [*backend.children] == ["m0[0]"]


def test_options_are_set_in_an_order_of_their_own() -> None:
    options: dict[str, Any] = {"size": 8192, "prealloc-context": "tc", "prealloc": True}
    for order in permutations(options):
        tree = new_tree()
        add_context(tree, "tc")
        backend = Backend(tree, "m0")
        backend.set_properties({name: options[name] for name in order})
        assert backend.calls == ["prealloc-context", "prealloc=True", "size=8192"]


def test_the_first_refusal_in_that_order_wins() -> None:
    backend = Backend(new_tree(), "m0")
    with pytest.raises(QMPError) as caught:
        backend.set_properties({"zz": 1, "size": 0, "prealloc": 1})
    assert caught.value.desc.endswith("'prealloc', expected: boolean")
    with pytest.raises(QMPError) as caught:
        backend.set_properties({"zz": 1, "size": 0})
    assert caught.value.desc == "property 'size' doesn't take value '0'"


def test_an_object_by_itself_is_ready_at_once() -> None:
    tree = new_tree()
    plain = UserCreatable(add(tree, "m0")[0].qom_type, tree, "m1")
    plain.check_delete()
    for command in (plain.complete(), plain.finalize()):
        assert Running(command).wait is None
    assert not plain.give_up()
    assert (plain.name, plain.parent) == ("m1", None)
