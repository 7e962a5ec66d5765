"""From what a QEMU says of its schema to the expressions that a schema is made of.

query-qmp-schema tells structure and hides three things that complaints show:
the widths of integers, the names of alternates, and which commands read their
arguments themselves. A catalogue has them beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from memd.json_types import JSON, JSONObject
from memd.qapi.source import Expr


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
    by_name = {entry["name"]: entry for entry in entries if entry["meta-type"] != "command"}
    empty = {
        name
        for name, entry in by_name.items()
        if entry["meta-type"] == "object" and not entry["members"]
    }

    def ref(name: str, owner: str, member: str) -> JSON:
        if name.startswith("["):
            return [ref(by_name[name]["element-type"], owner, member)]
        if name == "int":
            width = widths.get(f"{owner}.{member}", "int")
            # They complain alike; most are sizes, which are written with a unit as text.
            return "size" if width == "uint64" else width
        kind = by_name[name]
        if kind["meta-type"] == "builtin":
            return {"string": "str", "value": "any", "boolean": "bool"}.get(
                kind["json-type"], kind["json-type"]
            )
        return alternates.get(name, name)

    def members(entry: JSONObject) -> Expr:
        found = {}
        for member in entry["members"]:
            key = ("*" if "default" in member else "") + member["name"]
            type_ = ref(member["type"], entry["name"], member["name"])
            features = member.get("features")
            found[key] = {"type": type_, "features": features} if features else type_
        return found

    def carried(entry: JSONObject) -> Expr:
        return {} if entry["arg-type"] in empty else {"data": entry["arg-type"]}

    def define(entry: JSONObject) -> Expr | None:
        kind, name = entry["meta-type"], entry["name"]
        if kind == "command":
            found: Expr = {"command": name, **carried(entry)}
            if entry["ret-type"] not in empty:
                found["returns"] = ref(entry["ret-type"], name, "")
            if entry.get("allow-oob"):
                found["allow-oob"] = True
            if name in preconfig:
                found["allow-preconfig"] = True
            if name in unchecked:
                found["gen"] = False
            return found
        if kind == "event":
            return {"event": name, **carried(entry)}
        if kind == "enum":
            values = entry["members"]
            return {"enum": name, "data": [v["name"] if len(v) == 1 else v for v in values]}
        if kind == "alternate":
            each = enumerate(entry["members"])
            data = {str(number): ref(member["type"], name, "") for number, member in each}
            return {"alternate": alternates.get(name, name), "data": data}
        if kind != "object":
            return None
        if "tag" not in entry:
            return {"struct": name, "data": members(entry)}
        branches = entry["variants"]
        return {
            "union": name,
            "base": members(entry),
            "discriminator": entry["tag"],
            "data": {each["case"]: each["type"] for each in branches if each["type"] not in empty},
        }

    found = []
    for entry in entries:
        expr = define(entry)
        if expr is not None:
            if entry.get("features"):
                expr["features"] = entry["features"]
            found.append(expr)
    return found
