"""`memctl template serve`: a machine that waits runs from a template."""

from __future__ import annotations

import argparse
import os

from memd.client import Client
from memd.json_types import JSONObject
from memd.memctl.context import FAILED, OK, USAGE, Context, Trouble
from memd.memctl.sizes import rounded, size


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument(
        "uri", metavar="URI", nargs="?", help="where the machine waits: unix:PATH or tcp:HOST:PORT"
    )
    parser.add_argument(
        "--qmp",
        metavar="SOCKET",
        help="a monitor of the machine's for memd alone: by it the machine is told where to wait,"
        " unless URI says so, and recovered after a restart of memd",
    )
    parser.add_argument(
        "--page-size",
        metavar="SIZE",
        type=size,
        help="of the machine's memory (default: asked of the monitor, or the template's)",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="learn what the machine needs first; clones to come are sent that first",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="leave once the machine is connected to"
    )
    parser.epilog = (
        "The machine is a QEMU of -incoming defer. On one host, with pages of 4 KiB, clones map a"
        " file faster: memctl template export writes it."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Serve it."""
    if not arguments.uri and not arguments.qmp:
        raise Trouble("URI or --qmp has to say where the machine is", USAGE)
    request: JSONObject = {"name": arguments.name, "record": arguments.record}
    if arguments.uri:
        request["uri"] = arguments.uri
    if arguments.qmp:
        request["qmp"] = os.path.abspath(arguments.qmp)
    if arguments.page_size:
        request["page-size"] = arguments.page_size
    with context.connect() as client:
        client.execute("x-template-serve", request)
        told = {} if arguments.no_wait else wait_served(client, request)
    context.tell(told, [summary(told)] if told else [])
    return OK if told.get("outcome", "complete") == "complete" else FAILED


def wait_served(client: Client, request: JSONObject) -> JSONObject:
    """What the daemon tells of a clone when it is served no more.

    Args:
        request: the arguments of x-template-serve.
    """
    named = [key for key in ("uri", "qmp") if key in request]
    while True:
        data: JSONObject = client.wait_event("X_TEMPLATE_SERVED")["data"]
        if all(data.get(key) == request[key] for key in named):
            return data


def summary(told: JSONObject) -> str:
    """What came of it, in words."""
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
