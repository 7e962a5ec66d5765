"""Every command of a QEMU, asked wrongly in every way: the stand-in complains as it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi.schema import Command, Schema
from memd.qapi.types import AlternateType, ArrayType, BuiltinType, EnumType, Type
from memd.standin.specimens import ways
from tests.differential.conftest import reference
from tests.differential.server import Monitor, qemu_system_memd, running
from tests.standin.schema import catalogue_schema

UNKNOWN = "memd-is-no-member"


def wrong_values(type_: Type) -> list[Any]:
    """Values of another type, and of the type but out of its range."""
    if isinstance(type_, BuiltinType):
        if type_.json_type == "int":
            return ["x", 1.5, -1, 1 << 63, 1 << 64]
        found: dict[str, list[Any]] = {
            "string": [5],
            "boolean": ["x"],
            "number": ["x"],
            "null": [1],
        }
        return found.get(type_.json_type, [])
    if isinstance(type_, EnumType):
        return [5, "no-such-value"]
    if isinstance(type_, ArrayType):
        return [{}]
    return [True, None] if isinstance(type_, AlternateType) else [True, {UNKNOWN: 1}]


def questions(schema: Schema, command: Command) -> Iterator[dict[str, Any]]:
    """Arguments that a command can't have; each complaint comes before anything is done."""
    check = schema.checker(command.name)
    candidates: list[dict[str, Any]] = [{}, {UNKNOWN: 1}]
    for way in ways(command):
        candidates += [way.arguments(value) for value in wrong_values(way.type)]
        if not way.member.optional and not way.listed:
            candidates.append(way.without())
    for arguments in candidates:
        try:
            check(arguments)
        except QMPError:
            yield arguments


def complaints(monitor: Monitor, asked: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What a server says to each; it is asked in packets, so that it does not wait."""
    said = []
    for at in range(0, len(asked), 50):
        part = asked[at : at + 50]
        monitor.send(
            b"".join(json.dumps({"execute": c, "arguments": a}).encode() + b"\n" for c, a in part)
        )
        said += [monitor.read_answer().get("error") for _ in part]
    return said


def test_every_command_complains_as_in_qemu(tmp_path: Path, compat: Compat) -> None:
    schema = catalogue_schema(compat)
    asked = [
        (name, arguments)
        for name, command in schema.commands.items()
        if command.generated
        for arguments in questions(schema, command)
    ]
    said = []
    ours = [*qemu_system_memd(compat), "-machine", "none"]
    kept = reference()
    try:
        for name, argv in (("QEMU", kept.server().argv[:-2]), ("memd", ours)):
            place = tmp_path / name
            place.mkdir()
            with running(name, argv, place) as server:
                monitor = server.monitor()
                said.append(complaints(monitor, asked))
                assert "return" in monitor.execute("query-status")
    finally:
        kept.stop()
    assert len(asked) > 3000
    wrong: dict[str, list[Any]] = {}
    for (command_name, arguments), theirs, mine in zip(asked, *said, strict=True):
        if theirs != mine:
            wrong.setdefault(command_name, []).append((arguments, theirs, mine))
    report = "\n".join(map(str, [each for found in wrong.values() for each in found][:20]))
    assert not wrong, report
