"""What a machine has besides and a stand-in registers: a VNC display, measurements, snapshots."""

from __future__ import annotations

import re
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import NOT_THERE, prefork
from tests.differential.harness import Side, settle
from tests.differential.server import PATIENCE, qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

Step = tuple[str, dict[str, Any]]


def password(**more: Any) -> Step:
    return "set_password", {"protocol": "vnc", "password": "x", **more}


def expire(moment: str, **more: Any) -> Step:
    return "expire_password", {"protocol": "vnc", "time": moment, **more}


OF_DISPLAYS: list[Step] = [
    *(("query-vnc", {}), ("query-vnc-servers", {}), password(), password(connected="fail")),
    *(password(display="nope"), password(display="default")),
    ("set_password", {"protocol": "spice", "password": "x"}),
    ("change-vnc-password", {"password": "x"}),
    ("human-monitor-command", {"command-line": "info vnc"}),
    *(expire("now"), expire("+30"), expire("x"), expire("never", display="nope")),
    ("display-reload", {"type": "vnc"}),
    ("display-reload", {"type": "vnc", "tls-certs": True}),
    ("display-update", {"type": "vnc"}),
]


@pytest.mark.parametrize(
    "display",
    [
        *("", "-vnc none,websocket", "-vnc unix:@DIR@/v,websocket=unix:@DIR@/w"),
        *("-vnc unix:@DIR@/v,password=on,sasl=on", "-vnc unix:@DIR@/v,sasl=on"),
        "-object secret,id=s,data=x -vnc unix:@DIR@/v,password-secret=s,sasl=off",
    ],
)
def test_displays(directory: Path, display: str) -> None:
    with standin_pair(directory, "-machine", "q35", *display.split()) as pair:
        tell(pair, OF_DISPLAYS)


def test_a_display_at_a_free_port(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1] - 5900
        where = f"127.0.0.1:{number},to={min(number + 100, 59635)},websocket=:0"
        with standin_pair(directory, "-machine", "none", "-vnc", where) as pair:

            def port(side: Side) -> bool:
                service = side.ask("query-vnc", None)["return"]["service"]
                return bool(int(service) > number + 5900)

            assert pair.same("whether it has a later port", port)

            def hosts(side: Side) -> list[tuple[str, bool]]:
                rows = side.ask("query-vnc-servers", None)["return"][0]["server"]
                # They come in the order of their ports, which are any.
                return sorted((row["host"], row["websocket"]) for row in rows)

            assert ("127.0.0.1", True) in pair.same("where it listens", hosts)


def test_displays_that_can_not_be(directory: Path) -> None:
    for value in (
        *("foo", ":x", f"unix:{NOT_THERE}/x", "127.0.0.1:77,foo=1", "127.0.0.1:77,password=x"),
        *("127.0.0.1:70000", "unix:x,to=10", "127.0.0.1:77,to=x", "127.0.0.1:77,to=10"),
        *("none,password-secret=s", "none,sasl-authz=a", f"unix:{directory}/v,websocket=h:x"),
    ):
        said = []
        for binary in (qemu_binary(), qemu_system_memd(qemu_compat())):
            line = [*binary, "-machine", "none", "-S", "-display", "none", "-vnc", value]
            done = prefork.run(line)
            # One that is run by another loader complains of more than of its options.
            own = [row for row in done.stderr.splitlines() if row.startswith("qemu-system-")]
            # Where no port is tried, some error that came before is named as the reason.
            rows = [re.sub("(create a socket): .*", r"\1", row.partition(": ")[2]) for row in own]
            said.append((done.returncode, rows))
        assert said[0][0] == 1
        assert said[1] == said[0]


def test_who_connects_to_a_display_is_disconnected(directory: Path) -> None:
    pair = standin_pair(directory, "-machine", "q35", "-vnc", "unix:@DIR@/vnc")
    with pair as sides, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(sides.subject.scratch / "vnc"))
        assert client.recv(100) == b""


def test_no_picture_is_taken_of_a_display(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35", own=("-device", "VGA")) as pair:
        picture = {"filename": "@DIR@/picture"}
        answer = pair.subject.ask("screendump", picture)
        assert answer["error"]["desc"] == "memd has no picture of a display"
        assert not pair.subject.files()


def test_how_fast_memory_is_dirtied(directory: Path) -> None:
    def measure(period: int, **more: Any) -> Step:
        return "calc-dirty-rate", {"calc-time": period, **more}

    def told(side: Side) -> Any:
        answer = side.ask("query-dirty-rate")["return"]
        return {name: answer[name] for name in answer if name != "start-time"}

    shortly: dict[str, Any] = {"calc-time-unit": "millisecond"}
    steps = [
        *(("query-dirty-rate", {}), measure(0), measure(61), measure(10, **shortly)),
        *(measure(1, **{"sample-pages": 1}), measure(1, **{"sample-pages": 100000})),
        *(measure(1, mode="dirty-ring"), measure(1, mode="dirty-bitmap", **{"sample-pages": 300})),
        measure(1),
    ]
    with standin_pair(directory, "-machine", "q35", "-m", "64M") as pair:
        tell(pair, steps)

        def same(status: str) -> None:
            """Once both are so far: QEMU measures in a thread."""
            both = partial(pair.each, lambda side: told(side)["status"])
            assert settle(both, lambda now: now == (status, status)) == (status, status)
            pair.same(status, told)

        same("measured")
        tell(pair, [measure(60)])
        same("measuring")
        tell(pair, [measure(1), measure(0)])
        same("measuring")


def test_internal_snapshots_are_refused(directory: Path) -> None:
    def job(kind: str, id: str, *devices: str) -> Step:
        vmstate = {} if kind == "delete" else {"vmstate": "d0n"}
        return f"snapshot-{kind}", {"job-id": id, "tag": "t", **vmstate, "devices": [*devices]}

    steps: list[Step] = [
        *(
            ("blockdev-snapshot-internal-sync", {"device": device, "name": "s"})
            for device in ("nope", "d0", "d0n")
        ),
        *(
            ("blockdev-snapshot-delete-internal-sync", {"device": device, **more})
            for device, more in (("nope", {"name": "s"}), ("d0", {"name": "s"}), ("d0", {}))
        ),
    ]
    drive = ("-drive", "if=none,id=d0,driver=null-co,node-name=d0n")
    with standin_pair(directory, "-machine", "q35", *drive) as pair:
        tell(pair, steps)
        jobs = (job("save", "j", "d0n"), job("load", "k", "nope"), job("delete", "m", "d0n"))
        for command, arguments in (*jobs, job("save", "j", "d0n"), job("save", "n")):
            answer = pair.ask(command, arguments)
            for side in (pair.reference, pair.subject):
                while "return" in answer:
                    event = side.monitor.read_event("JOB_STATUS_CHANGE")
                    if event["data"]["status"] == "concluded":
                        break
        assert len(pair.ask("query-jobs")["return"]) == 4
