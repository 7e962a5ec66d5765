"""The outer members of a message: what is refused, and which mistake is named first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.session.envelope import is_out_of_band, open_envelope

# Observed on QEMU 10.0.2 and 11.1.3.
REFUSED: list[tuple[Any, bool, str]] = [
    ([], False, "QMP input must be a JSON object"),
    ("x", False, "QMP input must be a JSON object"),
    (12, False, "QMP input must be a JSON object"),
    (None, False, "QMP input must be a JSON object"),
    (True, False, "QMP input must be a JSON object"),
    ({}, False, "QMP input lacks member 'execute'"),
    ({"id": 5}, False, "QMP input lacks member 'execute'"),
    ({"execute": 1}, False, "QMP input member 'execute' must be a string"),
    ({"execute": None}, False, "QMP input member 'execute' must be a string"),
    ({"execute": 1, "arguments": 1}, False, "QMP input member 'execute' must be a string"),
    ({"zzz": 1, "arguments": 1}, False, "QMP input member 'zzz' is unexpected"),
    ({"bar": 1, "execute": 1}, False, "QMP input member 'bar' is unexpected"),
    (
        {"exec-oob": "a", "arguments": 1, "execute": "b"},
        True,
        "QMP input member 'execute' clashes with 'exec-oob'",
    ),
    ({"foo": 1, "execute": 1}, False, "QMP input member 'execute' must be a string"),
    ({"foo": 1, "arguments": 1}, False, "QMP input member 'arguments' must be an object"),
    (
        {"execute": "x", "arguments": None},
        False,
        "QMP input member 'arguments' must be an object",
    ),
    ({"execute": "x", "control": {}}, False, "QMP input member 'control' is unexpected"),
    ({"execute": "x", "exec-oob": "x"}, False, "QMP input member 'exec-oob' is unexpected"),
    ({"exec-oob": "x"}, False, "QMP input member 'exec-oob' is unexpected"),
    ({"exec-oob": 1}, True, "QMP input member 'exec-oob' must be a string"),
    ({"exec-oob": 1, "execute": 1}, True, "QMP input member 'exec-oob' must be a string"),
    ({"exec-oob": "a", "execute": 1}, True, "QMP input member 'execute' must be a string"),
    (
        {"exec-oob": "a", "execute": "b"},
        True,
        "QMP input member 'execute' clashes with 'exec-oob'",
    ),
    ({"exec-oob": "a", "arguments": 1}, True, "QMP input member 'arguments' must be an object"),
    (
        {"exec-oob": "nope", "foo": 1, "arguments": 1},
        True,
        "QMP input member 'arguments' must be an object",
    ),
]


@pytest.mark.parametrize(("message", "oob", "text"), REFUSED)
def test_refused(message: Any, oob: bool, text: str) -> None:
    with pytest.raises(QMPError) as caught:
        open_envelope(message, oob)
    assert (caught.value.desc, caught.value.error_class) == (text, "GenericError")


@pytest.mark.parametrize(
    ("message", "oob", "opened"),
    [
        ({"execute": "x"}, False, ("x", {}, False)),
        ({"execute": "x"}, True, ("x", {}, False)),
        ({"arguments": {"a": 1}, "execute": "x", "id": None}, False, ("x", {"a": 1}, False)),
        ({"execute": "", "id": {}}, False, ("", {}, False)),
        ({"exec-oob": "y", "id": 1}, True, ("y", {}, True)),
        ({"exec-oob": "y", "arguments": {"b": 2}}, True, ("y", {"b": 2}, True)),
    ],
)
def test_opened(message: Any, oob: bool, opened: tuple[str, dict[str, Any], bool]) -> None:
    assert open_envelope(message, oob) == opened


VALUES: list[Any] = ["x", {}, 7, None]
members = st.dictionaries(
    st.sampled_from(["execute", "exec-oob", "arguments", "id", "foo"]), st.sampled_from(VALUES)
)


@given(members, st.booleans())
def test_opens_exactly_what_is_well_formed(message: dict[str, Any], oob: bool) -> None:
    verbs = [verb for verb in ("execute", "exec-oob") if verb in message]
    allowed = {"execute", "arguments", "id"} | ({"exec-oob"} if oob else set())
    well_formed = (
        set(message) <= allowed
        and len(verbs) == 1
        and isinstance(message[verbs[0]], str)
        and isinstance(message.get("arguments", {}), dict)
    )
    try:
        open_envelope(message, oob)
        accepted = True
    except QMPError:
        accepted = False
    assert accepted == well_formed


@pytest.mark.parametrize(
    ("item", "overtakes"),
    [
        ({"exec-oob": "x"}, True),
        ({"exec-oob": 7}, True),
        ({"exec-oob": "x", "execute": "x"}, False),
        ({"execute": "x"}, False),
        (QMPError("JSON parse error"), False),
        (["exec-oob"], False),
    ],
)
def test_what_overtakes(item: Any, overtakes: bool) -> None:
    assert is_out_of_band(item) is overtakes
