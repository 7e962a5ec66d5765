"""labgrid's QEMUDriver starts, asks, cycles and ends a machine: memd as QEMU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.clients import programs
from tests.differential.harness import normalise
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd


@programs.need_clients
def test_labgrid(directory: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = directory / name
        place.mkdir()
        program = place / "qemu"
        programs.write_script(program, argv)
        told[name] = masked(
            normalise(programs.run("labgrid_steps", program, place, home=place), place)
        )
    assert told["memd"] == told["QEMU"]
    assert told["memd"][-1] == 0


def masked(value: Any) -> Any:
    """Without what is random, or a process's own."""
    if isinstance(value, dict):
        return {
            name: masked(member)
            for name, member in value.items()
            if name not in ("thread-id", "node-name")
        }
    if isinstance(value, list):
        return [masked(member) for member in value]
    if isinstance(value, str):
        return re.sub(r"labgrid-qemu-tmp-\w+", "labgrid-qemu-tmp", value)
    return value
