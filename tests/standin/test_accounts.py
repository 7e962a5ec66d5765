"""What registers keep of what clients gave: bounded for each user, until it is no more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.differential.harness import Side
from tests.differential.server import running

ITEMS = 12
SCRIPT = (
    "import sys; from memd import places;"
    f" places.KEPT = places.KEPT_PER_USER = {ITEMS} * places.ITEM;"
    " from memd.cli.qemu_system import main; sys.exit(main())"
)
MACHINE = (
    *("-machine", "pc", "-smp", "1,sockets=64,maxcpus=64", "-S", "-display", "none", "-nodefaults"),
    *("-device", "virtio-serial-pci", "-blockdev", "null-co,node-name=n"),
)

Ask = tuple[str, dict[str, Any]]


def human(line: str) -> Ask:
    return "human-monitor-command", {"command-line": line}


def kinds(directory: Path) -> dict[str, tuple[Ask, Ask | None]]:
    """What a register keeps, and how it goes; @ stands for its number."""
    null = {"type": "null", "data": {}}
    create = {"driver": "file", "filename": str(directory / "none" / "x"), "size": 0}
    export = {"type": "nbd", "id": "e@", "node-name": "n", "name": "x@"}
    cpu = {"driver": "qemu64-x86_64-cpu", "id": "cpu@", "socket-id": "@", "core-id": 0}
    return {
        "chardev": (
            ("chardev-add", {"id": "c@", "backend": null}),
            ("chardev-remove", {"id": "c@"}),
        ),
        "ring": (
            (
                "chardev-add",
                {"id": "r@", "backend": {"type": "ringbuf", "data": {"size": 1 << 16}}},
            ),
            ("chardev-remove", {"id": "r@"}),
        ),
        "netdev": (
            ("netdev_add", {"type": "user", "id": "n@"}),
            ("netdev_del", {"id": "n@"}),
        ),
        "node": (
            ("blockdev-add", {"driver": "null-co", "node-name": "b@"}),
            ("blockdev-del", {"node-name": "b@"}),
        ),
        "bitmap": (
            ("block-dirty-bitmap-add", {"node": "n", "name": "m@"}),
            ("block-dirty-bitmap-remove", {"node": "n", "name": "m@"}),
        ),
        "device": (
            ("device_add", {"driver": "virtserialport", "id": "d@"}),
            ("device_del", {"id": "d@"}),
        ),
        "job": (
            ("blockdev-create", {"job-id": "j@", "options": create}),
            ("job-dismiss", {"id": "j@"}),
        ),
        "export": (("block-export-add", export), ("block-export-del", {"id": "e@"})),
        "drive": (human("drive_add 0 if=none,id=v@"), human("drive_del v@")),
        "secret": (
            ("object-add", {"qom-type": "secret", "id": "s@", "data": "x" * 60_000}),
            ("object-del", {"id": "s@"}),
        ),
        "cpu": (("device_add", {**cpu, "thread-id": 0}), None),
    }


def filled(asked: Ask, number: int) -> Ask:
    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: put(each) for name, each in value.items()}
        if value == "@":
            return number
        return value.replace("@", str(number)) if isinstance(value, str) else value

    return asked[0], put(asked[1])


def test_each_kind_is_counted_until_it_is_no_more(directory: Path) -> None:
    server = {"addr": {"type": "unix", "data": {"path": str(directory / "nbd")}}}
    line = [sys.executable, "-c", SCRIPT, *MACHINE]
    with running("memd", line, directory, directory) as client:
        side = Side(client, directory)
        assert side.ask("nbd-server-start", server) == {"return": {}}

        # What is told of a job repeats little of what was sent.
        command, named = filled(kinds(directory)["job"][0], 1)
        options = {**named["options"], "filename": "x" * 60_000}
        side.ask(command, {**named, "options": options})
        (job,) = side.ask("query-jobs")["return"]
        assert len(job["error"]) == 1024
        assert side.ask("job-dismiss", {"id": "j1"}) == {"return": {}}
        # There are commands that tell of each by its id.
        for kind in ("chardev", "device"):
            (command, named), _gone = kinds(directory)[kind]
            told = side.ask(command, {**named, "id": "x" * 1025})
            assert "an id has 1024 characters at most" in told["error"]["desc"]

        def add(asked: Ask) -> int:
            """Add what there may be; gives how many there are."""
            for number in range(ITEMS + 10):
                told = str(side.ask(*filled(asked, number + 1)))
                if "bytes are kept for " in told:
                    return number
                assert "error" not in told, told
            raise AssertionError(f"{asked} has no bound")

        for kind, (asked, gone) in kinds(directory).items():
            there = add(asked)
            assert 0 < there < ITEMS + 2, kind
            if gone is None:
                continue
            for again in (True, False):
                for number in range(there):
                    told = side.ask(*filled(gone, number + 1))
                    assert "error" not in told, (kind, told)
                # What can't be made is not counted.
                for number in range(ITEMS):
                    wrong = {"driver": "virtserialport", "bus": "none", "id": f"w{number}"}
                    assert "'none' not found" in str(side.ask("device_add", wrong))
                if again:
                    assert add(asked) == there, kind
        # It is one account.
        assert add(kinds(directory)["chardev"][0]) == 0
