"""Users and groups on command lines."""

from __future__ import annotations

import os

import pytest

from memd.cli.access import allowed, id_of
from memd.errors import QMPError
from tests.cli.lines import config, memd


def test_by_name_and_number() -> None:
    assert id_of("user", "root") == id_of("group", "root") == 0
    assert id_of("user", "12345") == id_of("group", "12345") == 12345
    assert id_of("user", "4294967294") == 4294967294


@pytest.mark.parametrize("text", ["", "no such", "-1", "+1", "1.5", "\0"])
def test_nobody_of_that_name(text: str) -> None:
    with pytest.raises(QMPError, match="there is no user"):
        id_of("user", text)
    with pytest.raises(QMPError, match="there is no group"):
        id_of("group", text)


@pytest.mark.parametrize("text", ["4294967295", "9" * 5000])
def test_numbers_that_are_too_large(text: str) -> None:
    with pytest.raises(QMPError, match="is not the number of a user or group"):
        id_of("user", text)


def test_root_and_the_own_user_always_may() -> None:
    who = allowed([], [4321])
    assert who.users == {0, os.geteuid()}
    assert who.admits(5, 4321, frozenset())
    assert who.admits(5, 5, frozenset((4321,)))
    assert not who.admits(5, 5, frozenset())


def test_options() -> None:
    outcome = memd("--allow-user", "17", "--allow-user", "18", "--allow-group", "root")
    assert outcome.config is not None
    who = outcome.config.allowed
    assert who is not None
    assert who.users == {17, 18, 0, os.geteuid()}
    assert who.groups == {0}
    assert config(memd()).allowed is None
    assert memd("--allow-user", "no such").stderr == (
        "--allow-user no such: there is no user 'no such'\n"
    )


def test_of_one_monitor() -> None:
    outcome = memd("--qmp", "unix:/s,server=on,allow-user=17,allow-user=18,readonly=on")
    assert outcome.config is not None
    (monitor,) = outcome.config.monitors
    assert monitor.readonly
    assert monitor.chardev.allowed is not None
    assert monitor.chardev.allowed.users == {17, 18, 0, os.geteuid()}
    assert outcome.config.allowed is None
    where = "--qmp tcp:127.0.0.1:1,allow-group=0"
    assert memd(*where.split()).stderr == (
        f"{where}: who may connect can be told of UNIX sockets only\n"
    )
