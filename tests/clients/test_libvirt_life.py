"""The ordinary life of a domain of a real libvirt: disks, a network, consoles, saving, migrating.

The same was run with QEMU 10.0.2 as the emulator. It said the same, but that its guest,
which had nothing to boot from, did not shut down.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.clients.libvirt import SECOND, nothing_stays, run_libvirt

DOMAIN = """
<domain type='qemu'>
  <name>vm</name>
  <maxMemory slots='4' unit='MiB'>1024</maxMemory>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>@DIR@/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='@DIR@/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'>
      <mac address='52:54:00:12:34:56'/><target dev='net0'/><model type='virtio'/>
    </interface>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>
  </devices>
</domain>
"""

OTHER = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/><source file='@DIR@/other'/><target dev='vdb' bus='virtio'/>
</disk>
"""


def monitor(call: str, name: str, request: str) -> str:
    return f"step {name} {call} qemu-monitor-command vm {shlex.quote(request)}\n"


def read(call: str, name: str) -> str:
    text = (
        '{"execute": "x-memdev-read", "arguments": {"id": "memdimm0", "offset": 4096, "length": 4}}'
    )
    return monitor(call, name, text)


WRITE = (
    '{"execute": "x-memdev-write",'
    ' "arguments": {"id": "memdimm0", "offset": 4096, "data": "bWVtZA=="}}'
)

STEPS = (
    SECOND
    + """
step() {
    name=$1
    shift
    echo "== $*" >>"$DIR/log"
    "$@" >"$DIR/out.$name" 2>>"$DIR/log" && : >"$DIR/done.$name"
    cat "$DIR/out.$name" >>"$DIR/log"
}
until_off() {
    tries=0
    until v domstate vm | grep -q "shut off" || [ $tries -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
}
step define v define "$DIR/domain.xml"
step start v start vm
step disk v domblkinfo vm vda
step resize v blockresize vm vda 32M
step resized v domblkinfo vm vda
step attach v attach-device vm "$DIR/other.xml" --live
step disks v domblklist vm
step detach v detach-disk vm vdb --live
step link v domif-setlink vm 52:54:00:12:34:56 down
step console v ttyconsole vm
step stats v domstats vm
step period v dommemstat vm --period 1 --live
step memory v dommemstat vm
step key v send-key vm KEY_A
step nmi v inject-nmi vm
"""
    + monitor("v", "write", WRITE)
    + """
step suspend v suspend vm
step resume v resume vm
step save v save vm "$DIR/saved"
step saved v domstate vm
step restore v restore "$DIR/saved"
"""
    + read("v", "restored")
    + """
step managedsave v managedsave vm
step again v start vm
"""
    + read("v", "started")
    + """
step dump v dump vm "$DIR/dumped" --live
step go v migrate --live --unsafe --p2p vm "$there" --migrateuri "unix://$DIR/incoming"
step gone v domstate vm
"""
    + read("w", "arrived")
    + """
step return w migrate --live --unsafe --p2p --tunnelled vm "$here"
"""
    + read("v", "returned")
    + """
step jobs v domjobinfo vm --completed
step reset v reset vm
step shutdown v shutdown vm
until_off
step off v domstate vm
step last v start vm
step end v destroy vm
kill $second
wait $second
"""
)


class Life:
    """What came of the steps, by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        log = directory / "log"
        self.log = log.read_text(errors="replace") if log.exists() else "libvirt did nothing"

    def worked(self, *names: str) -> bool:
        return all((self.directory / f"done.{name}").exists() for name in names)

    def out(self, name: str) -> str:
        assert self.worked(name), self.log
        return (self.directory / f"out.{name}").read_text(errors="replace")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Runs both daemons and all steps, once for all tests."""
    directory = tmp_path_factory.mktemp("life")
    for name in ("disk", "other"):
        with (directory / name).open("wb") as file:
            file.truncate(16 << 20)
    for name, text in (("domain", DOMAIN), ("other", OTHER)):
        (directory / f"{name}.xml").write_text(text.replace("@DIR@", str(directory)))
    run_libvirt(directory, STEPS)
    return Life(directory)


def test_disks_networks_and_consoles(life: Life) -> None:
    steps = ("start", "resize", "attach", "detach", "link", "console", "stats")
    assert life.worked("define", *steps), life.log
    assert f"{16 << 20}" in life.out("disk")
    assert f"{32 << 20}" in life.out("resized")
    assert "vdb" in life.out("disks")
    assert life.out("console").startswith("/dev/pts/")
    stats = life.out("stats")
    assert "block.0.capacity=33554432" in stats
    assert "net.count=1" in stats


def test_balloon_and_keys(life: Life) -> None:
    assert life.worked("period", "memory", "key", "nmi"), life.log
    assert "actual 196608" in life.out("memory")


def test_saved_and_restored(life: Life) -> None:
    assert life.worked("write", "suspend", "resume", "save", "restore"), life.log
    assert life.out("saved").strip() == "shut off"
    assert '"bWVtZA=="' in life.out("restored")


def test_managed_save(life: Life) -> None:
    assert life.worked("managedsave", "again"), life.log
    assert '"bWVtZA=="' in life.out("started")


def test_dumped(life: Life) -> None:
    assert life.worked("dump"), life.log
    assert (life.directory / "dumped").stat().st_size > 0


def test_migrated_to_another_libvirt_and_back(life: Life) -> None:
    assert life.worked("go"), life.log
    assert life.out("gone").strip() == "shut off"
    assert '"bWVtZA=="' in life.out("arrived")
    assert life.worked("return"), life.log
    assert '"bWVtZA=="' in life.out("returned")


def test_reset_and_shut_down(life: Life) -> None:
    assert life.worked("reset", "shutdown", "last", "end"), life.log
    assert life.out("off").strip() == "shut off"
    assert nothing_stays(life.directory)
