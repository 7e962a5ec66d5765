"""From arguments to options: which there are, in which order, with what argument.

As QEMU does, the whole line is looked over for options that there are not
before the first of them is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from memd.cli.report import CommandLineError
from memd.compat import Compat
from memd.config import Report
from memd.errors import QMPError
from memd.named_tuple import NamedTuple

T = TypeVar("T")
"""The command line that options are applied to."""


class Given(NamedTuple):
    """An option that was given.

    Attributes:
        name: without its dashes; "" for an argument that is not an option's.
        value: its argument, "" where it takes none.
        where: as it was written, for messages.
        dotted: whether its keys are of the dotted spelling, whatever the option's are.
    """

    name: str
    value: str
    where: str
    dotted: bool = False

    def warn(self, report: Report) -> Callable[[str, str], None]:
        """A function that warns of this option: takes a text and a hint."""
        return lambda text, hint: report.warning(text, self.where, hint)


Apply = Callable[[T, Given], object]
"""Does what an option asks for; raises `QMPError` or `CommandLineError`."""


def read_options(
    argv: Sequence[str], options: Container[str], flags: Container[str]
) -> list[Given]:
    """The options of a command line; `-x` and `--x` are the same.

    Args:
        argv: without the program's name.
        options: the names of those that take an argument.
        flags: of those that take none.

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
        if name in flags:
            found.append(Given(name, "", word))
            continue
        if name not in options:
            raise CommandLineError("invalid option", where=word)
        value = next(words, None)
        if value is None:
            raise CommandLineError("requires an argument", where=word)
        found.append(Given(name, value, f"{word} {value}"))
    return found


def expand(
    given: Sequence[Given], name: str, take: Callable[[list[Given], str], None]
) -> list[Given]:
    """Options with what each of one name stands for, in its place.

    Args:
        name: the option's.
        take: is given the options before one of that name, which it adds to or changes, and
            its argument.

    Raises:
        CommandLineError: `take` raised a `QMPError`.
    """
    found: list[Given] = []
    for each in given:
        if each.name == name:
            with located(each.where):
                take(found, each.value)
        else:
            found.append(each)
    return found


def apply_options(given: Sequence[Given], options: Mapping[str, Apply[T]], target: T) -> None:
    """Do what the options ask for, in their order.

    Args:
        options: those that there are, with and without an argument.

    Raises:
        CommandLineError: one can't be applied.
        Answered: one asks a question.
    """
    for each in given:
        with located(each.where):
            if not each.name:
                raise QMPError("Unexpected argument")
            options[each.name](target, each)


@contextmanager
def located(where: str = "", failed: str = "") -> Iterator[None]:
    """Have a `QMPError` name the option that it is about, if there is one: a `CommandLineError`.

    Args:
        where: the option.
        failed: says what fails for want of it, after what is wrong.
    """
    try:
        yield
    except QMPError as error:
        texts = filter(None, (error.desc, failed)) if failed else [error.desc]
        raise CommandLineError(*texts, where=where, hint=error.hint) from None


def compat_of(text: str) -> Compat | None:
    """The release that a `--compat` names, None where memd knows none of that name."""
    return next((each for each in Compat if each.value == text), None)
