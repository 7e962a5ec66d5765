from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memd import backends
from memd.commands import qom
from memd.compat import Compat
from memd.errors import DEVICE_NOT_FOUND, GENERIC_ERROR, QMPError
from memd.qom import Tree
from memd.wire import encode
from memd.work import run_here, value_of
from tests.qom.stand_ins import Backend, add, add_context, new_tree, refusal
from tests.stepping import Running, made

MEMORY = "memory-backend-ram"


def _daemon(tree: Tree) -> Any:
    return SimpleNamespace(tree=tree)


def _names(listed: list[Any]) -> list[str]:
    return [each["name"] for each in listed]


class TestGetAndSet:
    def test_round_trip(self) -> None:
        tree = new_tree()
        add(tree, "m0")
        daemon = _daemon(tree)
        arguments = {"path": "m0", "property": "size"}
        assert qom.qom_get(daemon, arguments) == 4096
        assert run_here(qom.qom_set(daemon, {**arguments, "value": 8192})) == {}
        assert qom.qom_get(daemon, {**arguments, "path": "/objects/m0"}) == 8192

    def test_what_takes_long_is_handed_on(self) -> None:
        tree = new_tree()
        add(tree, "m0")
        arguments = {"path": "m0", "property": "prealloc", "value": True}
        pending = Running(qom.qom_set(_daemon(tree), arguments))
        assert pending.wait is not None
        assert pending.finish() == {}

    def test_no_object_comes_before_no_property(self) -> None:
        daemon = _daemon(new_tree())
        for arguments, error in (
            ({"path": "zz", "property": "zz"}, (DEVICE_NOT_FOUND, "Device 'zz' not found")),
            ({"path": "", "property": "type"}, (DEVICE_NOT_FOUND, "Device '' not found")),
            (
                {"path": "/", "property": "zz"},
                (GENERIC_ERROR, "Property 'container.zz' not found"),
            ),
        ):
            for answer in (qom.qom_get, qom.qom_set):
                with pytest.raises(QMPError) as caught:
                    run_here(value_of(answer(daemon, {**arguments, "value": 1})))
                assert refusal(caught.value) == error


class TestList:
    def test_properties_then_children(self) -> None:
        tree = new_tree()
        add(tree, "m0")
        assert run_here(qom.qom_list(_daemon(tree), {"path": "m0"})) == [
            {"name": "type", "type": "string"},
            {"name": "size", "type": "int"},
            {"name": "prealloc", "type": "bool"},
            {"name": "prealloc-context", "type": "link<thread-context>"},
            {"name": "secret", "type": "string"},
            {"name": "m0[0]", "type": "child<memory-region>"},
        ]
        assert run_here(qom.qom_list(_daemon(tree), {"path": "/objects"})) == [
            {"name": "type", "type": "string"},
            {"name": "m0", "type": "child<memory-backend-ram>"},
        ]

    def test_what_is_being_made_is_not_listed(self) -> None:
        tree = new_tree()
        tree.objects.reserve(Backend(tree, "m0"))
        assert _names(run_here(qom.qom_list(_daemon(tree), {"path": "/objects"}))) == ["type"]

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("zz", (DEVICE_NOT_FOUND, "Device 'zz' not found")),
            ("/zz", (DEVICE_NOT_FOUND, "Device '/zz' not found")),
            ("machine", (GENERIC_ERROR, "Path 'machine' is ambiguous")),
            ("", (GENERIC_ERROR, "Path '' is ambiguous")),
        ],
    )
    def test_refused_paths(self, path: str, error: tuple[str, str]) -> None:
        tree = new_tree()
        add(tree, "machine")
        with pytest.raises(QMPError) as caught:
            run_here(qom.qom_list(_daemon(tree), {"path": path}))
        assert refusal(caught.value) == error
        with pytest.raises(QMPError) as caught:
            made(run_here(qom.qom_list_get(_daemon(tree), {"paths": ["/", path]})))
        assert refusal(caught.value) == error

    def test_with_values(self) -> None:
        tree = new_tree(Compat.V11_1)
        [backend] = add(tree, "m0")
        add_context(tree, "tc")
        backend.set_property("prealloc-context", "tc")
        listed = made(run_here(qom.qom_list_get(_daemon(tree), {"paths": ["m0", "/objects/tc"]})))
        assert listed == [
            {
                "properties": [
                    {"name": "type", "type": "string", "value": "memory-backend-ram"},
                    {"name": "size", "type": "int", "value": 4096},
                    {"name": "prealloc", "type": "bool", "value": False},
                    {
                        "name": "prealloc-context",
                        "type": "link<thread-context>",
                        "value": "/objects/tc",
                    },
                    {"name": "secret", "type": "string"},
                    {
                        "name": "m0[0]",
                        "type": "child<memory-region>",
                        "value": "/objects/m0/m0[0]",
                    },
                ]
            },
            {"properties": [{"name": "type", "type": "string", "value": "thread-context"}]},
        ]
        assert made(run_here(qom.qom_list_get(_daemon(tree), {"paths": []}))) == []


