"""avocado-vt's monitors with two machines: what came of each step, a line each.

Arguments: the QMP socket of a machine, that of its human monitor, the QMP socket of a
machine to migrate to, and a directory for what is made.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from virttest import qemu_monitor, utils_misc


class VM:
    """What a monitor asks of the machine that it is of."""

    name = "vm"

    def check_capability(self, flag: object) -> bool:
        """It has what a recent QEMU has."""
        return True

    def get_pid(self) -> None:
        """No process: it only names a log file."""


def say(name: str, call: Callable[[], object]) -> Any:
    """Print what comes of a call; gives it."""
    try:
        said = call()
    except qemu_monitor.QMPCmdError as error:
        said = ["QMPCmdError", error.data]
    except Exception as error:
        said = [type(error).__name__, str(error)]
    print(json.dumps([name, said], default=repr))
    return said


def do(monitor: Any, *steps: tuple[Any, ...]) -> None:
    """Call methods of a monitor; a last argument that is a set names their keywords."""
    for name, *arguments in steps:
        keywords = arguments.pop() if arguments and isinstance(arguments[-1], Keywords) else {}
        say(f"{name} {arguments}", partial(getattr(monitor, name), *arguments, **keywords))


class Keywords(dict[str, Any]):
    """Arguments of a step by their names."""


def run_states(qmp: Any) -> None:
    """Start, stop, reset; who is told."""
    do(
        qmp,
        ("verify_status", "paused"),
        ("get_status",),
        ("cmd", "cont"),
        ("verify_status", "running"),
        ("system_reset",),
        ("cmd", "stop"),
        ("verify_status", "paused"),
        ("system_wakeup",),
        ("nmi",),
        ("system_powerdown",),
        ("is_responsive",),
        ("get_workable_cmd", "system-powerdown"),
        ("verify_supported_cmd", "nope"),
        ("verify_supported_hmp_cmd", "sendkey"),
        ("verify_supported_hmp_cmd", "nope"),
        ("exit_preconfig",),
        ("set_numa_node", "node", Keywords(nodeid=1)),
        ("cmd", "nope"),
        ("cmd", "query-status", {"more": 1}),
        ("cmd_raw", '{"execute": "query-status", "arguments": []}\n'),
        ("cmd_obj", {"execute": "query-name", "id": [1]}),
        ("cmd_qmp", "query-uuid", None, "id"),
        ("send_args_cmd", "query-name;query-status"),
        ("send_args_cmd", "info status"),
    )
    for name in ("STOP", "RESUME", "RESET", "POWERDOWN"):
        came = utils_misc.wait_for(partial(qmp.get_event, name), 60)
        say(name, partial(bool, came))
        qmp.clear_event(name)


def queries(qmp: Any) -> None:
    """What a harness looks up of a machine."""
    for what in (
        *("name", "kvm", "uuid", "cpus-fast", "hotpluggable-cpus", "memory-devices", "memdev"),
        *("memory-size-summary", "pci", "chardev", "iothreads", "mice", "jobs", "block-jobs"),
        *("block", "blockstats", "named-block-nodes", "block-exports", "vnc", "spice", "tpm"),
        *("rx-filter", "migrate", "balloon", "fdsets", "acpi-ospm-status", "machines", "sev"),
        *("command-line-options", "target", "dump-guest-memory-capability", "gic-capabilities"),
    ):
        do(qmp, ("query", what))
    do(
        qmp,
        ("info_numa",),
        ("info", "mtree-of-nothing"),
        ("human_monitor_cmd", "info version-of-nothing"),
        ("qom_get", "/machine", "type"),
        ("qom_get", "/machine/peripheral/cd", "drive"),
        ("qom_set", "/machine", "nope", 1),
        ("query_cpu_model_expansion", "qemu64"),
        ("query_sgx",),
        ("query_sgx_capabilities",),
        ("query_sev_capabilities",),
        ("sendkey", "ctrl-alt-delete"),
        ("sendkey", "nope"),
        ("press_release_key", "a"),
        ("press_release_key", "a", False),
        ("press_release_key", "nope"),
        ("input_send_event", [{"type": "btn", "data": {"down": True, "button": "left"}}]),
    )


def networks(qmp: Any) -> None:
    """Backends and links."""
    read, write = os.pipe()
    do(
        qmp,
        ("netdev_add", "user", "u0", Keywords(restrict=True)),
        ("netdev_add", "user", "u0"),
        ("netdev_add", "hubport", "h0", Keywords(hubid=1)),
        ("netdev_add", "nope", "x0"),
        ("human_monitor_cmd", "info network"),
        ("set_link", "u0", False),
        ("set_link", "nope", True),
        ("getfd", read, "a-pipe"),
        ("closefd", "a-pipe"),
        ("closefd", "a-pipe"),
        ("netdev_del", "u0"),
        ("netdev_del", "u0"),
    )
    os.close(read)
    os.close(write)


def disks(qmp: Any, place: Path) -> None:
    """Block nodes, bitmaps, images, media, exports."""
    image = str(place / "image")
    null = {"driver": "null-co", "node-name": "n0", "size": 1 << 20}
    do(
        qmp,
        ("blockdev_add", null),
        ("blockdev_add", null),
        ("block_dirty_bitmap_add", "n0", "b0"),
        ("block_dirty_bitmap_add", "n0", "b1", 65536, Keywords(disabled=True)),
        ("block_dirty_bitmap_disable", "n0", "b0"),
        ("block_dirty_bitmap_enable", "n0", "b0"),
        ("block_dirty_bitmap_clear", "n0", "b0"),
        ("block_dirty_bitmap_merge", "n0", ["b0"], "b1"),
        ("debug_block_dirty_bitmap_sha256", "n0", "b0"),
        ("block_dirty_bitmap_remove", "n0", "b0"),
        ("block_dirty_bitmap_remove", "n0", "b0"),
        ("transaction", [{"type": "block-dirty-bitmap-add", "data": {"node": "n0", "name": "c"}}]),
        ("query_named_block_nodes",),
        ("blockdev_create", "j0", {"driver": "file", "filename": image, "size": 1 << 20}),
    )
    utils_misc.wait_for(lambda: qmp.query_jobs()[0]["status"] == "concluded", 60)
    do(
        qmp,
        ("query_jobs",),
        ("job_dismiss", "j0"),
        ("job_dismiss", "j0"),
        ("blockdev_add", {"driver": "file", "node-name": "f0", "filename": image}),
        ("blockdev_add", {"driver": "raw", "node-name": "r0", "file": "f0"}),
        ("block_resize", None, 2 << 20, "r0"),
        ("blockdev_reopen", [{"driver": "raw", "node-name": "r0", "file": "f0"}]),
        ("info_block",),
        ("live_snapshot", "nope", str(place / "snapshot")),
        ("blockdev_backup", {"job-id": "j1", "device": "n0", "target": "n0", "sync": "full"}),
        ("block_mirror", "n0", "nope", "full", "blockdev-mirror", Keywords(job_id="j2")),
        ("cancel_block_job", "nope"),
        ("blockdev_open_tray", "cd"),
        ("blockdev_insert_medium", "cd", "r0"),
        ("query", "block"),
        ("blockdev_close_tray", "cd"),
        ("blockdev_remove_medium", "cd"),
        ("blockdev_del", "r0"),
        ("eject_cdrom", "cd"),
        ("blockdev_change_medium", "cd", image, "raw", "read-only"),
        ("nbd_server_start", {"type": "unix", "path": str(place / "nbd")}),
        ("nbd_server_add", "n0", "e0", "yes"),
        ("block_export_add", "e1", "nbd", "n0", Keywords(name="other")),
        ("query_block_exports",),
        ("nbd_server_remove", "e0"),
        ("block_export_del", "nope"),
        ("nbd_server_stop",),
        ("query_block_exports",),
        ("blockdev_del", "n0"),
        ("blockdev_del", "n0"),
    )


def human(hmp: Any) -> None:
    """The human monitor on its own socket."""
    do(
        hmp,
        ("verify_responsive",),
        ("get_status",),
        ("verify_status", "paused"),
        *(("info", what) for what in ("name", "numa", "kvm", "network", "mice", "balloon")),
        *(("info", what) for what in ("block", "migrate", "vnc", "nope")),
        ("info_numa",),
        ("info_block",),
        ("netdev_add", "hubport", "h1", Keywords(hubid=1)),
        ("netdev_del", "h1"),
        ("set_link", "nope", True),
        ("sendkey", "ret"),
        ("system_reset",),
        ("set_migrate_capability", "on", "events"),
        ("get_migrate_capability", "events"),
        ("set_migrate_parameter", "max-bandwidth", "1G"),
        ("get_migrate_parameter", "max-bandwidth"),
        ("balloon", 64),
        ("eject_cdrom", "nope"),
        ("cmd", "nope"),
        ("cmd", "object_add"),
        ("send_args_cmd", "info status;info name"),
    )


def migration(source: Any, target: Any, place: Path) -> None:
    """Capabilities, parameters, and from one machine to the other."""
    do(
        source,
        ("set_migrate_capability", True, "events"),
        ("set_migrate_capability", True, "xbzrle"),
        ("set_migrate_capability", False, "xbzrle"),
        ("get_migrate_capability", "events"),
        ("set_migrate_capability", True, "nope"),
        ("set_migrate_parameter", "max-bandwidth", 1 << 30),
        ("get_migrate_parameter", "max-bandwidth"),
        ("set_migrate_parameter", "downtime-limit", 1 << 40),
        ("get_migrate_parameter", "downtime-limit"),
        ("get_migrate_parameter", "nope"),
        ("set_migrate_cache_size", 1 << 20),
        ("migrate_set_speed", "1G"),
        ("migrate_start_postcopy",),
        ("migrate_continue", "pre-switchover"),
        ("migrate", f"unix:{place}/nobody"),
        ("get_status",),
    )
    failed = utils_misc.wait_for(lambda: source.query("migrate").get("status") == "failed", 60)
    say("failed", lambda: bool(failed))
    do(target, ("get_status",), ("migrate_incoming", f"unix:{place}/incoming"), ("get_status",))
    do(source, ("clear_events",), ("migrate", f"unix:{place}/incoming"))
    done = utils_misc.wait_for(lambda: source.query("migrate")["status"] == "completed", 60)
    say("completed", lambda: bool(done))
    do(source, ("get_status",), ("get_migrate_progress",))
    arrived = utils_misc.wait_for(lambda: target.get_status()["status"] != "inmigrate", 60)
    say("arrived", lambda: bool(arrived))
    do(target, ("get_status",), ("cmd", "cont"), ("get_status",))
    events = [event for event in source.get_events() if event["event"] == "MIGRATION"]
    say("events", lambda: [event["data"] for event in events])


def main() -> None:
    """Do the steps."""
    paths, place = sys.argv[1:4], Path(sys.argv[4])
    parameters = [{"monitor_filename": path} for path in paths]
    qmp = qemu_monitor.QMPMonitor(VM(), "qmp", parameters[0])
    hmp = qemu_monitor.HumanMonitor(VM(), "hmp", parameters[1])
    target = qemu_monitor.QMPMonitor(VM(), "target", parameters[2])
    say("greeting", qmp.get_greeting)
    queries(qmp)
    run_states(qmp)
    networks(qmp)
    disks(qmp, place)
    human(hmp)
    migration(qmp, target, place)
    for monitor in (hmp, qmp, target):
        # QEMU leaves the end of a line unread, so that its answer may not arrive.
        with contextlib.suppress(qemu_monitor.MonitorError):
            monitor.quit()
        monitor.close()


main()
