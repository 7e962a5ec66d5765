"""What registers keep of the texts that clients gave: bounded for all of them together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.differential.harness import Side
from tests.differential.server import running

MOST = 100_000
TEXT = "x" * 30_000
SCRIPT = (
    f"import sys; from memd.standin import texts; texts.MOST = {MOST};"
    " from memd.cli.qemu_system import main; sys.exit(main())"
)


def too_much(answer: dict[str, Any]) -> bool:
    return f"bytes of texts are kept, {MOST} may be" in answer["error"]["desc"]


def test_what_is_gone_makes_room_for_more(directory: Path) -> None:
    line = [sys.executable, "-c", SCRIPT, "-machine", "pc", "-S", "-display", "none"]
    chardev = {"id": TEXT, "backend": {"type": "null", "data": {}}}
    netdev = {"type": "user", "id": "n", "hostname": TEXT}
    device = {"driver": "virtio-net-pci", "id": "d", "romfile": TEXT, "netdev": "n"}
    other = {"driver": "virtio-rng-pci", "romfile": TEXT}
    with running("memd", line, directory, directory) as client:
        side = Side(client, directory)
        for command, args in (
            ("chardev-add", chardev),
            ("netdev_add", netdev),
            ("device_add", device),
        ):
            assert side.ask(command, args) == {"return": {}}
        # As often as it likes.
        for _ in range(5):
            for command, args in (
                ("chardev-add", {**chardev, "id": "y" * 30_000}),
                ("netdev_add", {**netdev, "id": "m"}),
                ("device_add", other),
            ):
                assert too_much(side.ask(command, args)), command
        # Its device has it yet.
        assert side.ask("netdev_del", {"id": "n"}) == {"return": {}}
        assert too_much(side.ask("device_add", other))
        assert side.ask("chardev-remove", {"id": TEXT}) == {"return": {}}
        for _ in range(5):
            # One that can't be made leaves nothing behind.
            assert "error" in side.ask("device_add", {**other, "bus": "none"})
        assert side.ask("device_add", other) == {"return": {}}
        assert too_much(side.ask("chardev-add", chardev))
