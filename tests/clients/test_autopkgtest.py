"""autopkgtest's Qemu starts a machine and plugs a disk in: memd as QEMU."""

from __future__ import annotations

from pathlib import Path

from tests.clients import programs
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd


@programs.need_clients
def test_autopkgtest(directory: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = directory / name
        place.mkdir()
        program = place / "qemu-system-x86_64"
        programs.write_script(program, argv)
        said = programs.run("autopkgtest_steps", program, place, home=place)
        told[name] = programs.comparable(said, place)
    assert told["memd"] == told["QEMU"]
