"""The error that a client sees: a class and a text.

Every room raises `QMPError` for what the client is to be told, and nothing
else reaches the wire: any other exception is logged by the dispatcher and
answered with a text that gives nothing away.
"""

from __future__ import annotations

GENERIC_ERROR = "GenericError"
COMMAND_NOT_FOUND = "CommandNotFound"
DEVICE_NOT_FOUND = "DeviceNotFound"


class QMPError(Exception):
    """A refusal, worded for the client.

    Args:
        desc: the text of the answer's `desc` member, as QEMU words it.
        error_class: the answer's `class` member (QAPI's `QapiErrorClass`).
        hint: what QEMU would print after the message on its standard error;
            kept for the log, never sent (QMP specification, section 2.4.2:
            only `class` and `desc` travel).
    """

    __slots__ = ("desc", "error_class", "hint")

    def __init__(
        self, desc: str, error_class: str = GENERIC_ERROR, *, hint: str | None = None
    ) -> None:
        super().__init__(desc)
        self.desc = desc
        self.error_class = error_class
        self.hint = hint


def command_not_found(desc: str) -> QMPError:
    """A `QMPError` of class CommandNotFound."""
    return QMPError(desc, COMMAND_NOT_FOUND)


def device_not_found(desc: str) -> QMPError:
    """A `QMPError` of class DeviceNotFound."""
    return QMPError(desc, DEVICE_NOT_FOUND)
