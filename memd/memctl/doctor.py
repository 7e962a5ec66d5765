"""`memctl doctor`: what this host can do, and what to change."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator

from memd.client import Client
from memd.errors import QMPError, printable
from memd.json_types import JSONObject
from memd.memctl import host_checks, memory_checks
from memd.memctl.context import FAILED, NO_DAEMON, SOCKET_VARIABLE, USAGE, Context, Trouble
from memd.memctl.context import OK as SUCCESS
from memd.memctl.host import BAD, OK, WARN, Check, Host, warned
from memd.memctl.tables import console, print_line
from memd.sizes import rounded

_STYLES = {OK: "green", WARN: "yellow", BAD: "bold red"}
_LITTLE_ROOM = 4 << 30
"""Bytes of a template store's file system below which there is little."""

_NEEDED = (
    (
        "/sys",
        "/sys/kernel",
        "sysfs",
        "huge pages, THP, KSM and NUMA",
        (
            memory_checks.huge_pages,
            memory_checks.transparent,
            memory_checks.merging,
            host_checks.numa,
        ),
    ),
    (
        "/proc",
        "/proc/meminfo",
        "proc",
        "the kernel, memory, mounts and limits",
        (
            memory_checks.memory,
            memory_checks.promises,
            memory_checks.huge_pages,
            host_checks.kernel,
            host_checks.postcopy,
            host_checks.limits,
        ),
    ),
)
"""Where a file system has to be mounted, what then is there, its type, what it tells
of, and the checks of that."""

_NAME = 24
"""The width of a name; longer ones shift the rest."""


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        default="/",
        help="look at DIR/proc, DIR/sys and DIR/dev (default: /)",
    )
    parser.epilog = (
        "No daemon is needed, and nothing is changed. Looked at is what this user has here;"
        " a service has limits of its own. The exit status is 1 if something is bad."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Look at everything."""
    if not os.path.isdir(arguments.root):
        raise Trouble(f"{arguments.root} is not a directory", USAGE)
    host = Host(arguments.root)
    checks = list(examine(host))
    if host.here:
        checks += _daemon(context)
    worst = next(
        (state for state in (BAD, WARN) if any(each.state == state for each in checks)), OK
    )
    context.tell({"state": worst, "checks": [each._asdict() for each in checks]})
    if not context.as_json:
        _print(checks)
    return FAILED if worst == BAD else SUCCESS


def examine(host: Host) -> Iterator[Check]:
    """Every check of a host; none of what only an unmounted /sys or /proc would tell."""
    blind: set[Callable[[Host], Iterator[Check]]] = set()
    for place, there, kind, told, checks in _NEEDED:
        if not host.exists(there):
            blind.update(checks)
            found = f"is not mounted: what it tells of {told} is not known"
            yield Check(place, WARN, found, f"mount -t {kind} {kind} {place}")
    for check in (*memory_checks.CHECKS, *host_checks.CHECKS):
        if check not in blind:
            yield from check(host)


def _daemon(context: Context) -> list[Check]:
    """The daemon, and the template store that it has."""
    try:
        with context.connect() as client:
            version = client.greeting["QMP"]["version"]
            release = f"QEMU {version['qemu']['major']}.{version['qemu']['minor']}"
            if not version.get("package", "").startswith("memd"):
                advice = f"Name memd's socket with -s PATH or ${SOCKET_VARIABLE}."
                return [Check("memd", WARN, f"{release} serves there, and no memd", advice)]
            checks = [Check("memd", OK, f"serves QMP as {release} does")]
            return [*checks, *_claims(client), *_templates(client)]
    except Trouble as trouble:
        if trouble.status != NO_DAEMON:
            raise
        return [Check("memd", WARN, trouble.text, trouble.hint.split("\n")[0])]


def _claims(client: Client) -> Iterator[Check]:
    """The huge pages that the daemon's memory may still claim."""
    try:
        rows = client.execute("x-hugepage-query")
    except QMPError as error:
        # It may not see what this process does.
        yield Check("huge pages of memd", WARN, error.desc)
        return
    for row in rows:
        name = f"{rounded(row['page-size'])} pages of memd"
        found = f"{row['claims']} may be claimed that nobody has set aside"
        if "lacking" in row:
            advice = (
                "A write may end in SIGBUS. Add huge pages, or use reserve=on, --commit strict."
            )
            yield Check(name, BAD, f"{found}; {row['lacking']}", advice)
        elif row["claims"]:
            yield Check(name, OK, found)


def _templates(client: Client) -> Iterator[Check]:
    try:
        stores = client.execute("x-template-status")
    except QMPError as error:
        # Its directory may be gone, or memd may refuse the command.
        yield Check("templates", WARN, error.desc)
        return
    for store in stores:
        yield from _template_store(store)


def _template_store(store: JSONObject) -> Iterator[Check]:
    room = store["room"]
    found = f"{store['templates']} in {printable(store['directory'])}, {rounded(room)} free"
    advice = "Room for as much as a template's memory is needed to unpack it."
    yield warned("templates", room < _LITTLE_ROOM, found, advice)
    if store["shares-blocks"]:
        found = "share blocks: a machine with its memory there is saved without a copy"
        yield Check("template files", OK, found)
    else:
        found = "share no blocks: a machine stands while its memory is copied"
        advice = "XFS and btrfs share them, for memory that is a file there too."
        yield Check("template files", WARN, found, advice)
    for source in store["sources"]:
        # The text of an error names the source.
        error = printable(source.get("error", ""))
        found = error or f"{printable(source['url'])} can be reached"
        yield Check("template source", BAD if error else OK, found)


def _print(checks: list[Check]) -> None:
    rich = console()
    for each in checks:
        line = f"{each.name:<{_NAME}}{each.found}"
        if rich is None:
            print(f"{each.state:<6}{line}")
        else:
            from rich.text import Text

            rich.print(Text.assemble((f"{each.state:<6}", _STYLES[each.state]), line))
        if each.advice:
            print_line(f"{'':6}{'':{_NAME}}{each.advice}", "bright_black")
