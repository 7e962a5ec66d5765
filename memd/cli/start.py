"""From a command line to a running daemon, and its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from memd.cli.process import (
    Background,
    PidFile,
    default_socket,
    fill_standard_descriptors,
    print_anything,
)
from memd.cli.report import Answered, CommandLineError, Reporter
from memd.config import Chardev, Config, MonitorSpec
from memd.errors import QMPError, is_identifier

_FIRST_PASSED = 3
"""The first of the descriptors that a service manager passes (sd_listen_fds(3))."""


def run_command(
    program: str, parse: Callable[[Sequence[str], Reporter], Config], argv: Sequence[str] | None
) -> int:
    """Parse a command line and run the daemon.

    Args:
        program: the name that messages begin with.
        parse: makes a `Config` of the arguments.
        argv: the arguments without the program's name; None for `sys.argv`'s.

    Returns:
        The exit status.
    """
    fill_standard_descriptors()
    print_anything()
    report = Reporter(program)
    try:
        config = parse(sys.argv[1:] if argv is None else argv, report)
    except CommandLineError as error:
        report.refuse(error)
        return 1
    except Answered as answer:
        return _say(answer)
    return serve(config)


def serve(config: Config) -> int:
    """Run the daemon until it is told to end; gives the exit status."""
    from memd.app import run
    from memd.cli.log import log_in_lines

    log_in_lines()
    background: Background | None = None
    pidfile: PidFile | None = None
    path: str | None = None

    def ready() -> None:
        if path is not None:
            _show_the_way(config.report.program, path)
        if background is not None:
            background.ready()

    try:
        config.monitors += _take_passed(config)
        if config.default_socket and not config.monitors:
            path = default_socket(shared=config.allowed is not None)
            config.monitors.append(_default_monitor(path))
        if config.daemonize:
            background = Background()
        if config.pidfile is not None:
            pidfile = PidFile(config.pidfile)
    except QMPError as error:
        config.report.error(error.desc, hint=error.hint)
        return 1
    try:
        return run(config, ready)
    finally:
        if pidfile is not None:
            pidfile.close()


def _say(answer: Answered) -> int:
    if sys.stdout is None:
        return answer.status
    try:
        sys.stdout.write(answer.text)
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has read enough. What is held yet has to go somewhere, or
        # Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return answer.status


def _take_passed(config: Config) -> list[MonitorSpec]:
    """Take what a service manager has passed (sd_listen_fds(3)): sockets, and what it kept.

    Returns:
        monitors on the sockets. What was kept for the last daemon goes to `config`.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    from memd.persist.fdstore import is_stored, let_more_be_opened

    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    sockets: dict[int, str] = {}
    for number in range(int(count) if count.isdecimal() else 0):
        fd = _FIRST_PASSED + number
        name = names[number] if number < len(names) else ""
        if is_stored(name, fd):
            config.stored[name] = fd
        else:
            sockets[fd] = name
    # Before anything else is opened.
    let_more_be_opened(config.stored)
    return [
        _passed_monitor(config, number, fd, list(sockets.values()))
        for number, fd in enumerate(sockets)
    ]


def _passed_monitor(config: Config, number: int, fd: int, names: list[str]) -> MonitorSpec:
    """A monitor on a socket, by the socket's name if that is an id and nothing else's."""
    id = names[number]
    taken = [each.id for each in config.chardevs]
    taken += [each.chardev.id for each in config.monitors]
    if not is_identifier(id) or names.count(id) > 1 or id in taken:
        id = f"activated{number}"
    chardev = Chardev(id, "fd")
    chardev.fd = fd
    chardev.server = True
    return MonitorSpec(chardev.id, chardev, "control", False, "")


def _default_monitor(path: str) -> MonitorSpec:
    chardev = Chardev("compat_monitor0", "unix")
    chardev.path = path
    chardev.server = True
    return MonitorSpec("compat_monitor0", chardev, "control", False, "")


def _show_the_way(program: str, path: str) -> None:
    """Tell a person at a terminal where the daemon is, and what to do about it."""
    try:
        # Where there is no standard output, this goes nowhere.
        print(f"{program}: QMP is served on {path}")
        print(f"{program}: try: qmp-shell {path}", flush=True)
    except OSError:
        # Nobody looks.
        pass
