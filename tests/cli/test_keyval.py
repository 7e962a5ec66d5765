from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.cli.keyval import parse_keyval
from memd.errors import QMPError
from memd.option_text import split_value
from memd.qapi.dotted_keys import dotted

LONG = "a" * 128

TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("t", {"type": "t"}),
    ("t,", {"type": "t"}),
    ("type=t,a=1", {"type": "t", "a": "1"}),
    ("t,a=", {"type": "t", "a": ""}),
    ("t,a=1,a=2", {"type": "t", "a": "2"}),
    ("t,a=x=y", {"type": "t", "a": "x=y"}),
    ("t,a=1,,b", {"type": "t", "a": "1,b"}),
    ("t,a=,,b", {"type": "t", "a": ",b"}),
    ("t,a=,,,b=1", {"type": "t", "a": ",", "b": "1"}),
    ("t,a=1,,,,b=1", {"type": "t", "a": "1,,b=1"}),
    ("t.5,a=1", {"type": "t.5", "a": "1"}),
    ("a.b.c=1,a.d=2", {"a": {"b": {"c": "1"}, "d": "2"}}),
    ("a.0=x,a.1=y", {"a": ["x", "y"]}),
    ("a.1=y,a.0=x", {"a": ["x", "y"]}),
    ("a.0.b=1,a.1.0=2", {"a": [{"b": "1"}, ["2"]]}),
    # Of two spellings of an index, the hash of the names decides.
    ("a.0=x,a.00=y", {"a": ["y"]}),
    ("a.00=y,a.0=x", {"a": ["y"]}),
    ("__com.redhat_x=1", {"__com.redhat_x": "1"}),
    ("__com.redhat_x.y=1", {"__com.redhat_x": {"y": "1"}}),
    (f"{LONG[1:]}=1", {LONG[1:]: "1"}),
]

REFUSED = [
    ("t,a", "Expected '=' after parameter 'a'"),
    ("t,a,b=1", "Expected '=' after parameter 'a'"),
    ("help,a", "Expected '=' after parameter 'a'"),
    ("t,help.x", "Expected '=' after parameter 'help.x'"),
    ("a=1,t", "Expected '=' after parameter 't'"),
    (",", "Invalid parameter ''"),
    ("=1", "Invalid parameter ''"),
    ("t,,a=1", "Invalid parameter ''"),
    ("help,,a=1", "Invalid parameter ''"),
    ("t,?=1", "Invalid parameter '?'"),
    ("t,a b=1", "Invalid parameter 'a b'"),
    ("t,a!", "Invalid parameter 'a!'"),
    ("t,5=1", "Invalid parameter '5'"),
    ("t,5a=1", "Invalid parameter '5a'"),
    ("t,a.5b=1", "Invalid parameter 'a.5b'"),
    ("t,a.=1", "Invalid parameter 'a.'"),
    ("t,.a=1", "Invalid parameter '.a'"),
    ("t,a..b=1", "Invalid parameter 'a..b'"),
    ("t,a.-1=1", "Invalid parameter 'a.-1'"),
    ("t,_a=1", "Invalid parameter '_a'"),
    ("t,é=1", "Invalid parameter 'é'"),
    ("t,__com.redhat=1", "Invalid parameter '__com.redhat'"),
    ("t,__com.x_=1", "Invalid parameter '__com.x_'"),
    (f"t,{LONG}=1", f"Parameter '{LONG}' is too long"),
    (f"t,{LONG}.b!=1", f"Parameter fragment '{LONG}' is too long"),
    (f"t,a=1,a.{LONG}.b!=1", f"Parameter fragment '{LONG}' is too long"),
    ("t,a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
    ("t,a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
    ("t,a.b.c=1,a.b=2", "Parameters 'a.b.*' used inconsistently"),
    ("t,a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"),
    ("t,a.0.0=1,a.0.b=2", "Parameters 'a.0.*' used inconsistently"),
    ("t,type.x=1", "Parameters 'type.*' used inconsistently"),
    # The first mistake counts, keys before what they lack.
    ("t,a=1,a.b!=1", "Invalid parameter 'a.b!'"),
    ("t,a=1,a.b", "Parameters 'a.*' used inconsistently"),
    ("t,a.1=1,b", "Expected '=' after parameter 'b'"),
    ("t,a.1=1", "Parameter 'a.0' missing"),
    ("t,a.0=1,a.2=1", "Parameter 'a.1' missing"),
    ("t,a.00=1,a.0=1,a.2=1", "Parameter 'a.1' missing"),
    ("t,a.1.1=1,a.1.3=1", "Parameter 'a.1.0' missing"),
    ("t,b.1=1,a.1=1,c.1=1", "Parameter 'a.0' missing"),
    ("t,a.99999999999999999999=1", "Parameter 'a.0' missing"),
    (f"t,a.0=1,a.{'9' * 100}=1", "Parameter 'a.1' missing"),
    ("help,a.1=1", "Parameter 'a.0' missing"),
]


@pytest.mark.parametrize(("text", "options"), TAKEN)
def test_taken(text: str, options: dict[str, Any]) -> None:
    assert parse_keyval(text, "type") == (options, False)


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        parse_keyval(text, "type")
    assert caught.value.desc == message


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("help", {}),
        ("?", {}),
        ("?,help", {}),
        ("t,help", {"type": "t"}),
        ("t,?,a=1", {"type": "t", "a": "1"}),
        ("help,a=1", {"a": "1"}),
    ],
)
def test_help(text: str, options: dict[str, Any]) -> None:
    assert parse_keyval(text, "type") == (options, True)


def test_nothing_is_implied_unless_told() -> None:
    with pytest.raises(QMPError) as caught:
        parse_keyval("t")
    assert caught.value.desc == "Expected '=' after parameter 't'"


def test_split_value() -> None:
    assert split_value("a=b,,c,d", 2) == ("b,c", 7)
    assert split_value("a=b", 2) == ("b", 3)


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a", False), ("a.b", True), ("a.", True), ("__a.b_c", False), ("__a.b_c.d", True)],
)
def test_dotted(key: str, expected: bool) -> None:
    assert dotted(key) == expected


NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NESTED: st.SearchStrategy[Any] = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def write(value: Any, key: str) -> list[str]:
    """The options that make a value."""
    if isinstance(value, str):
        return [f"{key}={value.replace(',', ',,')}"]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [part for name, item in items for part in write(item, f"{key}.{name}")]


@given(st.dictionaries(NAMES, NESTED, max_size=4), st.randoms())
def test_what_is_written_is_read(options: dict[str, Any], random: Any) -> None:
    parts = [part for key, value in options.items() for part in write(value, key)]
    random.shuffle(parts)
    assert parse_keyval(",".join(parts)) == (options, False)


@given(st.lists(st.sampled_from([*"ab01.,=?_-!é", "help", ",,", "a.0", "\0"])).map("".join))
def test_anything_is_read_or_refused(text: str) -> None:
    with suppress(QMPError):
        options, _wants_help = parse_keyval(text, "type")
        assert all(isinstance(value, str | list | dict) for value in options.values())
