"""`-readconfig FILE`: options in sections, one key to a line.

    [device "d0"]
      driver = "virtio-net-pci"

is `-device driver=virtio-net-pci,id=d0`. What is a section and a key was observed on
QEMU 10.0.2, which takes a line that is neither for a key without a value.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Container
from dataclasses import dataclass, field

from memd.cli.reading import Given
from memd.errors import QMPError, refusing
from memd.hostmem.deadline import read_at_start

_LIMIT = 1 << 20
"""Bytes of a file at most; QEMU reads on, of a file that has no end as well."""

_LONGEST = 1023
"""Bytes that are read as a line: a longer one is several, as with QEMU."""

_NAMED = re.compile(r'\[(\S{1,63})\s+"([^"]{1,63})"\]')
_SECTION = re.compile(r"\[([^]]{1,63})\]")
_KEY = re.compile(r'\s*(\S{1,63})\s*=\s*"([^"]{1,1023})')
_WORD = re.compile(r"\s*(\S{1,63})()")
_OPTIONS = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot"}
"""The options of sections that are called otherwise."""


@dataclass
class _Section:
    name: str
    id: str | None
    line: int
    keys: list[tuple[str, str]] = field(default_factory=list)


def take_file(found: list[Given], path: str, options: Container[str]) -> None:
    """Add the options of a file.

    Args:
        found: the options before them.
        path: the file's.
        options: the names of those that there are.

    Raises:
        QMPError: it can't be read, or has a section that is not an option's.
    """
    seen = set()
    for section in _sections(path):
        option = _OPTIONS.get(section.name, section.name)
        if option not in options:
            raise QMPError(f"There is no option group '{section.name}'")
        dotted = option == "object"
        if section.id is not None and not dotted and (option, section.id) in seen:
            raise QMPError(f"Duplicate ID '{section.id}' for {section.name}")
        seen.add((option, section.id))
        # The kind of a character device is looked at before the rest is.
        keys = sorted(section.keys, key=lambda each: each[0] != "backend")
        if section.id is not None:
            keys.append(("id", section.id))
        value = ",".join(f"{key}={text.replace(',', ',,')}" for key, text in keys)
        # The colon in front has it told as a place, as QEMU tells it.
        found.append(Given(option, value, f":{path}:{section.line}", dotted))


def _sections(path: str) -> list[_Section]:
    with refusing(f"Could not open '{path}'"):
        content = read_at_start(path, _LIMIT + 1)
    if len(content) > _LIMIT:
        raise QMPError(f"'{path}' has more than {_LIMIT} bytes")
    reader = io.BytesIO(content)
    lines = iter(lambda: os.fsdecode(reader.readline(_LONGEST)), "")
    sections: list[_Section] = []
    last = 0
    for number, line in enumerate(lines, 1):
        if line.startswith(("\n", "#")):
            continue
        line = line.partition("\0")[0]
        head = _NAMED.match(line) or _SECTION.match(line)
        if head is not None:
            sections.append(_Section(head[1], head[2] if head.re is _NAMED else None, last))
        elif (key := _KEY.match(line) or _WORD.match(line)) is None:
            raise QMPError("parse error")
        elif not sections:
            raise QMPError("no group defined")
        else:
            sections[-1].keys.append((key[1], key[2]))
            sections[-1].line = last = number
    return sections
