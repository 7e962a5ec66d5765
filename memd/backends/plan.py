"""The result of making a backend, as its type gets it for an explanation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.hostmem.spec import MapSpec
from memd.json_types import JSONObject

if TYPE_CHECKING:
    from memd.hostmem.planning import PlannedFile

Warnings = Iterator[tuple[str, str]]
"""The subject of each, and a sentence."""

Proposals = Iterator[tuple[JSONObject, str]]
"""The changes of the arguments (None takes one out), and the reason."""


NOBODY_SHARES: tuple[JSONObject, str] = (
    {"qom-type": "memory-backend-ram"},
    "memory that nobody shares needs no file behind it.",
)


class Plan:
    """The result of making a backend.

    Attributes:
        given: the arguments of object-add.
        error: with which it would fail, or None.
        file: the file behind it, None for anonymous memory or where it
            failed before.
        spec: what would be mapped, None where it failed before.
        unsure: why only trying tells, "" where that goes without saying; None
            where it can be told.
        pooled: whether a pool has the memory ready; None where none is for such.
        deny_private_discard: whether the daemon refuses to discard memory of a
            private mapping of a file.
    """

    error: QMPError | None = None
    file: PlannedFile | None = None
    spec: MapSpec | None = None
    unsure: str | None = None
    pooled: bool | None = None
    deny_private_discard = False

    def __init__(self, given: JSONObject) -> None:
        self.given = given

    @property
    def verdict(self) -> str:
        """QAPI's `MemdevVerdict`."""
        if self.error is not None:
            return "fails"
        return "works" if self.unsure is None else "unknown"
