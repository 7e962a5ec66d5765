"""Checkpoints, incremental backups and internal snapshots of a domain of a real libvirt.

With QEMU 10.0.2 as the emulator the same steps say the same.
"""

from __future__ import annotations

import base64
import json
import shlex

import pytest

from memd.standin.block.qcow2 import empty_image
from tests.clients.libvirt import nothing_stays, run_libvirt
from tests.clients.test_libvirt_life import Life

SIZE = 16 << 20
DOMAIN = """
<domain type='qemu'>
  <name>vm</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <memoryBacking><source type='memfd'/></memoryBacking>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>@DIR@/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='@DIR@/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <memballoon model='none'/>
  </devices>
</domain>
"""

BACKUP = """
<domainbackup mode='push'>
  <incremental>one</incremental>
  <disks><disk name='vda' backup='yes' type='file' backupmode='incremental' incremental='one'>
    <driver type='qcow2'/><target file='@DIR@/pushed'/>
  </disk></disks>
</domainbackup>
"""
PULL = """
<domainbackup mode='pull'>
  <incremental>one</incremental>
  <server transport='unix' socket='@DIR@/pull'/>
  <disks><disk name='vda' backup='yes' type='file' backupmode='incremental' incremental='one'
      exportbitmap='dirty'>
    <driver type='qcow2'/><scratch file='@DIR@/scratch'/>
  </disk></disks>
</domainbackup>
"""


def memory(name: str, command: str, **more: object) -> str:
    told = ", ".join(f'"{key}": {value}' for key, value in more.items())
    text = f'{{"execute": "{command}", "arguments": {{"id": "pc.ram", {told}}}}}'
    return f"step {name} v qemu-monitor-command vm {shlex.quote(text)}\n"


def write(name: str, text: bytes) -> str:
    data = base64.b64encode(text).decode()
    return memory(name, "x-memdev-write", offset=4096, data=f'"{data}"')


def read(name: str) -> str:
    return memory(name, "x-memdev-read", offset=4096, length=4)


STEPS = (
    """
v() { virsh -q -c qemu:///system "$@"; }
nodes='{"execute": "query-named-block-nodes", "arguments": {"flat": true}}'
step() {
    name=$1
    shift
    echo "== $*" >>"$DIR/log"
    "$@" >"$DIR/out.$name" 2>>"$DIR/log" && : >"$DIR/done.$name"
    cat "$DIR/out.$name" >>"$DIR/log"
}
step define v define "$DIR/domain.xml"
step start v start vm
step one v checkpoint-create-as vm one
step push v backup-begin vm "$DIR/push.xml"
step pushed v domjobinfo vm --completed
step pull v backup-begin vm "$DIR/pull.xml"
step pulling v backup-dumpxml vm
step pulled v domjobabort vm
step two v checkpoint-create-as vm two
step checkpoints v checkpoint-list vm --name
step unmade v checkpoint-delete vm one
step destroy v destroy vm
step again v start vm
step kept v qemu-monitor-command vm "$nodes"
step three v checkpoint-create-as vm three
step untwo v checkpoint-delete vm two
step unthree v checkpoint-delete vm three
"""
    + write("first", b"memd")
    + """
step snap v snapshot-create-as vm snap
step other v snapshot-create-as vm other
"""
    + write("second", b"past")
    + """
step revert v snapshot-revert vm snap
step state v domstate vm
"""
    + read("came")
    + """
step snapshots v snapshot-list vm --name
step drop v snapshot-delete vm snap
step left v snapshot-list vm --name
step stop v destroy vm
step back v snapshot-revert vm other --running
step info v snapshot-list vm --name
step unother v snapshot-delete vm other
step end v destroy vm
"""
)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Runs the daemon and all steps, once for all tests."""
    directory = tmp_path_factory.mktemp("snapshots")
    with (directory / "disk").open("wb") as file:
        for at, data in empty_image({"size": SIZE}).items():
            file.seek(at)
            file.write(data)
    for name, text in (("domain", DOMAIN), ("push", BACKUP), ("pull", PULL)):
        (directory / f"{name}.xml").write_text(text.replace("@DIR@", str(directory)))
    run_libvirt(directory, STEPS)
    return Life(directory)


def test_checkpoints(life: Life) -> None:
    assert life.worked("define", "start", "one", "two", "unmade"), life.log
    assert life.out("checkpoints").split() == ["one", "two"]
    # After a new start the image has the bitmap of the one that is left.
    nodes = json.loads(life.out("kept"))["return"]
    assert [each["name"] for each in nodes[0]["dirty-bitmaps"]] == ["two"]
    assert life.worked("destroy", "again", "three", "untwo", "unthree"), life.log


def test_incremental_backups(life: Life) -> None:
    assert life.worked("push", "pull", "pulled"), life.log
    assert "Backup" in life.out("pushed")
    assert "exportbitmap='dirty'" in life.out("pulling")


def test_internal_snapshots(life: Life) -> None:
    assert life.worked("first", "snap", "other", "second", "revert"), life.log
    assert life.out("state").strip() == "running"
    assert base64.b64encode(b"memd").decode() in life.out("came")
    assert life.out("snapshots").split() == ["other", "snap"]
    assert life.worked("drop", "stop", "back", "unother", "end"), life.log
    assert life.out("left").split() == life.out("info").split() == ["other"]
    assert nothing_stays(life.directory)
