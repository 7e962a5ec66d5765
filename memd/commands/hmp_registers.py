"""`info` of what a stand-in keeps: jobs, statistics, displays.

Their texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from memd.commands.daemon import Daemon, standin_of
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.work import in_turns

_COUNTS = (
    *("rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations"),
    *("wr_total_time_ns", "rd_total_time_ns", "flush_total_time_ns", "rd_merged", "wr_merged"),
)

_KINDS = {
    **dict.fromkeys(
        (f"virtio-{each}" for each in ("tablet", "keyboard", "mouse", "multitouch")), "virtio-input"
    ),
    "virtio-vga": "virtio-gpu",
}
"""What devices are called that are not called as their types."""


def block_jobs(jobs: list[JSON]) -> list[str]:
    """`info block-jobs`, of the answer of `query-block-jobs`."""
    lines = []
    for job in jobs:
        what = f"Type {job['type']}, device" if job["type"] != "stream" else "Streaming device"
        lines.append(
            f"{what} {job['device']}: Completed {job['offset']} of {job['len']} bytes,"
            f" speed limit {job['speed']} bytes/s"
        )
    return lines or ["No active jobs"]


async def info_blockstats(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info blockstats`."""
    from memd.standin.block.statistics import statistics_of

    lines: list[str] = []
    async for row in in_turns(statistics_of([*standin_of(daemon).blocks.drives])):
        stats = row["stats"]
        if daemon.compat is Compat.V10_0:
            told = " ".join(f"{name}={stats[name]}" for name in _COUNTS)
            lines.append(f"{row['device']}: {told} idle_time_ns=0")
        else:
            lines += [""] * bool(lines) + [f"{row['device']}: idle_time_ns=0", *_table(stats)]
    return lines


def _table(stats: JSONObject) -> Iterator[str]:
    """The counts of a drive in QEMU 11.1's form."""
    yield f"{'bytes':>31}{'operations':>17}{'total_time_ns':>25}{'merged':>11}"
    for name, short in (("Read:", "rd"), ("Write:", "wr")):
        counts = (stats[f"{short}_{each}"] for each in ("bytes", "operations", "total_time_ns"))
        size, operations, time = counts
        yield f"{name:6}{size:>25}{operations:>17}{time:>25}{stats[f'{short}_merged']:>11}"
    operations, time = stats["flush_operations"], stats["flush_total_time_ns"]
    yield f"{'Flush:':31}{operations:>17}{time:>25}"


def dirty_rate(told: JSONObject) -> list[str]:
    """`info dirty_rate`, of the answer of `query-dirty-rate`."""
    lines = [f"Status: {told['status']}", f"Start Time: {told['start-time']} (ms)"]
    if told["mode"] == "page-sampling":
        lines.append(f"Sample Pages: {told['sample-pages']} (per GB)")
    lines += [f"Period: {told['calc-time']} (sec)", f"Mode: {told['mode']}"]
    rate = f"{told['dirty-rate']} (MB/s)" if "dirty-rate" in told else "(not ready)"
    return [*lines, f"Dirty rate: {rate}"]


def dump(told: JSONObject) -> list[str]:
    """`info dump`, of the answer of `query-dump`."""
    lines = [f"Status: {told['status']}"]
    if told["status"] == "active":
        # How much there is to be written is not known while the file is being opened.
        lines.append(f"Finished: {100 * told['completed'] / max(1, told['total']):.2f} %")
    return lines


def vnc(displays: list[JSON]) -> list[str]:
    """`info vnc`, of the answer of `query-vnc-servers`."""
    lines = []
    for display in displays:
        lines.append(f"{display['id']}:")
        for row in display["server"]:
            kind = row["family"] + " (Websocket)" * row["websocket"]
            lines.append(f"  Server: {row['host']}:{row['service']} ({kind})")
            lines.append(f"    Auth: {row['auth']} (Sub: none)")
        if not display["server"]:
            lines.append(f"  Auth: {display['auth']} (Sub: none)")
        if "display" in display:
            lines.append(f"  Display: {display['display']}")
    return lines or ["None"]


def mice(rows: list[JSON]) -> list[str]:
    """`info mice`, of the answer of `query-mice`."""
    return [
        f"{'*' if row['current'] else ' '} Mouse #{row['index']}: {row['name']}"
        + " (absolute)" * row["absolute"]
        for row in rows
    ] or ["No mouse devices connected"]


def info_usb(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info usb`."""
    return standin_of(daemon).devices.usb_lines(daemon.machine)


def tpm(rows: list[JSON]) -> list[str]:
    """`info tpm`, of the answer of `query-tpm`."""
    lines = []
    for number, row in enumerate(rows):
        kind, its = row["options"]["type"], row["options"]["data"]
        told = "".join(f",{name}={value}" for name, value in its.items())
        lines += [f" tpm{number}: model={row['model']}", f"  \\ {row['id']}: type={kind}{told}"]
    return ["TPM device:", *lines] if lines else []


def query_virtio(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`x-query-virtio`; raises `QMPError` where no device is one."""
    from memd.devices.device import peripherals

    tree = daemon.tree
    rows: list[JSON] = []
    for device in (*peripherals(tree), *tree.resolve("/machine/unattached").children.values()):
        kind = device.qom_type.name
        known = tree.type_by_name(kind)
        if known is None or not (known.is_a("virtio-pci") or known.is_a("virtio-device")):
            continue
        behind = "" if known.is_a("virtio-device") else "/virtio-backend"
        name = re.sub("-(pci|device).*", "", kind).removeprefix("vhost-user-")
        rows.append({"path": f"{tree.path_of(device)}{behind}", "name": _KINDS.get(name, name)})
    if not rows:
        raise QMPError("No virtio devices found")
    return rows


def virtio(rows: list[JSON]) -> list[str]:
    """`info virtio`, of the answer of `x-query-virtio`."""
    return [f"{row['path']} [{row['name']}]" for row in rows]
