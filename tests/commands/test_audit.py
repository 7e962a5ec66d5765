"""Records of commands: what is told, what is not, and that nothing waits for them."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.commands.audit import MOST_HELD, Audit, Record
from memd.commands.queries import is_query
from memd.commands.table import HANDLERS, SESSION_HANDLERS
from memd.errors import QMPError, device_not_found, printable
from memd.json_types import JSON, JSONObject
from memd.server.audit_sinks import LOST_ID, MESSAGE_ID, FileSink, JournaldSink
from memd.server.limits import LimitedLog
from memd.session import Monitor, Peer
from memd.standin.standin import StandIn
from memd.work import MEMORY, Command, Job, Outcome, begin, run_here
from tests.commands.fakes import Console
from tests.stepping import Running, close_all, here

MARK = "U0VDUkVUU0VDUkVU"
"""What may stand in no record."""


class Sink:
    """Keeps records; takes none while it is full."""

    def __init__(self) -> None:
        self.on = MEMORY
        self.records: list[Record] = []
        self.full = False
        self.closed = False

    def write(self, record: Record) -> None:
        if self.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.records.append(record)

    def close(self) -> None:
        self.closed = True


class Loop:
    """An event loop whose time goes on when a test says so."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def time(self) -> float:
        return 1000.0

    def call_later(self, _delay: float, work: Callable[[], None]) -> None:
        self.later.append(work)

    def go_on(self) -> None:
        later, self.later = self.later, []
        for work in later:
            work()


class Client:
    """As much of a session as is recorded."""

    def __init__(self, peer: Peer | None) -> None:
        self.monitor = Monitor("m0")
        self.peer = peer
        self.origin: dict[str, str] = {}


