"""`-object monitor-qmp`, the way in which QEMU 11.1 spells a monitor.

Management software that finds the type starts its QEMU so; it is not one that
`object-add` makes here, so the schema does not have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memd.json_types import JSON, JSONObject
from memd.qapi.types import BuiltinType, EnumMember, EnumType, Member, ObjectType, Type


def check_opts(options: Iterable[tuple[str, str]]) -> JSONObject:
    """See `memd.qapi.Schema.check_opts`."""
    from memd.qapi.opts import check_opts as check

    return check(_type(), options)


def check_keyval(options: Mapping[str, JSON]) -> JSONObject:
    """See `memd.qapi.Schema.check_keyval`."""
    from memd.qapi.keyval import check_keyval as check

    return check(_type(), options)


def check_json(options: Mapping[str, JSON]) -> JSONObject:
    """See `memd.qapi.Schema.checker`."""
    from memd.qapi.check import ObjectVisit, Visits

    checked: JSONObject = ObjectVisit(_type(), Visits())(options, "")
    return checked


def _type() -> ObjectType:
    text, switch = BuiltinType("str"), BuiltinType("bool")
    actions = EnumType("MonitorQMPCloseAction", [EnumMember(n, []) for n in ("none", "delete")], [])
    members: tuple[tuple[str, Type, bool], ...] = (
        ("qom-type", text, False),
        ("id", text, False),
        ("chardev", text, False),
        ("pretty", switch, True),
        ("close-action", actions, True),
    )
    result = ObjectType("MonitorQMPProperties", [])
    result.members = [Member(name, type, optional, []) for name, type, optional in members]
    return result
