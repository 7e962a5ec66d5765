"""The QEMU release whose texts and introspection memd gives (`--compat`)."""

from __future__ import annotations

import enum


class Compat(enum.Enum):
    """A QEMU release whose behaviour was measured and is reproduced."""

    V10_0 = "10.0"
    V11_1 = "11.1"

    @property
    def version(self) -> tuple[int, int, int]:
        """The (major, minor, micro) that the greeting and query-version give."""
        return (10, 0, 2) if self is Compat.V10_0 else (11, 1, 3)
