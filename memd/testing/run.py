"""memd-test: a QMP server for the length of a command, whatever that is written in."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from memd.client import Client
from memd.errors import QMPError
from memd.hostmem.deadline import at_start
from memd.json_types import JSON, JSONObject
from memd.testing.checks import Unexpected
from memd.testing.recorder import Recorder
from memd.testing.server import PATIENCE, Server, ServerDied, free_path

_FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_FROM_THE_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
_NOT_STARTED = 125
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127

_DESCRIPTION = """\
Starts a memd, runs CMD with its socket's path in MEMD_SOCKET, and ends it. The
exit status is that of CMD, 128 and the signal's number where one ended it. In
MEMD_CONTROL is the path of a second socket, for the x-test- commands alone."""

WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("faults", "reset", "transcript", "replay-status", "fault-add"), ()),
    "fault-del": ("id",),
    "answer": ("command", "return"),
    "emit": ("event", "data"),
    "send": ("raw",),
    "expect": ("commands",),
    **dict.fromkeys(("compare", "replay"), ("filename",)),
}
"""The words that CMD may give `memd-test`: what follows `x-test-`, and its members' order."""

_MEMBER = re.compile(r"[a-z][a-z0-9-]*=")

_EPILOG = """\
A fault is JSON, or MEMBER=VALUE,... of what TestFault has (docs/testing.md):

  memd-test --fault command=query-status,delay=500 -- ./my-client-test
  memd-test --fault '{"greeting": true, "stall": true}' -- go test ./...
  memd-test --record conversation.jsonl --server 'qemu-system-x86_64 -machine none' -- ./my-test
  memd-test --replay conversation.jsonl -- ./my-test

Below CMD, memd-test WORD [VALUE | MEMBER=VALUE]... has the server execute an
x-test- command (docs/testing.md): fault-add, fault-del, faults, answer, emit,
send, expect, compare, transcript, replay, replay-status, reset. It prints the
answer, and ends with status 1 and the reason on standard error if it is refused:

  memd-test answer query-status '{"running": false, "status": "paused"}'
  memd-test expect qmp_capabilities '{"execute": "device_del", "arguments": {"id": "d0"}}'
  memd-test compare conversation.jsonl

memd-test catalogue BINARY FILE records what a QEMU offers, for --catalogue of
qemu-system-memd.

Exit status 125: the server or a check failed; 126, 127: CMD can't be run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    Args:
        argv: the arguments; the process's own if None.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["catalogue"]:
        return _catalogue(given[1:])
    if given and given[0] in WORDS:
        return _tell(given[0], given[1:])
    options = parser().parse_args(given)
    if options.command[:1] == ["--"]:
        del options.command[0]
    try:
        if not options.command:
            raise ValueError("no CMD to run")
        faults = [parse_fault(text) for text in options.fault]
        with contextlib.ExitStack() as stack:
            return _run(options, faults, stack)
    except (OSError, ValueError, QMPError, ServerDied, Unexpected) as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Tell what is wrong; gives the exit status."""
    print(f"memd-test: {error}", file=sys.stderr)
    return _NOT_STARTED


def _tell(word: str, values: Sequence[str]) -> int:
    """Have the server of an enclosing `memd-test` execute an `x-test-` command."""
    positional = WORDS[word]
    members: JSONObject = {}
    try:
        control = os.environ.get("MEMD_CONTROL")
        if control is None:
            raise ValueError(f"{word}: there is no MEMD_CONTROL: run it below memd-test -- CMD")
        for value in values:
            if _MEMBER.match(value):
                members.update(parse_member(value))
            elif positional and positional[-1] == "commands":
                command = parse_fault(value) if value.startswith("{") else value
                members.setdefault("commands", []).append(command)
            elif not (left := [name for name in positional if name not in members]):
                raise ValueError(f"{word}: nothing is known of {value!r}")
            else:
                # A name is text, whatever it looks like.
                members[left[0]] = _value(value) if left[0] in ("data", "return") else value
        if "filename" in members:
            members["filename"] = os.path.abspath(members["filename"])
        with Client(control, timeout=PATIENCE) as client:
            answer = client.execute(f"x-test-{word}", members)
    except (OSError, ValueError) as error:
        return _failed(error)
    except QMPError as error:
        print(f"memd-test: {word}: {error.desc}", file=sys.stderr)
        return 1
    if answer != {}:
        print(json.dumps(answer))
    return 0


def _catalogue(argv: Sequence[str]) -> int:
    """Record a QEMU's catalogue."""
    from memd.standin.recording import RecordingError, record

    parser = argparse.ArgumentParser(
        prog="memd-test catalogue",
        description="Starts BINARY, a QEMU, asks it what it offers, and writes that to FILE.",
    )
    parser.add_argument("binary", metavar="BINARY", help="the QEMU, such as qemu-system-x86_64")
    parser.add_argument("file", metavar="FILE", help="where the catalogue goes")
    options = parser.parse_args(argv)
    try:
        record(options.binary, options.file)
    except (OSError, RecordingError) as error:
        return _failed(error)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="memd-test",
        usage="memd-test [OPTION]... -- CMD [ARGUMENT]...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--option",
        metavar="OPT",
        action="append",
        default=[],
        help="an argument for memd; repeatable: --option=--name --option=vm1",
    )
    add("--options", metavar="OPTS", default="", help="several of them, with a shell's quotes")
    add("--compat", metavar="RELEASE", help="10.0 or 11.1, as for memd")
    add("--fault", metavar="FAULT", action="append", default=[], help="inject a fault")
    add("--catalogue", metavar="FILE", help="serve the commands and types of this recorded QEMU")
    add(
        "--unmodelled",
        choices=("refuse", "sample"),
        help="know all of QEMU's commands; how to answer those that memd does not implement",
    )
    add("--replay", metavar="FILE", help="answer from a transcript")
    add("--record", metavar="FILE", help="write a transcript of the conversation")
    add("--server", metavar="CMD", help="start this instead of memd, with -qmp and a socket")
    add("--connect", metavar="PATH", help="use the server at this socket; start none")
    add("--compare", metavar="FILE", help="fail unless the conversation is that of a transcript")
    add("--check-schema", action="store_true", help="fail if a message does not fit the schema")
    add("--log", metavar="FILE", help="where memd's log goes; else it is printed if CMD fails")
    add("command", nargs=argparse.REMAINDER, metavar="CMD", help=argparse.SUPPRESS)
    return parser


