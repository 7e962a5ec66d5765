"""Options that are checked: what is said of mistakes, and the effect of those that have one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

TAKEN = [
    *("-boot c,order=d,menu=on", "-boot strict=on -boot once=a,splash-time=5", "-icount auto"),
    *("-icount shift=auto,align=on", "-icount 7,sleep=off", "-win2k-hack -no-fd-bootchk"),
    *(
        "-smbios type=1,serial=x,uuid=550e8400-e29b-41d4-a716-446655440000",
        "-smbios type=0,uefi=on",
    ),
    *("-smbios type=11,value=a,value=b", "-global driver=VGA,property=x,value=1"),
    *("-fw_cfg opt/a,string=b -fw_cfg name=opt/c,string=d", "-mem-prealloc"),
]

STEPS = [
    ("qom-get", {"path": "/machine", "property": "boot"}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m1", "size": 4096, "reserve": False}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m2", "size": 4096, "prealloc": False}),
    *(("qom-get", {"path": f"/objects/m{number}", "property": "prealloc"}) for number in (0, 2)),
    ("query-memdev", {}),
]


@pytest.mark.parametrize("line", TAKEN)
def test_what_is_taken(directory: Path, line: str) -> None:
    with standin_pair(directory, "-machine", "q35", "-m", "32M", *line.split()) as pair:
        tell(pair, STEPS)


WRONG = [
    *("-boot foo=1", "-boot order=z", "-boot aa", "-boot menu=x", "-boot strict", "-boot help"),
    *("-boot once=z", "-boot menu=on -boot menu=x", "-boot order.x=1", "-boot splash-time=x"),
    *("-icount foo", "-icount 11", "-icount align=on", "-icount 1,foo=2", "-icount 3,sleep=x"),
    *("-icount rr=foo", "-icount -1", "-smbios foo", "-smbios type=x", "-smbios type=99"),
    *(f"-smbios type={kind},foo=1" for kind in (0, 1, 2, 3, 4, 8, 9, 11, 17, 41)),
    *("-smbios type=-1", "-smbios type=0,uefi=x", "-smbios type=4,max-speed=x"),
    *("-smbios type=1,uuid=x", "-smbios type=2,serial -uuid ?", "-smbios file=/nonexistent/x"),
    *("-smbios type=7", "-smbios file=x,type=1", "-smbios type=8,port_type=x"),
    *("-fw_cfg foo", "-fw_cfg name=foo", "-fw_cfg opt/a,string=b,file=c", "-fw_cfg string=a"),
    *("-fw_cfg opt/a,string=b,foo=1", "-fw_cfg opt/a,file=/nonexistent/x", "-fw_cfg opt/a,file=."),
    *(f"-fw_cfg opt/{'a' * 52},string=b", "-fw_cfg a,file=/nonexistent/x"),
    "-chardev ringbuf,id=a,size=3B",
    *("-option-rom file=x", "-option-rom bootindex=x", "-option-rom bootindex=1"),
    *("-global foo", "-global a.b", "-global =", "-global driver=a", "-global driver=a,x=1"),
    *("-global a.=1", "-mem-prealloc -object memory-backend-ram,id=m,size=1M,reserve=off"),
    *("-usbdevice foo", "-usbdevice disk", "-debugcon foo", "-debugcon none", "-debugcon tcp:"),
    *("-gdb foo", "-gdb tcp:", "-set foo", "-set a.b.c=1", "-set device.x.a=1", "-set device.a=1"),
    *("-set .=", "-set object.a.b=1", "-set machine.a.b=1", "-device e1000,id=a -set device.a.=1"),
    *("-device e1000,id=a -set device.a.foo=1", "-netdev user,id=n -set netdev.n.foo=on"),
    "-set device.a.addr=5 -device e1000,id=a",
    '-device {"driver":"e1000","id":"a"} -set device.a.addr=5',
]


@pytest.mark.parametrize("line", WRONG)
def test_mistakes(line: str) -> None:
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        begin = ["-machine", "q35", "-nodefaults", "-display", "none", "-S"]
        done = prefork.run([*argv, *begin, *line.split()])
        rows = [row.rpartition("qemu-system-")[2] for row in done.stderr.splitlines()]
        said.append((done.returncode, [row.partition(": ")[2] or row for row in rows], done.stdout))
    assert said[0] == said[1]
