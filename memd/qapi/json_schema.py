"""The schema as a JSON Schema document, draft 2020-12.

For other people's editors, validators and tests: whatever they may do with a
message to memd, they can find out before they send it.

- `$defs` holds every type by its name, and of each command `NAME.arguments` and
  `NAME.returns`, of each event `NAME.data`.
- The document itself describes a message: a request, or what memd sends.
- Nothing is left open: a member that the schema does not know is a mistake, as
  it is to memd.

JSON Schema takes 1.0 for an integer, and QMP does not: that alone it cannot
say, and every integer has a remark about it. `memd.qapi.validator` knows.
"""

from __future__ import annotations

from memd.json_types import JSONObject
from memd.qapi.doc import Doc
from memd.qapi.schema import Command, Schema
from memd.qapi.types import (
    AlternateType,
    ArrayType,
    BuiltinType,
    EnumType,
    Member,
    ObjectType,
    Type,
)
from memd.qapi.visit import INT64_MIN, INTEGERS, UINT64_MAX

Docs = dict[str, Doc]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_INTEGER_REMARK = "1.0 is not an integer over QMP, whatever JSON Schema says"
_WRAP_REMARK = f"negative numbers wrap around, as in QEMU; {_INTEGER_REMARK}"


def json_schema(schema: Schema, docs: Docs | None = None) -> JSONObject:
    """The JSON Schema document of a schema.

    Args:
        docs: documentation by definition, to be told as descriptions.
    """
    writer = _Writer(docs or {})
    defs: JSONObject = {}
    for name in schema.type_names:
        defs.update(writer.definitions(schema.type(name)))
    for command in schema.commands.values():
        defs.update(writer.command(command))
    for event in schema.events.values():
        data = f"{event.name}.data"
        defs[data] = {**writer.struct(event.data, event.name), **_feature_keys(event.features)}
    defs |= {
        "message.request": _request(schema),
        "message.event": _event(schema),
        "message.answer": _answer(),
    }
    return {
        "$schema": DIALECT,
        "title": "A QMP message to or from memd",
        "if": {"required": ["event"]},
        "then": {"$ref": "#/$defs/message.event"},
        "else": {
            "if": {"anyOf": [{"required": [name]} for name in ("QMP", "return", "error")]},
            "then": {"$ref": "#/$defs/message.answer"},
            "else": {"$ref": "#/$defs/message.request"},
        },
        "$defs": defs,
    }


class _Writer:
    def __init__(self, docs: Docs) -> None:
        self._docs = docs

    def command(self, command: Command) -> JSONObject:
        """The definitions of a command's arguments and of what it returns."""
        name = f"{command.name}.arguments"
        arguments = command.arguments
        if not command.generated:
            # It reads them itself.
            schema = {**self.struct(arguments, command.name), "additionalProperties": True}
        elif arguments.tag is not None or arguments.name != name:
            schema = self.ref(arguments)
        else:
            schema = self.struct(arguments, command.name)
        schema.update(_feature_keys(command.features))
        returned = self.ref(command.returns) if command.returns else _object({}, [])
        return {name: schema, f"{command.name}.returns": returned}

    def definitions(self, type_: Type) -> JSONObject:
        """The definition of a named type, and those of its branches."""
        if isinstance(type_, EnumType):
            values = [member.name for member in type_.members]
            schema: JSONObject = {"type": "string", "enum": values}
        elif isinstance(type_, AlternateType):
            schema = {"anyOf": [self.ref(t) for t in type_.alternatives.values()]}
        elif isinstance(type_, ObjectType):
            if type_.tag is not None:
                return self._union(type_, type_.tag)
            schema = self.struct(type_, type_.name)
        else:
            return {}
        return {type_.name: self._described(type_.name, schema, type_.features)}

    def struct(self, type_: ObjectType, documented: str) -> JSONObject:
        """An object without branches.

        Args:
            documented: the definition whose documentation has its members.
        """
        return _object(
            {member.name: self._member(member, documented) for member in type_.members},
            [member.name for member in type_.members if not member.optional],
        )

    def ref(self, type_: Type) -> JSONObject:
        """The schema at a place where a type is used."""
        if isinstance(type_, ArrayType):
            return {"type": "array", "items": self.ref(type_.element)}
        if isinstance(type_, BuiltinType):
            return _builtin(type_)
        return {"$ref": f"#/$defs/{type_.name}"}

    def _union(self, type_: ObjectType, tag: Member) -> JSONObject:
        """A union: each value of its tag selects an object that is complete.

        The branches are definitions of their own, so that a mistake is told of
        against the one that was meant, and not against all.
        """
        defs: JSONObject = {}
        choices = []
        assert isinstance(tag.type, EnumType)
        for case, _features in tag.type.members:
            inner = type_.branches.get(case)
            branch = f"{type_.name}.{case}"
            whole = ObjectType(branch, [])
            whole.members = type_.members
            if inner:
                whole.members = type_.members + inner.members
                whole.tag, whole.branches = inner.tag, inner.branches
            if whole.tag is not None:
                defs.update(self._union(whole, whole.tag))
            else:
                documented = inner.name if inner else type_.name
                defs[branch] = self._branch(whole, type_.name, documented)
            choices.append(
                {
                    "if": {"properties": {tag.name: {"const": case}}, "required": [tag.name]},
                    "then": {"$ref": f"#/$defs/{branch}"},
                }
            )
        schema = {
            "type": "object",
            "properties": {tag.name: self._member(tag, type_.name)},
            "required": [tag.name],
            "allOf": choices,
        }
        defs[type_.name] = self._described(type_.name, schema, type_.features)
        return defs

    def _branch(self, whole: ObjectType, union: str, documented: str) -> JSONObject:
        schema = self.struct(whole, documented)
        base = self.struct(whole, union)["properties"]
        for name, told in base.items():
            schema["properties"][name] = {**told, **schema["properties"][name]}
        return schema

    def _member(self, member: Member, documented: str) -> JSONObject:
        schema = {**self.ref(member.type), **_feature_keys(member.features)}
        doc = self._docs.get(documented)
        return _describe(schema, doc.members.get(member.name) if doc else None)

    def _described(self, name: str, schema: JSONObject, features: list[str]) -> JSONObject:
        doc = self._docs.get(name)
        schema.update(_feature_keys(features))
        return _describe(schema, doc.body if doc else None)


