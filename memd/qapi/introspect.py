"""The value of query-qmp-schema, in the form that QEMU gives it.

Commands and events come first, in the schema's order, then the types in the
order in which they are met. Types that the language does not bring have numbers
for names, arrays the number in brackets, so that nobody relies on names.
"""

from __future__ import annotations

from memd.json_types import JSONObject
from memd.qapi.schema import Command, QAPIEvent, Schema
from memd.qapi.types import (
    AlternateType,
    ArrayType,
    BuiltinType,
    EnumType,
    Member,
    ObjectType,
    Type,
)

_EMPTY = ObjectType("", [])
"""The type of what carries nothing."""
_INT = BuiltinType("int")


def introspect(schema: Schema) -> list[JSONObject]:
    """Describes a schema as query-qmp-schema does."""
    teller = _Teller()
    entries = [teller.command(command) for command in schema.commands.values()]
    entries += [teller.event(event) for event in schema.events.values()]
    # Telling of one type may bring up more, which the loop then comes to.
    for type_ in teller.met:
        entries.append(teller.tell(type_))
    return entries


class _Teller:
    """Names types as they are met, and keeps them to be told of."""

    def __init__(self) -> None:
        self.met: list[Type] = []
        self._named: set[str] = set()
        self._numbers: dict[str, str] = {}

    def command(self, command: Command) -> JSONObject:
        entry: JSONObject = {
            "name": command.name,
            "meta-type": "command",
            "arg-type": self._name(command.arguments),
            "ret-type": self._name(command.returns or _EMPTY),
        }
        if command.allow_oob:
            entry["allow-oob"] = True
        return _with_features(entry, command.features)

    def event(self, event: QAPIEvent) -> JSONObject:
        entry = {"name": event.name, "meta-type": "event", "arg-type": self._name(event.data)}
        return _with_features(entry, event.features)

    def tell(self, type_: Type) -> JSONObject:
        entry: JSONObject = {"name": self._name(type_)}
        if isinstance(type_, BuiltinType):
            return {**entry, "meta-type": "builtin", "json-type": type_.json_type}
        if isinstance(type_, ArrayType):
            return {**entry, "meta-type": "array", "element-type": self._name(type_.element)}
        if isinstance(type_, AlternateType):
            entry["meta-type"] = "alternate"
            entry["members"] = [{"type": self._name(t)} for t in type_.alternatives.values()]
        elif isinstance(type_, EnumType):
            entry["meta-type"] = "enum"
            entry["members"] = [
                _with_features({"name": member.name}, member.features) for member in type_.members
            ]
            entry["values"] = [member.name for member in type_.members]
        else:
            entry["meta-type"] = "object"
            entry["members"] = [self._member(member) for member in type_.members]
            if type_.tag is not None:
                entry["tag"] = type_.tag.name
                entry["variants"] = self._variants(type_, type_.tag)
        return _with_features(entry, type_.features)

    def _member(self, member: Member) -> JSONObject:
        entry: JSONObject = {"name": member.name, "type": self._name(member.type)}
        if member.optional:
            entry["default"] = None
        return _with_features(entry, member.features)

    def _variants(self, type_: ObjectType, tag: Member) -> list[JSONObject]:
        """The branches, and then the tag's values that select nothing."""
        variants = dict(type_.branches)
        if isinstance(tag.type, EnumType):
            for member in tag.type.members:
                variants.setdefault(member.name, _EMPTY)
        return [{"case": case, "type": self._name(t)} for case, t in variants.items()]

    def _name(self, type_: Type) -> str:
        """The name of a type in entries; the type is described in its turn."""
        if isinstance(type_, BuiltinType):
            # Every integer is the same to a client.
            type_ = _INT if type_.json_type == "int" else type_
            name = type_.name
        elif isinstance(type_, ArrayType):
            name = f"[{self._name(type_.element)}]"
        else:
            if isinstance(type_, ObjectType) and not type_.members:
                type_ = _EMPTY
            name = self._numbers.setdefault(type_.name, str(len(self._numbers)))
        if name not in self._named:
            self._named.add(name)
            self.met.append(type_)
        return name


def _with_features(entry: JSONObject, features: list[str]) -> JSONObject:
    if features:
        entry["features"] = features
    return entry
