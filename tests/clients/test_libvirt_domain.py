"""A domain of a real libvirt whose emulator is memd: memory is plugged in, resized, taken out.

The same commands were run with QEMU 10.0.2 as the emulator. What libvirt said
and showed was the same, but for the CPU model, and for the virtio-mem device:
no guest of QEMU's ran that would have followed.
"""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.clients.libvirt import nothing_stays, run_libvirt

MIB = 1 << 20

DOMAIN = """
<domain type='qemu'>
  <name>vm</name>
  <maxMemory slots='8' unit='MiB'>4096</maxMemory>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>@DIR@/qemu-system-x86_64</emulator>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='usb' model='none'/>
    <memballoon model='virtio'/>
    <memory model='nvdimm' access='shared'>
      <source><path>@DIR@/first</path></source>
      <target><size unit='MiB'>16</size><node>0</node></target>
    </memory>
  </devices>
</domain>
"""

DEVICES = {
    "dimm": """
<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>
""",
    "nvdimm": """
<memory model='nvdimm' access='shared'>
  <source><path>@DIR@/second</path></source>
  <target><size unit='MiB'>16</size><node>0</node></target>
</memory>
""",
    "rom": """
<memory model='nvdimm'>
  <source><path>@DIR@/third</path></source>
  <target>
    <size unit='MiB'>16</size><node>0</node><label><size unit='KiB'>128</size></label><readonly/>
  </target>
</memory>
""",
    "virtio-mem": """
<memory model='virtio-mem'>
  <target>
    <size unit='MiB'>256</size><node>0</node><block unit='MiB'>2</block>
    <requested unit='MiB'>64</requested>
  </target>
</memory>
""",
}

BACKEND = "memvirtiomem0"


def _monitor(name: str, command: str, **arguments: Any) -> str:
    request = shlex.quote(json.dumps({"execute": command, "arguments": arguments}))
    return f"step {name} qemu-monitor-command vm {request}\n"


STEPS = (
    """
step() {
    name=$1
    shift
    echo "== $*" >>"$DIR/log"
    v "$@" >"$DIR/out.$name" 2>>"$DIR/log" && : >"$DIR/done.$name"
    cat "$DIR/out.$name" >>"$DIR/log"
}
# Waits until the domain's XML holds a line, or holds it no more.
shows() {
    tries=0
    until v dumpxml vm | grep -q "$1" || [ $tries -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
}
lacks() {
    tries=0
    while v dumpxml vm | grep -q "$1" && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
}
resize() {
    step "$1" update-memory-device vm --live --alias virtiomem0 --requested-size "$2"
    shows "<current unit='KiB'>$3<"
}
step define define "$DIR/domain.xml"
step start start vm
"""
    + "".join(f'step {name} attach-device vm "$DIR/{name}.xml" --live\n' for name in DEVICES)
    + "shows \"<current unit='KiB'>65536<\"\nstep plugged dumpxml vm\n"
    + _monitor("devices", "query-memory-devices")
    + _monitor("summary", "query-memory-size-summary")
    + _monitor("write", "x-memdev-write", id=BACKEND, offset=0, data="bWVtZA==")
    + _monitor("before", "x-memdev-stat", id=BACKEND)
    + """
kill -9 $daemon
wait $daemon
start_daemon
step again domstate vm
resize grow 128MiB 131072
step grown dumpxml vm
resize shrink 0 0
"""
    + _monitor("after", "x-memdev-stat", id=BACKEND)
    + """
step keep detach-device vm "$DIR/nvdimm.xml" --live
step unplug detach-device vm "$DIR/dimm.xml" --live
step unplug-alias detach-device-alias vm virtiomem0 --live
lacks "virtio-mem"
step left dumpxml vm
"""
    + _monitor("objects", "qom-list", path="/objects")
    + "step pause suspend vm\nstep state domstate vm\nstep end destroy vm\n"
)


class Domain:
    """What came of the steps, by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        log = directory / "log"
        self.log = log.read_text(errors="replace") if log.exists() else "libvirt did nothing"

    def worked(self, *names: str) -> bool:
        return all((self.directory / f"done.{name}").exists() for name in names)

    def out(self, name: str) -> str:
        return (self.directory / f"out.{name}").read_text(errors="replace")

    def answer(self, name: str) -> Any:
        assert self.worked(name), self.log
        return json.loads(self.out(name))["return"]

    def memory(self, name: str) -> dict[str, ET.Element]:
        """The memory devices that the domain's XML shows, by alias."""
        assert self.worked(name), self.log
        found = ET.fromstring(self.out(name)).findall("devices/memory")
        return {device.find("alias").attrib["name"]: device for device in found}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    """Runs libvirt's daemon and all steps, once for all tests."""
    directory = tmp_path_factory.mktemp("domain")
    for name in ("first", "second", "third"):
        with (directory / name).open("wb") as file:
            file.truncate(16 * MIB)
    for name, text in {**DEVICES, "domain": DOMAIN}.items():
        (directory / f"{name}.xml").write_text(text.replace("@DIR@", str(directory)))
    run_libvirt(directory, STEPS)
    return Domain(directory)