class Audited:
    """Commands that come to what a test says, and the records of them."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.comes_to: JSON = {}
        self.ran: list[str] = []
        self.failed: list[BaseException | None] = []
        self.client = Client(Peer(7, 1000, 100, frozenset()))
        self.loop = Loop()
        self.console = Console()
        warn = LimitedLog(self.loop).warn  # type: ignore[arg-type]
        daemon, loop = self.console.daemon, self.loop
        self.audit = Audit(self._dispatch, daemon, self.sink, loop, self.spawn, warn)  # type: ignore[arg-type]

    def spawn(self, command: Command[None], _what: str) -> None:
        begin(command, here, lambda _value, error: self.failed.append(error))

    def _dispatch(self, _session: object, name: str, _args: object, _oob: bool) -> JSON:
        self.ran.append(name)
        if isinstance(self.comes_to, BaseException):
            raise self.comes_to
        return self.comes_to

    def __call__(self, name: str, **arguments: JSON) -> JSON:
        return self.execute(
            name, {key.replace("_", "-"): value for key, value in arguments.items()}
        )

    def execute(self, name: str, arguments: JSONObject) -> JSON:
        return self.audit(self.client, name, arguments, False)  # type: ignore[arg-type]

    @property
    def last(self) -> Record:
        return self.sink.records[-1]


@pytest.fixture
def audited() -> Iterator[Audited]:
    made = Audited()
    yield made
    close_all(made.console.daemon.tree)


def test_a_command_that_acts(audited: Audited) -> None:
    audited.comes_to = outcome = Outcome()
    assert audited("object-add", qom_type="memory-backend-ram", id="a", size=1) is outcome
    assert audited.sink.records == [
        {
            "command": "object-add",
            "id": "a",
            "arguments": {"qom-type": "memory-backend-ram", "id": "a", "size": 1},
            "monitor": "m0",
            "pid": 7,
            "uid": 1000,
            "gid": 100,
            "outcome": "ok",
        }
    ]


def test_one_that_is_refused(audited: Audited) -> None:
    audited.comes_to = device_not_found("no")
    with pytest.raises(QMPError, match="no"):
        audited("qom-set", path="/objects/a", property="merge", value=True)
    told = ("DeviceNotFound", "Device 'no' not found")
    assert (audited.last["outcome"], audited.last["error"]) == told
    assert "id" not in audited.last


def test_of_whom_nothing_is_known(audited: Audited) -> None:
    audited.client = Client(None)
    audited("quit")
    assert audited.last == {
        "command": "quit",
        "arguments": {},
        "monitor": "m0",
        "outcome": "ok",
    }


def test_who_comes_over_a_network(audited: Audited) -> None:
    audited.client = Client(None)
    audited.client.origin = {"address": "127.0.0.1:9", "certificate": "operator"}
    audited("quit")
    assert audited.last["address"] == "127.0.0.1:9"
    assert audited.last["certificate"] == "operator"


def test_queries_and_what_is_no_command(audited: Audited) -> None:
    for name in ("query-memdev", "qom-get", "qmp_capabilities", "nope", MARK, ""):
        audited(name, data=MARK)
    audited("human-monitor-command", command_line="info memdev")
    assert len(audited.ran) == 7
    assert audited.sink.records == []
    audited("human-monitor-command", command_line="quit")
    assert audited.last["arguments"] == {"command-line": "quit"}


def test_commands_of_a_stand_in(audited: Audited) -> None:
    """Each that is more than a query."""
    daemon = audited.console.daemon
    daemon.standin = StandIn(daemon)
    commands = [each for each in daemon.schema.commands if not is_query(each, {})]
    assert len(commands) > len({*HANDLERS, *SESSION_HANDLERS})
    for name in commands:
        audited(name)
    assert [record["command"] for record in audited.sink.records] == commands


async def slowly(value: JSON) -> JSON:
    """Wait for two jobs; an error is raised."""
    await Job(lambda: 1)
    await Job(lambda: 2)
    if isinstance(value, BaseException):
        raise value
    return value


def test_long_work_is_recorded_when_it_ends(audited: Audited) -> None:
    audited.comes_to = slowly(2)
    running = Running(audited("object-del", id="a"))
    for _ in range(2):
        assert audited.sink.records == []
        running.step()
    assert running.value == 2
    assert [record["outcome"] for record in audited.sink.records] == ["ok"]


def test_long_work_that_fails(audited: Audited) -> None:
    audited.comes_to = slowly(QMPError("no", "CommandNotFound"))
    with pytest.raises(QMPError):
        run_here(audited("object-add", id="a"))
    (record,) = audited.sink.records
    assert (record["outcome"], record["error"]) == ("CommandNotFound", "no")


def test_no_record_has_what_is_written(audited: Audited) -> None:
    audited("x-memdev-write", id="a", offset=0, data=MARK)
    assert audited.last["arguments"] == {"id": "a", "offset": 0, "length": 12}
    for name in {*HANDLERS, *SESSION_HANDLERS}:
        audited(name, data=MARK)
        audited(name, data={"x": [MARK]})
        audited(name, **{MARK: [MARK]})
        audited(name, id="a", Data={MARK: MARK})
    for arguments in ({"dta": MARK}, {"Data": [MARK]}, {"id": [MARK]}, {"offset": MARK}):
        audited("x-memdev-write", **arguments)
    audited.comes_to = QMPError(f"Parameter '{MARK}' is unexpected")
    with pytest.raises(QMPError):
        audited("x-memdev-write", id="a", **{MARK: 1})
    assert audited.last["arguments"] == {"id": "a", "unexpected": 1}
    assert audited.last["error"] == "left out, since it tells of what was sent"
    assert MARK not in repr(audited.sink.records)


@pytest.mark.parametrize(
    ("name", "sent", "told"),
    [
        (
            "object-add",
            {"qom-type": "secret", "id": "s0", "data": MARK, "format": "raw"},
            {"qom-type": "secret", "id": "s0", "data": "…", "format": "…"},
        ),
        (
            "object-add",
            {"qom-type": "secret", "Data": MARK},
            {"qom-type": "secret", "unexpected": 1},
        ),
        (
            "object-add",
            {"qom-type": "secret", "id": "s0", "props": {"data": MARK}},
            {"qom-type": "secret", "id": "s0", "unexpected": 1},
        ),
        ("object-add", {"qom-type": "secret", "id": [MARK]}, {"qom-type": "secret", "id": "…"}),
        # What is not a type may be meant as one that holds a secret, or as the secret.
        ("object-add", {"qom-type": MARK, "file": MARK}, {"qom-type": "…", "file": "…"}),
        ("object-add", {"type": "secret", "data": MARK}, {"data": "…", "unexpected": 1}),
        (
            "object-add",
            {"qom-type": "memory-backend-ram", "id": "m0", "size": 1, MARK: MARK},
            {"qom-type": "memory-backend-ram", "id": "m0", "size": 1, "unexpected": 1},
        ),
        (
            "qom-set",
            {"path": "/objects/s0", "property": "data", "value": MARK},
            {"path": "/objects/s0", "property": "data", "value": "…"},
        ),
        (
            "qom-set",
            {"path": "/objects/s0", "property": "Data", "value": MARK, "val": MARK},
            {"path": "/objects/s0", "property": "…", "value": "…", "unexpected": 1},
        ),
        (
            "qom-set",
            {"path": "/objects/m0", "property": "merge", "value": True, "secret": MARK},
            {"path": "/objects/m0", "property": "merge", "value": True, "unexpected": 1},
        ),
        (
            "human-monitor-command",
            {"command-line": f"object_add secret,id=s0,data={MARK}"},
            {"command-line": "object_add …"},
        ),
        # Of a value that may be told, a member that has content is not.
        (
            "qom-set",
            {"path": "/objects/m0", "property": "size", "value": {"a": {"Data": MARK}, "b": 1}},
            {"path": "/objects/m0", "property": "size", "value": {"a": {"Data": "…"}, "b": 1}},
        ),
        ("human-monitor-command", {"command-line": f" {MARK} x"}, {"command-line": "…"}),
        # A name may have a password in it.
        (
            "x-template-pull",
            {"name": "t", "url": f"https://user:{MARK}@b@host:80/a?b://c@"},
            {"name": "t", "url": "https://user:…@host:80/a?b://c@"},
        ),
        (
            "x-template-pull",
            {"name": f"json:{{'Password' : '{MARK}'}}", "url": f"://:{MARK * 50}@"},
            {"name": "json:…", "url": "://:…@"},
        ),
        (
            "device_add",
            {"driver": "pc-dimm", "id": "d0", "memdev": "m0", "password": MARK, MARK: 1},
            {"driver": "pc-dimm", "id": "d0", "memdev": "m0", "unexpected": 2},
        ),
    ],
)
def test_secrets(audited: Audited, name: str, sent: Any, told: JSON) -> None:
    """Of what carries them there is what names something, and which members there were."""
    audited.console("object-add", qom_type="memory-backend-ram", id="m0", size=4096)
    audited.execute(name, sent)
    assert audited.last["arguments"] == told
    assert MARK not in repr(audited.sink.records)


@pytest.mark.parametrize("value", [MARK, [MARK], {"x": {MARK: 1}}, f"a,b={MARK}"])
def test_an_error_does_not_quote_a_secret(audited: Audited, value: JSON) -> None:
    audited.comes_to = QMPError(f"Invalid value '{MARK}' for s0")
    with pytest.raises(QMPError):
        audited("object-add", qom_type="secret", id="s0", data=value)
    assert audited.last["error"] == "left out, since it tells of what was sent"
    audited.comes_to = QMPError("attempt to add duplicate property 's0'")
    with pytest.raises(QMPError):
        audited("object-add", qom_type="secret", id="s0", data=value)
    assert audited.last["error"] == "attempt to add duplicate property 's0'"


@pytest.mark.parametrize("value", ["x " * 100_000, ["x"] * 100_000], ids=["text", "list"])
def test_an_error_is_not_looked_through_for_ever(audited: Audited, value: JSON) -> None:
    audited.comes_to = QMPError("no")
    with pytest.raises(QMPError):
        audited("object-add", qom_type="secret", id="s0", data=value)
    assert audited.last["error"] == "left out, since it tells of what was sent"


def test_an_error_does_not_quote_the_password_of_a_url(audited: Audited) -> None:
    audited.comes_to = QMPError(f"'https://u:{MARK}@host' is no source")
    with pytest.raises(QMPError):
        audited.execute("x-template-pull", {"name": "t", "url": f"https://u:{MARK}@host"})
    assert audited.last["error"] == "'https://u:…@host' is no source"


def test_much_is_cut(audited: Audited) -> None:
    """Which the record says."""
    deep: JSON = "x"
    for _ in range(500):
        deep = [deep]
    path = "/" + "p" * 300
    for value in (deep, ["y"] * 500, {f"m{n}": n for n in range(99)}):
        audited("object-add", qom_type="memory-backend-ram", mem_path=path, host_nodes=value)
        assert audited.last["arguments"]["mem-path"] == path[:256] + "…"
        assert audited.last["cut"] is True
    assert len(audited.last["arguments"]["host-nodes"]) == 32
    audited("object-add", qom_type="memory-backend-ram", id="i" * 300)
    assert (audited.last["id"], audited.last["cut"]) == ("i" * 256 + "…", True)
    audited("object-del", id="a")
    assert "cut" not in audited.last
    audited("object-add", qom_type="memory-backend-ram", host_nodes=[["z" * 256] * 32] * 32)
    assert audited.last["cut"] is True
    assert len(repr(audited.last)) < 40_000


def test_a_record_that_will_never_be_taken_is_no_obstacle(audited: Audited) -> None:
    audited.sink.full = True
    for id in "abc":
        audited("object-del", id=id)
    audited.sink.full = False
    write = audited.sink.write

    def refuse(record: Record) -> None:
        if record.get("id") == "b":
            raise OSError(90, "Message too long")
        write(record)

    audited.sink.write = refuse  # type: ignore[method-assign]
    audited.loop.go_on()
    assert [record.get("id", record.get("lost")) for record in audited.sink.records] == [
        *("a", "c", 1)
    ]


def test_a_sink_that_is_full_holds_nobody_up(audited: Audited) -> None:
    """Records wait for it, in their order."""
    audited("object-del", id="0")
    audited.sink.full = True
    for number in range(1, 4):
        assert audited("object-del", id=str(number)) == {}
    audited.loop.go_on()
    audited("object-del", id="4")
    # One attempt is under way, however many records wait.
    assert len(audited.loop.later) == 1
    audited.sink.full = False
    audited.loop.go_on()
    audited("object-del", id="5")
    assert [record["id"] for record in audited.sink.records] == list("012345")
    assert audited.loop.later == []


def test_too_many_records_are_lost_and_that_is_told(
    audited: Audited, caplog: pytest.LogCaptureFixture
) -> None:
    audited.sink.full = True
    for _ in range(MOST_HELD + 3):
        audited("quit")
    audited.loop.go_on()
    assert caplog.text.count("audit records are being lost: Resource temp") == 1
    audited.sink.full = False
    audited.loop.go_on()
    assert len(audited.sink.records) == MOST_HELD + 1
    assert audited.last == {"lost": 3}
    audited("quit")
    assert audited.last["command"] == "quit"


def test_what_was_lost_is_told_before_the_next_record(audited: Audited) -> None:
    audited.sink.full = True
    for _ in range(MOST_HELD + 2):
        audited("quit")
    audited.sink.full = False
    audited.sink.records = []
    write = audited.sink.write

    def one_more(record: Record) -> None:
        write(record)
        audited.sink.full = True

    audited.sink.write = one_more  # type: ignore[method-assign]
    audited.loop.go_on()
    audited.sink.full = False
    audited.sink.write = write  # type: ignore[method-assign]
    audited("stop")
    audited.loop.go_on()
    assert audited.sink.records[-2:] == [{"lost": 2}, audited.last]
    assert audited.last["command"] == "stop"


def test_at_the_end(audited: Audited, caplog: pytest.LogCaptureFixture) -> None:
    audited.sink.full = True
    audited("quit")
    audited.sink.full = False
    audited.audit.close()
    assert (audited.last["command"], audited.sink.closed) == ("quit", True)
    other = Audited()
    other.sink.full = True
    other("quit")
    other.audit.close()
    assert "1 audit records are lost" in caplog.text
    # What was to be tried again finds nothing to do.
    other.sink.full = False
    other.loop.go_on()
    assert other.sink.records == []


# The journal


@pytest.fixture
def journal(directory: Path) -> Iterator[socket.socket]:
    """The journal's end of its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(directory / "socket"))
        sock.setblocking(False)
        yield sock


