"""Puts the manual pages, which the programs' own sources make, into the wheel."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface[Any]):
    """Makes them when a wheel is built; they are nowhere in the tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's documentation of build hooks."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        try:
            from memd.man.write import write_pages
        finally:
            sys.path.remove(self.root)
        self._made = tempfile.TemporaryDirectory(prefix="memd-man-")
        for path in write_pages(self._made.name):
            name = path.rpartition("/")[2]
            section = name.rpartition(".")[2]
            build_data["shared_data"][path] = f"share/man/man{section}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        if version != "editable":
            self._made.cleanup()
