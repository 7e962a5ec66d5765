"""A real libvirt, which probes what it is given for a QEMU."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.clients.libvirt import nothing_stays, run_libvirt

ASK_TWICE = """
for number in 1 2; do
    v domcapabilities --emulatorbin "$DIR/qemu-system-x86_64" --arch x86_64 \\
        >"$DIR/capabilities.$number" 2>"$DIR/error.$number"
    cp "$DIR/started" "$DIR/started.$number"
done
"""


class Probing:
    """What came of asking libvirt twice about memd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers = [self._read(f"capabilities.{number}") for number in (1, 2)]
        self.said = "".join(self._read(name) for name in ("error.1", "error.2", "libvirtd.out"))
        self.started, self.started_later = (
            [row for row in self._read(f"started.{number}").splitlines() if "-qmp" in row]
            for number in (1, 2)
        )
        self.cache = self._read("cache.xml")

    def _read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Probing:
    """Runs libvirt's daemon and asks it, once for all tests."""
    directory = tmp_path_factory.mktemp("libvirt")
    run_libvirt(directory, ASK_TWICE)
    return Probing(directory)


def test_it_takes_memd_for_a_qemu(probing: Probing) -> None:
    assert probing.answers[0], probing.said
    found = ET.fromstring(probing.answers[0])
    assert found.findtext("path", "").endswith("/qemu-system-x86_64")
    assert found.findtext("arch") == "x86_64"
    assert found.findtext("machine") == "pc-i440fx-10.0"
    # Both exist where KVM is usable: libvirt believes it only of a binary that does.
    assert found.findtext("domain") in ("kvm", "qemu")


def test_every_source_of_memory_is_supported(probing: Probing) -> None:
    found = ET.fromstring(probing.answers[0])
    backing = found.find("memoryBacking")
    assert backing is not None
    assert backing.get("supported") == "yes"
    sources = {value.text for value in backing.findall("enum[@name='sourceType']/value")}
    assert sources == {"file", "anonymous", "memfd"}


def test_what_it_found_is_kept(probing: Probing) -> None:
    """The second answer comes from the cache: nothing was started for it."""
    assert probing.answers[1] == probing.answers[0]
    assert probing.started
    assert probing.started_later == probing.started
    assert all("-machine none,accel=" in row and "-daemonize" in row for row in probing.started)
    flags = {flag.get("name") for flag in ET.fromstring(probing.cache).findall("flag")}
    assert {
        *("memory-backend-memfd", "memory-backend-memfd.hugetlb", "memory-backend-file.pmem"),
        *("memory-backend-file.prealloc-threads", "thread-context"),
        *("pc-dimm", "nvdimm", "nvdimm.unarmed", "virtio-mem-pci", "virtio-pmem-pci"),
        *("pcie-root-port", "virtio-pci-non-transitional"),
    } <= flags


def test_nothing_of_it_stays(probing: Probing) -> None:
    assert nothing_stays(probing.directory)
