"""Random arguments, good and bad: memd's check says what QEMU's does, to the letter.

The seed is in every failure. `MEMD_SEED` repeats a run, `MEMD_RANDOM_ARGUMENTS`
makes it longer.

Nothing here may change the reference or end it, so what passes the check has to
fail afterwards, or do no harm: what is made always gets an id that is none, paths
lead nowhere, and `quit` is only sent with a mistake.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi.schema import Schema
from tests.differential.conftest import reference
from tests.differential.harness import OWN_TYPES
from tests.differential.server import Died, Monitor
from tests.qapi.files import whole_schema
from tests.qapi.generate import STRINGS, Generator

COUNT = int(os.environ.get("MEMD_RANDOM_ARGUMENTS", "1500"))
NO_ID = "9bad"

ENDING = ("quit", "system_reset")
"""Commands that end the reference: after a set-action of reboot=shutdown a reset does."""

ARGUMENT_ERROR = re.compile(
    r"Parameter '.*' (is missing|is unexpected|does not accept value '.*'"
    r"|expects (uint64|u?int(8|16|32)_t))"
    r"|Invalid parameter type for '.*', expected: .*",
    re.DOTALL,
)


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """One of a reference of its own: random arguments may switch something on."""
    kept = reference()
    monitor = kept.server().monitor()
    yield monitor
    assert "return" in monitor.execute("query-status")
    monitor.close()
    kept.stop()


def candidates(schema: Schema, monitor: Monitor) -> list[str]:
    """Commands of both, more often where there is more to get wrong."""
    known = {entry["name"] for entry in monitor.execute("query-commands")["return"]}
    names = []
    for command in schema.commands.values():
        if command.generated and command.name in known:
            weight = 40 if command.name == "object-add" else 1 + 3 * len(command.arguments.members)
            names += [command.name] * weight
    return names


def harmless(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if command == "object-add" and isinstance(arguments.get("id"), str):
        arguments["id"] = NO_ID
    if command == "blockdev-add" and isinstance(arguments.get("node-name", ""), str):
        arguments["node-name"] = NO_ID
    return arguments


def verdict(schema: Schema, command: str, arguments: dict[str, Any]) -> str | None:
    """The text of memd's complaint, or None."""
    try:
        schema.checker(command)(arguments)
    except QMPError as error:
        return error.desc
    return None


def complaint(answer: dict[str, Any]) -> str | None:
    """The text of QEMU's complaint about arguments, or None."""
    error = answer.get("error")
    if error and error["class"] == "GenericError" and ARGUMENT_ERROR.fullmatch(error["desc"]):
        text: str = error["desc"]
        return text
    return None


def seeds() -> list[int]:
    given = os.environ.get("MEMD_SEED")
    return [int(given)] if given else [random.SystemRandom().randrange(1 << 32)]


def test_random_arguments(monitor: Monitor, compat: Compat) -> None:
    schema = whole_schema(compat)
    names = candidates(schema, monitor)
    for seed in seeds():
        random_ = random.Random(seed)
        generator = Generator(random_, mistakes=0.06, never={*OWN_TYPES})
        for number in range(COUNT):
            command = random_.choice(names)
            type_ = schema.commands[command].arguments
            arguments = harmless(command, generator.object(type_))
            expected = verdict(schema, command, arguments)
            if expected is None and command in ENDING:
                continue
            what = f"MEMD_SEED={seed}, number {number}: {command} {arguments!r}"
            try:
                answer = monitor.execute(command, arguments)
            except Died as error:
                pytest.fail(f"{what} ends the reference: {error}")
            assert complaint(answer) == expected, f"{what} is answered {answer}"


@pytest.mark.parametrize("count", [2, 3, 7, 8, 13, 20, 50, 200])
def test_which_of_several_unexpected_members_is_named(
    monitor: Monitor, compat: Compat, count: int
) -> None:
    schema = whole_schema(compat)
    for seed in seeds():
        random_ = random.Random(seed)
        for command in ("query-name", "object-del", "qom-get", "object-add"):
            arguments: dict[str, Any] = dict.fromkeys(words(random_, count), 1)
            for member in schema.commands[command].arguments.members:
                arguments[member.name] = "nowhere"
            if command == "object-add":
                arguments |= {"qom-type": "memory-backend-ram", "id": NO_ID, "size": 1}
            arguments = shuffled(random_, arguments)
            answer = monitor.execute(command, arguments)
            expected = verdict(schema, command, arguments)
            assert complaint(answer) == expected is not None, (
                f"MEMD_SEED={seed}: {command} {list(arguments)!r} is answered {answer}"
            )


def words(random_: random.Random, count: int) -> set[str]:
    """That many names that no command knows."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.é€"
    made: set[str] = set()
    while len(made) < count:
        made.add("Z" + "".join(random_.choices(letters, k=random_.randrange(9))))
    return made


def shuffled(random_: random.Random, arguments: dict[str, Any]) -> dict[str, Any]:
    items = list(arguments.items())
    random_.shuffle(items)
    return dict(items)


def test_the_words_that_are_made_up_do_no_harm() -> None:
    assert NO_ID in STRINGS
    assert "quit" not in STRINGS
    assert not any(string.startswith("/") for string in STRINGS)
