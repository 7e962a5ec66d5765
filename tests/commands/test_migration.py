"""Capabilities of migration: kept, and checked against each other."""

from __future__ import annotations

import pytest

from memd.compat import Compat
from tests.commands.fakes import Console


def statuses(*names: str, state: bool = True) -> list[dict[str, object]]:
    return [{"capability": name, "state": state} for name in names]


def on(console: Console) -> set[str]:
    found = console("query-migrate-capabilities")
    return {each["capability"] for each in found if each["state"]}


def test_all_are_off_at_first_and_each_can_be_switched() -> None:
    console = Console()
    assert len(console("query-migrate-capabilities")) == 22
    assert on(console) == set()
    assert console("migrate-set-capabilities", capabilities=statuses("events", "multifd")) == {}
    assert console("migrate-set-capabilities", capabilities=[]) == {}
    assert on(console) == {"events", "multifd"}
    console("migrate-set-capabilities", capabilities=statuses("events", state=False))
    assert on(console) == {"multifd"}


def test_a_contradiction_changes_nothing() -> None:
    console = Console()
    console("migrate-set-capabilities", capabilities=statuses("xbzrle"))
    refused = console.refusal(
        "migrate-set-capabilities", capabilities=statuses("events", "multifd")
    )
    assert refused == ("GenericError", "Multifd is not compatible with xbzrle")
    assert on(console) == {"xbzrle"}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["zero-copy-send"], "Zero copy only available for non-compressed non-TLS multifd"),
        (["postcopy-preempt"], "Postcopy preempt requires postcopy-ram"),
        (["switchover-ack"], "Capability 'switchover-ack' requires capability 'return-path'"),
        (["dirty-limit"], "dirty-limit requires KVM with accelerator property"),
        (["dirty-limit", "auto-converge"], "dirty-limit conflicts with auto-converge"),
        (["postcopy-ram", "x-ignore-shared"], "Postcopy is not compatible with ignore-shared"),
        (["mapped-ram", "xbzrle"], "Mapped-ram migration is incompatible with xbzrle"),
        (["mapped-ram", "postcopy-ram"], "Mapped-ram migration is incompatible with postcopy"),
        (["background-snapshot", "x-colo"], "Background-snapshot is not compatible with x-colo"),
    ],
)
def test_what_does_not_go_together(names: list[str], text: str) -> None:
    desc = Console().refusal("migrate-set-capabilities", capabilities=statuses(*names))[1]
    assert desc.startswith(text)


def test_what_11_1_thinks_otherwise() -> None:
    later = Console(Compat.V11_1)
    assert later("migrate-set-capabilities", capabilities=statuses("postcopy-ram", "multifd")) == {}
    assert (
        "return-path"
        in Console(Compat.V11_1).refusal(
            "migrate-set-capabilities", capabilities=statuses("x-colo")
        )[1]
    )
    assert Console()("migrate-set-capabilities", capabilities=statuses("x-colo")) == {}


def test_nothing_migrates() -> None:
    console = Console()
    assert console.refusal("migrate-recover", oob=True, uri="tcp:0:1")[1] == (
        "Migrate recover can only be run when postcopy is paused."
    )
    assert "postcopy-active" in console.refusal("migrate-pause", oob=True)[1]
