"""`-object`: its three spellings, and what it answers to `help`.

- JSON: `{"qom-type": "memory-backend-ram", "id": "m0", "size": 67108864}`;
- QEMU's: `memory-backend-ram,id=m0,size=64M,host-nodes=0-1`, without nesting;
- qemu-storage-daemon's, which memd takes where a key has a dot:
  `memory-backend-ram,id=m0,size=64M,host-nodes.0=0,host-nodes.1=1`.

All end as what `object-add` would be given. Texts were observed on QEMU 10.0.2
and 11.1.3; those of the dotted spelling on qemu-storage-daemon 10.0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.cli.keyval import HELP, parse_keyval
from memd.cli.opts import Opts, OptsList, Warn, bad_id_option, parse_opts
from memd.cli.report import Answered
from memd.compat import Compat
from memd.errors import is_identifier
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.qapi.types import ObjectType
    from memd.qom import Property, Tree


OBJECT = OptsList("object", "qom-type", None)

_COLUMN = 24
"""The column of a property's description."""


def parse_object(
    text: str,
    compat: Compat,
    ids: set[str] | None = None,
    warn: Warn | None = None,
    *,
    nesting: bool = True,
    always: bool = False,
) -> JSONObject:
    """The arguments for `object-add`.

    Args:
        text: the option's argument.
        compat: whose texts.
        ids: those of earlier objects in QEMU's spelling, where there are some; this
            one's is added.
        warn: told of keys without a value.
        nesting: whether the dotted spelling is taken.
        always: whether it is the dotted spelling without a dot, too.

    Raises:
        QMPError: it can't be.
        Answered: help was asked for.
    """
    if text.startswith("{"):
        return _from_json(text, compat)
    if always:
        return _from_keyval(text, compat)
    ids = set() if ids is None else ids
    opts = parse_opts(OBJECT, text, None, ids)
    if nesting:
        from memd.qapi.dotted_keys import dotted

        if any(dotted(key) for key, _value in opts.pairs):
            return _from_keyval(text, compat)
    if warn is not None:
        opts = parse_opts(OBJECT, text, warn, ids)
    if opts.id is not None:
        ids.add(opts.id)
    return _from_opts(opts, compat)


def _from_json(text: str, compat: Compat) -> JSONObject:
    from memd.cli.json_argument import parse_json_argument
    from memd.qapi.check import check_object

    options = parse_json_argument(text, compat)
    return check_object(_options_type(options.get("qom-type"), compat), options)


def _from_keyval(text: str, compat: Compat) -> JSONObject:
    options, wants_help = parse_keyval(text, OBJECT.implied)
    if wants_help:
        name = options.get("qom-type")
        raise Answered(_help(compat, name if isinstance(name, str) else None))
    from memd.qapi.keyval import check_keyval

    checked = check_keyval(_options_type(options.get("qom-type"), compat), options)
    if not is_identifier(checked["id"]):
        raise bad_id_option()
    return checked


def _from_opts(opts: Opts, compat: Compat) -> JSONObject:
    name = opts.get("qom-type")
    if name in HELP:
        raise Answered(_help(compat, None))
    if name is not None and any(opts.has(key) for key in HELP):
        answer = object_type_help(_tree(compat), name)
        if answer is not None:
            raise Answered(answer)
    from memd.qapi.opts import check_opts

    return check_opts(_options_type(name, compat), opts.with_id())


def _options_type(name: JSON, compat: Compat) -> ObjectType:
    """The schema's type of an object's options: monitors are none that `object-add` makes."""
    from memd.qapi import load_schema

    monitor = name == "monitor-qmp" and compat is not Compat.V10_0
    schema = load_schema(compat)
    return schema.object_type("MonitorObjectOptions" if monitor else "ObjectOptions")


def _help(compat: Compat, name: str | None) -> str:
    tree = _tree(compat)
    answer = None if name is None else object_type_help(tree, name)
    return object_help(tree) if answer is None else answer


def _tree(compat: Compat) -> Tree:
    from memd import backends
    from memd.qom import Tree

    tree = Tree(compat)
    backends.register(tree)
    return tree


def property_line(prop: Property, description: str | None) -> str:
    """A property in a list of them."""
    line = f"  {prop.name}=<{prop.type}>"
    return f"{line:<{_COLUMN}} - {description}\n" if description else f"{line}\n"


def object_help(tree: Tree) -> str:
    """The types that `-object` and `object-add` make, as QEMU lists them."""
    names = sorted(name for name, type in tree.types().items() if type.factory is not None)
    return "List of user creatable objects:\n" + "".join(f"  {name}\n" for name in names)


def object_type_help(tree: Tree, name: str) -> str | None:
    """A type's properties that can be set, as QEMU lists them; None for no such type."""
    type = tree.type_by_name(name)
    if type is None:
        return None
    lines = []
    for prop in type.all_properties.values():
        if prop.setter is None:
            continue
        lines.append(property_line(prop, prop.description))
    if not lines:
        return f"There are no options for {name}.\n"
    return f"{name} options:\n" + "".join(sorted(lines))
