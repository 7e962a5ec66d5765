from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.cli.json_argument import parse_json_argument
from memd.compat import Compat
from memd.errors import QMPError


@pytest.mark.parametrize("compat", list(Compat))
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ("{} ", {}),
        ("{\n}\n", {}),
        ('{"a": [1, {"b": "x"}]}', {"a": [1, {"b": "x"}]}),
        ("{'a': 'x'}", {"a": "x"}),
        ('{"é": "é"}', {"é": "é"}),
    ],
)
def test_taken(text: str, value: dict[str, object], compat: Compat) -> None:
    assert parse_json_argument(text, compat) == value


# (text, QEMU 10.0.2's message, 11.1.3's, without "JSON parse error, " and, if
# it is the same, "")
REFUSED = [
    ("{", "premature EOI", "1:2: premature end of input"),
    ("{ ", "premature EOI", "1:3: premature end of input"),
    ('{"a"', "premature EOI", "1:5: premature end of input"),
    ('{"a":', "premature EOI", "1:6: premature end of input"),
    ('{"a":1,', "premature EOI", "1:8: premature end of input"),
    ('{"a":12', "premature EOI", "1:9: premature end of input"),
    ('{"a":true', "premature EOI", "1:11: premature end of input"),
    ('{"a":[1', "premature EOI", "1:9: premature end of input"),
    ('{"a":{"b":[1,2,{"c":', "premature EOI", "1:21: premature end of input"),
    ('{"a":1,"a":', "premature EOI", "1:12: premature end of input"),
    ('{"é":', "premature EOI", "1:7: premature end of input"),
    ('{"a":"\\"{",', "premature EOI", "1:12: premature end of input"),
    ("{x", "invalid keyword 'x'", "1:2: expecting key"),
    ('{"a":tru', "invalid keyword 'tru'", "1:6: invalid keyword 'tru'"),
    ('{"a" "b"', "missing : in object pair", "1:6: expecting ':'"),
    ('{"a":1 "b"', "expected separator in dict", "1:8: expected ',' or '}'"),
    ('{"a":[1 2', "expected separator in list", "1:9: expected ',' or ']'"),
    ('{"a":1,"a":2', "duplicate key", "1:12: duplicate key"),
    ('{"a":"b', "stray '\"b'", "1:6: stray '\"b'"),
    ('{"a":1 "b', "stray '\"b'", "1:8: stray '\"b'"),
    ('{"a":"b\\', "stray '\"b\\'", "1:6: stray '\"b\\'"),
    ("{'a':'b", "stray ''b'", "1:6: stray ''b'"),
    ('{"a":-', "stray '-'", "1:6: stray '-'"),
    ('{"a":1.', "stray '1.'", "1:6: stray '1.'"),
    ('{"a":%s}', "stray '%'", "1:6: stray '%'"),
    ('{"a":1]', "expected separator in dict", "1:8: expected ',' or '}'"),
    ("{,}", "expecting value", "1:2: expecting key"),
]


@pytest.mark.parametrize(("text", "old", "new"), REFUSED)
def test_malformed(text: str, old: str, new: str) -> None:
    with pytest.raises(QMPError) as caught:
        parse_json_argument(text, Compat.V10_0)
    assert caught.value.desc == f"JSON parse error, {old}"
    with pytest.raises(QMPError) as caught:
        parse_json_argument(text, Compat.V11_1)
    place, _, text = new.partition(" ")
    assert caught.value.desc == f"{place} JSON parse error, {text}"


@pytest.mark.parametrize("compat", list(Compat))
@pytest.mark.parametrize("rest", ["{}", "}", "]", "x", " 5", "[", '"', '"x', "%", "{"])
def test_one_value_at_most(rest: str, compat: Compat) -> None:
    with pytest.raises(QMPError) as caught:
        parse_json_argument('{"a":1}' + rest, compat)
    assert caught.value.desc == "Expecting at most one JSON value"


@given(
    st.lists(st.sampled_from([*"{}[]:,\"'1ax-. \n\\%é\udcff", '"a"', '"a":1'])).map("".join),
    st.sampled_from(Compat),
)
def test_anything_is_read_or_refused(text: str, compat: Compat) -> None:
    with suppress(QMPError):
        assert isinstance(parse_json_argument("{" + text, compat), dict)
