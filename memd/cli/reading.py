"""From arguments to options: which there are, in which order, with what argument.

As QEMU does, the whole line is looked over for options that there are not
before the first of them is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from memd.cli.report import CommandLineError
from memd.compat import Compat
from memd.config import Report
from memd.errors import QMPError

T = TypeVar("T", contravariant=True)
"""What options are applied to: a command line."""


class Given:
    """An option that was given.

    Attributes:
        name: without its dashes; "" for an argument that is no option's.
        value: its argument, "" where it takes none.
        where: as it was written, for messages.
    """

    def __init__(self, name: str, value: str, where: str) -> None:
        self.name = name
        self.value = value
        self.where = where

    def warn(self, report: Report) -> Callable[[str, str], None]:
        """What warns of this option: takes a text and a hint."""
        return lambda text, hint: report.warning(text, self.where, hint)


class Option(Generic[T]):
    """An option that there is.

    Args:
        apply: does what it asks for; raises `QMPError` or `CommandLineError`.
        argument: whether it takes an argument.
    """

    def __init__(self, apply: Callable[[T, Given], None], *, argument: bool = True) -> None:
        self.apply = apply
        self.argument = argument


def read_options(argv: Sequence[str], options: Mapping[str, Option[T]]) -> list[Given]:
    """The options of a command line; `-x` and `--x` are the same.

    Raises:
        CommandLineError: for one that there is not, or that lacks its argument.
    """
    found = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            found.append(Given("", word, word))
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        option = options.get(name)
        if option is None:
            raise CommandLineError("invalid option", where=word)
        if not option.argument:
            found.append(Given(name, "", word))
            continue
        value = next(words, None)
        if value is None:
            raise CommandLineError("requires an argument", where=word)
        found.append(Given(name, value, f"{word} {value}"))
    return found


def apply_options(given: Sequence[Given], options: Mapping[str, Option[T]], target: T) -> None:
    """Do what the options ask for, in their order.

    Raises:
        CommandLineError: one can't be applied.
        Answered: one asks a question.
    """
    for each in given:
        if not each.name:
            raise CommandLineError("Unexpected argument", where=each.where)
        try:
            options[each.name].apply(target, each)
        except QMPError as error:
            raise located(error, each) from None


def located(error: QMPError, given: Given) -> CommandLineError:
    """An error, and the option that it is about."""
    return CommandLineError(error.desc, where=given.where, hint=error.hint)


def compat_of(text: str) -> Compat | None:
    """The release that a `--compat` names, None where memd knows none of that name."""
    for each in Compat:
        if each.value == text:
            return each
    return None
