from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.cli.opts import OptsList, extend, parse_opts
from memd.cli.report import Answered
from memd.errors import ID_HINT, QMPError, is_identifier

THING = OptsList(
    "thing",
    "kind",
    {"kind": "str", "path": "str", "server": "bool", "to": "num", "size": "size", "delay": "bool"},
)
ANY = OptsList("any", "kind", None)
NAMELESS = OptsList("nameless", None, {"a": "str"}, takes_id=False)


def pairs(text: str, known: OptsList = THING) -> list[tuple[str, str]]:
    return parse_opts(known, text).pairs


def refusal(text: str, known: OptsList = THING) -> str:
    with pytest.raises(QMPError) as caught:
        parse_opts(known, text, taken=("c0",))
    return caught.value.desc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("socket", [("kind", "socket")]),
        ("socket,", [("kind", "socket")]),
        (",path=x", [("kind", ""), ("path", "x")]),
        ("a,,b,path=c,,d", [("kind", "a,b"), ("path", "c,d")]),
        ("a,,,path=c", [("kind", "a,"), ("path", "c")]),
        ("kind=a,kind=b", [("kind", "a"), ("kind", "b")]),
        ("path=a=b", [("path", "a=b")]),
        ("k,server", [("kind", "k"), ("server", "on")]),
        ("k,noserver", [("kind", "k"), ("server", "off")]),
        ("k,path", [("kind", "k"), ("path", "on")]),
        ("help", [("kind", "help")]),
        ("k,server=yes", [("kind", "k"), ("server", "yes")]),
        ("k,to=0x10", [("kind", "k"), ("to", "0x10")]),
        ("k,size=1.5k", [("kind", "k"), ("size", "1.5k")]),
    ],
)
def test_taken(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k,foo=1", "Invalid parameter 'foo'"),
        ("k,foo", "Invalid parameter 'foo'"),
        ("k,nofoo", "Invalid parameter 'foo'"),
        ("k,noserver=on", "Invalid parameter 'noserver'"),
        ("k,=1", "Invalid parameter ''"),
        ("k,no", "Invalid parameter ''"),
        ("k,help=on", "Invalid parameter 'help'"),
        ("k,server=maybe", "Parameter 'server' expects 'on' or 'off'"),
        ("k,server=ON", "Parameter 'server' expects 'on' or 'off'"),
        ("k,server=on,,", "Parameter 'server' expects 'on' or 'off'"),
        ("k,server=maybe,foo=1", "Parameter 'server' expects 'on' or 'off'"),
        ("k,to=x", "Parameter 'to' expects a number"),
        ("k,to=", "Parameter 'to' expects a number"),
        ("k,to=1k", "Parameter 'to' expects a number"),
        (
            "k,to=99999999999999999999",
            "Value '99999999999999999999' is too large for parameter 'to'",
        ),
        ("k,to=0x1ffffffffffffffff", "Value '0x1ffffffffffffffff' is too large for parameter 'to'"),
        ("k,size=x", "Parameter 'size' expects a non-negative number below 2^64"),
        ("k,size=1.5", "Parameter 'size' expects a non-negative number below 2^64"),
        ("k,size=-1k", "Parameter 'size' expects a non-negative number below 2^64"),
        ("k,size=-1", "Value '-1' is out of range for parameter 'size'"),
        ("k,size=16E", "Value '16E' is out of range for parameter 'size'"),
        ("k,id=0", "Parameter 'id' expects an identifier"),
        ("k,id=", "Parameter 'id' expects an identifier"),
        ("k,foo=1,id=a/b", "Parameter 'id' expects an identifier"),
        ("k,id=a,,b", "Parameter 'id' expects an identifier"),
        # Nothing is implied where the id is looked for.
        ("k,,id=0", "Parameter 'id' expects an identifier"),
        ("k,foo=1,id=c0", "Duplicate ID 'c0' for thing"),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_some_take_no_id() -> None:
    assert refusal("foo=1,id=0", NAMELESS) == "Invalid parameter 'id'"


def test_an_id_is_no_pair() -> None:
    opts = parse_opts(THING, "k,id=a,id=0,path=x")
    assert (opts.id, opts.pairs) == ("a", [("kind", "k"), ("path", "x")])
    assert parse_opts(THING, "k,id").id == "on"
    assert parse_opts(THING, "k,noid").id == "off"
    assert parse_opts(THING, "k").id is None


def test_hints() -> None:
    with pytest.raises(QMPError) as caught:
        parse_opts(THING, "id=0")
    assert caught.value.hint == ID_HINT
    with pytest.raises(QMPError) as caught:
        parse_opts(THING, "size=x")
    assert caught.value.hint is not None


def test_short_forms_are_warned_about() -> None:
    told: list[tuple[str, str]] = []
    parse_opts(THING, "k,server,noserver,delay,nodelay", lambda *words: told.append(words))
    assert told == [
        ("short-form boolean option 'server' deprecated", "Please use server=on instead"),
        ("short-form boolean option 'noserver' deprecated", "Please use server=off instead"),
        ("short-form boolean option 'delay' deprecated", "Please use nodelay=off instead"),
        ("short-form boolean option 'nodelay' deprecated", "Please use nodelay=on instead"),
    ]


def test_a_question() -> None:
    with pytest.raises(Answered) as caught:
        parse_opts(THING, "k,help,foo=1")
    assert caught.value.status == 1
    assert caught.value.text == (
        "thing options:\n  delay=<bool (on/off)>\n  kind=<str>\n  path=<str>\n"
        "  server=<bool (on/off)>\n  size=<size>\n  to=<num>\n"
    )
    assert pairs("k,help,?", ANY) == [("kind", "k"), ("help", "on"), ("?", "on")]


def test_values() -> None:
    opts = parse_opts(THING, "path=a,path=b,server=on,server=n,to=-1")
    assert opts.get("path") == "b"
    assert opts.get("kind") is None
    assert opts.has("server")
    assert not opts.has("kind")
    assert opts.switch("server") is False
    assert opts.switch("kind") is None
    assert opts.number("to") == -1
    assert opts.number("kind") is None
    extend(opts, THING, "a.b,to=7")
    assert opts.number("to") == 7
    assert opts.get("kind") == "a.b"


def test_no_question_in_an_address() -> None:
    with pytest.raises(QMPError) as caught:
        extend(parse_opts(THING, ""), THING, "k,help")
    assert caught.value.desc == "Invalid parameter 'help'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", True), ("a-b.c_1", True), ("", False), ("1a", False), ("a b", False), ("é", False)],
)
def test_identifiers(text: str, expected: bool) -> None:
    assert is_identifier(text) == expected


KEYS = st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True).filter(lambda key: key != "id")


@given(st.lists(st.tuples(KEYS, st.text(st.characters(exclude_categories=["Cs"]), max_size=6))))
def test_what_is_written_is_read(written: list[tuple[str, str]]) -> None:
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in written)
    assert pairs(text, ANY) == written


@given(st.lists(st.sampled_from([*"ab=,?", "no", "id", "server", "to", "help", "é"])).map("".join))
def test_anything_is_read_or_refused(text: str) -> None:
    for known in (THING, ANY, NAMELESS):
        with suppress(QMPError, Answered):
            assert all(key != "id" for key, _value in parse_opts(known, text).pairs)
