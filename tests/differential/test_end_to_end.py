"""A client's life with the daemon: negotiation, refusals, framing, events, the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_shm
from tests.differential.harness import Pair, Side, exact, normalise
from tests.differential.server import Message, Monitor, Server, memd_argv, qemu_argv, qemu_compat

MIB = 1 << 20


def newcomers(pair: Pair) -> tuple[Monitor, Monitor]:
    """A second connection to each, not negotiated; the fixture's own leaves first.

    The reference serves one client of a socket at a time.
    """
    for side in (pair.reference, pair.subject):
        side.monitor.close()
        side.monitor = side.server.monitor(negotiate=False)
    return pair.reference.monitor, pair.subject.monitor


def test_greeting(pair: Pair) -> None:
    reference, subject = pair.each(lambda side: side.normal(side.monitor.greeting))
    assert subject == reference


def test_negotiation(pair: Pair) -> None:
    """What is refused before it, while it is wrong, and after it."""
    newcomers(pair)
    for request in (
        {"execute": "query-version"},
        {"execute": "query-version", "id": 1},
        {"execute": "no-such-command", "id": None},
        {"execute": "object-add", "arguments": {}},
        {"execute": "query-version", "arguments": 5},
        {"execute": "query-version", "foo": 5},
        {"exec-oob": "qmp_capabilities"},
        {"execute": "qmp_capabilities", "arguments": {"enable": ["x"]}, "id": "a"},
        {"execute": "qmp_capabilities", "arguments": {"enable": "oob"}},
        {"execute": "qmp_capabilities", "arguments": {"enable": [1]}},
        {"execute": "qmp_capabilities", "arguments": {"disable": []}},
        {"execute": "qmp_capabilities", "arguments": None},
        {"execute": "query-version"},
        {"execute": "qmp_capabilities", "arguments": {"enable": []}, "id": {"a": [1, None]}},
        {"execute": "qmp_capabilities"},
        {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}},
        {"execute": "qmp_capabilities", "arguments": {"enable": ["x"]}},
        {"execute": "qmp_capabilities", "arguments": {"enable": 1}},
        {"execute": "qmp_capabilities", "arguments": {"disable": []}},
        {"execute": "query-status"},
    ):
        pair.raw_request(request)


def test_out_of_band(pair: Pair) -> None:
    newcomers(pair)
    for request in (
        {"execute": "qmp_capabilities", "arguments": {"enable": ["oob", "oob"]}},
        {"exec-oob": "query-status", "id": 1},
        {"exec-oob": "no-such-command", "id": 2},
        {"exec-oob": 5, "id": 3},
        {"exec-oob": "query-status", "execute": "query-status", "id": 4},
        {"exec-oob": "query-yank", "id": 5},
        {"exec-oob": "query-yank"},
        {"execute": "query-yank", "id": 6},
        {"execute": "query-status", "id": 7},
    ):
        pair.raw_request(request)


DISPATCH: list[Any] = [
    5,
    "x",
    None,
    True,
    1.5,
    [],
    [{"execute": "query-status"}],
    {},
    {"id": 1},
    {"execute": 5},
    {"execute": None},
    {"execute": ["query-status"]},
    {"execute": "query-status", "arguments": None},
    {"execute": "query-status", "arguments": []},
    {"execute": "query-status", "arguments": 5},
    {"execute": "query-status", "arguments": {}},
    {"execute": "query-status", "arguments": {"x": 1}},
    {"execute": "query-status", "foo": 1},
    {"foo": 1},
    {"arguments": 5, "foo": 1},
    {"arguments": 5, "execute": 5},
    {"execute": "query-status", "exec-oob": "query-status"},
    {"exec-oob": "query-status"},
    {"exec-oob": 5},
    {"execute": ""},
    {"execute": "Query-Status"},
    {"execute": "no-such-command", "arguments": {}},
    {"execute": "no-such-command", "arguments": 5},
    {"execute": "x" * 3000},
    {"execute": "a\0b"},
    {"execute": "\N{EURO SIGN}"},
    {"execute": "qom-set"},
    {"execute": "qom-set", "arguments": {"path": "/"}},
    {"execute": "qom-set", "arguments": {"path": "/", "property": "x"}},
    {"execute": "qom-set", "arguments": {"path": "/", "property": "x", "value": None, "y": 1}},
    {"execute": "qom-get", "arguments": {"path": 1, "property": 2}},
    {"execute": "human-monitor-command"},
    {"execute": "human-monitor-command", "arguments": {"command-line": 5}},
]


@pytest.mark.parametrize("request_", DISPATCH, ids=lambda value: exact(value)[:60])
def test_dispatch(pair: Pair, request_: Any) -> None:
    """Each refusal alone, with its id, and twice in one packet."""
    pair.raw_request(request_)
    pair.raw_request(request_)
    pair.raw(json.dumps(request_).encode() * 2 + b"\n")
    if isinstance(request_, dict):
        pair.raw_request({**request_, "id": "x"})


@pytest.mark.parametrize(
    "id_",
    [
        *[0, 1, -1, 1 << 53, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 1 << 64, 1.0, 1.5, 1e300],
        *[0.1, -0.0, 1e-320, 123456789.123456789, True, False, None, "", "x", "a\0b"],
        *['"\\/\b\f\n\r\t', "\x7f\x80\u20ac\U0001f600", [], {}, [[[]]], {"a": {"b": [1, None]}}],
    ],
    ids=lambda value: exact(value)[:40],
)
def test_ids(pair: Pair, id_: Any) -> None:
    """Any JSON value comes back as it was, with a success and with an error."""
    for command in ("query-status", "no-such-command"):
        pair.raw_request({"execute": command, "id": id_})
        pair.raw(json.dumps({"execute": command, "id": id_}, ensure_ascii=False).encode())


def test_an_id_comes_back_byte_by_byte(pair: Pair) -> None:
    """How an answer's values are written, not only what they mean."""
    for text in (b"1.0", b"1e2", b"-0", b"0.1", b'"\xc3\xa4\xf0\x9f\x98\x80"', b'"\\/\\u0000"'):
        request = b'{"execute": "no-such-command", "id": %s}' % text

        def line(side: Side, request: bytes = request) -> str:
            side.monitor.send(request)
            answer = side.monitor.read_line()
            assert answer.endswith(b"}\r\n")
            return "".join(sorted(answer.decode("ascii")))

        pair.same(repr(request), line)


