"""From a command line to a running daemon, and its exit status."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

from memd.cli.process import (
    Background,
    PidFile,
    default_socket_path,
    fill_standard_descriptors,
    make_socket_directory,
    print_anything,
)
from memd.cli.report import Answered, CommandLineError
from memd.config import Chardev, Config, MonitorSpec, Report
from memd.errors import QMPError

_PATIENCE = 1.0
"""Seconds given to the interpreter's own end."""


def run_command(
    program: str, parse: Callable[[Sequence[str], Report], Config], argv: Sequence[str] | None
) -> int:
    """Parse a command line and run the daemon.

    Args:
        program: the name that messages begin with.
        parse: makes a `Config` of the arguments.
        argv: the arguments without the program's name; None for `sys.argv`'s.

    Returns:
        The exit status.
    """
    # What the start makes stays: the garbage collector would go through it for nothing.
    gc.disable()
    fill_standard_descriptors()
    print_anything()
    report = Report(program)
    try:
        status = serve(parse(sys.argv[1:] if argv is None else argv, report))
    except CommandLineError as error:
        error.tell(report)
        return error.status
    except QMPError as error:
        report.error(error.desc, hint=error.hint)
        return 1
    except Answered as answer:
        return _say(answer)
    finally:
        gc.enable()
    if argv is None:
        _end_soon(status)
    return status


def _end_soon(status: int) -> None:
    """End the process even if the interpreter, at its own end, waits for a thread."""

    def end() -> None:
        sleep(_PATIENCE)
        os._exit(status)

    with suppress(RuntimeError):
        threading.Thread(target=end, name="memd-end", daemon=True).start()


def serve(config: Config) -> int:
    """Run the daemon until it is told to end; gives the exit status.

    Raises:
        QMPError: it can't begin to.
    """
    _import_asyncio()
    from memd.app import run
    from memd.app.passed import take_passed
    from memd.cli.log import log_in_lines

    log_in_lines()
    background: Background | None = None
    pidfile: PidFile | None = None
    path: str | None = None

    def ready() -> None:
        gc.freeze()
        gc.enable()
        if path is not None:
            _show_the_way(config.report.program, path)
        if background is not None:
            background.ready()

    config.monitors += take_passed(config)
    if config.default_socket and not config.monitors:
        path = default_socket_path()
        make_socket_directory(path, shared=config.allowed is not None)
        id = "compat_monitor0"
        config.monitors.append(MonitorSpec(id, Chardev(id, "unix", path=path, server=True)))
    if config.daemonize:
        background = Background()
    if config.pidfile is not None:
        pidfile = PidFile(config.pidfile)
    try:
        return run(config, ready)
    finally:
        if pidfile is not None:
            pidfile.close()


def _import_asyncio() -> None:
    """Import asyncio as Python has it where there is no `ssl`, if neither is imported yet.

    `ssl` would be a twelfth of a start, and 4 MiB. asyncio has it for TLS of its own, which
    memd does not use: what does (`memd.server.tls`, `memd.pages.http`) imports `ssl` itself.
    """
    if "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("asyncio")
        finally:
            del sys.modules["ssl"]


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


def _show_the_way(program: str, path: str) -> None:
    """Tell a person at a terminal where the daemon is, and what to do about it."""
    try:
        # Where there is no standard output, this goes nowhere.
        print(f"{program}: QMP is served on {path}")
        print(f"{program}: try: qmp-shell {path}", flush=True)
    except OSError:
        # Nobody looks.
        pass
