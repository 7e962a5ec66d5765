"""`memctl template run`: a QEMU of its own runs from a template."""

from __future__ import annotations

import argparse
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.context import USAGE, Context, Trouble, say
from memd.memctl.export import CANNOT_RUN, NOT_FOUND
from memd.memctl.template_serve import add_record, summary, wait_served

_QEMU = "qemu-system-x86_64"

_LAST_WORDS = 5.0
"""Seconds in which the daemon has to tell of a machine that has ended."""

_LOOK = 0.02
"""Seconds between looks at whether the daemon refuses."""

_ITS_END = 0.2
"""Seconds in which a QEMU that has closed its monitor has ended."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "memctl template run [-h] [-s ADDRESS] [--record] NAME -- [QEMU] ARG ..."
    parser.add_argument("name", metavar="NAME", help="the template")
    parser.add_argument(
        "command",
        metavar="ARG",
        nargs="*",
        help=f"what QEMU is started with; {_QEMU}, unless the first names another",
    )
    add_record(parser)
    parser.epilog = (
        "The machine has to be like the template's: type, devices, size of memory, and the memory's"
        " id. -incoming defer and a monitor for memd are added. What becomes of it is said on"
        " standard error; the exit status is QEMU's."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Run it."""
    command: list[str] = arguments.command
    if not command:
        raise Trouble("behind -- stands what QEMU is started with", USAGE)
    if command[0].startswith("-"):
        command = [_QEMU, *command]
    if shutil.which(command[0]) is None:
        say(f"cannot run {command[0]}: no such command")
        return NOT_FOUND
    with context.connect() as client, tempfile.TemporaryDirectory(prefix="memctl-") as place:
        monitor = os.path.join(place, "qmp")
        request: JSONObject = {"name": arguments.name, "qmp": monitor}
        if arguments.record:
            request["record"] = True
        connected: Future[None] = Future()
        # QEMU is given a socket that listens already: the daemon connects without waiting for it.
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(monitor)
            listening.listen(1)
            teller = threading.Thread(target=_tell, args=(client, request, connected), daemon=True)
            teller.start()
            # And it does once nothing is wrong with what it was asked: no machine starts for that.
            while not select.select([listening], [], [], _LOOK)[0]:
                if connected.done():
                    connected.result()
            fd = listening.fileno()
            command += ["-incoming", "defer", "-qmp", "chardev:memctl"]
            command += ["-chardev", f"socket,id=memctl,fd={fd},server=on,wait=off"]
            began = time.monotonic()
            try:
                machine = subprocess.Popen(command, pass_fds=[fd])
            except OSError as failed:
                say(f"cannot run {command[0]}: {failed.strerror}")
                return CANNOT_RUN
        try:
            try:
                connected.result()
            except QMPError:
                # A QEMU that has ended has said why itself.
                with suppress(subprocess.TimeoutExpired):
                    return machine.wait(_ITS_END)
                raise
            say(f"{arguments.name}: connected after {(time.monotonic() - began) * 1000:.0f} ms")
            status = machine.wait()
            teller.join(_LAST_WORDS)
            return status
        finally:
            if machine.poll() is None:
                machine.terminate()
                machine.wait()


def _tell(client: Client, request: JSONObject, connected: Future[None]) -> None:
    """Have it served, and tell how that ended."""
    try:
        client.execute("x-template-serve", request)
    except Exception as failed:
        connected.set_exception(failed)
        return
    connected.set_result(None)
    try:
        say(summary(wait_served(client, request)))
    except (OSError, QMPError) as lost:
        say(f"the daemon is gone: {lost}")
