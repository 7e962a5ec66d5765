from __future__ import annotations

import pytest

from memd.commands.hmp_info import info_qom_tree
from memd.compat import Compat
from memd.qom import Tree
from memd.work import run_here
from tests.commands.fakes import daemon_of
from tests.qom.stand_ins import add, add_context, new_tree

MACHINE = [
    "/machine (none-machine)",
    "  /peripheral (container)",
    "  /peripheral-anon (container)",
    "  /unattached (container)",
    "    /io[0] (memory-region)",
    "    /sysbus (System)",
    "    /system[0] (memory-region)",
]


def _lines(tree: Tree, path: str = "") -> list[str]:
    return run_here(info_qom_tree(daemon_of(tree), {"path": path} if path else {}))


def test_the_machine_is_the_default() -> None:
    assert _lines(Tree()) == MACHINE


@pytest.mark.parametrize("compat", Compat)
def test_the_whole_tree(compat: Compat) -> None:
    tree = new_tree(compat)
    add(tree, "z", "a")
    audio = ["  /audiodevs (container)"] if compat is Compat.V11_1 else []
    assert _lines(tree, "/") == [
        "/ (container)",
        *audio,
        "  /backend (container)",
        "  /chardevs (container)",
        *(f"  {line}" for line in MACHINE),
        "  /objects (container)",
        "    /a (memory-backend-ram)",
        "      /a[0] (memory-region)",
        "    /z (memory-backend-ram)",
        "      /z[0] (memory-region)",
    ]


@pytest.mark.parametrize("path", ["m0", "/objects/m0/", "objects/m0"])
def test_a_part_begins_with_its_own_name(path: str) -> None:
    tree = new_tree()
    add(tree, "m0")
    assert _lines(tree, path) == ["/m0 (memory-backend-ram)", "  /m0[0] (memory-region)"]


@pytest.mark.parametrize("path", ["/zz", "machine", "a b"])
def test_a_path_that_does_not_lead_to_one_object(path: str) -> None:
    tree = new_tree()
    add(tree, "machine")
    assert _lines(tree, path) == [f"Path '{path}' could not be resolved."]


def test_an_object_that_left_has_no_name() -> None:
    tree = new_tree()
    [backend] = add(tree, "m0")
    context = add_context(tree, "tc")
    backend.set_property("prealloc-context", "tc")
    tree.objects.detach(context)
    assert _lines(tree, "m0/prealloc-context") == ["/(null) (thread-context)"]