def entry(data: bytes) -> dict[str, str]:
    """An entry as the journal reads it."""
    fields = {}
    while data:
        line, data = data.split(b"\n", 1)
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields[name.decode()] = value.decode()
    return fields


RECORD: Record = {"command": "object-del", "id": "a", "arguments": {"id": "a"}, "monitor": "m0"}


def fill(sink: JournaldSink | FileSink) -> int:
    """Write until nothing is taken; how many were."""
    taken = 0
    try:
        while True:
            sink.write({**RECORD, "outcome": "ok"})
            taken += 1
    except BlockingIOError:
        return taken


def test_an_entry_of_the_journal(directory: Path, journal: socket.socket) -> None:
    sink = JournaldSink(str(directory / "socket"))
    sink.write({**RECORD, "pid": 7, "uid": 1000, "gid": 100, "outcome": "ok"})
    assert entry(journal.recv(65536)) == {
        "MESSAGE": "object-del a by uid 1000, pid 7: ok",
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "memd",
        "MEMD_COMMAND": "object-del",
        "MEMD_ID": "a",
        "MEMD_ARGUMENTS": '{"id": "a"}',
        "MEMD_MONITOR": "m0",
        "MEMD_PID": "7",
        "MEMD_UID": "1000",
        "MEMD_GID": "100",
        "MEMD_OUTCOME": "ok",
    }
    sink.write({"lost": 3})
    fields = entry(journal.recv(65536))
    assert (fields["MESSAGE_ID"], fields["PRIORITY"], fields["MEMD_LOST"]) == (LOST_ID, "4", "3")
    sink.close()


