"""A manual page's source, in the macros of man(7)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from memd import __version__

_ESCAPES = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
)


def escaped(text: str) -> str:
    """Text as roff takes it: shown as it is, a hyphen as one that can be typed."""
    text = text.translate(_ESCAPES)
    return "\\&" + text if text.startswith(".") else text


class Page:
    """A page, written from its top.

    Args:
        name: of what it describes.
        section: of the manual, such as 8.
        summary: what it is, in a line.
    """

    def __init__(self, name: str, section: int, summary: str) -> None:
        self.name = name
        self.section = section
        self._lines = [f'.TH {name.upper()} {section} "" "memd {__version__}" "memd"']
        self.heading("NAME")
        self._lines.append(f"{name} \\- {escaped(summary)}")

    @property
    def file_name(self) -> str:
        """The name of the page's file."""
        return f"{self.name}.{self.section}"

    def heading(self, text: str, paragraph: str = "") -> None:
        """Begin a section, with a paragraph if there is one."""
        self._lines.append(f'.SH "{escaped(text)}"')
        self._fill(paragraph.split("\n"))

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{escaped(text)}"')

    def paragraph(self, text: str) -> None:
        """A paragraph, filled."""
        self._begin()
        self._fill(text.split("\n"))

    def tagged(self, tag: str, text: str) -> None:
        """A term, in bold, and what is said of it below: filled, but for indented lines."""
        self._lines += [".TP", f"\\fB{escaped(tag)}\\fR"]
        if not text:
            self._lines.append("\\&")
        for indented, lines in groupby(text.split("\n"), lambda line: line.startswith(" ")):
            (self._show if indented else self._fill)(lines)

    def example(self, text: str) -> None:
        """Lines that stay as they are."""
        self._begin()
        self._lines.append(".RS 4")
        self._show(text.split("\n"))
        self._lines.append(".RE")

    def _begin(self) -> None:
        """Leave room before a paragraph, where a heading has not left it."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")

    def _show(self, lines: Iterable[str]) -> None:
        self._lines += [".nf", *(escaped(line) or "\\&" for line in lines), ".fi"]

    def _fill(self, lines: Iterable[str]) -> None:
        self._lines += [escaped(line) for line in lines if line]

    def source(self) -> str:
        """The page's source."""
        return "\n".join(self._lines) + "\n"
