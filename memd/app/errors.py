"""Why a daemon cannot start."""

from __future__ import annotations


class StartError(Exception):
    """The daemon cannot start.

    Args:
        text: the message for standard error.
        where: the option and its argument that are at fault, or "".
        hint: what may follow on a line of its own, or None.
    """

    def __init__(self, text: str, where: str = "", hint: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.hint = hint
