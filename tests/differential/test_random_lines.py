"""Random command lines to QEMU and to memd: exit status, messages, and what is there then.

A line has some options that are good and at most one that is not. The lines are those of
the numbers below; `MEMD_SEED` names others, and as many as one likes are taken by
`python -m tests.differential.test_random_lines FIRST COUNT`.
"""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.differential.harness import exact, normalise
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.starts import Question, Start, print_differences, start

SEEDS = os.environ.get("MEMD_SEED", "1 2 3 4 5 6 8 9 10 11 12 13 14 15 16").split()

MACHINES = ("none", "q35", "q35", "pc", "pc", "microvm", "isapc", "pc-q35-8.0", "pc-i440fx-5.0")

PROPERTIES = (
    *("usb=on", "usb=off", "graphics=off", "mem-merge=off", "dump-guest-core=off", "acpi=off"),
    *("smm=off", "pit=off", "pic=off", "vmport=off", "hpet=off", "sata=off", "smbus=off"),
    *("nvdimm=on", "hmat=on", "i8042=off", "kernel-irqchip=split", "suppress-vmdesc=on"),
    *("x-oem-id=abc", "max-ram-below-4g=1G", "smbios-entry-point-type=32", "pcspk-audiodev=a0"),
    *("boot.menu=on", "boot.order=c", "default-bus-bypass-iommu=on", "aux-ram-share=on"),
)

GOOD = (
    *("-m 64M", "-m 1G", "-m 64M,slots=2,maxmem=1G", "-m size=96M", "-smp 2", "-smp 4,sockets=2"),
    *("-smp 1,maxcpus=2", "-cpu qemu64", "-cpu max", "-cpu Nehalem", "-cpu EPYC", "-cpu 486"),
    *("-name x", "-name guest=y,debug-threads=on", "-uuid 550e8400-e29b-41d4-a716-446655440000"),
    *("-boot c", "-boot menu=on,strict=on", "-rtc base=utc", "-rtc base=2020-01-02"),
    *("-object memory-backend-ram,id=m1,size=64M", "-object iothread,id=t1", "-usb"),
    *("-object rng-random,id=r1,filename=/dev/urandom", "-object throttle-group,id=g1"),
    *("-object secret,id=s1,data=abc", "-chardev null,id=c1", "-chardev ringbuf,id=c2,size=64"),
    *("-chardev socket,id=c3,path=c3,server=on,wait=off", "-chardev file,id=c4,path=c4"),
    *("-serial null", "-parallel null", "-serial none", "-monitor none", "-serial file:log"),
    *("-netdev user,id=n1", "-netdev hubport,id=n2,hubid=1", "-nic user", "-nic none"),
    *("-net none", "-blockdev null-co,node-name=b1", "-drive if=none,id=d1,driver=null-co"),
    *("-device virtio-rng-pci", "-device e1000,id=e1", "-device qemu-xhci,id=x1", "-vga std"),
    *("-device virtio-balloon-pci", "-device pcie-root-port,id=p1", "-device isa-serial"),
    *("-device virtio-serial-pci,id=v1", "-device usb-tablet", "-vga none", "-vga cirrus"),
    *("-accel tcg", "-accel tcg,thread=single", "-global e1000.mac=52:54:00:12:34:99"),
    *("-msg timestamp=off", "-action reboot=shutdown", "-no-shutdown", "-no-reboot", "-k de"),
    *("-audiodev none,id=a1", "-fw_cfg opt/x,string=y", "-smbios type=1,serial=5", "-icount 3"),
    *("-overcommit mem-lock=off", "-sandbox off", "-watchdog-action pause", "-incoming defer"),
    *("-display none", "-no-user-config", "-mem-prealloc", "-L /nowhere", "-bios bios-256k.bin"),
    *("-device intel-iommu", "-device amd-iommu", "-device vmgenid", "-device vmcoreinfo"),
    *("-numa node", "-numa node,nodeid=0,cpus=0", "-run-with async-teardown=off", "-cpu EPYC,-avx"),
)

