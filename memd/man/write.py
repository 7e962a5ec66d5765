"""Writes the manual pages."""

from __future__ import annotations

import os

from memd.man.programs import daemon, memctl, memd_test
from memd.man.reference import reference
from memd.man.roff import Page


def pages() -> list[Page]:
    """All of them."""
    return [daemon(), memctl(), memd_test(), reference()]


def write_pages(directory: str) -> list[str]:
    """Write every page into a directory, which is made; the files' paths.

    Raises:
        OSError: one can't be written.
    """
    os.makedirs(directory, exist_ok=True)
    written = []
    for page in pages():
        path = os.path.join(directory, page.file_name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(page.source())
        written.append(path)
    return written
