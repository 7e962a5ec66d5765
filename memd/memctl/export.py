"""`memctl export`: a command that has the descriptor of a backend's memory."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from memd.client import Export
from memd.errors import printable
from memd.memctl.backends import add_id, spelled
from memd.memctl.context import OK, USAGE, Context, Trouble, say

CANNOT_RUN = 126
NOT_FOUND = 127
"""Exit statuses where the command can't be run, those of a shell and of env(1)."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = (
        "memctl export [-h] [-s ADDRESS] [--json] [--read-only | --writable] ID [-- CMD ...]"
    )
    add_id(parser)
    parser.add_argument(
        "command",
        metavar="CMD",
        nargs="*",
        help="what to run; without it, what would be handed out is printed",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--read-only",
        dest="writable",
        action="store_false",
        default=None,
        help="a descriptor that can never be written through",
    )
    which.add_argument(
        "--writable",
        dest="writable",
        action="store_true",
        default=None,
        help="one that can be written through, or none",
    )
    parser.epilog = (
        "CMD finds the descriptor's number in MEMD_FD, and in MEMD_SIZE, MEMD_OFFSET and"
        " MEMD_PAGE_SIZE what to map of it, in bytes; MEMD_WRITABLE is 1 or 0, MEMD_ID the id."
        " The exit status is CMD's; 127 if there is no such command, 126 if it can't be run."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Hand it out; does not come back where there is a command."""
    if arguments.command and context.as_json:
        raise Trouble("with a command, standard output is the command's: leave --json out", USAGE)
    with context.connect() as client:
        memory = client.export(arguments.id, writable=arguments.writable)
    with memory:
        if arguments.command:
            return _run(memory, arguments.id, arguments.command)
        told = {
            "id": arguments.id,
            "size": memory.size,
            "offset": memory.offset,
            "page-size": memory.page_size,
            "writable": memory.writable,
            "path": memory.path,
        }
    lines = (f"{name}: {printable(spelled(value))}" for name, value in told.items())
    context.tell(told, lines)
    return OK


def _run(memory: Export, id: str, command: list[str]) -> int:
    os.set_inheritable(memory.fd, True)
    env = dict(
        os.environ,
        MEMD_FD=str(memory.fd),
        MEMD_ID=id,
        MEMD_SIZE=str(memory.size),
        MEMD_OFFSET=str(memory.offset),
        MEMD_PAGE_SIZE=str(memory.page_size),
        MEMD_WRITABLE=str(int(memory.writable)),
    )
    sys.stdout.flush()
    # Python ignores it, and what is ignored stays so.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        # In memctl's place: signals and the status are the command's.
        os.execvpe(command[0], command, env)
    except OSError as failed:
        say(f"cannot run {command[0]}: {failed.strerror}")
        return NOT_FOUND if isinstance(failed, FileNotFoundError) else CANNOT_RUN
