"""Documentation comments: what a definition and each of its members are for.

The form is that of QEMU's QAPI schemas: a block between two lines `##`, which
begins with the definition's name if it documents one, describes each member
under `@member:`, and ends with tagged sections.
"""

from __future__ import annotations

import re

_PART = re.compile(r"^(@[^:\n]*|Features|Returns|Errors|Since):", re.M)
"""Where a member's text begins, or a section's; these may come in any order."""


class Doc:
    """One documentation comment.

    Attributes:
        name: the definition that it documents; None for free text.
        body: what it is, paragraphs divided by empty lines.
        members: the text of each `@member:`.
        features: the text of each `@feature:` under "Features:".
        sections: the text of the other tagged sections, by tag.
    """

    name: str | None = None
    body = ""

    def __init__(self) -> None:
        self.members: dict[str, str] = {}
        self.features: dict[str, str] = {}
        self.sections: dict[str, str] = {}


def parse_doc(block: str) -> Doc:
    """Reads a block, given without its two `##` lines.

    Raises:
        ValueError: what is wrong with it.
    """
    lines = block.splitlines()
    if any(line != "#" and not line.startswith("# ") for line in lines):
        raise ValueError("a line of a documentation comment begins with '# '")
    text = "\n".join(line[2:].rstrip() for line in lines).strip()
    before, *parts = _PART.split(text)
    doc = Doc()
    if before or not text.startswith("@"):
        doc.body = text
        return doc
    doc.name, doc.body = parts[0][1:], parts[1].strip()
    into = doc.members
    for key, text in zip(parts[2::2], parts[3::2], strict=True):
        if key == "Features":
            into = doc.features
            continue
        where = into if key.startswith("@") else doc.sections
        key = key.removeprefix("@")
        if not key or key in where:
            raise ValueError(f"'{key}:' is there twice or has no name")
        first, *more = text.strip().split("\n")
        if any(line and not line.startswith(" ") for line in more):
            raise ValueError(f"the text of '{key}' goes on indented")
        where[key] = "\n".join([first, *(line.strip() for line in more)])
    return doc