@pytest.mark.parametrize(
    ("origin", "who"),
    [
        ({"address": "[::1]:9"}, "[::1]:9"),
        ({"address": "x", "certificate": "operator"}, "operator"),
    ],
)
def test_an_entry_of_who_comes_over_a_network(
    directory: Path, journal: socket.socket, origin: dict[str, str], who: str
) -> None:
    sink = JournaldSink(str(directory / "socket"))
    sink.write({**RECORD, **origin, "outcome": "ok"})
    fields = entry(journal.recv(65536))
    assert fields["MESSAGE"] == f"object-del a by {who}: ok"
    assert fields["MEMD_ADDRESS"] == origin["address"]
    sink.close()


@pytest.mark.parametrize("text", ["a\nPRIORITY=0\nb", "\n", "a=b\0", "\ud800", "ä€"])
def test_no_text_can_make_a_field(directory: Path, journal: socket.socket, text: str) -> None:
    sink = JournaldSink(str(directory / "socket"))
    sink.write({**RECORD, "id": text, "outcome": "GenericError", "error": text})
    fields = entry(journal.recv(65536))
    shown = text.encode("utf-8", "replace").decode()
    assert (fields["PRIORITY"], fields["MEMD_ID"], fields["MEMD_ERROR"]) == ("5", shown, shown)
    # The message is a line of the system log, wherever that goes.
    line = printable(text)
    assert fields["MESSAGE"] == f"object-del {line} by m0: GenericError: {line}"
    sink.close()


