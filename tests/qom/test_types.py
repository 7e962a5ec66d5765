from __future__ import annotations

from memd.qom import INTERFACE, OBJECT, USER_CREATABLE, ObjectType, Property


def test_properties_are_inherited_oldest_first() -> None:
    base = ObjectType("base", OBJECT, properties=(Property("a", "int"), Property("b", "int")))
    derived = ObjectType("derived", base, properties=(Property("c", "int"),))
    assert [*derived.all_properties] == ["type", "a", "b", "c"]
    assert [each.name for each in derived.properties] == ["c"]
    assert [*base.all_properties] == ["type", "a", "b"]


def test_a_property_can_be_declared_anew() -> None:
    base = ObjectType("base", OBJECT, properties=(Property("a", "int"),))
    derived = ObjectType("derived", base, properties=(Property("a", "string"),))
    assert derived.all_properties["a"].type == "string"
    assert base.all_properties["a"].type == "int"


def test_descent() -> None:
    base = ObjectType("base", OBJECT)
    derived = ObjectType("derived", base)
    assert all(derived.is_a(name) for name in ("derived", "base", "object"))
    assert not base.is_a("derived")
    assert not derived.is_a("interface")


def test_interfaces_are_inherited() -> None:
    base = ObjectType("base", OBJECT, interfaces=("user-creatable",))
    derived = ObjectType("derived", base)
    assert derived.is_a("user-creatable")
    assert derived.is_a("interface")
    assert not OBJECT.is_a("user-creatable")
    assert USER_CREATABLE.is_a("interface")
    assert not INTERFACE.is_a("object")


def test_several_interfaces_hide_their_common_ancestor() -> None:
    base = ObjectType("base", OBJECT, interfaces=("nmi",))
    derived = ObjectType("derived", base, interfaces=("hotplug-handler",))
    assert derived.is_a("nmi")
    assert derived.is_a("hotplug-handler")
    assert not derived.is_a("interface")
    assert base.is_a("interface")
