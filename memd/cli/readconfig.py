"""`-readconfig FILE`: options in sections, one key to a line.

    [device "d0"]
      driver = "virtio-net-pci"

is `-device driver=virtio-net-pci,id=d0`. What is a section and a key was observed on
QEMU 10.0.2, which takes a line that is neither for a key without a value.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from memd.cli.reading import Given
from memd.cli.report import CommandLineError

_LIMIT = 1 << 20
_NAMED = re.compile(r'\[(\S{1,63})\s+"([^"]{1,63})"\]')
_SECTION = re.compile(r"\[([^]]{1,63})\]")
_KEY = re.compile(r'\s*(\S{1,63})\s*=\s*"([^"]{1,1023})')
_WORD = re.compile(r"\s*(\S{1,63})")
_OPTIONS = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot"}
"""The options of sections that are called otherwise."""


class _Section:
    def __init__(self, name: str, id: str | None, line: int) -> None:
        self.name = name
        self.id = id
        self.keys: list[tuple[str, str]] = []
        self.line = line

    def given(self, path: str) -> Given:
        # The kind of a character device is looked at before the rest is.
        keys = sorted(self.keys, key=lambda each: each[0] != "backend")
        if self.id is not None:
            keys.append(("id", self.id))
        value = ",".join(f"{key}={text.replace(',', ',,')}" for key, text in keys)
        # The colon in front has it told as a place, as QEMU tells it.
        return Given(_OPTIONS.get(self.name, self.name), value, f":{path}:{self.line}")


def expand(given: list[Given], options: Container[str]) -> list[Given]:
    """Options with those of the files in the place of each `-readconfig`.

    Args:
        given: the options of a command line.
        options: the names of those that there are.

    Raises:
        CommandLineError: a file can't be read, or has a section that is no option's.
    """
    found = []
    for each in given:
        if each.name != "readconfig":
            found.append(each)
            continue
        try:
            sections = [*_sections(each)]
        except OSError as error:
            raise CommandLineError(
                f"Could not open '{each.value}': {error.strerror}", where=each.where
            ) from None
        seen = set()
        for section in sections:
            if _OPTIONS.get(section.name, section.name) not in options:
                raise CommandLineError(
                    f"There is no option group '{section.name}'", where=each.where
                )
            name = section.name, section.id
            if section.id is not None and name in seen:
                raise CommandLineError(
                    f"Duplicate ID '{section.id}' for {section.name}", where=each.where
                )
            seen.add(name)
            found.append(section.given(each.value))
    return found


def _sections(given: Given) -> Iterator[_Section]:
    with open(given.value, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read(_LIMIT).split("\n")
    section: _Section | None = None
    last = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        head = _NAMED.match(line) or _SECTION.match(line)
        if head is not None:
            if section is not None:
                yield section
            section = _Section(head[1], head[2] if head.re is _NAMED else None, last)
        elif section is None:
            raise CommandLineError("no group defined", where=given.where)
        else:
            key, word = _KEY.match(line), _WORD.match(line)
            section.keys.append((key[1], key[2]) if key else (word[1] if word else "", ""))
            section.line = last = number
    if section is not None:
        yield section
