"""`memctl template save`: a template of a machine that runs, which then goes on."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import time

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.context import PATIENCE, Context, Trouble, no_daemon, say
from memd.memctl.progress import Bar
from memd.sizes import rounded

_PAUSE = 0.002
"""Seconds between two looks at a migration that takes 5 to 12 ms."""

_RUNNING = "running"

_ENDED = (None, "completed", "failed", "cancelled")
"""The states of a migration that is over; None is for a machine that has had none."""

_CAPABILITY = "x-ignore-shared"
"""Of a migration, the capability that leaves out what is mapped shared."""

_STREAM = {"fdname": "memd-template"}
"""The connection to the daemon, as the machine knows it."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the template's name")
    parser.add_argument(
        "--qmp", metavar="SOCKET", required=True, help="the machine's monitor, a UNIX socket"
    )
    parser.add_argument(
        "--base", metavar="NAME", help="a similar template: only the differences are stored"
    )
    parser.add_argument(
        "--of", metavar="ID", help="the backend that is the machine's memory (default: found out)"
    )
    parser.epilog = (
        "The machine's memory has to be a backend of memd's, or a file, mapped with share=on. It is"
        " stopped for some milliseconds, in which its devices are saved, and while its memory is"
        " copied: at once where the file and the store are on one file system that shares blocks"
        " (XFS, btrfs), else at the speed of memory. It goes on while the copy is compressed."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Save it."""
    try:
        machine = Client(arguments.qmp, timeout=PATIENCE)
    except (OSError, QMPError, ValueError) as error:
        trouble = no_daemon(arguments.qmp, error)
        raise Trouble(trouble.text) from None
    with machine, context.connect() as client:
        machine.set_timeout(None)
        memory = {"id": arguments.of} if arguments.of else _memory(client, machine)
        version = machine.greeting["QMP"]["version"]["qemu"]
        request = {
            "name": arguments.name,
            **memory,
            "qemu-version": "{major}.{minor}.{micro}".format_map(version),
        }
        if arguments.base:
            request["base"] = arguments.base
        uri: str = client.execute("x-template-save", request)["uri"]
        stood, shared = _record(client, machine, uri.removeprefix("unix:"), arguments.name)
        left = f"'{arguments.name}' will be there"
        told = _wait(client, arguments.name, "X_TEMPLATE_SAVED", left)
    told = {**told, "stood": stood, "shared": shared}
    how = "sharing its blocks" if shared else "copying it"
    context.tell(
        told,
        [
            f"{told['name']}: {rounded(told['size'])} of memory, {rounded(told['stored'])} stored.",
            f"The machine stood for {stood * 1000:.0f} ms; its memory was taken by {how}.",
        ],
    )


def _memory(client: Client, machine: Client) -> JSONObject:
    """The arguments that name a machine's memory."""
    files: dict[str, str] = {}
    private = ""
    for each in machine.execute("query-memdev"):
        backend = f"/objects/{each['id']}"
        # Those of other kinds are not files, and go with the devices.
        with contextlib.suppress(QMPError):
            path = machine.execute("qom-get", {"path": backend, "property": "mem-path"})
            if each["share"]:
                files[each["id"]] = path
            else:
                private = path
    if private and not files:
        raise Trouble(
            f"the machine maps {private} privately: what it wrote is not there (share=on)"
        )
    if not files:
        raise Trouble(
            "the machine's memory is its own: memd can't reach it",
            hint="Start it with -object memory-backend-file,share=on,mem-path=..., on a backend of"
            " memd's or a file; see docs/templating.md.",
        )
    found = [{"block": id, **_named(client, path)} for id, path in files.items()]
    if len(found) > 1:
        return {"memory": found}
    del found[0]["block"]
    return found[0]


def _named(client: Client, path: str) -> dict[str, str]:
    """How memd is told a file: as the backend that it is of, if there is one."""
    try:
        found = os.stat(path)
    except OSError:
        return {"filename": path}
    for each in client.execute("query-memdev"):
        # A backend's file may have no name; its descriptor tells.
        with contextlib.suppress(QMPError), client.export(each["id"], writable=False) as memory:
            if os.path.samestat(os.fstat(memory.fd), found):
                return {"id": each["id"]}
    return {"filename": path}


def _record(client: Client, machine: Client, path: str, name: str) -> tuple[float, bool]:
    """Have a machine send its state, and go on when its memory is copied.

    Gives for how many seconds it stood, and whether its memory's blocks were shared.
    """
    running = machine.execute("query-status")["status"] == _RUNNING
    before = machine.execute("query-migrate-capabilities")
    # Others write the stream in another way, or exclude this one.
    changed = [each for each in before if each["state"] != (each["capability"] == _CAPABILITY)]
    wanted = [{**each, "state": not each["state"]} for each in changed]
    # memctl connects in its place: QEMU may be of another user, or see other directories.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(path)
        machine.execute("getfd", _STREAM, fds=[stream.fileno()])
    machine.execute("migrate-set-capabilities", {"capabilities": wanted})
    began = time.monotonic()
    try:
        machine.execute("stop")
        try:
            machine.execute("migrate", {"uri": f"fd:{_STREAM['fdname']}"})
            if (status := _sent(machine)) != "completed":
                raise Trouble(f"the machine's migration {status}: it says why itself")
            shared = _wait(client, name, "X_TEMPLATE_COPIED")["shared"]
        except KeyboardInterrupt:
            _give_up(client, machine, name)
            raise
    finally:
        if running:
            machine.execute("cont")
        stood = time.monotonic() - began
        machine.execute("migrate-set-capabilities", {"capabilities": changed})
        _close_stream(machine)
    return stood, shared


def _sent(machine: Client) -> str | None:
    """What became of a machine's migration, once it has ended; see `_ENDED`."""
    status: str | None
    while (status := machine.execute("query-migrate").get("status")) not in _ENDED:
        time.sleep(_PAUSE)
    return status


def _close_stream(machine: Client) -> None:
    """Have the daemon wait no longer for what a migration that has not begun would send."""
    # One that has begun has taken it.
    with contextlib.suppress(QMPError):
        machine.execute("closefd", _STREAM)


def _give_up(client: Client, machine: Client, name: str) -> None:
    """See that no template holds what the machine writes once it goes on."""
    # This is not interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _close_stream(machine)
    machine.execute("migrate_cancel")
    if _sent(machine) == "completed":
        say(f"the machine goes on once its memory is copied, and '{name}' will be there")
        with contextlib.suppress(Trouble):
            _wait(client, name, "X_TEMPLATE_COPIED")


def _wait(client: Client, name: str, wanted: str, left: str = "") -> JSONObject:
    """The event about a template, with a progress bar until it comes.

    Args:
        wanted: its name; the last one is taken for any.
        left: see `Bar`.
    """
    with Bar(name, "storing", left=left) as bar:
        while True:
            event = client.wait_event(
                "X_TEMPLATE_PROGRESS", "X_TEMPLATE_COPIED", "X_TEMPLATE_SAVED"
            )
            data: JSONObject = event["data"]
            if data["name"] != name:
                continue
            if event["event"] == "X_TEMPLATE_PROGRESS":
                bar.at(data["done"], data["total"])
            elif "error" in data:
                raise Trouble(data["error"])
            elif event["event"] in (wanted, "X_TEMPLATE_SAVED"):
                return data