class TestTypes:
    def test_abstract_ones_only_on_demand(self) -> None:
        daemon = _daemon(new_tree())
        every = qom.qom_list_types(daemon, {"abstract": True})
        concrete = qom.qom_list_types(daemon, {})
        assert concrete == qom.qom_list_types(daemon, {"abstract": False})
        assert concrete == [each for each in every if "abstract" not in each]
        assert {"name": "object", "abstract": True} in every
        assert {"name": "machine", "parent": "object", "abstract": True} in every
        assert {"name": "none-machine", "parent": "machine"} in concrete

    @pytest.mark.parametrize(
        ("implements", "names"),
        [
            ("memory-backend", ["memory-backend-ram"]),
            ("memory-backend-ram", ["memory-backend-ram"]),
            ("user-creatable", ["memory-backend-ram", "thread-context"]),
            ("accel", ["kvm-accel", "tcg-accel"]),
            ("zz", []),
            ("", []),
        ],
    )
    def test_of_one_kind(self, implements: str, names: list[str]) -> None:
        listed = qom.qom_list_types(_daemon(new_tree()), {"implements": implements})
        assert sorted(_names(listed)) == names

    def test_properties_of_a_type(self) -> None:
        daemon = _daemon(new_tree())
        listed = qom.qom_list_properties(daemon, {"typename": "memory-backend-ram"})
        assert listed[:3] == [
            {"name": "type", "type": "string"},
            {"name": "size", "type": "int", "description": "How much"},
            {"name": "prealloc", "type": "bool"},
        ]

    @pytest.mark.parametrize("typename", ["none-machine", "tcg-accel"])
    def test_what_libvirt_asks_for(self, typename: str) -> None:
        assert qom.qom_list_properties(_daemon(new_tree()), {"typename": typename})

    @pytest.mark.parametrize(
        ("typename", "error"),
        [
            ("zz", (DEVICE_NOT_FOUND, "Class 'zz' not found")),
            ("", (DEVICE_NOT_FOUND, "Class '' not found")),
            ("user-creatable", (GENERIC_ERROR, "Parameter 'typename' expects a QOM type")),
            ("interface", (GENERIC_ERROR, "Parameter 'typename' expects a QOM type")),
        ],
    )
    def test_refused_types(self, typename: str, error: tuple[str, str]) -> None:
        with pytest.raises(QMPError) as caught:
            qom.qom_list_properties(_daemon(new_tree()), {"typename": typename})
        assert refusal(caught.value) == error


def properties(daemon: Any) -> list[dict[str, Any]]:
    """What query-memdev lists, property by property."""
    names = ("size", "merge", "dump", "prealloc", "share", "reserve", "host-nodes", "policy")
    return [
        {"id": each.name, **{name: each.get_property(name) for name in names}}
        for each in daemon.tree.objects.each()
        if each.qom_type.is_a("memory-backend")
    ]


