"""The error that a client sees: a class and a text.

All code raises `QMPError` for errors that a client is told, and nothing
else reaches the wire: any other exception is logged (`answer_to`) and answered
with a text that gives nothing away.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

    from memd.work import Events

GENERIC_ERROR = "GenericError"
COMMAND_NOT_FOUND = "CommandNotFound"
DEVICE_NOT_FOUND = "DeviceNotFound"

NO_DESCRIPTOR = "No file descriptor supplied via SCM_RIGHTS"
"""The error of a command that needs a descriptor with its message."""


MOST_TEXT = 65_536
"""Characters of an error's text. QEMU repeats what was sent whatever its length."""


class QMPError(Exception):
    """A refusal, worded for the client.

    Args:
        desc: the text of the answer's `desc` member, as QEMU words it. It may quote what was
            sent, and is cut after `MOST_TEXT` characters.
        error_class: the answer's `class` member (QAPI's `QapiErrorClass`).
        hint: what QEMU would print after the message on its standard error;
            kept for the log, never sent (QMP specification, section 2.4.2:
            only `class` and `desc` travel).

    Attributes:
        events: sent to every negotiated client before the answer.
    """

    events: Events = ()

    def __init__(
        self, desc: str, error_class: str = GENERIC_ERROR, *, hint: str | None = None
    ) -> None:
        self.desc = desc[:MOST_TEXT]
        super().__init__(self.desc)
        self.error_class = error_class
        self.hint = hint


class NoDescriptorError(QMPError):
    """A set has no descriptor that could be opened.

    Args:
        desc: the text.
        errno: what open(2) would say, which is all that some tell.
    """

    def __init__(self, desc: str, errno: int) -> None:
        super().__init__(desc)
        self.errno = errno


@contextmanager
def refusing(what: str, refusal: Callable[[str], Exception] = QMPError) -> Iterator[None]:
    """A context in which an `OSError` is a refusal.

    Args:
        what: the text's beginning, such as "cannot open 'x'"; the reason follows it.
        refusal: makes what is raised of a text.
    """
    try:
        yield
    except OSError as error:
        raise refusal(f"{what}: {error.strerror or error}") from None


@contextmanager
def prefixed(what: str) -> Iterator[None]:
    """A context in which the text of a `QMPError` gets that beginning."""
    try:
        yield
    except QMPError as error:
        raise QMPError(f"{what}{error.desc}") from None


def not_read(path: str, error: OSError) -> str:
    """Why a file can't be read, as GLib words it."""
    what = "Error reading" if isinstance(error, IsADirectoryError) else "Failed to open"
    return f"{what} file “{path}”: {error.strerror}"


class StartError(Exception):
    """The daemon cannot start.

    Args:
        text: the message for standard error.
        where: the option and its argument that are at fault, or "".
        hint: what may follow on a line of its own, or None.
        failed: what fails for want of it, as a second message, or "".
    """

    def __init__(
        self, text: str, where: str = "", hint: str | None = None, failed: str = ""
    ) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.hint = hint
        self.failed = failed


@contextmanager
def starting(where: str = "", failed: str = "") -> Iterator[None]:
    """A context in which a `QMPError` means that the daemon can't start.

    Args:
        where: the option and its argument that are at fault.
        failed: says what fails for want of it, after what is wrong.
    """
    try:
        yield
    except QMPError as error:
        raise StartError(error.desc, where, error.hint, failed) from None


_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC))


def shortage(error: BaseException) -> QMPError | None:
    """The error for a client where the system has run out of something; None otherwise.

    That is not a secret, and it may be otherwise when the client tries again. Other
    exceptions that nobody expected are for the log.
    """
    if isinstance(error, MemoryError):
        return QMPError(os.strerror(errno.ENOMEM))
    if isinstance(error, RecursionError):
        return QMPError("what was sent is nested too deeply for this command")
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return QMPError(os.strerror(error.errno or 0))
    return None


def answer_to(error: Exception, what: str) -> QMPError:
    """The error for a client after an exception; an unexpected one is logged.

    The one place where any exception becomes an answer.

    Args:
        what: was being done, for the log: a command's name.
    """
    if isinstance(error, QMPError):
        if error.hint:
            _log().warning("%s: %s (%s)", what, error.desc, error.hint)
        return error
    lack = shortage(error)
    if lack is not None:
        _log().warning("%s: %s", what, lack.desc)
        return lack
    _log().error("%s failed unexpectedly", what, exc_info=error)
    return QMPError("internal error, see the log")


def _log() -> Logger:
    # Not imported with the module, which memctl has too.
    import logging

    return logging.getLogger("memd")


def forget_frames(error: BaseException) -> None:
    """Have an error that was caught release the frames it came through.

    A function that keeps it in a local variable is among them, and so all of their local
    variables stay until the garbage collector comes: megabytes, of some commands.
    """
    error.__traceback__ = error.__context__ = None


def printable(text: str) -> str:
    """A text as it may stand in a line of the log or on a terminal.

    Clients choose paths, and a path may hold anything: what would end the line, or
    tell a terminal what to do, is written as its escape (`\\n`, `\\x1b`).
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def command_not_found(desc: str) -> QMPError:
    """A `QMPError` of class CommandNotFound."""
    return QMPError(desc, COMMAND_NOT_FOUND)


def reset_meanwhile() -> QMPError:
    """The refusal of a command that was under way when the machine was made anew."""
    return QMPError("the machine was reset meanwhile")


def device_not_found(name: str, what: str = "Device") -> QMPError:
    """The `QMPError`, of class DeviceNotFound, for a name that nothing has."""
    return QMPError(f"{what} '{name}' not found", DEVICE_NOT_FOUND)


def bad_type(path: str, expected: str) -> QMPError:
    """The error for a value of another JSON type than `expected`."""
    return QMPError(f"Invalid parameter type for '{path}', expected: {expected}")


def missing(path: str) -> QMPError:
    """The error for a mandatory member that is not there."""
    return QMPError(f"Parameter '{path}' is missing")


def unexpected(path: str) -> QMPError:
    """The error for a member that the schema does not know."""
    return QMPError(f"Parameter '{path}' is unexpected")


def not_accepted(name: str, value: object) -> QMPError:
    """The error for a value that is none of those which a parameter takes."""
    return QMPError(f"Parameter '{name}' does not accept value '{value}'")


_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FURTHER = _FIRST | frozenset("0123456789-._")


LONGEST_ID = 1024
"""Characters of an id. QEMU takes any number; no client was seen to send a hundred."""


def is_identifier(id: str) -> bool:
    """Whether it is an id in QEMU's spelling; else there is `bad_identifier`."""
    return len(id) <= LONGEST_ID and id[:1] in _FIRST and _FURTHER.issuperset(id)


def check_length(id: str) -> None:
    """Raise `QMPError` for an id, of which QEMU takes any, that is longer than any that is used.

    Commands that list what there is tell of each.
    """
    if len(id) > LONGEST_ID:
        raise QMPError(f"an id has {LONGEST_ID} characters at most")


ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
"""The hint that follows on a command line."""


def bad_identifier() -> QMPError:
    """The error for an id that is none."""
    return QMPError("Parameter 'id' expects an identifier")
