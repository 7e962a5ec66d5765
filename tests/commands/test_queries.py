"""Which commands only ask."""

from __future__ import annotations

import pytest

from memd.commands.queries import QUERIES, is_query
from memd.commands.table import HANDLERS, SESSION_HANDLERS

ACTIONS = {
    *("add-fd", "balloon", "blockdev-add", "closefd", "cont", "device_add", "device_del", "getfd"),
    *("human-monitor-command", "migrate-pause", "migrate-recover", "migrate-set-capabilities"),
    *(
        "object-add",
        "object-del",
        "qom-get",
        "qom-list-get",
        "qom-set",
        "quit",
        "remove-fd",
        "set-action",
        "stop",
        *("system_powerdown", "system_reset", "system_wakeup"),
    ),
    *("x-exit-preconfig", "x-memdev-discard", "x-memdev-export", "x-memdev-read"),
    *("x-memdev-save", "x-memdev-write", "yank"),
    *("x-template-delete", "x-template-export", "x-template-pull", "x-template-push"),
    "x-template-status",
    *("x-template-save", "x-template-serve", "x-template-verify"),
}
"""Commands that change something, or give away what memory holds."""


def test_every_command_is_one_or_the_other() -> None:
    """For a new one: does it only ask? Then `QUERIES` names it, else `ACTIONS` here."""
    assert not QUERIES & ACTIONS
    named = {each for each in (*HANDLERS, *SESSION_HANDLERS) if not each.startswith("query-")}
    assert named - QUERIES - ACTIONS == set()


def test_what_is_not_known_acts() -> None:
    assert not is_query("nope", {})
    assert not is_query("", {})
    assert is_query("query-pci", {})


@pytest.mark.parametrize("line", ["info memdev", " info", "help quit", "?", "", " \t", "infox"])
def test_words_of_the_human_monitor_that_ask(line: str) -> None:
    asks = line != "infox"
    assert is_query("human-monitor-command", {"command-line": line}) is asks


@pytest.mark.parametrize("line", ["stop", "quit", "c info", "stop info", "q"])
def test_words_of_the_human_monitor_that_act(line: str) -> None:
    assert not is_query("human-monitor-command", {"command-line": line})


def test_a_secret_is_not_told() -> None:
    assert is_query("qom-get", {"path": "/objects/s0", "property": "format"})
    assert is_query("qom-get", {})
    assert not is_query("qom-get", {"path": "/objects/s0", "property": "data"})
    assert not is_query("qom-list-get", {"paths": ["/objects/s0"]})


def test_a_human_monitor_command_that_is_none() -> None:
    """Its arguments' check says what is wrong with it."""
    assert is_query("human-monitor-command", {})
    assert is_query("human-monitor-command", {"command-line": 7})