def _describe(schema: JSONObject, text: str | None) -> JSONObject:
    """Add a documentation's text as one line, without the marks of its names."""
    if text:
        schema["description"] = " ".join(text.replace("@", "").split())
    return schema


def _object(properties: JSONObject, required: list[str]) -> JSONObject:
    schema: JSONObject = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    schema["additionalProperties"] = False
    return schema


def _builtin(type_: BuiltinType) -> JSONObject:
    if type_.json_type == "value":
        return {}
    if type_.json_type != "int":
        return {"type": type_.json_type}
    low, high = INTEGERS.get(type_.name, INTEGERS["int64"])
    remark = _INTEGER_REMARK
    if type_.name in ("size", "uint64"):
        low, high, remark = INT64_MIN, UINT64_MAX, _WRAP_REMARK
    return {"type": "integer", "minimum": low, "maximum": high, "$comment": remark}


def _feature_keys(features: list[str]) -> JSONObject:
    keys: JSONObject = {"deprecated": True} if "deprecated" in features else {}
    if features:
        keys["$comment"] = f"features: {', '.join(features)}"
    return keys


def _request(schema: Schema) -> JSONObject:
    out_of_band = [name for name, command in schema.commands.items() if command.allow_oob]
    choices = []
    for name, command in schema.commands.items():
        then = _carries(name, "arguments", command.arguments)
        ways = ["execute", "exec-oob"] if command.allow_oob else ["execute"]
        for way in ways:
            chosen = {"properties": {way: {"const": name}}, "required": [way]}
            choices.append({"if": chosen, "then": then})
    return {
        "type": "object",
        "properties": {
            "execute": {"type": "string", "enum": list(schema.commands)},
            "exec-oob": {"type": "string", "enum": out_of_band},
            "arguments": {"type": "object"},
            "id": {"description": "anything; comes back with the answer"},
        },
        "oneOf": [{"required": ["execute"]}, {"required": ["exec-oob"]}],
        "additionalProperties": False,
        "allOf": choices,
    }


def _carries(name: str, member: str, type_: ObjectType) -> JSONObject:
    """A message of that name has this member, and needs it where something in it is needed."""
    schema: JSONObject = {"properties": {member: {"$ref": f"#/$defs/{name}.{member}"}}}
    if any(not each.optional for each in type_.members):
        schema["required"] = [member]
    return schema


def _event(schema: Schema) -> JSONObject:
    choices = []
    for name, event in schema.events.items():
        then = _carries(name, "data", event.data)
        choices.append({"if": {"properties": {"event": {"const": name}}}, "then": then})
    seconds = {"type": "integer"}
    return {
        "type": "object",
        "properties": {
            "event": {"type": "string", "enum": list(schema.events)},
            "data": {"type": "object"},
            "timestamp": _object(
                {"seconds": seconds, "microseconds": seconds}, ["seconds", "microseconds"]
            ),
        },
        "required": ["event", "timestamp"],
        "additionalProperties": False,
        "allOf": choices,
    }


def _answer() -> JSONObject:
    version = {name: {"type": "integer"} for name in ("major", "minor", "micro")}
    error = _object({"class": {"type": "string"}, "desc": {"type": "string"}}, ["class", "desc"])
    greeting = _object(
        {
            "version": _object(
                {"qemu": _object(version, list(version)), "package": {"type": "string"}},
                ["qemu", "package"],
            ),
            "capabilities": {"type": "array", "items": {"type": "string"}},
        },
        ["version", "capabilities"],
    )
    return {
        "oneOf": [
            _object({"return": {}, "id": {}}, ["return"]),
            _object({"error": error, "id": {}}, ["error"]),
            _object({"QMP": greeting}, ["QMP"]),
        ]
    }
