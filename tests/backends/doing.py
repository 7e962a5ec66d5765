"""Short ways to make, change and delete objects in a tree without a server."""

from __future__ import annotations

from collections.abc import Callable

from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.hostmem.region import Region
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here, value_of

MIB = 1 << 20


def add(tree: Tree, kind: str, id: JSON = "m0", **options: JSON) -> JSON:
    """object-add of a memory-backend-KIND; underscores in options stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    arguments = {"qom-type": f"memory-backend-{kind}", "id": id, **named}
    run_here(tree.objects.create(arguments))
    return {}


def delete(tree: Tree, id: str = "m0") -> JSON:
    run_here(tree.objects.delete(id))
    return {}


def get(tree: Tree, name: str, id: str = "m0") -> JSON:
    return tree.resolve(f"/objects/{id}").get_property(name)


def change(tree: Tree, name: str, value: JSON, id: str = "m0") -> JSON:
    run_here(tree.objects.change(tree.resolve(f"/objects/{id}"), name, value))
    return {}


def refusal(work: Callable[[], object]) -> str:
    """The text with which something is refused."""
    try:
        done = run_here(value_of(work()))
    except QMPError as error:
        return error.desc
    raise AssertionError(f"not refused: {done}")


def region_of(tree: Tree, id: str = "m0") -> Region:
    backend = tree.resolve(f"/objects/{id}")
    assert isinstance(backend, MemoryBackend)
    assert backend.region is not None
    return backend.region
