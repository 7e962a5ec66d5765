"""Ganeti's QmpConnection with two machines: what came of each step, a line each.

Arguments: the QMP socket of a machine, that of another one to migrate to, and a directory
that has the image `disk`.
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ganeti import objects
from ganeti.hypervisor.hv_kvm.monitor import QmpConnection

CONNECTED = "03"
"""The state of a socket in /proc/net/unix."""

PATIENCE = 60
"""Seconds that a migration may take."""


def do(qmp: Any, name: str, *arguments: object, **keywords: object) -> None:
    """Print what comes of a step, for which it connects and leaves again."""
    try:
        said = getattr(left(qmp), name)(*arguments, **keywords)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    told = [each for each in arguments if type(each) in (str, dict, list)]
    print(json.dumps([name, told, said], default=repr))


def execute(qmp: Any, *arguments: object) -> Any:
    """Print what comes of a command; gives it."""
    with left(qmp):
        try:
            said = qmp.Execute(*arguments)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    print(json.dumps([arguments, said]))
    return said


def left(qmp: Any) -> Any:
    """Wait until its machine has seen the last client leave; gives it.

    QEMU may greet a client twice that comes before, which Ganeti takes for an answer.
    """
    end = f" {qmp.monitor_filename}"

    def is_alone() -> bool:
        rows = [row for row in Path("/proc/net/unix").read_text().splitlines() if row.endswith(end)]
        return all(row.split()[5] != CONNECTED for row in rows)

    until(is_alone)
    return qmp


def until(look: Callable[[], bool]) -> None:
    """Wait until something is so, or for as long as a migration may take."""
    ends = time.monotonic() + PATIENCE
    while not look() and time.monotonic() < ends:
        time.sleep(0.05)


def disks(qmp: Any, place: Path) -> None:
    """Hot-plug an image, by the human monitor as Ganeti does, and take it out."""
    more = ""

    def add_drive(filename: str) -> None:
        line = f"drive_add dummy file={filename},if=none,id=disk0,format=raw{more}"
        print(json.dumps(qmp.Execute("human-monitor-command", {"command-line": line})))

    disk = objects.Disk(hvinfo={"driver": "virtio-blk-pci", "id": "disk0", "bus": "p0"})
    do(qmp, "CheckDiskHotAddSupport")
    do(qmp, "HasDevice", "disk0")
    do(qmp, "HotAddDisk", disk, "disk0", str(place / "disk"))
    # Of what can be written alone, and then as Ganeti does if `HasDynamicAutoReadOnly` is so.
    do(qmp, "HotAddDisk", disk, "disk0", str(place / "disk"), drive_add_fn=add_drive)
    more = ",auto-read-only=off"
    do(qmp, "HotAddDisk", disk, "disk0", str(place / "disk"), drive_add_fn=add_drive)
    do(qmp, "HasDevice", "disk0")
    do(qmp, "HotAddDisk", disk, "disk0", str(place / "disk"), drive_add_fn=add_drive)
    execute(qmp, "query-fdsets")
    do(qmp, "HotDelDisk", "disk0")
    do(qmp, "HotDelDisk", "nope")


def networks(qmp: Any) -> None:
    """What can be done without a tap."""
    do(qmp, "CheckNicHotAddSupport")
    execute(qmp, "netdev_add", {"type": "user", "id": "nic1"})
    device = {"driver": "e1000e", "id": "nic1", "netdev": "nic1", "bus": "p1"}
    execute(qmp, "device_add", device)
    do(qmp, "HasDevice", "nic1")
    do(qmp, "HotDelNic", "nic1")
    do(qmp, "HotDelNic", "nic2")


def migrate(source: Any, target: Any) -> None:
    """Parameters, capabilities, a migration that fails and one that goes through."""
    do(source, "SetMigrationParameters", 1 << 30, 300)
    do(source, "SetMigrationParameters", 1 << 30, 1 << 40)
    for machine in (source, target):
        do(machine, "SetMigrationCapabilities", ["auto-converge", "events"], True)
        do(machine, "SetMigrationCapabilities", ["postcopy-ram"], False)
    do(source, "SetMigrationCapabilities", ["nope"], True)
    do(source, "GetMigrationStatus")
    do(source, "StartPostcopyMigration")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    do_unsaid(source, port)
    until(lambda: left(source).GetMigrationStatus()["status"] == "failed")
    print(json.dumps(left(source).GetMigrationStatus()["status"]))
    do(source, "ContinueGuestEmulation")
    execute(source, "query-status")
    execute(target, "migrate-incoming", {"uri": "tcp:127.0.0.1:0"})
    told = left(target).GetMigrationStatus()
    do_unsaid(source, int(told["socket-address"][0]["port"]))
    until(lambda: left(source).GetMigrationStatus()["status"] in ("completed", "failed"))
    print(json.dumps(left(source).GetMigrationStatus()["status"]))

    def arrived() -> bool:
        with left(target):
            return bool(target.Execute("query-status")["status"] != "inmigrate")

    until(arrived)
    for machine in (source, target):
        execute(machine, "query-status")


def do_unsaid(qmp: Any, port: int) -> None:
    """Begin to migrate to a port, which is not printed."""
    print(json.dumps(["StartMigration", left(qmp).StartMigration("127.0.0.1", port)]))


def main() -> None:
    """Do the steps."""
    place = Path(sys.argv[3])
    source, target = QmpConnection(sys.argv[1]), QmpConnection(sys.argv[2])
    with left(source):
        # A stand-in has some of its own.
        commands = [each for each in source.supported_commands if not each.startswith("x-")]
        print(json.dumps([source.version[:2], sorted(commands)]))
    do(source, "ContinueGuestEmulation")
    do(source, "StopGuestEmulation")
    execute(source, "query-status")
    execute(source, "nope")
    execute(source, "device_del", {"id": "nope"})
    do(source, "GetFreePCISlot")
    do(source, "HasDynamicAutoReadOnly")
    do(source, "SetSpicePassword", "secret")
    migrate(source, target)
    disks(target, place)
    networks(target)


main()
