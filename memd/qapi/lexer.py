"""The tokens of the QAPI schema language.

JSON's punctuation, strings in single quotes without escapes, `true` and
`false`, comments from `#` to the end of the line. A block between two lines
`##` is a documentation comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from memd.qapi.source import SchemaError


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: one of `{ } [ ] : ,`, "string", "word" (true or false), "doc",
            or "" at the end.
        text: a string's content, a word itself, the lines of a documentation
            comment divided by newlines.
        line: where it begins, counted from 1.
    """

    kind: str
    text: str
    line: int


_TOKEN = re.compile(
    r"(?P<space>[ \n]+)"
    r"|(?P<punct>[{}\[\]:,])"
    r"|'(?P<string>[^'\n]*)'"
    r"|(?P<comment>\#[^\n]*)"
    r"|(?P<word>[a-z]+)"
)
_PRINTABLE = re.compile(r"[ -&(-\[\]-~]*")


def tokens(text: str, file: str) -> Iterator[Token]:
    """Divides a schema file into tokens, the last of kind "".

    Raises:
        SchemaError: for what is no token.
    """
    position = 0
    line = 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SchemaError(file, line, _complaint(text, position))
        kind = match.lastgroup
        found = match[kind or ""]
        if kind == "comment" and found == "##" and _starts_line(text, position):
            end, block = _doc_block(text, match.end(), file, line)
            yield Token("doc", "\n".join(block), line)
            line += len(block) + 1
            position = end
            continue
        if kind == "punct":
            yield Token(found, found, line)
        elif kind == "string":
            if not _PRINTABLE.fullmatch(found):
                raise SchemaError(file, line, "a string holds printable ASCII and no backslash")
            yield Token("string", found, line)
        elif kind == "word":
            if found not in ("true", "false"):
                raise SchemaError(file, line, f"unknown word '{found}'")
            yield Token("word", found, line)
        line += found.count("\n")
        position = match.end()
    yield Token("", "", line)


def _starts_line(text: str, position: int) -> bool:
    return position == 0 or text[position - 1] == "\n"


def _doc_block(text: str, start: int, file: str, line: int) -> tuple[int, list[str]]:
    """The position after a documentation comment's last line, and its lines."""
    block: list[str] = []
    position = start + 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        content = text[position:end]
        if content == "##":
            return end, block
        if not content.startswith("#"):
            break
        block.append(content)
        position = end + 1
    raise SchemaError(file, line, "documentation comment is not closed by '##'")


def _complaint(text: str, position: int) -> str:
    char = text[position]
    if char == "'":
        return "string is not closed on its line"
    if char == '"':
        return "strings stand in single quotes"
    if char == "\t":
        return "tabs are not used; indent by spaces"
    return f"stray {char!r}"