def parse_fault(text: str) -> JSONObject:
    """A fault as it is written on a command line: JSON, or MEMBER=VALUE,...

    Values are JSON where they can be read as such, and strings else.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("{"):
        fault = json.loads(text)
        if not isinstance(fault, dict):
            raise ValueError(f"not an object: {text}")
        return fault
    fault = {}
    for part in text.split(","):
        fault.update(parse_member(part))
    return fault


def parse_member(text: str) -> JSONObject:
    """MEMBER=VALUE: its value is JSON where it can be read as such, and a string else.

    Raises:
        ValueError: it is not of this form.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"not MEMBER=VALUE: {text}")
    return {name: _value(value)}


def _value(text: str) -> JSON:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _run(options: argparse.Namespace, faults: list[JSONObject], stack: contextlib.ExitStack) -> int:
    environment = dict(os.environ)
    server: Server | None = None
    status = 0
    if options.server is None and options.connect is None:
        given = [*options.option, *shlex.split(options.options)]
        command = None
        if options.catalogue or options.unmodelled:
            # A daemon that knows all of a QEMU's interface, and no machine.
            script = "import sys; from memd.cli.qemu_system import main; sys.exit(main())"
            command = [sys.executable, "-P", "-c", script, "-machine", "none", "-unmodelled"]
            command += [options.unmodelled or "refuse", "-clients", "many"]
            command += ["-catalogue", options.catalogue] if options.catalogue else []
        server = own = Server(
            given, faults, compat=options.compat, command=command, replay=options.replay
        )
        # Once the daemon has ended: only then is all of it written.
        stack.callback(lambda: _show_log(own.log, options.log, failed=status != 0))
        stack.enter_context(server)
        path = server.socket
        environment["MEMD_CONTROL"] = server.control
    elif faults or options.replay or options.check_schema or options.compare:
        raise ValueError("only a memd of our own misbehaves, replays and checks")
    elif options.server is not None:
        path = stack.enter_context(_other_server(shlex.split(options.server)))
    else:
        path = options.connect
    if options.record is not None:
        recorder = Recorder(f"{free_path()}.sock", path, options.record)
        stack.enter_context(recorder)
        path = recorder.path
    environment["MEMD_SOCKET"] = path
    status = _run_command(options.command, environment)
    if server is not None:
        _look_back(options, server)
    return status


def _show_log(log: str, filename: str | None, *, failed: bool) -> None:
    """Write the log to a file if one is named, else show it if the command failed."""
    if filename is not None:
        path = filename

        def write(*, late: bool) -> bool:
            # A pipe is waited for as long as its reader takes.
            waits = os.path.exists(path) and not os.path.isfile(path)
            if waits == late:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(log)
            return waits

        if at_start(lambda: write(late=False)):
            write(late=True)
    elif failed and log:
        sys.stderr.write(f"memd-test: memd's log:\n{log}")


def _look_back(options: argparse.Namespace, server: Server) -> None:
    """Make the checks, once the command has ended."""
    if server.alive:
        if options.check_schema:
            # The command may have had it reset, and what it sent before counts as well.
            server.check_schema(all=True, catalogue=options.catalogue)
        if options.compare is not None:
            server.compare(options.compare)
        if options.replay is not None:
            server.check_replay()


def _run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end; signals that are for us go to it."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if number in _FROM_THE_KEYBOARD and _is_in_foreground():
            # The command has it already, and twice means something else to many.
            return
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        try:
            child = subprocess.Popen(command, env=environment)
        except OSError as error:
            print(f"memd-test: {command[0]}: {error.strerror}", file=sys.stderr)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        for number in early:
            child.send_signal(number)
        status = child.wait()
        return 128 - status if status < 0 else status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether this process gets what is typed at a terminal, as do all of its group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _other_server(command: list[str]) -> Iterator[str]:
    """Another QMP server, such as a QEMU, on a socket of its own; the socket's path."""
    path = f"{free_path()}.sock"
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        [*command, "-qmp", f"unix:{path},server=on,wait=off"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )

    def died(what: str) -> ServerDied:
        log.seek(0)
        return ServerDied(f"{command[0]} {what}\n{log.read().decode(errors='replace')}")

    try:
        deadline = time.monotonic() + PATIENCE
        # Without connecting, which a server that takes one client would notice.
        while not _listens(path):
            if process.poll() is not None:
                raise died(f"ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise died("does not listen")
            time.sleep(0.01)
        yield path
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _listens(path: str) -> bool:
    """Whether a process listens on a UNIX socket (/proc/net/unix, __SO_ACCEPTCON)."""
    with open("/proc/net/unix", errors="surrogateescape") as table:
        rows = [row.split(maxsplit=7) for row in table]
    return any(len(row) == 8 and row[7].rstrip() == path and row[3] == "00010000" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
