"""Memory with content for templates, the same each time."""

from __future__ import annotations

import os
import random
from typing import Any

from memd.pages.manifest import Manifest
from memd.pages.postcopy import Span
from memd.pages.store import Store
from memd.pages.template import Template

PAGE = 4096


def memory(pages: int, *, seed: int = 1, zero: float = 0.3) -> bytes:
    """Pages that compress as a guest's do, a part of them zeroes."""
    chance = random.Random(seed)
    data = bytearray(pages * PAGE)
    at = 0
    while at < pages:
        # Zeroes and data come in stretches.
        stretch = min(pages - at, chance.randint(1, 40))
        if chance.random() >= zero:
            for page in range(at, at + stretch):
                data[page * PAGE : (page + 1) * PAGE] = one_page(chance)
        at += stretch
    return bytes(data)


def one_page(chance: random.Random) -> bytes:
    """A page, of which half is noise."""
    return chance.randbytes(PAGE // 2) + bytes([chance.randint(1, 255)]) * (PAGE // 2)


def change(data: bytes, part: float, *, seed: int) -> bytes:
    """The same with some pages changed, all over it."""
    chance = random.Random(seed)
    changed = bytearray(data)
    pages = len(data) // PAGE
    for page in chance.sample(range(pages), int(pages * part)):
        changed[page * PAGE : (page + 1) * PAGE] = one_page(chance)
    return bytes(changed)


def save(
    store: Store, name: str, data: bytes, base: str | None = None, **described: Any
) -> Manifest:
    """A template of these bytes; `described` as of `Writer.store`."""
    fd = os.memfd_create("memory")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        return store.begin(name, base).store(fd, len(data), **described)
    finally:
        os.close(fd)


def unpacked(template: Template, offset: int, length: int) -> bytes:
    """Bytes of a template's memory as they lie in its unpacked copy."""
    assert ready(template, offset, length)
    return content_of(template.copy.records(offset // PAGE, length // PAGE))


def ready(template: Template, offset: int, length: int) -> bool:
    """Whether bytes of a template's memory are in its unpacked copy."""
    return template.copy.has(offset // PAGE, length // PAGE)


def content_of(records: Span) -> bytes:
    """Pages without their addresses."""
    view = records.view[records.start : records.end]
    return b"".join(view[at : at + PAGE] for at in range(8, len(view), 8 + PAGE))
