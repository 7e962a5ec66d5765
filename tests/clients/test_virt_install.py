"""virt-install and virt-xml over a real libvirt: domains of memd's are as those of QEMU's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.clients.libvirt import nothing_stays, run_libvirt
from tests.differential.server import QEMU, qemu_compat

STEPS = """
export HOME="$DIR" VIRTINSTALL_OSINFO_DISABLE_REQUIRE=1
step() {
    echo "== $*"
    "$@" 2>&1
    echo "-- $?"
}
install() {
    virt-install --connect qemu:///system --virt-type qemu --noautoconsole --import --memory 128 \
        --boot emulator="$DIR/qemu-system-x86_64" "$@"
}
change() {
    virt-xml --connect qemu:///system "$@"
}
truncate -s 1M "$DIR/one" "$DIR/two" "$DIR/three" "$DIR/four"
{
    step install --name one --uuid 11111111-1111-1111-1111-111111111111 --machine q35 --vcpus 2 \
        --disk "path=$DIR/one,format=raw,bus=virtio" --network \
        user,model=virtio,mac=52:54:00:00:00:01 \
        --graphics none --watchdog i6300esb,action=reset --rng /dev/urandom \
        --controller type=scsi,model=virtio-scsi --disk "path=$DIR/two,format=raw,bus=scsi" \
        --channel unix,target.type=virtio,target.name=org.qemu.guest_agent.0
    step install --name two --uuid 22222222-2222-2222-2222-222222222222 --machine pc \
        --disk device=cdrom,bus=ide --disk device=floppy --network none \
        --graphics vnc,listen=none --video vga --sound none --input tablet,bus=usb \
        --vcpus 1,maxvcpus=4
    step v list --all
    for domain in one two; do
        step v dominfo $domain
        step v dumpxml $domain
        step v domblklist $domain --details
        step v domiflist $domain
        step v domblkinfo $domain --all
    done
    step change one --add-device --disk "path=$DIR/three,format=raw,bus=virtio" --update --define
    step change one --edit mac=52:54:00:00:00:01 --network link.state=down --update --define
    step v change-media two hda "$DIR/four" --insert --live
    step v change-media two hda --eject --live
    step v setvcpus two 2 --live
    step v vcpucount two
    step v suspend one
    step v domstate one --reason
    step v resume one
    step v snapshot-create-as one first --disk-only --no-metadata --diskspec sda,snapshot=no \
        --diskspec vdb,snapshot=no \
        --diskspec "vda,file=$DIR/overlay"
    step v blockcommit one vda --active --pivot --wait
    step v domblklist one
    step v reset one
    step v domif-getlink one 52:54:00:00:00:01
    step v dumpxml one
    for domain in one two; do
        step v destroy $domain
        step v undefine $domain
    done
    step v list --all
} >"$DIR/said"
"""

REST = re.compile(
    "|".join(
        (
            # How long it took, and what its process and its connections have.
            r"(?<=/dev/pts/)\d+|(?<=CPU time: ).*|(?<=domain-)\d+-|(?<=id=')\d+(?=')",
            r"\(\d+:\d+:\d+\)|\d+\.\d+ ms|\d\d:\d\d",
        )
    )
)


def said(directory: Path, emulator: str | None) -> list[str]:
    directory.mkdir()
    run_libvirt(directory, STEPS, emulator, ["storage"])
    text = (directory / "said").read_text().replace(str(directory), "@DIR@")
    assert nothing_stays(directory)
    return REST.sub("", text).splitlines()


def test_virt_install(directory: Path) -> None:
    qemu_compat()
    for tool in ("virt-install", "virt-xml"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    memd = said(directory / "memd", None)
    assert memd == said(directory / "QEMU", shutil.which(QEMU))
    assert memd.count("-- 0") > 30