def test_packets(pair: Pair) -> None:
    """Several commands in one packet, one over several, with and without newlines."""
    ask = b'{"execute":"query-status","id":%d}'
    pair.raw(b"".join(ask % number for number in range(20)))
    pair.raw(b"\r\n".join(ask % number for number in range(20)) + b"\r\n")
    pair.raw(b" \t\n\r\n" * 50 + ask % 1 + b"\n" * 50)
    pair.raw(b'{ "id" : 1 ,\n "arguments":\t{ } , "execute"\r\n : "query-status" }')
    pair.raw(b"{'execute':'query-status','id':'x'}")

    def one_byte_at_a_time(side: Side) -> Any:
        for byte in ask % 7:
            side.monitor.send(bytes([byte]))
        return side.normal(side.monitor.read_answer())

    pair.same("byte by byte", one_byte_at_a_time)


@pytest.mark.parametrize(
    "data",
    [
        *[b"}", b"]", b",", b":", b"{]", b"[}"],
        *[b'{"a":}', b"[1,]", b"[1 2]", b'{"a" 1}', b"{1:2}", b'{"a":1,"a":2}'],
        *[b"nul ", b"'x' ", b"1 ", b"01 ", b"-", b"1.", b"1e", b"+1 ", b"%d ", b'{"id":%d}'],
        *[b"\0", b"\xff", b"\x1b", b"{\xff", b'{"a":"\x01"}', b"\xef\xbb\xbf{}"],
        *[b'"\\z"', b'"\\ud800"', b'"\xc0\x80"', b'"\xff"'],
        *[b"[" * 1025 + b"]" * 1025, b'{"execute":"query-status"}}', b"{foo:1}", b"//"],
        *[b"{'execute': 'x', 'id':'\n", b'{"execute":"query-status",}'],
    ],
    ids=lambda data: repr(data[:40]),
)
def test_malformed(pair: Pair, data: bytes) -> None:
    """The same errors, as many, and the next command is answered."""
    pair.raw(data + b"\n")
    pair.raw(data + b"\n" + data + b"\n")
    pair.raw(b'{"execute":"query-status","id":1}')