class TestObjects:
    """With real backends: `object-add` and what comes of it."""

    @pytest.fixture
    def daemon(self) -> Any:
        tree = Tree()
        backends.register(tree)
        yield _daemon(tree)
        for id in [*tree.objects.children]:
            run_here(tree.objects.delete(id))

    def test_there_and_gone(self, daemon: Any) -> None:
        assert qom.query_memdev(daemon, {}).value() == []
        ram = {"qom-type": "memory-backend-ram", "id": "m0", "size": 8192, "merge": False}
        assert run_here(qom.object_add(daemon, ram)) == {}
        assert run_here(qom.object_add(daemon, {"qom-type": "thread-context", "id": "tc"})) == {}
        assert qom.query_memdev(daemon, {}).value() == [
            {
                "id": "m0",
                "size": 8192,
                "merge": False,
                "dump": True,
                "prealloc": False,
                "share": False,
                "reserve": True,
                "host-nodes": [],
                "policy": "default",
            }
        ]
        assert run_here(qom.object_del(daemon, {"id": "m0"})) == {}
        assert qom.query_memdev(daemon, {}).value() == []

    def test_what_is_listed_are_the_properties(self, daemon: Any) -> None:
        variants: list[dict[str, Any]] = [
            {},
            {"size": 1},
            {"merge": False, "dump": False},
            {"share": True, "reserve": False},
            {"prealloc": True},
            {"host-nodes": [0], "policy": "bind"},
            {"host-nodes": [0], "policy": "preferred"},
        ]
        assert qom.query_memdev(daemon, {}).text == b"[]"
        for number, options in enumerate(variants * 2):
            kind = "memory-backend-memfd" if number % 2 and "size" not in options else MEMORY
            arguments = {"qom-type": kind, "id": f"m{number}.0", "size": 4096, **options}
            run_here(daemon.tree.objects.create(arguments))
        run_here(qom.object_add(daemon, {"qom-type": "thread-context", "id": "tc"}))
        answer = qom.query_memdev(daemon, {})
        listed = properties(daemon)
        assert len(listed) == len(variants) * 2
        assert answer.text + b"\r\n" == encode(listed)
        assert answer.value() == listed

    def test_an_answer_in_json_follows_every_change(self, daemon: Any) -> None:
        def told() -> bytes:
            answer: bytes = qom.query_memdev(daemon, {}).text
            assert answer + b"\r\n" == encode(properties(daemon))
            return answer

        for id in ("m0", "m1"):
            run_here(qom.object_add(daemon, {"qom-type": MEMORY, "id": id, "size": 4096}))
        first = told()
        seen = {first}
        changes: list[dict[str, Any]] = [
            {"property": "merge", "value": False},
            {"property": "dump", "value": False},
            {"property": "host-nodes", "value": [0]},
            {"property": "policy", "value": "bind"},
            {"property": "prealloc", "value": True},
        ]
        for change in changes:
            run_here(qom.qom_set(daemon, {"path": "m0", **change}))
            seen.add(told())
        run_here(qom.object_del(daemon, {"id": "m0"}))
        seen.add(told())
        assert len(seen) == len(changes) + 2

    @pytest.mark.parametrize("id", ["zz", "", "/objects/m0", "m0[0]", "type"])
    def test_only_an_id_can_be_deleted(self, daemon: Any, id: str) -> None:
        run_here(
            qom.object_add(daemon, {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096})
        )
        with pytest.raises(QMPError) as caught:
            run_here(qom.object_del(daemon, {"id": id}))
        assert refusal(caught.value) == (GENERIC_ERROR, f"object '{id}' not found")
        assert _names(run_here(qom.qom_list(daemon, {"path": "/objects"}))) == ["type", "m0"]
