"""Messages whose arguments a register would keep, or that nest deeply: refused before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from tests.differential.harness import Side
from tests.differential.server import qemu_system_memd, running

NULL = {"type": "null", "data": {}}
KEPT = 65_536
ABORT = {"type": "abort", "data": {}}
JOB = {"tag": "t", "devices": ["n"]}


def nested(depth: int) -> dict[str, Any]:
    args: dict[str, Any] = {"driver": "null-co"}
    for _ in range(depth):
        args = {"driver": "raw", "file": args}
    return {"node-name": "n", **args}


CASES: list[tuple[str, Any, str]] = [
    ("chardev-add", {"id": "x" * KEPT, "backend": NULL}, "'chardev-add' takes 65536 characters"),
    ("chardev-add", {"id": "x" * 1024, "backend": NULL}, ""),
    (
        "migrate-set-parameters",
        {"tls-hostname": "x" * KEPT},
        "'migrate-set-parameters' takes 65536 characters",
    ),
    ("snapshot-save", {"job-id": "j", **JOB, "vmstate": "x" * KEPT}, "'snapshot-save' takes 65536"),
    (
        "block-stream",
        {"job-id": "j", "device": "n", "backing-file": "x" * KEPT},
        "'block-stream' takes 65536 characters",
    ),
    ("transaction", {"actions": [ABORT] * 100, "x": "x" * KEPT}, "'transaction' takes 65536"),
    ("ringbuf-write", {"device": "r", "data": "x" * KEPT}, "Device 'r' not found"),
    ("snapshot-delete", {"job-id": "j" * 1025, **JOB}, "Invalid job ID 'j"),
    ("snapshot-delete", {"job-id": "j" * 1024, **JOB}, ""),
    (
        "netdev_add",
        {"type": "user", "id": "n", "hostfwd": [{"str": f"tcp::{'9' * 5000}-:1"}]},
        "Invalid host forwarding rule 'tcp::999",
    ),
    ("blockdev-add", nested(400), "what was sent is nested too deeply for this command"),
]


@pytest.mark.parametrize(("command", "arguments", "error"), CASES)
def test_it_is_refused(
    directory: Path, command: str, arguments: dict[str, Any], error: str
) -> None:
    line = [*qemu_system_memd(Compat.V10_0), "-S", "-nodefaults", "-display", "none"]
    with running("memd", line, directory, directory) as client:
        side = Side(client, directory)
        answer = side.ask(command, arguments)
        if error:
            assert answer["error"]["desc"].startswith(error)
        else:
            assert answer == {"return": {}}
