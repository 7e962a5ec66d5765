"""What a stand-in's command line registers, as clients of QEMU write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prefork
from tests.app.starting import Start
from tests.differential.server import qemu_system_memd


def test_what_a_client_starts_a_machine_with(start: Start, directory: Path) -> None:
    disk = directory / "disk"
    disk.write_bytes(bytes(1 << 20))
    server = start(
        *(
            "-nodefaults",
            "-machine",
            "q35",
            "-m",
            "64M",
            "-kernel",
            str(disk),
            "-append",
            "quiet",
        ),
        *("-chardev", "null,id=s0", "-serial", "chardev:s0"),
        *("-chardev", f"file,id=c1,path={directory}/console"),
        *("-chardev", f"socket,id=c2,path={directory}/agent,server=on,wait=off"),
        *("-device", "virtio-serial-pci,id=vs0"),
        *("-device", "virtserialport,chardev=c2,name=org.qemu.guest_agent.0"),
        *("-device", "virtconsole,chardev=c1,id=con0"),
        *("-netdev", "hubport,id=n0,hubid=1", "-device", "virtio-net-pci,netdev=n0,id=net0"),
        *("-blockdev", f'{{"driver":"file","filename":"{disk}","node-name":"f0"}}'),
        *("-blockdev", "driver=raw,file=f0,node-name=d0"),
        *("-device", "virtio-blk-pci,drive=d0,id=disk0,bootindex=1"),
        *("-object", "memory-backend-ram,id=m0,size=1M", "-parallel", "none"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom", "-object", "iothread,id=io0"),
        *("-device", "virtio-rng-pci,rng=rng0,id=rngdev"),
    )
    monitor = server.monitor()
    told = {each["label"]: each for each in monitor.execute("query-chardev")["return"]}
    assert told["s0"]["frontend-open"] is told["c1"]["frontend-open"] is True
    assert told["c2"]["frontend-open"] is False
    assert told["c1"]["filename"] == "file"
    assert "error" in monitor.execute("chardev-remove", {"id": "c1"})
    block = monitor.execute("query-block")["return"]
    assert block[0]["inserted"]["image"]["virtual-size"] == 1 << 20
    assert block[0]["qdev"] == "/machine/peripheral/disk0/virtio-backend"
    peripheral = monitor.execute("qom-list", {"path": "/machine/peripheral"})["return"]
    names = {each["name"] for each in peripheral}
    rng = monitor.execute("qom-get", {"path": "rngdev", "property": "rng"})
    assert rng == {"return": "/objects/rng0"}
    filename = monitor.execute("qom-get", {"path": "rng0", "property": "filename"})
    assert filename == {"return": "/dev/urandom"}
    assert {"vs0", "con0", "net0", "disk0"} <= names
    boot = monitor.execute("qom-get", {"path": "disk0", "property": "bootindex"})
    assert boot == {"return": 1}


def test_a_log_is_made_and_empty(start: Start, directory: Path) -> None:
    log = directory / "log"
    server = start("-chardev", f"socket,id=c,path={directory}/s,server=on,wait=off,logfile={log}")
    # It greets once all that was asked for is there.
    server.monitor()
    assert log.read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("-serial", "chardev:nope"),
            "could not connect serial device to character backend 'chardev:nope'",
        ),
        (("-netdev", "tap,id=t0,fd=99"), "File descriptor named '99' has not been found"),
        (("-netdev", "tap,id=t0,foo=1"), "Invalid parameter 'foo'"),
        (("-blockdev", "driver=file,node-name=f,filename=/nope"), "Could not open '/nope'"),
        (("-chardev", "file,id=c0"), "chardev: file: no filename given"),
        (("-device", "virtio-blk-pci,drive=nope"), "can't find value 'nope'"),
        (("-device", "nope"), "'nope' is not a valid device model name"),
    ],
)
def test_what_can_not_be(options: tuple[str, ...], message: str) -> None:
    argv = [*qemu_system_memd(), "-machine", "q35", "-m", "64M", "-display", "none", *options]
    done = prefork.run(argv)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""
