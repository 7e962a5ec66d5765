"""`memctl`: the table of its subcommands, its command line, its end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from memd import __version__
from memd.errors import QMPError
from memd.memctl.context import (
    BROKEN_PIPE,
    NO_DAEMON,
    OK,
    SIGNALLED,
    SOCKET_VARIABLE,
    Context,
    Terminated,
    Trouble,
    refused,
    report,
)

_EXIT_STATUS = """\
exit status:
  0    it is done
  1    the daemon or this host refused; the reason is on standard error
  2    the command line is wrong
  3    there is no daemon, or it went away
  130  interrupted (Ctrl-C); 128 and its number for another signal that ends it

With --json, standard output is one JSON document; for an error it is
{"error": {"class": ..., "desc": ...}}, with QMP's classes or Failed, NoDaemon.
"""


class Subcommand(Protocol):
    """A module of this room that is a subcommand."""

    def prepare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, context: Context, arguments: argparse.Namespace) -> int | None:
        """Do it; gives the exit status, None for 0."""


SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "ls": ("ls", "list every memory backend and what it takes"),
    "show": ("show", "show all of one backend: properties, mapping, and what they mean"),
    "map": ("map", "draw which parts of a backend are in memory, copied, shared, swapped, huge"),
    "top": ("top", "list the backends repeatedly, with changes"),
    "add": ("add", "make a backend or another object"),
    "del": ("delete", "delete objects"),
    "read": ("read", "read a backend's memory"),
    "write": ("write", "write to a backend's memory, from a file or standard input"),
    "save": ("save", "save a backend's content as a sparse file"),
    "discard": ("discard", "discard a range of a backend's memory"),
    "export": ("export", "run a command with the descriptor of a backend's memory"),
    "pool": ("pool", "list the pools of memory that is allocated ahead of object-add"),
    "explain": ("explain", "say what making an object would do, and why"),
    "template make": ("template_make", "make a file that clones map copy-on-write"),
    "template save": ("template_save", "make a template of a running machine"),
    "template serve": ("template_serve", "send a template to a machine that waits for it"),
    "template run": ("template_run", "start a QEMU that runs from a template"),
    "template ls": ("template_ls", "list the templates of the store"),
    "template show": ("template_show", "show all of one template"),
    "template verify": ("template_verify", "check all of templates, and repair them from a source"),
    "template del": ("template_delete", "delete templates"),
    "template push": ("template_move", "send a template to a registry or another source"),
    "template pull": ("template_move", "fetch all of a template from a source"),
    "template export": ("template_export", "write a template's memory to a file for local clones"),
    "doctor": ("doctor", "say what this host can do, and what to change"),
    "completion": ("completion", "print the completion script for a shell"),
}
"""Each subcommand's module and what it does. A module is imported when it is
wanted: the others' arguments are not declared, which takes milliseconds. A name of
two words is one of a group."""

GROUPS = {"template": "make, keep and move templates, from which clones start"}
"""The first words of subcommands that have two, and what such a group is for."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals upon which memctl cleans up before it leaves, as upon SIGINT."""