def test_a_journal_that_does_not_read(directory: Path, journal: socket.socket) -> None:
    """The kernel takes so many datagrams, and then says so."""
    sink = JournaldSink(str(directory / "socket"))
    taken = fill(sink)
    assert taken
    for _ in range(taken):
        journal.recv(65536)
    sink.write({**RECORD, "outcome": "ok"})
    sink.close()


def test_a_record_longer_than_a_datagram(directory: Path, journal: socket.socket) -> None:
    """It is cut, and says so."""
    sink = JournaldSink(str(directory / "socket"))
    sink.write({**RECORD, "arguments": {"x": "y" * (1 << 20)}, "outcome": "ok"})
    fields = entry(journal.recv(65536))
    assert (fields["MEMD_COMMAND"], fields["MEMD_CUT"]) == ("object-del", "true")
    assert "MEMD_ARGUMENTS" not in fields
    sink.close()


@pytest.mark.usefixtures("patient_datagrams")
def test_a_journal_that_is_started_anew(directory: Path, journal: socket.socket) -> None:
    sink = JournaldSink(str(directory / "socket"))
    journal.close()
    with pytest.raises(ConnectionRefusedError):
        sink.write({**RECORD, "outcome": "ok"})
    os.unlink(directory / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(directory / "socket"))
        sink.write({**RECORD, "outcome": "ok"})
        assert entry(sock.recv(65536))["MEMD_OUTCOME"] == "ok"
    sink.close()


def test_no_journal(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournaldSink(str(directory / "socket"))


# Files


def test_a_file(directory: Path) -> None:
    path = directory / "audit"
    for id in ("a", "b\n\ud800"):
        sink = FileSink(str(path))
        sink.write({**RECORD, "id": id, "outcome": "ok"})
        sink.close()
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert len(first.pop("time")) == len("2026-11-20T11:19:54.641298Z")
    assert first == {**RECORD, "outcome": "ok"}
    assert second["id"].startswith("b\n")


def test_a_file_without_room(directory: Path) -> None:
    """A line that found no room for its end does not spoil the next."""
    path = directory / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = FileSink(str(path))
    fill(sink)
    os.read(reader, 1 << 20)
    sink.write({**RECORD, "outcome": "ok"})
    assert json.loads(os.read(reader, 1 << 20))["command"] == "object-del"
    sink.close()
    os.close(reader)


def test_a_line_that_was_torn(directory: Path) -> None:
    path = directory / "audit"
    sink = FileSink(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, limits[1]))
    try:
        with pytest.raises(OSError, match="no room"):
            sink.write({**RECORD, "outcome": "ok"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sink.write({**RECORD, "outcome": "ok"})
    torn, whole = path.read_text().splitlines()
    assert torn == '{"time": '
    assert json.loads(whole)["command"] == "object-del"
    sink.close()
