"""How far a command about a template is, for clients."""

from __future__ import annotations

from memd.work import Event


class Progress:
    """How far something is that is done with a template.

    Args:
        name: the template's.

    Attributes:
        done: bytes that are done.
        total: bytes that there are; 0 until that is known.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0
        self.total = 0

    def at(self, done: int, total: int) -> None:
        """It is so far, of so much."""
        self.done, self.total = done, total

    def event(self) -> Event | None:
        """That as an event; None as long as it is not known how much there is."""
        if not self.total:
            return None
        data = {"name": self.name, "done": self.done, "total": self.total}
        return Event("X_TEMPLATE_PROGRESS", data)
