"""What a paused machine with usual devices tells: `info` of the human monitor, its clock."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from memd.json_types import JSON
from tests.differential.harness import Side
from tests.differential.server import PATIENCE, qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair
from tests.differential.test_tpm import emulator

USUAL = (
    "-m 64M,slots=2,maxmem=2G -blockdev null-co,node-name=n0 -device virtio-blk-pci,drive=n0,id=b0"
    " -netdev user,id=u0 -device virtio-net-pci,netdev=u0 -device virtio-scsi-pci,id=s0"
    " -drive if=none,id=d0,driver=null-co -device scsi-hd,drive=d0 -device virtio-rng-pci,id=r0"
    " -object memory-backend-ram,id=m0,size=64M -device virtio-mem-pci,memdev=m0,id=v0"
    " -device virtio-tablet-pci,id=t0 -device virtio-balloon-pci -device virtio-serial-pci"
    " -drive if=none,id=e0 -vnc unix:@DIR@/v"
    " -device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"
)
WORDS = (
    *("block", "block-jobs", "blockstats", "dirty_rate", "dump", "hotpluggable-cpus", "irq"),
    *("network", "numa", "pci", "roms", "snapshots", "tpm", "virtio", "vm-generation-id", "vnc"),
)


def told(side: Side, word: str) -> JSON:
    said = side.ask("human-monitor-command", {"command-line": f"info {word}"})["return"]
    assert isinstance(said, str)
    said = said.replace(str(side.scratch), "")
    # What is listed has no order of its own.
    return (
        sorted(said.split("\r\n"))
        if word in ("irq", "pic", "virtio")
        else re.sub(r"#block\d+", "#block", said)
    )


@pytest.mark.parametrize("machine", ["pc", "q35", "none"])
def test_of_a_machine(directory: Path, machine: str) -> None:
    options = USUAL.split() if machine != "none" else []
    with standin_pair(directory, "-machine", machine, *options) as pair:
        for word in WORDS:
            pair.same(word, lambda side, word=word: told(side, word))  # type: ignore[misc]
        if machine == "none":
            return
        for target, more in (("t0", {}), ("t1", {"speed": 1000})):
            pair.ask("blockdev-add", {"driver": "null-co", "node-name": target, "size": 1 << 30})
            job = {"job-id": f"j{target}", "device": "n0" if more else "d0", "target": target}
            pair.ask("blockdev-mirror", {**job, "sync": "none", **more})
        pair.same("jobs", lambda side: told(side, "block-jobs"))


@pytest.mark.parametrize("machine", ["isapc", "microvm", "pc"])
def test_of_interrupts_and_firmware(directory: Path, machine: str) -> None:
    with standin_pair(directory, "-machine", machine, "-m", "64M") as pair:
        for word in ("irq", "lapic", "pic", "roms"):
            pair.same(word, lambda side, word=word: told(side, word))  # type: ignore[misc]


def test_of_a_tpm(directory: Path) -> None:
    path = directory / "t"
    options = ["-chardev", f"socket,id=c0,path={path}", "-tpmdev", "emulator,id=t0,chardev=c0"]
    options += ["-device", "tpm-tis,tpmdev=t0,id=d0"]
    with emulator(path), standin_pair(directory, "-machine", "q35", *options) as pair:
        pair.same("tpm", lambda side: told(side, "tpm"))


@pytest.mark.parametrize(
    "option",
    [
        *("-rtc base=foo", "-rtc base=2020-1", "-rtc clock=foo", "-rtc base=utc,driftfix=foo"),
        *(f"-tpmdev passthrough,id=t{each}" for each in (",path=/nope", ",path=/dev/null", ",x=1")),
        *("-tpmdev passthrough", "-tpmdev emulator,id=t", "-tpmdev emulator,id=t,path=/nope"),
    ],
)
def test_what_is_refused_at_the_start(option: str) -> None:
    said = []
    for binary in (qemu_binary(), qemu_system_memd(qemu_compat())):
        line = [*binary, "-S", "-display", "none", "-nodefaults", *option.split()]
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        said.append(done.stderr.partition(": ")[2])
    assert said[0] == said[1]


@pytest.mark.parametrize("machine", ["pc", "microvm"])
@pytest.mark.parametrize("base", ["2020-02-03T12:00:00", "2021-14-33", "1999-12-31"])
def test_of_the_clock(directory: Path, machine: str, base: str) -> None:
    with standin_pair(directory, "-machine", machine, "-rtc", f"base={base}") as pair:

        def hour(side: Side) -> JSON:
            one = {"path": "/machine", "property": "rtc-time"}
            answer = side.ask("qom-get", one)["return"]
            return {name: answer[name] for name in answer if name not in ("tm_min", "tm_sec")}

        pair.same("rtc-time", hour)