def test_it_starts(domain: Domain) -> None:
    assert domain.worked("define", "start"), domain.log
    # libvirt starts it also to ask what it offers, at any time.
    started = (domain.directory / "started").read_text().splitlines()
    line = next(each for each in started if "-machine none," not in each)
    assert "-machine pc-q35-10.0," in line
    assert "nvdimm=on" in line
    assert "slots=8,maxmem=4194304k" in line
    assert "-numa node,nodeid=0,cpus=0,memdev=ram-node0" in line


def test_all_kinds_of_memory_are_plugged_in(domain: Domain) -> None:
    assert domain.worked(*DEVICES), domain.log
    shown = domain.memory("plugged")
    models = {alias: device.get("model") for alias, device in shown.items()}
    assert models == {
        "nvdimm0": "nvdimm",
        "dimm1": "dimm",
        "nvdimm2": "nvdimm",
        "nvdimm3": "nvdimm",
        "virtiomem0": "virtio-mem",
    }
    places = {alias: device.find("address") for alias, device in shown.items()}
    assert {alias: dict(at.attrib) for alias, at in places.items() if at is not None} == {
        "nvdimm0": {"type": "dimm", "slot": "0", "base": "0x100000000"},
        "dimm1": {"type": "dimm", "slot": "1", "base": "0x101000000"},
        "nvdimm2": {"type": "dimm", "slot": "2", "base": "0x109000000"},
        "nvdimm3": {"type": "dimm", "slot": "3", "base": "0x10a000000"},
        "virtiomem0": {
            "type": "pci",
            "domain": "0x0000",
            "bus": "0x02",
            "slot": "0x00",
            "function": "0x0",
        },
    }
    assert shown["nvdimm3"].find("target/readonly") is not None
    assert shown["virtiomem0"].findtext("target/current") == "65536"


def test_the_monitor_says_the_same(domain: Domain) -> None:
    devices = domain.answer("devices")
    kinds = [device["type"] for device in devices]
    assert kinds == ["nvdimm", "dimm", "nvdimm", "nvdimm", "virtio-mem"]
    assert [device["data"]["hotplugged"] for device in devices[:4]] == [False, True, True, True]
    # The label's 128 KiB are set apart, in whole pages of the file.
    assert devices[3]["data"]["size"] == 16 * MIB - 128 * 1024
    assert domain.answer("summary") == {
        "base-memory": 64 * MIB,
        "plugged-memory": (128 + 64 + 16 + 16 + 16) * MIB - 128 * 1024,
    }


def test_libvirt_finds_it_again(domain: Domain) -> None:
    """Its daemon was killed, and another one started."""
    assert domain.worked("again"), domain.log
    assert domain.out("again").strip() == "running"


def test_virtio_mem_is_resized(domain: Domain) -> None:
    assert domain.worked("grow", "shrink"), domain.log
    grown = domain.memory("grown")["virtiomem0"]
    assert grown.findtext("target/requested") == grown.findtext("target/current") == "131072"


def test_what_it_gives_up_goes_back_to_the_host(domain: Domain) -> None:
    (before,), (after,) = domain.answer("before"), domain.answer("after")
    assert before["resident"] > 0
    assert after["resident"] == 0


def test_what_can_go_goes(domain: Domain) -> None:
    assert domain.worked("unplug", "unplug-alias"), domain.log
    assert set(domain.memory("left")) == {"nvdimm0", "nvdimm2", "nvdimm3"}
    left = {each["name"] for each in domain.answer("objects")}
    assert {"memnvdimm0", "memnvdimm2", "memnvdimm3", "ram-node0"} <= left
    assert not left & {"memdimm1", BACKEND}


def test_an_nvdimm_stays(domain: Domain) -> None:
    assert not domain.worked("keep")
    assert "nvdimm device hot unplug is not supported yet." in domain.log


def test_it_is_paused_and_ended(domain: Domain) -> None:
    assert domain.worked("pause", "end"), domain.log
    assert domain.out("state").strip() == "paused"
    assert nothing_stays(domain.directory)
