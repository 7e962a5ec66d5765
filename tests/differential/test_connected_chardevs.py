"""Character devices that connect to a socket: whether somebody is at its other end."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Any

from memd.json_types import JSON
from tests.differential.harness import Pair, Side, settle
from tests.differential.server import PATIENCE
from tests.differential.standin import standin_pair

USED, UNUSED = ("serial0", "serial1", "used"), ("fd", "tcp", "unix")


def test_who_is_there_is_told(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = str(tcp.getsockname()[1])
        unix: dict[Path, socket.socket] = {}

        def listen(scratch: Path) -> None:
            unix[scratch] = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix[scratch].bind(str(scratch / "s"))
            unix[scratch].listen()

        serial = ("-serial", "unix:@DIR@/s", "-serial", f"tcp:127.0.0.1:{port}")
        chardev = ("-chardev", "socket,id=used,path=@DIR@/s")
        port_of_it = ("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=used")
        options = (*serial, *chardev, *port_of_it, "-machine", "q35", "-m", "16M")
        pair = stack.enter_context(standin_pair(directory, *options, prepare=listen))
        accepted: dict[str, list[socket.socket]] = {name: [] for name in (*USED, *UNUSED)}

        def accept(name: str) -> None:
            for side in (pair.reference, pair.subject):
                listener = tcp if name in ("serial1", "tcp") else unix[side.scratch]
                listener.settimeout(PATIENCE)
                accepted[name].append(stack.enter_context(listener.accept()[0]))

        def add(name: str, kind: str, **where: str) -> None:
            address = {"type": kind, "data": where}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            assert pair.ask("chardev-add", {"id": name, "backend": backend}) == {"return": {}}

        for name in USED:
            accept(name)
        add("unix", "unix", path="@DIR@/s")
        accept("unix")
        add("tcp", "inet", host="127.0.0.1", port=port)
        accept("tcp")
        for side in (pair.reference, pair.subject):
            ours, theirs = socket.socketpair()
            accepted["fd"].append(stack.enter_context(ours))
            with theirs:
                request = b'{"execute": "getfd", "arguments": {"fdname": "given"}}'
                side.monitor.send(request, [theirs.fileno()])
                assert side.monitor.read_answer() == {"return": {}}
        add("fd", "fd", str="given")
        expect_same(pair, {*USED, *UNUSED})

        pair.ask("yank", {"instances": [{"type": "chardev", "id": "unix"}]})
        for cut in accepted["unix"]:
            cut.settimeout(PATIENCE)
            assert cut.recv(1) == b""
        expect_same(pair, {*USED, "fd", "tcp"})

        for peers in accepted.values():
            for peer in peers:
                peer.close()
        # That a connection by TCP which nothing reads is at its end is not noticed.
        expect_same(pair, {"tcp"})


def expect_same(pair: Pair, there: set[str]) -> None:
    """Both tell the same of their devices, of which these are connected."""

    def look(side: Side) -> Any:
        told: Any = side.ask("query-chardev")["return"]
        return {
            each["label"]: {
                **each,
                # Each connection has a port of its own.
                "filename": re.sub(r":\d+ <", ":PORT <", each["filename"]),
                **{
                    name: side.ask(
                        "qom-get", {"path": f"/chardevs/{each['label']}", "property": name}
                    )
                    for name in ("addr", "connected")
                },
            }
            for each in told
            if each["label"] in USED + UNUSED
        }

    def is_so(devices: Any) -> bool:
        # Between both questions QEMU may see that somebody has left.
        return (
            there
            == {name for name, each in devices.items() if each["connected"]["return"]}
            == {
                name
                for name, each in devices.items()
                if not each["filename"].startswith("disconnected:")
            }
        )

    def settled(side: Side) -> JSON:
        devices: JSON = settle(lambda: look(side), is_so)
        assert is_so(devices), devices
        return devices

    pair.same("the devices", settled)
