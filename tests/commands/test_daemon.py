"""The daemon's state: what is made late, and only once."""

from __future__ import annotations

from memd.compat import Compat
from tests.commands.fakes import make_daemon


def test_the_schema_is_that_of_the_compat_and_read_once() -> None:
    daemon = make_daemon(Compat.V11_1)
    assert "qom-list-get" in daemon.schema.commands
    assert daemon.schema is daemon.schema
    assert "qom-list-get" not in make_daemon().schema.commands


def test_a_constant_is_made_once() -> None:
    daemon = make_daemon()
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return made

    assert daemon.constant("a", make) is daemon.constant("a", make)
    assert daemon.constant("b", make) is not daemon.constant("a", make)
    assert len(made) == 2
