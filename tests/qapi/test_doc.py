from __future__ import annotations

import pytest

from memd.qapi.doc import DocError, parse_doc


def read(text: str) -> list[str]:
    return [f"# {line}" if line else "#" for line in text.strip("\n").split("\n")]


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
    doc = parse_doc(["#", "# = Heading", "#", "# Text: with a colon"])
    assert doc.name is None
    assert doc.body == "= Heading\n\nText: with a colon"


@pytest.mark.parametrize(
    ("lines", "offset", "message"),
    [
        ([], 0, "documentation comment is empty"),
        (["#", "#"], 0, "documentation comment is empty"),
        (["# @x:", "#text"], 1, "a line of a documentation comment begins with '# '"),
        (["# @x: text"], 0, "a definition's documentation begins with '@NAME:' on its own line"),
        (["#", "# @x"], 1, "a definition's documentation begins with '@NAME:' on its own line"),
        (["# @x:", "# @a: b", "# @a: c"], 2, "'@a:' is documented twice or has no name"),
        (["# @x:", "# @: b"], 1, "'@:' is documented twice or has no name"),
        (["# @x:", "# @a: b", "# c"], 2, "the text of 'a' goes on indented"),
        (["# @x:", "# Since: 1", "# Since: 2"], 2, "section 'Since:' is there twice"),
        (["# @x:", "# Features: y"], 1, "'Features:' stands once, on its own line"),
    ],
)
def test_mistakes(lines: list[str], offset: int, message: str) -> None:
    with pytest.raises(DocError) as caught:
        parse_doc(lines)
    assert (caught.value.offset, caught.value.message) == (offset, message)
