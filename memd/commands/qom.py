"""Commands of the object model: `qom-*`, `object-add`, `object-del`, `query-memdev`.

Arguments have passed the schema's checks before a handler gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from memd.backends.base import MemoryBackend
from memd.commands.daemon import Daemon
from memd.errors import QMPError, device_not_found
from memd.json_types import JSON, JSONObject
from memd.qom import QObject, Tree
from memd.wire.rows import encode_rows
from memd.work import Encoded, in_turns


async def object_add(daemon: Daemon, args: JSONObject) -> JSON:
    """`object-add`: make an object."""
    await daemon.tree.objects.create(args)
    return {}


async def x_memdev_explain(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-memdev-explain`: the explanation; arguments that are wrong are explained, too."""
    # A rare command, for people: what it needs is not imported at start-up.
    from memd.backends.explain import explain, refused

    try:
        checked = daemon.schema.checker("object-add")(args)
    except QMPError as error:
        return refused(error)
    return await explain(daemon.tree, checked, daemon.machine.deny_private_discard)


async def object_del(daemon: Daemon, args: JSONObject) -> JSON:
    """`object-del`: delete an object that a client made."""
    await daemon.tree.objects.delete(args["id"])
    return {}


def qom_get(daemon: Daemon, args: JSONObject) -> JSON:
    """`qom-get`: a property's value."""
    return daemon.tree.resolve(args["path"]).get_property(args["property"])


async def qom_set(daemon: Daemon, args: JSONObject) -> JSON:
    """`qom-set`: change a property."""
    tree = daemon.tree
    await tree.objects.change(tree.resolve(args["path"]), args["property"], args["value"])
    return {}


async def qom_list(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`qom-list`: an object's properties and children."""
    members = in_turns(_members(_resolve_one(daemon.tree, args["path"])))
    return [{"name": name, "type": type} async for name, type, _getter in members]


async def qom_list_get(daemon: Daemon, args: JSONObject) -> Encoded:
    """`qom-list-get`: the properties of several objects, with values (QEMU 11.1)."""
    return await encode_rows(
        {"properties": await _values(_resolve_one(daemon.tree, path))}
        async for path in in_turns(args["paths"])
    )


def qom_list_types(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`qom-list-types`: the types, or those of one kind."""
    implements = args.get("implements")
    abstract = args.get("abstract", False)
    found = []
    for each in daemon.tree.all_types().values():
        if implements is not None and not each.is_a(implements):
            continue
        info: JSON = {"name": each.name}
        if each.abstract:
            if not abstract:
                continue
            info["abstract"] = True
        if each.parent is not None:
            info["parent"] = each.parent.name
        found.append(info)
    return found


def qom_list_properties(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`qom-list-properties`: what the objects of a type have."""
    name = args["typename"]
    found = daemon.tree.type_by_name(name)
    if found is None:
        raise device_not_found(name, "Class")
    if not found.is_a("object"):
        raise QMPError("Parameter 'typename' expects a QOM type")
    return [prop.info() for prop in found.all_properties.values()]


def query_memdev(daemon: Daemon, args: JSONObject) -> Encoded:
    """`query-memdev`: the memory backends and their properties, a row each."""
    rows = [backend.row for backend in backends(daemon)] or [""]
    # Not around the whole, which would be a copy.
    rows[0] = "[" + rows[0]
    rows[-1] += "]"
    return Encoded(", ".join(rows).encode())


def backends(daemon: Daemon) -> list[MemoryBackend]:
    """The memory backends that there are."""
    objects = daemon.tree.objects.children.values()
    return [each for each in objects if isinstance(each, MemoryBackend)]


def _resolve_one(tree: Tree, path: str) -> QObject:
    found, ambiguous = tree.lookup(path)
    if found is not None:
        return found
    if ambiguous:
        raise QMPError(f"Path '{path}' is ambiguous")
    raise device_not_found(path)


async def _values(obj: QObject) -> list[JSON]:
    # A property without a getter is listed without a value.
    return [
        {"name": name, "type": type}
        if getter is None
        else {"name": name, "type": type, "value": getter(obj)}
        async for name, type, getter in in_turns(_members(obj))
    ]


def _members(obj: QObject) -> Iterator[tuple[str, str, Callable[[Any], JSON] | None]]:
    """An object's properties and children: name, type, and what gives the value."""
    properties = obj.qom_type.all_properties
    for name, prop in properties.items():
        yield name, prop.type, prop.getter
    for name, child in [*obj.children.items()]:
        # It may be gone by then.
        if name not in properties and obj.children.get(name) is child:
            yield name, child.qom_type.child_type, partial(QObject.get_property, name=name)
