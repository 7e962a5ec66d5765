"""labgrid's QEMUDriver starts, asks, cycles and ends a machine: memd as QEMU."""

from __future__ import annotations

from pathlib import Path

from tests.clients import programs
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd


@programs.need_clients
def test_labgrid(directory: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = directory / name
        place.mkdir()
        program = place / "qemu"
        programs.write_script(program, argv)
        said = programs.run("labgrid_steps", program, place, home=place)
        told[name] = programs.comparable(said, place, "node-name")
    assert told["memd"] == told["QEMU"]
    assert told["memd"][-1] == 0
