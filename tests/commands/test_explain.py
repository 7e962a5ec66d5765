from __future__ import annotations

from typing import Any

import pytest

from memd.compat import Compat
from memd.json_types import JSON
from memd.work import run_here
from tests.commands.fakes import Console

MIB = 1 << 20


def told(console: Console, **arguments: JSON) -> dict[str, Any]:
    answer = console("x-memdev-explain", **arguments)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("compat", list(Compat))
def test_what_works(compat: Compat) -> None:
    console = Console(compat)
    answer = told(console, qom_type="memory-backend-ram", id="m0", size=MIB)
    assert answer["verdict"] == "works"
    # Nothing was made.
    assert console("query-memdev") == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"qom_type": 1},
        {"qom_type": "foo", "id": "m0"},
        {"qom_type": "memory-backend-ram", "id": "m0"},
        {"qom_type": "memory-backend-ram", "id": "m0", "size": "1"},
        {"qom_type": "memory-backend-ram", "id": "m0", "size": 1, "hugetlb": True},
        {"qom_type": "memory-backend-ram", "id": "9", "size": 1},
        {"qom_type": "memory-backend-ram", "id": "m0", "size": 0},
        {"qom_type": "memory-backend-ram", "id": "m0", "size": 1, "prealloc_context": "nope"},
        {"qom_type": "memory-backend-epc", "id": "m0", "size": 1},
    ],
)
def test_what_object_add_refuses(arguments: dict[str, JSON]) -> None:
    """The words of object-add, as an answer."""
    console = Console()
    error_class, desc = console.refusal("object-add", **arguments)
    answer = told(console, **arguments)
    assert answer["verdict"] == "fails"
    assert answer["error"] == {"class": error_class, "desc": desc}
    assert answer["text"] == [f"It would fail: {desc}"]


def test_private_discards_that_the_daemon_denies(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MIB)
    for deny, expected in ((False, "hole"), (True, "refused")):
        console = Console(deny_private_discard=deny)
        answer = told(
            console, qom_type="memory-backend-file", id="m0", size=MIB, mem_path=str(path)
        )
        assert answer["discard"] == expected


def test_arguments_are_left_as_they_were() -> None:
    console = Console()
    arguments: dict[str, JSON] = {"qom-type": "memory-backend-ram", "id": "m0", "size": -1}
    before = dict(arguments)
    run_here(console.dispatch(console.client, "x-memdev-explain", arguments, False))  # type: ignore[arg-type]
    assert arguments == before
