"""`memctl template serve`: a machine that waits runs from a template."""

from __future__ import annotations

import argparse
import contextlib

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.context import FAILED, OK, USAGE, Context, Trouble, absolute
from memd.memctl.progress import Bar
from memd.memctl.sizes import PAGE, size
from memd.sizes import rounded

_LOOK = 0.5
"""Seconds between two looks at how far a clone is; the daemon is told once a second."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument(
        "uri", metavar="URI", nargs="?", help="where the machine waits: unix:PATH or tcp:HOST:PORT"
    )
    parser.add_argument(
        "--qmp",
        metavar="SOCKET",
        help="a monitor of the machine for memd alone: memd uses it to set the machine up, unless"
        " URI is given, and to recover it after a restart of memd",
    )
    parser.add_argument(
        "--page-size",
        metavar="SIZE",
        type=size,
        help="of the machine's memory (default: asked of the monitor, or the template's)",
    )
    add_record(parser)
    parser.add_argument(
        "--no-wait", action="store_true", help="leave once the machine is connected to"
    )
    parser.epilog = (
        "The machine is a QEMU of -incoming defer. On one host, with pages of 4 KiB, clones map a"
        " file faster: memctl template export writes it."
    )


def add_record(parser: argparse.ArgumentParser) -> None:
    """Declare `--record`."""
    parser.add_argument(
        "--record",
        action="store_true",
        help="learn what the machine needs first; clones to come are sent that first",
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Serve it."""
    if not arguments.uri and not arguments.qmp:
        raise Trouble("URI or --qmp has to say where the machine is", USAGE)
    request: JSONObject = {"name": arguments.name, "record": arguments.record}
    if arguments.uri:
        request["uri"] = arguments.uri
    if arguments.qmp:
        request["qmp"] = absolute(arguments.qmp)
    if arguments.page_size:
        request["page-size"] = arguments.page_size
    with context.connect() as client:
        client.execute("x-template-serve", request)
        told = {} if arguments.no_wait else wait_served(client, request, shown=True)
    context.tell(told, [summary(told)] if told else [])
    return OK if told.get("outcome", "complete") == "complete" else FAILED


def wait_served(client: Client, request: JSONObject, *, shown: bool = False) -> JSONObject:
    """The event about a clone that is served no more.

    Args:
        request: the arguments of x-template-serve.
        shown: whether a progress bar tells how far it is, where there is a terminal.
    """
    named: JSONObject = {key: request[key] for key in ("uri", "qmp") if key in request}
    with Bar(request["name"], "serving") as bar:
        while True:
            try:
                pause = _LOOK if shown and bar.visible else None
                event = client.wait_event("X_TEMPLATE_SERVED", timeout=pause)
            except TimeoutError:
                _see(client, named, bar)
                continue
            data: JSONObject = event["data"]
            if named.items() <= data.items():
                return data


def _see(client: Client, named: JSONObject, bar: Bar) -> None:
    """Show how far a clone is."""
    with contextlib.suppress(QMPError):
        found = client.execute("x-template-query", {"name": bar.id})
        for clone in found["clones"]:
            if named.items() <= clone.items():
                pages = clone["pages"]
                sent = pages["asked"] - pages["zeroes"] + pages["working-set"] + pages["rest"]
                bar.at(min(sent * PAGE, found["data"]), found["data"])


def summary(told: JSONObject) -> str:
    """The outcome in words."""
    pages = told["pages"]
    outcome = {
        "complete": "the machine has all of its memory",
        "left": "the machine has ended",
        "lost": "the connection to the machine is lost",
        "failed": f"failed: {told.get('error')}",
    }[told["outcome"]]
    return (
        f"{told['name']}: {outcome}. {rounded(told['bytes'])} sent: {pages['asked']} pages that it"
        f" asked for ({pages['zeroes']} of them zeroes), {pages['working-set']} of the working set,"
        f" {pages['rest']} others."
    )
