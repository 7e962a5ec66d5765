"""From what a QEMU says of its schema to the expressions that a schema is made of.

query-qmp-schema tells structure and hides three things that complaints show:
the widths of integers, the names of alternates, and which commands read their
arguments themselves. A catalogue has them beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from memd.json_types import JSON, JSONObject
from memd.qapi.source import Expr

_BUILTINS = {"string": "str", "value": "any", "boolean": "bool"}
"""The builtin types whose values are called otherwise in JSON."""


def expressions(
    entries: list[JSONObject],
    widths: Mapping[str, str],
    alternates: Mapping[str, str],
    unchecked: list[str],
    preconfig: list[str],
) -> list[Expr]:
    """The definitions that a QEMU was made from, as far as they show.

    Args:
        entries: the value of query-qmp-schema.
        widths: what an integer is, by `TYPE.MEMBER`; "int" where it is not in it.
        alternates: the names of alternates, by the names that `entries` gives them.
        unchecked: the commands that read their arguments themselves.
        preconfig: the commands that can be run before x-exit-preconfig.
    """
    told = _Schema(entries, widths, alternates, unchecked, preconfig)
    return [*filter(None, map(told.define, entries))]


class _Schema:
    """What a QEMU tells of its schema; the arguments are those of `expressions`."""

    def __init__(
        self,
        entries: list[JSONObject],
        widths: Mapping[str, str],
        alternates: Mapping[str, str],
        unchecked: list[str],
        preconfig: list[str],
    ) -> None:
        self._widths = widths
        self._alternates = alternates
        self._unchecked = unchecked
        self._preconfig = preconfig
        self._types = {entry["name"]: entry for entry in entries if entry["meta-type"] != "command"}
        self._empty = {
            name
            for name, entry in self._types.items()
            if entry["meta-type"] == "object" and not entry["members"]
        }

    def define(self, entry: JSONObject) -> Expr | None:
        """The definition that an entry comes from; None for a type that needs none."""
        makers = {
            "command": self._command,
            "event": self._event,
            "enum": self._enum,
            "alternate": self._alternate,
            "object": self._object,
        }
        make = makers.get(entry["meta-type"])
        if make is None:
            return None
        expr = make(entry)
        if entry.get("features"):
            expr["features"] = entry["features"]
        return expr

    def _command(self, entry: JSONObject) -> Expr:
        name = entry["name"]
        found: Expr = {"command": name, **self._data(entry)}
        if entry["ret-type"] not in self._empty:
            found["returns"] = self._type(entry["ret-type"], name)
        if entry.get("allow-oob"):
            found["allow-oob"] = True
        if name in self._preconfig:
            found["allow-preconfig"] = True
        if name in self._unchecked:
            found["gen"] = False
        return found

    def _event(self, entry: JSONObject) -> Expr:
        return {"event": entry["name"], **self._data(entry)}

    def _data(self, entry: JSONObject) -> Expr:
        return {} if entry["arg-type"] in self._empty else {"data": entry["arg-type"]}

    def _enum(self, entry: JSONObject) -> Expr:
        values = [each["name"] if len(each) == 1 else each for each in entry["members"]]
        return {"enum": entry["name"], "data": values}

    def _alternate(self, entry: JSONObject) -> Expr:
        name, members = entry["name"], enumerate(entry["members"])
        data = {str(number): self._type(member["type"], name) for number, member in members}
        return {"alternate": self._alternates.get(name, name), "data": data}

    def _object(self, entry: JSONObject) -> Expr:
        name, members = entry["name"], self._members(entry)
        if "tag" not in entry:
            return {"struct": name, "data": members}
        branches = {each["case"]: each["type"] for each in entry["variants"]}
        data = {case: kind for case, kind in branches.items() if kind not in self._empty}
        return {"union": name, "base": members, "discriminator": entry["tag"], "data": data}

    def _members(self, entry: JSONObject) -> Expr:
        found = {}
        for member in entry["members"]:
            key = ("*" if "default" in member else "") + member["name"]
            kind = self._type(member["type"], entry["name"], member["name"])
            features = member.get("features")
            found[key] = {"type": kind, "features": features} if features else kind
        return found

    def _type(self, name: str, owner: str, member: str = "") -> JSON:
        """How a definition names the type of a member, or of what has no name."""
        if name.startswith("["):
            return [self._type(self._types[name]["element-type"], owner, member)]
        if name == "int":
            width = self._widths.get(f"{owner}.{member}", "int")
            # They complain alike; most are sizes, which are written with a unit as text.
            return "size" if width == "uint64" else width
        kind = self._types[name]
        if kind["meta-type"] == "builtin":
            return _BUILTINS.get(kind["json-type"], kind["json-type"])
        return self._alternates.get(name, name)
