"""`memctl template run`: a QEMU of its own runs from a template."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.context import USAGE, Context, Trouble
from memd.memctl.export import CANNOT_RUN, NOT_FOUND
from memd.memctl.template_serve import summary, wait_served

_QEMU = "qemu-system-x86_64"

_LAST_WORDS = 5.0
"""Seconds in which the daemon has to tell of a machine that has ended."""

_PAUSE = 0.005
_PATIENCE = 30.0
"""Seconds in which QEMU has to make its monitor's socket."""


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
    parser.add_argument(
        "--record",
        action="store_true",
        help="learn what the machine needs first; clones to come are sent that first",
    )
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
        print(f"memctl: cannot run {command[0]}: no such command", file=sys.stderr)
        return NOT_FOUND
    with context.connect() as client, tempfile.TemporaryDirectory(prefix="memctl-") as place:
        monitor = os.path.join(place, "qmp")
        command += ["-incoming", "defer", "-qmp", f"unix:{monitor},server=on,wait=off"]
        try:
            machine = subprocess.Popen(command)
        except OSError as failed:
            print(f"memctl: cannot run {command[0]}: {failed.strerror}", file=sys.stderr)
            return CANNOT_RUN
        try:
            request: JSONObject = {"name": arguments.name, "qmp": monitor}
            if arguments.record:
                request["record"] = True
            if not _wait_for(monitor, machine):
                return machine.wait()
            began = time.monotonic()
            client.execute("x-template-serve", request)
            _say(f"{arguments.name}: connected after {(time.monotonic() - began) * 1000:.0f} ms")
            teller = threading.Thread(target=_tell, args=(client, request), daemon=True)
            teller.start()
            status = machine.wait()
            teller.join(_LAST_WORDS)
            return status
        finally:
            if machine.poll() is None:
                machine.terminate()
                machine.wait()


def _wait_for(monitor: str, machine: subprocess.Popen[bytes]) -> bool:
    """Wait until QEMU has made its monitor; False if it has ended."""
    deadline = time.monotonic() + _PATIENCE
    while not os.path.exists(monitor):
        if machine.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise Trouble("QEMU makes no monitor")
        time.sleep(_PAUSE)
    return True


def _tell(client: Client, request: JSONObject) -> None:
    try:
        _say(summary(wait_served(client, request)))
    except (OSError, QMPError) as lost:
        _say(f"the daemon is gone: {lost}")


def _say(text: str) -> None:
    print(f"memctl: {text}", file=sys.stderr)