def test_events(pair: Pair) -> None:
    """Events come before their command's answer, and only where the state changes."""

    def run(side: Side) -> Any:
        seen = []
        for command in ("stop", "stop", "query-status", "cont", "cont", "query-status"):
            side.monitor.send(json.dumps({"execute": command, "id": command}).encode())
            while True:
                message = side.normal(side.monitor.read())
                seen.append(message)
                if "event" not in message:
                    break
        return seen

    # In a list of dicts the order is that of arrival here, so no normalising.
    pair.same("stop and cont", lambda side: [exact(message) for message in run(side)])


def test_event_timestamp(memd: Side) -> None:
    memd.ask("stop")
    memd.ask("cont")
    first, second = memd.monitor.events
    for event in (first, second):
        stamp = event["timestamp"]
        assert set(event) == {"event", "timestamp"}
        assert set(stamp) == {"seconds", "microseconds"}
        assert 0 <= stamp["microseconds"] < 1_000_000
        assert isinstance(stamp["seconds"], int)


def test_a_client_that_comes_again(pair: Pair) -> None:
    """What a connection leaves half-said is forgotten, and it has to negotiate again."""
    for half in (b'{"execute": "query-st', b'"', b"[[[[", b"{'execute':'stop'"):
        for side in (pair.reference, pair.subject):
            side.monitor.send(half)
        newcomers(pair)
        pair.raw_request({"execute": "query-status", "id": 1})
        pair.raw_request({"execute": "qmp_capabilities"})
        pair.raw_request({"execute": "query-status", "id": 1})


@pytest.fixture
def own_pair(directory: Path) -> Iterator[Callable[[], tuple[Server, Server]]]:
    """Starts a reference and a memd that the test may end."""
    servers: list[Server] = []

    def start() -> tuple[Server, Server]:
        argv = qemu_argv()
        for name, command in (("QEMU", argv), ("memd", memd_argv(qemu_compat()))):
            place = directory / str(len(servers))
            place.mkdir()
            servers.append(Server(name, command, place))
        return servers[-2], servers[-1]

    yield start
    for server in servers:
        server.stop()


def farewell(server: Server, end: Callable[[Monitor], None]) -> list[Any]:
    """All that a client hears once the end has begun, and how the process ended."""
    monitor = server.monitor()
    bystander = server.path
    end(monitor)
    heard: list[Any] = []
    while True:
        try:
            heard.append(exact(normalise(monitor.read(), server.path.parent)))
        except Exception as error:
            heard.append(type(error).__name__)
            break
    heard.append(server.wait())
    heard.append(bystander.exists())
    return heard


def test_quit(own_pair: Callable[[], tuple[Server, Server]]) -> None:
    def end(monitor: Monitor) -> None:
        monitor.send(b'{"execute":"quit","id":1}{"execute":"query-status"}')

    reference, subject = (farewell(server, end) for server in own_pair())
    assert subject == reference
    assert subject[-2:] == [0, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(own_pair: Callable[[], tuple[Server, Server]], number: signal.Signals) -> None:
    servers = own_pair()
    heard = [
        farewell(server, lambda _monitor, server=server: server.process.send_signal(number))  # type: ignore[misc]
        for server in servers
    ]
    assert heard[1] == heard[0]
    assert heard[1][-2:] == [0, False]


@need_shm
def test_everything_goes_at_the_end(start_memd: Callable[..., Server], directory: Path) -> None:
    """With backends in use the end is as clean: no file, no socket, no shared memory left."""
    server = start_memd()
    monitor = server.monitor()
    for number, kind in enumerate(("ram", "memfd", "shm", "file")):
        arguments: Message = {
            "qom-type": f"memory-backend-{kind}",
            "id": f"m{number}",
            "size": MIB,
        }
        if kind == "file":
            arguments["mem-path"] = str(directory)
        assert monitor.execute("object-add", arguments) == {"return": {}}
    monitor.execute("quit")
    assert server.wait() == 0
    assert not server.path.exists()
    assert {path.name for path in directory.iterdir()} == {server.path.parent.name}
    # Other processes make theirs meanwhile.
    assert not list(Path("/dev/shm").glob(f"qemu-{server.pid}-*"))
    assert server.stderr() == ""
