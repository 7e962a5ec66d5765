"""Ganeti's QmpConnection, of Debian's package: a machine of memd's answers it as QEMU's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.clients import programs
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running

OPTIONS = (
    *("-S", "-display", "none", "-nodefaults", "-machine", "q35", "-accel", "tcg"),
    *("-m", "64M", "-name", "vm"),
    *("-device", "pcie-root-port,id=p0,slot=1", "-device", "pcie-root-port,id=p1,slot=2"),
)


@programs.need_clients
def test_ganeti(directory: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = directory / name
        with contextlib.ExitStack() as stack:
            sockets = []
            for side, options in (("source", ()), ("target", ("-incoming", "defer"))):
                (place / side).mkdir(parents=True)
                line = [*argv, *OPTIONS, *options]
                sockets.append(stack.enter_context(running(name, line, place / side)).path)
            with (place / "disk").open("wb") as disk:
                disk.truncate(1 << 20)
            said = programs.run("ganeti_steps", *sockets, place, home=place)
            told[name] = programs.comparable(said, place)
    assert told["memd"] == told["QEMU"]
