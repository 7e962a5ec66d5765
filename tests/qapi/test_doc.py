from __future__ import annotations

import pytest

from memd.qapi.doc import parse_doc


def read(text: str) -> str:
    return "\n".join(f"# {line}" if line else "#" for line in text.strip("\n").split("\n"))


def test_whole() -> None:
    doc = parse_doc(
        read(
            """
@thing:

What it is, at
length.

In two paragraphs.

@one: the first
@two: the second, whose
    text goes on

    after a gap

Features:

@unstable: may change

Returns: something
    more

Since: 0.1
"""
        )
    )
    assert doc.name == "thing"
    assert doc.body == "What it is, at\nlength.\n\nIn two paragraphs."
    assert doc.members == {
        "one": "the first",
        "two": "the second, whose\ntext goes on\n\nafter a gap",
    }
    assert doc.features == {"unstable": "may change"}
    assert doc.sections == {"Returns": "something\nmore", "Since": "0.1"}


def test_free_text() -> None:
    doc = parse_doc("#\n# = Heading\n#\n# Text: with a colon")
    assert doc.name is None
    assert doc.body == "= Heading\n\nText: with a colon"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("# @x:\n#text", "a line of a documentation comment begins with '# '"),
        ("# @x:\n# @a: b\n# @a: c", "'a:' is there twice or has no name"),
        ("# @x:\n# @: b", "':' is there twice or has no name"),
        ("# @x:\n# @a: b\n# c", "the text of 'a' goes on indented"),
        ("# @x:\n# Since: 1\n# Since: 2", "'Since:' is there twice or has no name"),
    ],
)
def test_mistakes(block: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_doc(block)
    assert str(caught.value) == message
