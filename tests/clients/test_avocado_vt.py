"""avocado-vt's monitors, QMP and human: a machine of memd's answers them as QEMU's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.clients import programs
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running

OPTIONS = (
    *("-S", "-display", "none", "-nodefaults", "-machine", "q35", "-accel", "tcg"),
    *("-m", "64M", "-smp", "2", "-object", "memory-backend-ram,id=ram0,size=64M"),
    *("-numa", "node,cpus=0-1,memdev=ram0", "-name", "vm"),
    *("-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-cd,id=cd"),
)


@programs.need_clients
def test_avocado_vt(directory: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = directory / name
        with contextlib.ExitStack() as stack:
            sockets = []
            for side, options in (
                ("source", ("-monitor", f"unix:{place}/hmp,server=on,wait=off")),
                ("target", ("-incoming", "defer")),
            ):
                (place / side).mkdir(parents=True)
                line = [*argv, *OPTIONS, *options]
                sockets.append(stack.enter_context(running(name, line, place / side)).path)
            arguments = (sockets[0], place / "hmp", sockets[1], place)
            said = programs.run("avocado_steps", *arguments, home=place)
            # QEMU's sentences, and the block that it writes into a new image.
            told[name] = programs.comparable(said, place, "help", "actual-size")
    assert told["memd"] == told["QEMU"]
