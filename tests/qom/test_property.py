from __future__ import annotations

from typing import Any

import pytest

from memd.errors import DEVICE_NOT_FOUND, GENERIC_ERROR, QMPError
from memd.work import run_here
from tests.qom.stand_ins import add, add_context, new_tree, refusal


def test_a_property_is_read_and_written() -> None:
    [backend] = add(new_tree(), "m0")
    assert backend.set_property("size", 8192) is None
    assert backend.get_property("size") == 8192


def test_the_value_is_converted_before_it_is_stored() -> None:
    [backend] = add(new_tree(), "m0")
    backend.set_property("size", -4096)
    assert backend.size == 2**64 - 4096


def test_what_takes_long_is_handed_on() -> None:
    [backend] = add(new_tree(), "m0")
    changing = backend.set_property("prealloc", True)
    assert changing is not None
    assert not backend.prealloc
    run_here(changing)
    assert backend.prealloc


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("type", "x", "Property 'memory-backend-ram.type' is not writable"),
        ("m0[0]", "x", "Property 'memory-backend-ram.m0[0]' is not writable"),
        ("zz", 1, "Property 'memory-backend-ram.zz' not found"),
        ("", 1, "Property 'memory-backend-ram.' not found"),
        ("prealloc", 1, "Invalid parameter type for 'prealloc', expected: boolean"),
        ("size", "1M", "Parameter 'size' expects uint64"),
        ("size", 0, "property 'size' doesn't take value '0'"),
    ],
)
def test_refused_values(name: str, value: Any, text: str) -> None:
    [backend] = add(new_tree(), "m0")
    with pytest.raises(QMPError) as caught:
        backend.set_property(name, value)
    assert refusal(caught.value) == (GENERIC_ERROR, text)
    assert backend.size == 4096


@pytest.mark.parametrize("value", [4096, "x", None, 0])
def test_a_guard_refuses_before_the_value_is_looked_at(value: Any) -> None:
    [backend] = add(new_tree(), "m0")
    backend.frozen = True
    with pytest.raises(QMPError) as caught:
        backend.set_property("size", value)
    assert caught.value.desc == "cannot change property size"
    assert backend.calls == []


def test_what_can_be_written_only() -> None:
    [backend] = add(new_tree(), "m0")
    with pytest.raises(QMPError) as caught:
        backend.get_property("secret")
    assert caught.value.desc == "Property 'memory-backend-ram.secret' is not readable"


def test_a_child_reads_as_its_path() -> None:
    [backend] = add(new_tree(), "m0")
    assert backend.get_property("m0[0]") == "/objects/m0/m0[0]"


class TestLinks:
    @pytest.mark.parametrize("path", ["tc", "/objects/tc", "objects/tc", "//objects//tc/"])
    def test_set_by_path_and_read_as_the_absolute_one(self, path: str) -> None:
        tree = new_tree()
        [backend] = add(tree, "m0")
        context = add_context(tree, "tc")
        backend.set_property("prealloc-context", path)
        assert backend.context is context
        assert backend.get_property("prealloc-context") == "/objects/tc"

    def test_cleared_by_an_empty_path(self) -> None:
        tree = new_tree()
        [backend] = add(tree, "m0")
        add_context(tree, "tc")
        backend.set_property("prealloc-context", "tc")
        backend.set_property("prealloc-context", "")
        assert backend.context is None
        assert backend.get_property("prealloc-context") == ""

    def test_set_through_another_link(self) -> None:
        tree = new_tree()
        one, two = add(tree, "m0", "m1")
        context = add_context(tree, "tc")
        one.set_property("prealloc-context", "tc")
        two.set_property("prealloc-context", "m0/prealloc-context")
        assert two.context is context

    @pytest.mark.parametrize(
        ("value", "error_class", "text"),
        [
            (1, GENERIC_ERROR, "Invalid parameter type for 'prealloc-context', expected: string"),
            ("zz", DEVICE_NOT_FOUND, "Device 'zz' not found"),
            ("/tc", DEVICE_NOT_FOUND, "Device '/tc' not found"),
            # Something else, and several of something else.
            *(
                (
                    path,
                    GENERIC_ERROR,
                    "Invalid parameter type for 'prealloc-context', expected: thread-context",
                )
                for path in ("m0", "/", "m0[0]", "/objects", "io[0]")
            ),
            (
                "prealloc-context",
                GENERIC_ERROR,
                "Path 'prealloc-context' does not uniquely identify an object",
            ),
        ],
    )
    def test_refused_targets(self, value: Any, error_class: str, text: str) -> None:
        tree = new_tree()
        backend, *others = add(tree, "m0", "m1", "m2", "io")
        add_context(tree, "tc")
        for other in others:
            other.set_property("prealloc-context", "tc")
        with pytest.raises(QMPError) as caught:
            backend.set_property("prealloc-context", value)
        assert refusal(caught.value) == (error_class, text)
        assert backend.context is None

    def test_only_what_is_of_the_type_counts_as_ambiguous(self) -> None:
        tree = new_tree()
        [backend, _decoy] = add(tree, "m0", "machine")
        context = add_context(tree, "peripheral")
        backend.set_property("prealloc-context", "peripheral")
        assert backend.context is context

    def test_a_target_that_left_reads_as_none_but_leads_on(self) -> None:
        tree = new_tree()
        [backend] = add(tree, "m0")
        context = add_context(tree, "tc")
        backend.set_property("prealloc-context", "tc")
        tree.objects.detach(context)
        assert backend.get_property("prealloc-context") == ""
        assert tree.resolve("/objects/m0/prealloc-context") is context
