"""What a stand-in registers beside memory: the same rules and words as a paused QEMU's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.differential.standin import standin_pair, tell


def chardev(id: str, type: str, **data: Any) -> tuple[str, Any]:
    return "chardev-add", {"id": id, "backend": {"type": type, "data": data}}


def remove(id: str) -> tuple[str, Any]:
    return "chardev-remove", {"id": id}


def unix(path: str) -> dict[str, Any]:
    return {"type": "unix", "data": {"path": path}}


def test_chardevs(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        chardev("c0", "null"),
        chardev("c0", "null"),
        chardev("1x", "null"),
        chardev("f0", "file", out="@DIR@/f0"),
        chardev("f1", "file", out="/nonexistent/x"),
        chardev("f2", "file", out="@DIR@/f2", logfile="@DIR@/log", logappend=True),
        chardev("f3", "file", out="@DIR@/f3", logfile="/nonexistent/log"),
        chardev("r0", "ringbuf"),
        chardev("r1", "ringbuf", size=3),
        chardev("r2", "ringbuf", size=16),
        chardev("m0", "mux", chardev="c0"),
        chardev("m1", "mux", chardev="nope"),
        chardev("s0", "socket", addr=unix("@DIR@/s0"), server=True, wait=False),
        chardev("s1", "socket", addr=unix("@DIR@/nobody"), server=False),
        chardev("s2", "socket", addr={"type": "fd", "data": {"str": "nofd"}}, server=False),
        chardev("p0", "pipe", device="@DIR@/nothing"),
        chardev("se", "serial", device="@DIR@/nothing"),
        ("ringbuf-write", {"device": "r2", "data": "hello"}),
        ("ringbuf-read", {"device": "r2", "size": 3}),
        ("ringbuf-read", {"device": "r2", "size": 30}),
        ("ringbuf-write", {"device": "r2", "data": "aGk=", "format": "base64"}),
        ("ringbuf-read", {"device": "r2", "size": 30, "format": "base64"}),
        ("ringbuf-read", {"device": "r2", "size": 0}),
        ("ringbuf-read", {"device": "c0", "size": 3}),
        ("ringbuf-write", {"device": "nope", "data": ""}),
        ("chardev-send-break", {"id": "c0"}),
        ("chardev-send-break", {"id": "nope"}),
        ("chardev-change", {"id": "c0", "backend": {"type": "null", "data": {}}}),
        ("chardev-change", {"id": "nope", "backend": {"type": "null", "data": {}}}),
        ("chardev-change", {"id": "r0", "backend": {"type": "null", "data": {}}}),
        remove("c0"),
        remove("nope"),
        remove("m0"),
        remove("c0"),
        remove("f0"),
        remove("s0"),
        ("qom-list", {"path": "/chardevs"}),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)
        names = pair.same(
            "query-chardev",
            lambda side: [
                each
                for each in side.ask("query-chardev")["return"]
                if each["label"] != "compat_monitor0"
            ],
        )
        assert len(names) == 4
        pair.same("files", lambda side: sorted(side.files()))


def test_a_terminal_and_an_address_are_real(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        for side in (pair.reference, pair.subject):
            pty = side.monitor.execute(*chardev("p0", "pty"))["return"]["pty"]
            assert os.path.exists(pty)
            local = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
            side.monitor.execute(*chardev("t0", "socket", addr=local, server=True, wait=False))
            told = {
                each["label"]: each["filename"]
                for each in side.monitor.execute("query-chardev")["return"]
            }
            assert told["p0"] == f"pty:{pty}"
            assert told["t0"].startswith("disconnected:tcp:127.0.0.1:")
            assert told["t0"].endswith(",server=on")


def test_netdevs(directory: Path) -> None:
    def add(type: str, id: str, **options: Any) -> tuple[str, Any]:
        return "netdev_add", {"type": type, "id": id, **options}

    steps = [
        add("user", "n0"),
        add("hubport", "h0", hubid=1),
        add("hubport", "h0", hubid=1),
        add("user", "1bad"),
        add("tap", "t0", fd="nope"),
        add("tap", "t0", fds="a:b"),
        add("nic", "x"),
        add("none", "x"),
        add("socket", "s0"),
        add("vhost-user", "v0", chardev="nope"),
        add("vhost-vdpa", "v1"),
        chardev("c0", "null"),
        add("vhost-user", "v0", chardev="c0"),
        ("set_link", {"name": "h0", "up": False}),
        ("set_link", {"name": "nope", "up": True}),
        ("netdev_del", {"id": "h0"}),
        ("netdev_del", {"id": "h0"}),
        add("hubport", "h0", hubid=2),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)


def test_descriptors_that_are_handed_over_are_held_and_closed(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        monitor, before = pair.subject.monitor, pair.subject.holdings().descriptors
        read, write = os.pipe()
        try:
            for name in ("a", "b"):
                monitor.send(
                    b'{"execute": "getfd", "arguments": {"fdname": "%s"}}' % name.encode(), [read]
                )
                assert monitor.read_answer() == {"return": {}}
        finally:
            os.close(read)
            os.close(write)
        arguments = {"type": "tap", "id": "t0", "fds": "a:b"}
        assert monitor.execute("netdev_add", arguments) == {"return": {}}
        assert pair.subject.holdings().descriptors.total() == before.total() + 2
        # They are named no more.
        assert "error" in monitor.execute("closefd", {"fdname": "a"})
        assert monitor.execute("netdev_del", {"id": "t0"}) == {"return": {}}
        assert pair.subject.holdings().descriptors == before
