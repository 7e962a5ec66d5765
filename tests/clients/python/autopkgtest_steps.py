"""autopkgtest's Qemu with a machine, as its virtualisation server uses it: what came of it.

Arguments: the QEMU, and an empty directory.
"""

import json
import re
import sys
from pathlib import Path

import VirtSubproc
from autopkgtest_qemu import Qemu, QemuImage

ESCAPES = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


def main() -> None:
    """Do the steps."""
    qemu, place = sys.argv[1], Path(sys.argv[2])
    images = [place / "base", place / "more"]
    for each in images:
        with each.open("wb") as image:
            image.truncate(1 << 20)
    made = [QemuImage(str(each), "raw") for each in images]
    # It asks for KVM where there is such a device.
    options = ["-S", "-cpu", "qemu64", "-machine", "accel=tcg"]
    machine = Qemu(made, qemu_command=qemu, ram_size=64, qemu_options=options, boot="bios")
    monitor = machine.monitor_socket
    VirtSubproc.expect(monitor, b"(qemu) ", 60)
    base = f"file={images[0]},if=none,readonly=on,serial=BASEIMAGE,id=drive-baseimage,format=raw"
    for line in (
        f"drive_add 0 {base}",
        "device_add virtio-blk-pci,drive=drive-baseimage,id=virtio-baseimage",
        f"drive_add 0 {base}",
        *(f"info {what}" for what in ("status", "block", "network", "chardev")),
        "device_del virtio-baseimage",
        "device_del nope",
        "system_powerdown",
        "info name",
    ):
        monitor.sendall(line.encode() + b"\n")
        said = VirtSubproc.expect(monitor, b"\r\n(qemu) ", 60)
        # Behind the echo of the line.
        text = ESCAPES.sub(b"", said).decode().partition("\r\n")[2]
        print(json.dumps([line, sorted(text.replace(str(machine.workdir), "WORK").splitlines())]))
    monitor.close()
    for name in ("hvc0", "hvc1", "ttyS0", "ttyS1"):
        console = VirtSubproc.get_unix_socket(machine.get_socket_path(name))
        console.close()
        print(json.dumps(name))
    print(json.dumps(machine.cleanup()))


main()
