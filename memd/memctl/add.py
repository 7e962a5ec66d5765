"""`memctl add`: make a backend or another object."""

from __future__ import annotations

import argparse
from contextlib import suppress

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.backends import PREFIX
from memd.memctl.context import FAILED, Context, Trouble
from memd.memctl.objects import METAVAR, compat_of, parse
from memd.memctl.progress import Bar

_ANSWERED_WITHIN = 5.0
"""Seconds in which a command is answered that only waits for its turn."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "object",
        metavar=METAVAR,
        help="what to make, as memd's --object takes it (or as JSON); 'memory-backend-' may be"
        " left out of the type. 'help' lists the types, 'TYPE,help' a type's properties",
    )
    parser.epilog = (
        "For example: memctl add ram,id=m0,size=64M,prealloc=on. A mem-path is the daemon's,"
        " and relative to its directory. Ctrl-C gives up what is being made: nothing of it stays."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Make it."""
    from memd.cli.report import Answered

    with context.connect() as client:
        try:
            options = parse(arguments.object, compat_of(client))
        except Answered as answer:
            print(answer.text, end="")
            return
        try:
            make(context, client, options)
        except QMPError as error:
            from shlex import quote

            hint = ""
            if _is_there(client, options["id"]):
                hint = f"There is a '{options['id']}' already: delete it, or choose another id."
            elif options["qom-type"].startswith(PREFIX):
                hint = f"memctl explain {quote(arguments.object)} may say why."
            raise Trouble(error.desc, FAILED, hint, error.error_class) from None
    context.tell(options)


def make(context: Context, client: Client, options: JSONObject) -> None:
    """Make an object, with a progress bar where that takes long.

    Args:
        options: the arguments of object-add.

    Raises:
        QMPError: it is refused.
        KeyboardInterrupt: it was given up, and nothing of it is left.
    """
    id = options["id"]
    there_before = _is_there(client, id)
    with Bar(id, "populating", client) as bar:
        try:
            client.execute("object-add", options)
        except KeyboardInterrupt:
            bar.clear()
            if not there_before:
                _give_up(context, client, id)
            raise


def _is_there(client: Client, id: str) -> bool:
    """Whether there is an object of that id, which then is not this command's to delete."""
    try:
        client.execute("qom-list", {"path": f"/objects/{id}"})
    except QMPError:
        return False
    return True


def _give_up(context: Context, client: Client, id: str) -> None:
    """Have an object not made, or deleted if it was too late for that.

    The connection that asked for it is waiting, so a second one says so.
    """
    with context.connect() as second:
        _delete(second, id)
        # It may not have got its turn when that was said: it has now, since
        # answers come in order.
        try:
            client.set_timeout(_ANSWERED_WITHIN)
            client.execute("query-status")
        except (OSError, ValueError):
            raise Trouble(
                f"it is not certain that '{id}' was given up", hint=f"See to it: memctl del {id}"
            ) from None
        _delete(second, id)


def _delete(client: Client, id: str) -> None:
    # There is none, or none any more.
    with suppress(QMPError):
        client.execute("object-del", {"id": id})
