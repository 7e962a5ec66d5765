"""`memctl`: the people's tool, over the socket of a running memd."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from memd import __version__
from memd.cli import memctl_explain
from memd.cli.process import default_socket_path
from memd.client import Client
from memd.errors import QMPError

JSON = Any

TROUBLE = 2
"""The exit status where the command line is wrong or memd can't be asked."""

_SOCKET = "MEMD_SOCKET"


class Context:
    """What a subcommand is given besides its own arguments.

    Attributes:
        as_json: whether it is to print data instead of words.
    """

    __slots__ = ("_path", "as_json")

    def __init__(self, path: str | None, as_json: bool) -> None:
        self._path = path
        self.as_json = as_json

    def connect(self) -> Client:
        """A connection to the daemon.

        Raises:
            Trouble: there is none to be had.
        """
        try:
            path = self._path or os.environ.get(_SOCKET) or default_socket_path()
        except QMPError as error:
            raise Trouble(f"{error.desc}: name a socket with -s") from None
        try:
            return Client(path)
        except OSError as error:
            raise Trouble(f"cannot connect to {path}: {error.strerror or error}") from None
        except (QMPError, ValueError) as error:
            raise Trouble(f"{path} does not serve QMP: {error}") from None

    def print_json(self, data: JSON) -> None:
        """Print data for scripts."""
        print(json.dumps(data, indent=2, ensure_ascii=False))

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print words for people."""
        for line in lines:
            print(line)


class Trouble(Exception):
    """Something is in the way; its text is for standard error, the status `TROUBLE`."""


class Subcommand:
    """An entry of the table of subcommands.

    Attributes:
        summary: what it does, for `memctl --help`.
        prepare: declares its arguments.
        run: does it; gives the exit status.
    """

    __slots__ = ("prepare", "run", "summary")

    def __init__(
        self,
        summary: str,
        prepare: Callable[[argparse.ArgumentParser], None],
        run: Callable[[Context, argparse.Namespace], int],
    ) -> None:
        self.summary = summary
        self.prepare = prepare
        self.run = run


SUBCOMMANDS: dict[str, Subcommand] = {
    "explain": Subcommand(
        "say what making an object would do, and why", memctl_explain.prepare, memctl_explain.run
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `memctl`; gives its exit status.

    Args:
        argv: the arguments without the program's name; None for `sys.argv`'s.
    """
    arguments = _parser().parse_args(argv)
    context = Context(arguments.socket, arguments.json)
    try:
        status = SUBCOMMANDS[arguments.subcommand].run(context, arguments)
        sys.stdout.flush()
        return status
    except (Trouble, QMPError) as error:
        print(f"memctl: {error}", file=sys.stderr)
    except BrokenPipeError:
        # `| head` has read enough. What is held yet has to go somewhere, or
        # Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConnectionError as error:
        print(f"memctl: the daemon is gone: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return TROUBLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memctl",
        description="Look at, try out and change the memory backends of a running memd.",
        epilog=f"The socket is that of -s, of ${_SOCKET}, or memd's default one.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"memctl version {__version__}")
    parser.set_defaults(socket=None, json=False)
    _common(parser)
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name, subcommand in SUBCOMMANDS.items():
        below = subparsers.add_parser(
            name, help=subcommand.summary, description=subcommand.summary, allow_abbrev=False
        )
        _common(below)
        subcommand.prepare(below)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before the subcommand or after it."""
    absent = argparse.SUPPRESS
    parser.add_argument("-s", "--socket", metavar="PATH", default=absent, help="memd's socket")
    parser.add_argument("--json", action="store_true", default=absent, help="print data, as JSON")
