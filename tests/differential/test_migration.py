"""Migration of a stand-in: states, events and errors as between two QEMUs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from memd.json_types import JSON
from tests import NOT_THERE
from tests.differential.harness import Side, settle
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running
from tests.differential.standin import standin_pair, tell

ENDED = ("completed", "failed", "cancelled")


def channel(kind: str = "main", **address: Any) -> dict[str, Any]:
    return {"channel-type": kind, "addr": address}


NOWHERE = {"transport": "socket", "type": "unix", "path": f"{NOT_THERE}/x"}


def socket_address(kind: str, **more: str) -> dict[str, Any]:
    return {"channels": [channel(transport="socket", type=kind, **more)]}


def rdma(host: str) -> dict[str, Any]:
    return {"channels": [channel(transport="rdma", host=host, port="5")]}


def vsock(cid: str, port: str) -> dict[str, Any]:
    return socket_address("vsock", cid=cid, port=port)


# No machine of this host has this context ID: nothing listens there.
NOBODY = "3735928559"


@pytest.mark.parametrize(
    "where",
    [
        *({"uri": f"vsock:{cid}:5"} for cid in ("x", "0x3", "-1", "4294967296", "3" * 32, " +1")),
        *({"uri": f"vsock:3:{port}"} for port in ("x", "0x5", "5x", "-1", "4294967296")),
        *({"uri": uri} for uri in ("vsock::5", "vsock:3:5,x", f"vsock:3:{'5' * 33}")),
        *(vsock("", ""), vsock("3", ""), vsock("2", "5"), vsock("0", "5"), vsock(NOBODY, "010")),
        *(rdma(""), rdma("127.0.0.1"), {"uri": "rdma::5"}, {"uri": "rdma:a:5"}),
        *({"uri": f"file:@DIR@/f,offset={offset}"} for offset in ("-1", "17E", "4E", "1.5")),
        {"uri": "file:@DIR@/missing,offset=18446744073709551615"},
        *({"uri": f"fd:{number}"} for number in ("5x", "2147483648", "99999999999", "\u0663")),
        socket_address("inet", host="", port=""),
    ],
    ids=str,
)
def test_where_no_machine_is_awaited(directory: Path, where: dict[str, Any]) -> None:
    def prepare(scratch: Path) -> None:
        (scratch / "f").touch()

    options = ("-machine", "none", "-incoming", "defer")
    with standin_pair(directory, *options, prepare=prepare) as pair:
        pair.ask("migrate-incoming", where)
        pair.ask("query-migrate")
        pair.ask("query-status")
        pair.ask("migrate-incoming", {"uri": "fd:nope"})


@pytest.mark.parametrize("flags", ["ipv4=off,ipv6=off", "ipv4=off", "ipv6", "ipv4,to=9"])
def test_families_of_an_address(directory: Path, flags: str) -> None:
    with standin_pair(directory, "-machine", "none", "-incoming", "defer") as pair:
        pair.ask("migrate-incoming", {"uri": f"tcp:127.0.0.1:0,{flags}"})


def test_what_is_refused_at_once(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("query-migrate", None),
        ("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}),
        *(
            ("migrate", {"uri": uri})
            for uri in (
                *("", "nope", "nope:", "unix", "unix:", "tcp:", "tcp:127.0.0.1", "tcp::"),
                *("tcp:[", "fd:", "fd:nope", "fd:5", "fd:0", "file:", f"file:{NOT_THERE}/x"),
                *("file:@DIR@", "file:@DIR@/f,offset=x", "vsock:", "vsock:x", "vsock::"),
                *("vsock::5", "vsock:3:5,x", f"vsock:{'3' * 33}:5", f"vsock:3:{'5' * 33}"),
                *("file:@DIR@/f,offset=-1", "file:@DIR@/f,offset=-0", "file:@DIR@/f,offset=-1k"),
                *("file:@DIR@/f,offset=17E", "file:@DIR@/f,offset=99999999999999999999"),
                *("file:@DIR@/f,offset=4E", "file:@DIR@/f,offset=18446744073709551615"),
                *("file:/dev/null", "rdma::5", "rdma:127.0.0.1:5", "rdma:[::1]:x", "rdma"),
                *("vsock:[", "tcp:[]:1", "tcp:[::1]:", "tcp:a:"),
                *("tcp:a:1,ipv4=maybe", "tcp:a:1,ipv6x", "tcp:a:1,keep-alive=x", "tcp:a:1,to=x"),
                *("tcp:a:1,mptcp=1", "tcp:a:1,ipv6=on,ipv4=,to=5"),
                *(f"tcp:a:1,to={to},ipv6x" for to in ("-5", "+5", " 5", "5x", "0x5", "\u0663", "")),
            )
        ),
        ("query-migrate", None),
        ("migrate", None),
        ("migrate", {"uri": f"unix:{NOT_THERE}/x", "channels": [channel(**NOWHERE)]}),
        ("migrate", {"channels": []}),
        ("migrate", {"channels": [channel(**NOWHERE)] * 2}),
        ("migrate", {"channels": [channel(transport="socket", type="fd", str="nope")]}),
        (
            "migrate",
            {"channels": [channel(transport="file", filename=f"{NOT_THERE}/x", offset=0)]},
        ),
        ("migrate", {"uri": f"unix:{NOT_THERE}/x", "resume": True}),
        ("migrate_cancel", None),
        ("migrate-continue", {"state": "pre-switchover"}),
        ("migrate-pause", None),
        ("migrate-recover", {"uri": "tcp:x"}),
        ("migrate-start-postcopy", None),
        ("migrate-incoming", None),
        ("migrate-incoming", {"uri": "tcp:x"}),
        ("query-migrate", None),
        ("query-status", None),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)
        pair.same("files", lambda side: sorted(side.files()))


@pytest.mark.parametrize(
    "uri",
    [
        f"unix:{NOT_THERE}/x",
        "tcp:127.0.0.1:1",
        "tcp:[::1]:1",
        "tcp:127.0.0.1:x",
        f"unix:{'x' * 120}",
        f"unix:{NOT_THERE}/x,abstract=on",
        *("vsock:x:5", "vsock:3:5x", "vsock:4294967296:5", "vsock:3:-1", f"vsock:{NOBODY}:5"),
        socket_address("inet", host="", port=""),
        socket_address("unix", path=""),
        vsock("3", ""),
    ],
    ids=str,
)
def test_what_fails_later(directory: Path, uri: str | dict[str, Any]) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        pair.ask("migrate", {"uri": uri} if isinstance(uri, str) else uri)
        pair.same(str(uri), lambda side: outcome(side))
        pair.ask("query-status")


def outcome(side: Side) -> dict[str, Any]:
    """What query-migrate tells in the end."""
    told = settle(
        lambda: side.ask("query-migrate")["return"], lambda now: now.get("status") in ENDED
    )
    assert isinstance(told, dict)
    return told


Script = Callable[[Side, Side, Callable[..., None]], None]


@contextlib.contextmanager
def machines(binary: str, directory: Path, *options: str) -> Iterator[Any]:
    """Starts a QEMU, or a stand-in, with options."""
    argv = qemu_system_memd(qemu_compat()) if binary == "memd" else qemu_binary()
    common = ["-display", "none", "-nodefaults"]
    with contextlib.ExitStack() as stack:

        def start(name: str, *more: str) -> Side:
            place = directory / f"{binary}-{name}"
            place.mkdir()
            line = [*argv, *common, *options, *more]
            server = stack.enter_context(running(f"{binary} {name}", line, place))
            side = Side(server, directory)
            side.monitor.execute(
                "migrate-set-capabilities",
                {"capabilities": [{"capability": "events", "state": True}]},
            )
            return side

        yield start


def events_until(side: Side, *statuses: str) -> list[list[JSON]]:
    """The events up to a status of migration, and forget them.

    Passes come last: QEMU tells of the second one before or after "device". Of a machine that
    runs, further ones are left out: how many it takes is chance.
    """
    passes = 1 if qemu_compat() is Compat.V10_0 else 2
    if "-S" in side.server.argv:
        passes = 2
    while not any(
        event["event"] == "MIGRATION" and event["data"]["status"] in statuses
        for event in side.monitor.events
    ):
        side.monitor.events.append(side.monitor.read())
    told: list[list[JSON]] = []
    for event in side.take_events():
        if event.get("data", {}).get("pass", 0) <= passes:
            told.append([event["event"], event.get("data")])
    return sorted(told, key=lambda each: each[0] == "MIGRATION_PASS")


def shape(told: Any) -> Any:
    """What query-migrate tells, without its numbers."""
    if isinstance(told, dict):
        return {name: shape(value) for name, value in sorted(told.items())}
    return "number" if type(told) in (int, float) else told


# What the source and the destination are told before, and the options of both.
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], list[str], list[str]]] = {
    "not started": (("-S",), ("-S",), [], []),
    "running": ((), (), [], []),
    "not started here, to run there": (("-S",), (), [], []),
    "running, to stop there": ((), ("-S",), [], []),
    "paused": ((), (), ["stop"], []),
    "to run after all": ((), ("-S",), [], ["cont"]),
    "to stop after all": ((), (), [], ["stop", "system_reset"]),
}


@pytest.mark.parametrize("case", CASES)
def test_states_and_events(directory: Path, case: str) -> None:
    here, there, before, meanwhile = CASES[case]

    def run(binary: str) -> list[Any]:
        address = f"unix:{directory}/{binary}"
        log: list[Any] = []

        def ask(side: Side, command: str, **arguments: Any) -> None:
            answer = side.ask(command, arguments or None)
            log.append([command, shape(answer.get("return", answer))])

        with machines(binary, directory, "-machine", "q35", "-m", "16") as start:
            source = start("source", *here)
            target = start("target", *there, "-incoming", "defer")
            for command in before:
                ask(source, command)
            source.take_events()
            for command in ("query-status", "query-migrate", *meanwhile):
                ask(target, command)
            target.take_events()
            ask(target, "migrate", uri=address)
            target.monitor.execute("migrate-incoming", {"uri": address})
            log.append(target.take_events())
            ask(target, "migrate-incoming", uri=address)
            assert target.ask("query-migrate")["return"]["status"] == "setup"
            ask(source, "migrate", uri=address)
            log.append(events_until(source, *ENDED))
            log.append(events_until(target, *ENDED))
            for side in (source, target):
                # QEMU tells of the end a moment before it has come about.
                settle(
                    partial(side.ask, "query-status"),
                    lambda now: now["return"]["status"] not in ("finish-migrate", "inmigrate"),
                )
                for command in ("query-status", "query-migrate"):
                    ask(side, command)
            ask(source, "migrate", uri=address)
            ask(target, "migrate-incoming", uri=address)
            ask(source, "cont")
            ask(target, "cont")
            log += [source.take_events(), target.take_events()]
            log.append(os.path.exists(f"{directory}/{binary}"))
        return log

    assert run("memd") == run("qemu")


def test_the_pause_before_the_switchover(directory: Path) -> None:
    def run(binary: str) -> list[Any]:
        log: list[Any] = []
        with machines(binary, directory, "-machine", "q35", "-m", "16") as start:
            source = start("source")
            pause = [{"capability": "pause-before-switchover", "state": True}]
            source.ask("migrate-set-capabilities", {"capabilities": pause})
            source.ask("migrate", {"uri": f"file:{directory}/{binary}"})
            log.append(events_until(source, "pre-switchover"))
            log.append(shape(source.ask("query-migrate")["return"]))
            for command, arguments in (
                ("query-status", None),
                ("migrate-continue", {"state": "device"}),
                ("migrate-set-capabilities", {"capabilities": []}),
                ("device_add", {"driver": "pc-dimm", "id": "d0"}),
                ("migrate-continue", {"state": "pre-switchover"}),
            ):
                log.append(source.ask(command, arguments))
            log.append(events_until(source, *ENDED))
        return log

    assert run("memd") == run("qemu")


@pytest.mark.parametrize("when", ["active", "pre-switchover"])
def test_cancelled(directory: Path, when: str) -> None:
    def run(binary: str) -> list[Any]:
        log: list[Any] = []
        with (
            machines(binary, directory, "-machine", "q35", "-m", "16") as start,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            if when == "active":
                listener.bind(f"{directory}/{binary}")
                listener.listen()
            source = start("source")
            address = f"{'unix' if when == 'active' else 'file'}:{directory}/{binary}"
            if when == "active":
                source.ask("migrate-set-parameters", {"max-bandwidth": 1000})
            else:
                pause = [{"capability": "pause-before-switchover", "state": True}]
                source.ask("migrate-set-capabilities", {"capabilities": pause})
            for _ in range(2):
                source.ask("migrate", {"uri": address})
                log.append(events_until(source, when))
                log.append(source.ask("migrate", {"uri": "unix:/x"}))
                log.append(source.ask("migrate_cancel"))
                log.append(events_until(source, "cancelled"))
                # QEMU sometimes adds that its channel failed, which it has closed itself.
                log.append(outcome(source)["status"])
                settle(lambda: source.ask("query-status"), lambda now: now["return"]["running"])
                log.append(source.ask("query-status"))
                # A reset of QEMU's guest, which runs, may come at any time.
                log.append([e["event"] for e in source.take_events() if e["event"] != "RESET"])
        return log

    assert run("memd") == run("qemu")


def test_a_receiver_that_leaves(directory: Path) -> None:
    """The source runs again; since QEMU 11 it says that it has failed after that."""

    def run(binary: str) -> list[Any]:
        log: list[Any] = []
        with (
            machines(binary, directory, "-machine", "q35", "-m", "16") as start,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            listener.bind(f"{directory}/{binary}")
            listener.listen()
            source = start("source")
            pause = [{"capability": "pause-before-switchover", "state": True}]
            source.ask("migrate-set-capabilities", {"capabilities": pause})
            source.ask("migrate", {"uri": f"unix:{directory}/{binary}"})
            receiver = listener.accept()[0]
            while source.ask("query-migrate")["return"]["status"] != "pre-switchover":
                with contextlib.suppress(BlockingIOError):
                    receiver.recv(1 << 20, socket.MSG_DONTWAIT)
            receiver.close()
            source.ask("migrate-continue", {"state": "pre-switchover"})
            log.append(events_until(source, "failed"))
            settle(lambda: source.ask("query-status"), lambda now: now["return"]["running"])
            log.append(source.ask("query-status"))
            log.append([event["event"] for event in source.take_events()])
        return log

    assert run("memd") == run("qemu")


WRONG = {
    "nothing": b"",
    "garbage": b"garbage that is long enough",
    "a part of it": b"",
}


@pytest.mark.parametrize(
    "uri",
    [
        f"unix:{NOT_THERE}/x",
        f"unix:/tmp/{'x' * 120}",
        f"file:{NOT_THERE}/x",
        "fd:nope",
        "tcp:192.0.2.1:5",
        "other:x",
        "tcp:x",
    ],
)
def test_an_address_where_nothing_can_be_awaited(directory: Path, uri: str) -> None:
    """Where the address was good and the machine could not listen, no other can be given."""

    def run(binary: str) -> list[Any]:
        with machines(binary, directory, "-machine", "q35", "-m", "16") as start:
            target = start("target", "-incoming", "defer")
            log = [target.ask("migrate-incoming", {"uri": uri}), target.ask("query-migrate")]
            again = target.ask("migrate-incoming", {"uri": f"unix:{directory}/{binary}"})
            return [*log, again, target.ask("query-status")]

    assert run("memd") == run("qemu")


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("exits", [True, False])
def test_a_wrong_stream(directory: Path, what: str, exits: bool) -> None:
    def run(binary: str) -> list[Any]:
        log: list[Any] = []
        with machines(binary, directory, "-machine", "q35", "-m", "16") as start:
            data = WRONG[what]
            if what == "a part of it":
                source = start("source")
                source.ask("migrate", {"uri": f"file:{directory}/{binary}"})
                events_until(source, "completed")
                data = Path(f"{directory}/{binary}").read_bytes()
                data = data[: len(data) // 2]
            path = directory / "wrong"
            path.write_bytes(data)
            target = start("target", "-incoming", "defer")
            arguments = {"uri": f"file:{path}", "exit-on-error": exits}
            log.append(target.ask("migrate-incoming", arguments))
            log.append(events_until(target, *ENDED))
            if exits:
                log.append(target.server.wait())
                log.append(target.server.stderr().splitlines()[-1].partition(": ")[2])
            else:
                for command in ("query-migrate", "query-status"):
                    log.append(target.ask(command))
        return log

    if what == "nothing":
        # QEMU says that it is none, memd that it was cut off.
        assert run("memd")[:2] == run("qemu")[:2]
    else:
        assert run("memd") == run("qemu")


PREFIX = "qemu-system-x86_64: "
DIMM = ("-object", "memory-backend-ram,id=m1,size=16M", "-device", "pc-dimm,id=d1,memdev=m1")
OTHERS: dict[str, tuple[str, ...]] = {
    "the same": DIMM,
    "another size": ("-m", "32,slots=2,maxmem=1G", *DIMM),
    "another machine": ("-machine", "pc", *DIMM),
    "no such block": (),
    "a block of another size": (
        *("-object", "memory-backend-ram,id=m1,size=32M", "-device", "pc-dimm,id=d1,memdev=m1"),
    ),
    "another device": (*DIMM[:3], "pc-dimm,id=d2,memdev=m1"),
    "a block more": (
        *(*DIMM, "-object", "memory-backend-ram,id=m2,size=16M"),
        *("-device", "pc-dimm,id=d2,memdev=m2"),
    ),
}


def test_a_machine_that_is_another(directory: Path) -> None:
    def run(binary: str, wanted: dict[str, list[str]]) -> list[Any]:
        log: list[Any] = []
        base = ("-machine", "q35", "-m", "16,slots=2,maxmem=1G")
        with machines(binary, directory, *base) as start:
            source = start("source", *DIMM)
            source.ask("migrate", {"uri": f"file:{directory}/{binary}"})
            events_until(source, "completed")
            for number, (what, options) in enumerate(OTHERS.items()):
                target = start(str(number), *options, "-incoming", "defer")
                arguments = {"uri": f"file:{directory}/{binary}", "exit-on-error": False}
                target.ask("migrate-incoming", arguments)
                told = outcome(target)
                why = target.server.stderr("".join(wanted.get(what, []))).splitlines()[:1]
                log.append([what, told, [line.removeprefix(PREFIX) for line in why]])
        return log

    qemu = run("qemu", {})
    assert run("memd", {what: why for what, _told, why in qemu}) == qemu
