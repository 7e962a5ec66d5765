from __future__ import annotations

import pytest

from memd.qapi.names import complaint_about, folded


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("Thing", "type"),
        ("QCryptoTLSCreds", "type"),
        ("__com.example_Thing", "type"),
        ("do-it", "command"),
        ("STOP", "event"),
        ("X_MEMDEV_PROGRESS", "event"),
        ("host-nodes", "member"),
        ("__com.example_x", "member"),
        ("unstable", "feature"),
        ("10base-t", "enum member"),
        ("none", "branch"),
        ("COMPAT_11_1", "condition"),
    ],
)
def test_good(name: str, use: str) -> None:
    assert complaint_about(name, use) is None


@pytest.mark.parametrize(
    ("name", "use", "complaint"),
    [
        ("", "type", "is not a name"),
        ("9a", "member", "is not a name"),
        ("a b", "member", "is not a name"),
        ("é", "member", "is not a name"),
        ("a\n", "member", "is not a name"),
        ("__x", "member", "is not a name"),
        ("thing", "type", "is not in CamelCase"),
        ("THING", "type", "is not in CamelCase"),
        ("My_Thing", "type", "is not in CamelCase"),
        ("ThingList", "type", "ends in 'List', which is reserved"),
        ("q_thing", "command", "begins with 'q_', which is reserved"),
        ("stop", "event", "is not in UPPER_CASE"),
        ("STOP-NOW", "event", "is not in UPPER_CASE"),
        ("do_it", "command", "is not in lower case with dashes"),
        ("Size", "member", "is not in lower case with dashes"),
        ("u", "member", "is reserved"),
        ("has-size", "member", "is reserved"),
        ("x_y", "enum member", "is not in lower case with dashes"),
        ("X", "branch", "is not in lower case with dashes"),
        ("Unstable", "feature", "is not in lower case with dashes"),
    ],
)
def test_bad(name: str, use: str, complaint: str) -> None:
    assert complaint_about(name, use) == complaint


def test_exceptions_are_of_style_only() -> None:
    assert complaint_about("do_it", "command", excepted=True) is None
    assert complaint_about("UUID", "member", excepted=True) is None
    assert complaint_about("x86_64", "enum member", excepted=True) is None
    assert complaint_about("9a", "member", excepted=True) == "is not a name"
    assert complaint_about("q_a", "member", excepted=True) is not None


def test_folded() -> None:
    assert folded("a-b_c") == folded("a_b-c") != folded("abc")
