"""labgrid's QEMUDriver with a machine: what came of each step, a line each.

Arguments: the QEMU, and an empty directory.
"""

import json
import sys
from pathlib import Path
from typing import Any

from labgrid import Environment

MACHINE = """
targets:
  main:
    drivers:
      QEMUDriver:
        qemu_bin: qemu
        machine: q35
        cpu: qemu64
        memory: 64M
        disk: disk
        display: fb-headless
        nic: user,id=n0
        extra_args: -accel tcg
tools:
  qemu: {qemu}
images:
  disk: {disk}
"""

STEPS: tuple[tuple[Any, ...], ...] = (
    ("monitor_command", "query-status"),
    ("off",),
    ("on",),
    ("on",),
    *(("monitor_command", f"query-{what}") for what in ("status", "name", "kvm", "version")),
    *(("monitor_command", f"query-{what}") for what in ("block", "chardev", "cpus-fast")),
    ("monitor_command", "query-memory-size-summary"),
    ("monitor_command", "nope"),
    ("monitor_command", "stop"),
    ("monitor_command", "query-status"),
    ("write", b"hello\n"),
    ("read", 1, 0.2),
    ("monitor_command", "cont"),
    ("monitor_command", "system_reset"),
    ("monitor_command", "human-monitor-command", {"command-line": "info status"}),
    ("monitor_command", "human-monitor-command", {"command-line": "info network"}),
    ("monitor_command", "set_link", {"name": "n0", "up": False}),
    ("cycle",),
    ("monitor_command", "query-status"),
    ("off",),
    ("off",),
    ("monitor_command", "query-status"),
    ("on",),
)


def main() -> None:
    """Do the steps."""
    qemu, place = sys.argv[1], Path(sys.argv[2])
    disk = place / "disk.img"
    with disk.open("wb") as image:
        image.truncate(1 << 20)
    configuration = place / "environment.yaml"
    configuration.write_text(MACHINE.format(qemu=qemu, disk=disk))
    target = Environment(str(configuration)).get_target()
    driver = target.get_driver("QEMUDriver", activate=True)
    for name, *arguments in STEPS:
        try:
            said = getattr(driver, name)(*arguments)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print(json.dumps([name, str(arguments), said], default=repr))
    target.deactivate(driver)
    print(json.dumps(driver.status))


main()