BAD = (
    *(
        "-m x",
        "-m 64M,slots=2",
        "-m 64M,maxmem=32M",
        "-m 0",
        "-smp 0",
        "-smp 3,sockets=2",
        "-smp x",
    ),
    *("-cpu nosuch", "-cpu qemu64,foo=1", "-cpu host", "-cpu ,", "-name", "-name x,y=z", "-uuid 1"),
    *("-boot order=z", "-boot foo=1", "-rtc base=x", "-rtc clock=x", "-rtc foo=1", "-object x"),
    *("-object memory-backend-ram,id=m9", "-object memory-backend-ram,size=1M", "-object iothread"),
    *("-object iothread,id=t9,foo=1", "-object rng-random,id=r9,filename=/nowhere/x", "-chardev x"),
    *("-chardev null", "-chardev socket,id=c9,path=/nowhere/x", "-chardev ringbuf,id=c9,size=3"),
    *(
        "-chardev file,id=c9",
        "-chardev file,id=c9,path=/nowhere/x",
        "-serial nope",
        "-serial tcp:x",
    ),
    *("-parallel chardev:nope", "-monitor nope", "-netdev user", "-netdev x,id=n9", "-nic model=x"),
    *("-netdev user,id=n9,foo=1", "-netdev hubport,id=n9", "-net nic,model=nope", "-net x"),
    *("-blockdev x", "-blockdev driver=null-co", "-blockdev file,node-name=b9,filename=/nowhere/x"),
    *("-drive file=/nowhere/x", "-drive if=x", "-drive if=none,format=x", "-cdrom /nowhere/x"),
    *(
        "-device nosuch",
        "-device e1000,foo=1",
        "-device e1000,addr=99",
        "-device e1000,netdev=nope",
    ),
    *("-device virtio-blk-pci", "-device virtio-blk-pci,drive=nope", "-device ide-hd,bus=nope"),
    *("-device pc-dimm", "-device pc-dimm,memdev=nope", "-device usb-mouse,bus=nope", "-vga x"),
    *("-accel x", "-accel tcg,foo=1", "-accel tcg,tb-size=x", "-global x", "-global e1000.foo=1"),
    *("-msg foo=1", "-msg timestamp=x", "-action x=y", "-action reboot=x", "-watchdog-action x"),
    *("-audiodev x", "-audiodev none", "-audiodev none,id=a9,foo=1", "-audio model=x", "-fw_cfg x"),
    *("-smbios x", "-smbios type=1,foo=1", "-icount x", "-icount 99", "-overcommit x=y", "-k"),
    *("-sandbox x", "-incoming x", "-incoming tcp:nope:1:2", "-display x", "-bios /nowhere/x"),
    *("-kernel /nowhere/x", "-append x", "-initrd x", "-numa x", "-numa node,nodeid=999", "-nope"),
    *(
        "-numa node,memdev=nope",
        "-run-with x=y",
        "-run-with user=nosuchuser",
        "-add-fd fd=99,set=1",
    ),
    *(
        "-loadvm x",
        "-mon chardev=nope",
        "-mon x=y",
        "-qmp nope",
        "-pidfile /nowhere/x",
        "-tpmdev x",
    ),
    *(
        "-fsdev x",
        "-fsdev local,id=f9",
        "-virtfs local",
        "-set x",
        "-set device.x.y=1",
        "-gdb nope",
    ),
    *("-readconfig /nowhere/x", "-vnc x", "-option-rom x=y", "-machine nosuch"),
    *("-machine usb=x", "-machine nope=1", "-machine smp.cpus=x", "-machine memory-backend=nope"),
    *("-usbdevice x", "-debugcon nope", "-compat x=y", "-trace x=y", "-shim x"),
)

ASKED: list[Question] = [
    *((f"query-{name}", {}) for name in ("status", "name", "uuid", "chardev", "block", "memdev")),
    *((f"query-{name}", {}) for name in ("cpus-fast", "memory-size-summary", "iothreads")),
    ("query-named-block-nodes", {"flat": True}),
    ("human-monitor-command", {"command-line": "info network"}),
    *(("qom-list", {"path": path}) for path in ("/machine", "/objects", "/machine/peripheral")),
]

_OF_THE_PROCESS = ("thread-id", "pc", "filename")
"""Members that tell of a process."""


def drawn(seed: int) -> list[str]:
    """The line of a number."""
    draw = random.Random(seed)
    machine = [draw.choice(MACHINES), *draw.sample(PROPERTIES, draw.choice([0, 0, 0, 1, 1, 2]))]
    words = [["-audiodev", "none,id=a0"], ["-machine", ",".join(machine)]]
    words += [each.split(" ") for each in draw.sample(GOOD, draw.randrange(6))]
    if draw.random() < 0.5:
        words.append(draw.choice(BAD).split(" "))
        draw.shuffle(words)
    return [word for each in words for word in each]


def of_any(value: Any) -> Any:
    """An answer without what tells of one process."""
    if isinstance(value, dict):
        return {name: of_any(each) for name, each in value.items() if name not in _OF_THE_PROCESS}
    if isinstance(value, str):
        # The number of what QEMU gives a name is a random one.
        return re.sub("#(block|net)[0-9]+", r"#\1", value)
    return [of_any(each) for each in value] if isinstance(value, list) else value


def difference(seed: int) -> str | None:
    """What differs of a line, None for nothing."""
    line = drawn(seed)
    told: list[Start] = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        with tempfile.TemporaryDirectory(prefix="memd-") as directory:
            one = start(argv, line, ASKED, Path(directory))
        answers = [normalise(of_any(each), Path(directory)) for each in one.answers]
        told.append(one._replace(answers=answers))
    theirs, ours = told
    if theirs.crashed or theirs == ours:
        return None
    found = [f"MEMD_SEED={seed}: {' '.join(line)}"]
    if theirs[:2] != ours[:2]:
        return "\n  ".join([*found, f"QEMU: {theirs[:2]}", f"memd: {ours[:2]}"])
    for (name, arguments), one, other in zip(ASKED, theirs.answers, ours.answers, strict=False):
        if exact(one) != exact(other):
            found.append(f"{name} {arguments}\n    QEMU: {exact(one)}\n    memd: {exact(other)}")
    return "\n  ".join(found)


def test_random_lines() -> None:
    found = [difference(int(each)) for each in SEEDS]
    assert not any(found), "\n".join(filter(None, found))


def main() -> None:
    """Take the lines that are asked for."""
    first, count = map(int, sys.argv[1:])
    print_differences(difference(seed) for seed in range(first, first + count))


if __name__ == "__main__":
    main()
