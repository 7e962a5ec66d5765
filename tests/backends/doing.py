"""Short ways to make, change and delete objects in a tree without a server."""

from __future__ import annotations

from collections.abc import Callable

from memd import backends
from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.hostmem.region import Region
from memd.outcome import JSON, Blocking
from memd.qom import Tree

MIB = 1 << 20


def run(slow: Blocking | None) -> JSON:
    """Do what is to be done beside the event loop; the command's value."""
    if slow is None:
        return {}
    try:
        value = slow.work()
    except BaseException as error:
        slow.failed(error)
        raise
    result = slow.finish(value)
    return run(result) if isinstance(result, Blocking) else result


def add(tree: Tree, kind: str, id: JSON = "m0", **options: JSON) -> JSON:
    """object-add of a memory-backend-KIND; underscores in options stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    arguments = {"qom-type": f"memory-backend-{kind}", "id": id, **named}
    return run(backends.create(tree, arguments))


def delete(tree: Tree, id: str = "m0") -> JSON:
    return run(backends.delete(tree, id))


def get(tree: Tree, name: str, id: str = "m0") -> JSON:
    return tree.resolve(f"/objects/{id}").get_property(name)


def change(tree: Tree, name: str, value: JSON, id: str = "m0") -> JSON:
    return run(tree.resolve(f"/objects/{id}").set_property(name, value))


def refusal(work: Callable[[], object]) -> str:
    """The text with which something is refused."""
    try:
        done = work()
    except QMPError as error:
        return error.desc
    raise AssertionError(f"not refused: {done}")


def region_of(tree: Tree, id: str = "m0") -> Region:
    backend = tree.resolve(f"/objects/{id}")
    assert isinstance(backend, MemoryBackend)
    assert backend.region is not None
    return backend.region