def module(name: str) -> Subcommand:
    """The module that does a subcommand."""
    return cast("Subcommand", import_module(f"memd.memctl.{SUBCOMMANDS[name][0]}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `memctl`; gives its exit status.

    Args:
        argv: the arguments without the program's name; None for `sys.argv`'s.
    """
    try:
        _fill_standard_streams()
        arguments = parse(list(sys.argv[1:] if argv is None else argv))
        with _signals(last=argv is None):
            return _run(Context(arguments.socket, arguments.json), arguments)
    except Terminated as ended:
        return SIGNALLED + ended.number
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT


def parse(words: list[str]) -> argparse.Namespace:
    """The parsed command line; ends the process where it is wrong, or asks for help.

    Options may stand anywhere. Of the subcommands only the one that is named is
    looked at: to declare all of them takes 6 ms.
    """
    at = _subcommand_at(words)
    if at is None:
        return parser(with_arguments=False).parse_args(words)
    name, before, rest = words[at], words[:at], words[at + 1 :]
    if name in GROUPS:
        at = _subcommand_at(rest)
        if at is None:
            return parser(with_arguments=False).parse_args(words)
        name, rest = f"{name} {rest[at]}", rest[:at] + rest[at + 1 :]
    if name not in SUBCOMMANDS:
        _refuse(name)
    command: list[str] = []
    if name in ("export", "template run"):
        rest, command = _cut(rest)
    arguments = argparse.Namespace(socket=None, json=False, subcommand=name)
    _top(_Top).parse_args(before, arguments)
    sub = argparse.ArgumentParser(prog=f"memctl {name}", **_described(name))
    _declare(sub, name)
    sub.parse_intermixed_args(rest, arguments)
    if command:
        arguments.command = [*arguments.command, *command]
    return arguments


def _refuse(name: str) -> NoReturn:
    """Say that there is no such subcommand, and end the process."""
    group, _, word = name.rpartition(" ")
    above = subparser(parser(with_arguments=False), group)
    text = f"there is no '{name}' (choose from {', '.join(_below(above))})"
    if group == "template":
        text += f"; to make a template: memctl template make {word} ..."
    above.error(text)


@contextmanager
def _signals(*, last: bool) -> Iterator[None]:
    """Have what ends memctl end it by an exception, once; see `Terminated`.

    Args:
        last: whether the process ends then: a signal does nothing from there on, as what was
            asked for is done, and the exit status says so.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        # A service manager may send both, and cleaning up is to come to its end.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    # What is ignored from the beginning, as under nohup(1), stays so.
    before = {each: signal.getsignal(each) for each in _ENDING}
    before = {each: was for each, was in before.items() if was is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        if last:
            before = dict.fromkeys((*_ENDING, signal.SIGINT), signal.SIG_IGN)
        for each, was in before.items():
            signal.signal(each, was)


def _run(context: Context, arguments: argparse.Namespace) -> int:
    try:
        try:
            status = module(arguments.subcommand).run(context, arguments) or OK
        except QMPError as error:
            status = report(context, refused(error))
        except Trouble as trouble:
            status = report(context, trouble)
        except ConnectionError as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise
            status = report(context, Trouble(f"the daemon is gone: {error}", NO_DAEMON))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # `| head` has read enough.
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        _drop_output()
        what = error.filename or "cannot write the output"
        return report(None, Trouble(f"{what}: {error.strerror or error}"))


def parser(*, with_arguments: bool = True) -> argparse.ArgumentParser:
    """The whole command line, for help, completion and the manual.

    Args:
        with_arguments: whether the subcommands' arguments are declared, too.
    """
    top = _top()
    below = top.add_subparsers(
        dest="subcommand", metavar="SUBCOMMAND", required=True, prog="memctl"
    )
    groups = {}
    for name, (_module, summary) in SUBCOMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group and group not in groups:
            of_group = below.add_parser(group, help=GROUPS[group], **_described(group))
            groups[group] = of_group.add_subparsers(
                dest="subcommand", metavar="WORD", required=True, prog=f"memctl {group}"
            )
        sub = groups.get(group, below).add_parser(word, help=summary, **_described(name))
        sub.set_defaults(subcommand=name)
        if with_arguments:
            _declare(sub, name)
    return top


def subparser(top: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of a subcommand or a group in the whole command line, `parser`'s."""
    for word in name.split():
        top = _below(top)[word]
    return top


def _below(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers below one, by the word that leads to each."""
    return next(each.choices for each in top._actions if isinstance(each.choices, dict))


class _Top(argparse.ArgumentParser):
    """Takes memctl's own options; its help and usage are those of the whole command line."""

    def format_usage(self) -> str:
        return parser(with_arguments=False).format_usage()

    def format_help(self) -> str:
        return parser(with_arguments=False).format_help()


def _top(make: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    top = make(
        prog="memctl",
        description="Look at, try out and change the memory backends of a running memd.",
        epilog=_EXIT_STATUS,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=_width()),
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"memctl version {__version__}")
    top.set_defaults(socket=None, json=False)
    _common(top)
    return top


def _described(name: str) -> dict[str, Any]:
    summary = GROUPS[name] if name in GROUPS else SUBCOMMANDS[name][1]
    return {
        "description": f"{summary[0].upper()}{summary[1:]}.",
        "formatter_class": _formatter,
        "allow_abbrev": False,
    }


def _declare(sub: argparse.ArgumentParser, name: str) -> None:
    _common(sub)
    module(name).prepare(sub)


def _width() -> int:
    # argparse asks shutil, which imports half of what there is for archives,
    # and does so for every argument that is declared: 5 ms.
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given) - 2
    try:
        return max(20, os.get_terminal_size(1).columns - 2)
    except OSError:
        return 78


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Help as wide as the terminal."""
    return argparse.HelpFormatter(prog, width=_width())


def _common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before the subcommand or after it."""
    absent = argparse.SUPPRESS
    parser.add_argument(
        "-s",
        "--socket",
        metavar="ADDRESS",
        default=absent,
        help="memd's socket: a path, unix:PATH or tcp:HOST:PORT"
        f" (default: ${SOCKET_VARIABLE}, or the one that memd serves by default)",
    )
    parser.add_argument(
        "--json", action="store_true", default=absent, help="print data, as one JSON document"
    )


def _subcommand_at(words: Sequence[str]) -> int | None:
    """Where the subcommand stands, or None."""
    value_follows = False
    for at, word in enumerate(words):
        if not value_follows and not word.startswith("-"):
            return at
        value_follows = not value_follows and word in ("-s", "--socket")
    return None


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Words and, apart, those behind `--`."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _fill_standard_streams() -> None:
    """See that no socket becomes standard output where that was closed.

    What is printed then is an error, as it is to others (`cat x >&-`).
    """
    from memd.cli.process import fill_standard_descriptors, print_anything

    closed = sys.stdout is None
    fill_standard_descriptors()
    if closed:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 1)
        os.close(null)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    print_anything()


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left."""
    from memd.hostmem.sockets import has_hung_up

    try:
        return has_hung_up(sys.stdout.fileno())
    except OSError:
        # It is not a file at all.
        return False


def _drop_output() -> None:
    """Have what is held for standard output go nowhere, or Python complains at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except OSError:
        # It is not a file at all.
        pass
    os.close(null)
