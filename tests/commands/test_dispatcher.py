"""The dispatcher: the order of its checks, and that nothing gets past it."""

from __future__ import annotations

import errno
import logging

import pytest

from memd.commands.table import HANDLERS
from memd.errors import QMPError
from memd.json_types import JSON
from tests.commands.fakes import Console

GENERIC, NOT_FOUND = "GenericError", "CommandNotFound"
EXPECTING = (NOT_FOUND, "Expecting capabilities negotiation with 'qmp_capabilities'")
COMPLETE = (NOT_FOUND, "Capabilities negotiation is already complete, command ignored")


def test_before_negotiation_there_is_one_command() -> None:
    console = Console()
    console.client.negotiated = False
    assert console.refusal("query-name") == EXPECTING
    assert console.refusal("nope") == EXPECTING
    assert console.refusal("qmp_capabilities", enable=["x"]) == (
        GENERIC,
        "Parameter 'null' does not accept value 'x'",
    )
    assert not console.client.negotiated
    assert console("qmp_capabilities", enable=["oob"]) == {}
    assert console.client.negotiated
    assert console.client.oob_enabled
    assert console.refusal("qmp_capabilities") == COMPLETE
    assert console.refusal("qmp_capabilities", enable=["x"])[0] == GENERIC


def test_a_check_kept_for_one_client_lets_no_other_in() -> None:
    console = Console()
    console("query-name")
    console.client.negotiated = False
    assert console.refusal("query-name") == EXPECTING
    console("qmp_capabilities")
    assert console.refusal("qmp_capabilities") == COMPLETE


def test_unknown_names_are_told_as_they_came() -> None:
    console = Console()
    assert console.refusal("nope") == (NOT_FOUND, "The command nope has not been found")
    assert console.refusal("nope", oob=True) == (NOT_FOUND, "The command nope has not been found")
    assert console.refusal("") == (NOT_FOUND, "The command  has not been found")


def test_out_of_band_only_where_the_schema_says_so() -> None:
    console = Console()
    text = "The command {} does not support OOB"
    for name in ("query-version", "query-version", "qmp_capabilities"):
        assert console.refusal(name, oob=True) == (GENERIC, text.format(name))


def test_arguments_are_checked_against_the_schema() -> None:
    console = Console()
    assert console.refusal("query-name", a=1) == (GENERIC, "Parameter 'a' is unexpected")
    assert console.refusal("qom-get", path=1) == (
        GENERIC,
        "Invalid parameter type for 'path', expected: string",
    )


def test_a_read_only_monitor_only_asks() -> None:
    console = Console()
    assert console("object-add", qom_type="memory-backend-ram", id="m0", size=4096) == {}
    console.client.monitor.readonly = True
    refused = (GENERIC, "The command '{}' is not permitted on a read-only monitor")
    for name in ("object-add", "object-del", "x-memdev-read", "x-memdev-export", "quit"):
        # Before what is wrong with the arguments, and after what is wrong with the name.
        assert console.refusal(name) == (GENERIC, refused[1].format(name))
    assert console.refusal("nope") == (NOT_FOUND, "The command nope has not been found")
    assert console.refusal("query-name", a=1) == (GENERIC, "Parameter 'a' is unexpected")
    assert [memdev["id"] for memdev in console("query-memdev")] == ["m0"]
    assert console("qom-get", path="/objects/m0", property="size") == 4096
    assert console("human-monitor-command", command_line="info status")
    name = "human-monitor-command"
    assert console.refusal(name, command_line="stop") == (GENERIC, refused[1].format(name))
    assert console.daemon.run_state == "running"
    console.client.monitor.readonly = False
    assert console("object-del", id="m0") == {}


def test_a_read_only_monitor_lets_clients_negotiate() -> None:
    console = Console()
    console.client.negotiated = False
    console.client.monitor.readonly = True
    assert console.refusal("object-del", id="m0") == EXPECTING
    assert console("qmp_capabilities") == {}
    assert console.refusal("object-del", id="m0")[1].endswith("read-only monitor")


def raising(error: Exception) -> Console:
    """A client of a daemon whose `query-name` fails."""

    def fail(*_args: object) -> JSON:
        raise error

    return Console(handlers={**HANDLERS, "query-name": fail})


def test_a_surprise_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert raising(KeyError("secret")).refusal("query-name") == (
            GENERIC,
            "internal error, see the log",
        )
    assert "secret" in caplog.text


def test_what_has_run_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    console = raising(OSError(errno.EMFILE, "x"))
    assert console.refusal("query-name") == (GENERIC, "Too many open files")
    assert caplog.messages == ["query-name: Too many open files"]


def test_a_hint_goes_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    # Which is of warnings, and of what is worse.
    with caplog.at_level(logging.WARNING):
        console = raising(QMPError("no", hint="try another"))
        assert console.refusal("query-name") == (GENERIC, "no")
    assert "try another" in caplog.text
