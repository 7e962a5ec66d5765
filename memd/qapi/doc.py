"""Documentation comments: what a definition and each of its members are for.

The form is that of QEMU's QAPI schemas: a block between two lines `##`, which
begins with the definition's name if it documents one, describes each member
under `@member:`, and ends with tagged sections.
"""

from __future__ import annotations

TAGS = ("Features", "Returns", "Errors", "Since")
"""The sections that a block may have after its members, in any order."""


class DocError(Exception):
    """A mistake in a documentation comment; `offset` counts its lines from 0."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class Doc:
    """One documentation comment.

    Attributes:
        name: the definition that it documents; None for free text.
        body: what it is, paragraphs divided by empty lines.
        members: the text of each `@member:`.
        features: the text of each `@feature:` under "Features:".
        sections: the text of the other tagged sections, by tag.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.body = ""
        self.members: dict[str, str] = {}
        self.features: dict[str, str] = {}
        self.sections: dict[str, str] = {}


def parse_doc(lines: list[str]) -> Doc:
    """Reads a block, given without its two `##` lines.

    Raises:
        DocError: for what cannot be a documentation comment.
    """
    texts = [_text_of(offset, line) for offset, line in enumerate(lines)]
    doc = Doc()
    start = next((i for i, text in enumerate(texts) if text), len(texts))
    if start == len(texts):
        raise DocError(0, "documentation comment is empty")
    if not texts[start].startswith("@"):
        doc.body = "\n".join(texts).strip()
        return doc
    name, colon, rest = texts[start][1:].partition(":")
    if not colon or not name or rest.strip():
        raise DocError(start, "a definition's documentation begins with '@NAME:' on its own line")
    doc.name = name
    _parse_parts(doc, texts, start + 1)
    return doc


def _text_of(offset: int, line: str) -> str:
    if line == "#":
        return ""
    if not line.startswith("# "):
        raise DocError(offset, "a line of a documentation comment begins with '# '")
    return line[2:].rstrip()


def _parse_parts(doc: Doc, texts: list[str], start: int) -> None:
    """Divides the lines into the body, the members' and the tags' texts."""
    collected: list[str] = []
    store: dict[str, str] | None = None
    key = ""
    under_features = False

    def finish() -> None:
        text = "\n".join(collected).strip("\n")
        if store is None:
            doc.body = text.strip()
        else:
            store[key] = _dedent(text)
        collected.clear()

    for offset, text in enumerate(texts[start:], start):
        head, colon, rest = text.partition(":")
        tag = head if colon and head in TAGS else ""
        if text.startswith("@") and colon:
            finish()
            key = head[1:]
            store = doc.features if under_features else doc.members
            if not key or key in store:
                raise DocError(offset, f"'@{key}:' is documented twice or has no name")
            store[key] = ""
            collected.append(rest.strip())
        elif tag == "Features":
            finish()
            if under_features or rest.strip():
                raise DocError(offset, "'Features:' stands once, on its own line")
            under_features = True
            store, key = {}, ""
        elif tag:
            finish()
            if tag in doc.sections:
                raise DocError(offset, f"section '{tag}:' is there twice")
            store, key = doc.sections, tag
            store[tag] = ""
            collected.append(rest.strip())
        else:
            indented = text.startswith(" ") or not text
            if store is not None and not indented:
                raise DocError(offset, f"the text of '{key}' goes on indented")
            collected.append(text)
    finish()


def _dedent(text: str) -> str:
    first, _, rest = text.partition("\n")
    lines = [line.strip() for line in rest.split("\n")] if rest else []
    return "\n".join([first, *lines]).strip()
