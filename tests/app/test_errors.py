"""Why a daemon cannot start, as it is said."""

from __future__ import annotations

from memd.app.errors import StartError


def test_what_is_told() -> None:
    error = StartError("no room", "-qmp unix:x", "make some")
    assert (error.text, error.where, error.hint) == ("no room", "-qmp unix:x", "make some")
    assert str(error) == "no room"
