"""The human monitor's words that tell of the machine, and those that read and set properties.

Their texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from memd.commands import qom
from memd.commands.daemon import Daemon, standin_of
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom import QObject
from memd.sizes import short_size
from memd.wire import encode
from memd.work import in_turns

_MIB = 1 << 20

MOST_TEXT = 4 << 20
"""Characters that a command of the human monitor prints: they are put into JSON in one go."""


def check_text(size: int) -> None:
    """Raise `QMPError` where so many characters are too many to be printed."""
    if size > MOST_TEXT:
        raise QMPError(f"there are more than {MOST_TEXT} characters to tell")


def balloon(told: JSONObject) -> list[str]:
    """`info balloon`, of the answer of `query-balloon`."""
    return [f"balloon: actual={told['actual'] // _MIB}"]


async def info_block(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info block [-n] [-v] [NAME]`: what devices have as their disks, or all nodes.

    Raises:
        QMPError: there is too much to tell.
    """
    if daemon.standin is None:
        return []
    from memd.standin.block.node_info import device_info

    drives, blocks = daemon.standin.drives, daemon.standin.blocks
    wanted, verbose = args.get("device"), args.get("verbose", False)
    lines: list[str] = []
    size = 0

    def add(device: JSONObject | None, node: JSONObject | None) -> None:
        nonlocal size
        more = _block(device, node, verbose=verbose)
        lines.extend(("", *more))
        size += sum(map(len, more))
        check_text(size)

    if not args.get("nodes"):
        async for row in in_turns(drives.rows()):
            if wanted in (None, row["device"]) and (row["device"] or row.get("qdev")):
                add(row, row.get("inserted"))
    if args.get("nodes") or (wanted is not None and not lines):
        async for node in in_turns(blocks.all()[::-1]):
            if wanted in (None, node.name):
                add(None, device_info(node, blocks.compat))
    return lines if wanted is not None else lines[1:]


def info_snapshots(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info snapshots`."""
    return [] if daemon.standin is None else daemon.standin.snapshots.told()


def _block(device: JSONObject | None, node: JSONObject | None, *, verbose: bool) -> list[str]:
    name = "" if device is None else device["device"]
    if node is None:
        lines = [f"{name or (device or {}).get('qdev', '')}: [not inserted]"]
    else:
        title = f"{name} ({node['node-name']})" if name else node["node-name"]
        kind = node["drv"] + ", read-only" * node["ro"] + ", encrypted" * node["encrypted"]
        lines = [f"{title}: {node['file']} ({kind})"]
    if device is not None:
        if "qdev" in device:
            lines.append(f"    Attached to:      {device['qdev']}")
        if device["removable"]:
            locked = "" if device["locked"] else "not "
            tray = "open" if device.get("tray_open") else "closed"
            lines.append(f"    Removable device: {locked}locked, tray {tray}")
    if node is None:
        return lines
    cache = node["cache"]
    modes = (
        "writeback" if cache["writeback"] else "writethrough",
        *["direct"] * cache["direct"],
        *["ignore flushes"] * cache["no-flush"],
    )
    lines.append(f"    Cache mode:       {', '.join(modes)}")
    if "backing_file" in node:
        depth = node["backing_file_depth"]
        lines.append(f"    Backing file:     {node['backing_file']} (chain depth: {depth})")
    if node["detect_zeroes"] != "off":
        lines.append(f"    Detect zeroes:    {node['detect_zeroes']}")
    if "group" in node:
        told = " ".join(f"{name}={node.get(name, 0)}" for name in _LIMITS)
        lines.append(f"    I/O throttling:   {told} group={node['group']}")
    if verbose:
        lines += ["", "Images:"]
        image = node["image"]
        while image is not None:
            lines += _image(image)
            image = image.get("backing-image")
    return lines


_LIMITS = (
    *("bps", "bps_rd", "bps_wr", "bps_max", "bps_rd_max", "bps_wr_max"),
    *("iops", "iops_rd", "iops_wr", "iops_max", "iops_rd_max", "iops_wr_max", "iops_size"),
)


def _image(image: JSONObject) -> list[str]:
    lines = [
        f"image: {image['filename']}",
        f"file format: {image['format']}",
        f"virtual size: {short_size(image['virtual-size'])} ({image['virtual-size']} bytes)",
        f"disk size: {short_size(image['actual-size'])}",
    ]
    if "cluster-size" in image:
        lines.append(f"cluster_size: {image['cluster-size']}")
    if "backing-filename" in image:
        lines.append(f"backing file: {image['backing-filename']}")
        if "backing-filename-format" in image:
            lines.append(f"backing file format: {image['backing-filename-format']}")
    limits = image.get("limits", {})
    bounds = {name: limits[name] for name in _BOUNDS if name in limits}
    told = image.get("format-specific", {}).get("data")
    for title, rows in ("Block limits", bounds), ("Format specific information", told):
        if rows:
            lines.append(f"{title}:")
            lines += [f"    {name.replace('-', ' ')}: {_plain(rows[name])}" for name in rows]
    return lines


_BOUNDS = (
    *("write-zeroes-alignment", "request-alignment", "min-mem-alignment", "discard-alignment"),
    *("opt-mem-alignment", "max-iov"),
)


def _plain(value: JSON) -> str:
    return str(value).lower() if type(value) is bool else str(value)


def info_migrate(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info migrate`."""
    told = standin_of(daemon).migration.query()
    only = "on" if daemon.config.only_migratable else "off"
    globals = [line.format(only) for line in _GLOBALS]
    blocked = told.get("blocked-reasons", [])
    blockers = [
        *["Outgoing migration blocked:"] * bool(blocked),
        *(f"  {each}" for each in blocked),
    ]
    status = told.get("status")
    if "error-desc" in told:
        status = f"{status} ({told['error-desc']})"
    if daemon.compat is not Compat.V10_0:
        rows = _migration_in_rows(told, status)
        if args.get("all"):
            rows += ["Globals:", *(f"  {line}" for line in globals[1:])]
        return blockers + rows
    lines = globals + blockers
    if status is not None:
        lines.append(f"Migration status: {status}")
    lines += [f"{name}: {told[key]} ms" for name, key in _TIMES if key in told]
    ram = told.get("ram")
    if ram is None:
        return lines
    lines.append(f"transferred ram: {ram['transferred'] >> 10} kbytes")
    lines.append(f"throughput: {ram['mbps']:.2f} mbps")
    for name, key, unit in _RAM:
        lines.append(f"{name}: {ram[key] >> 10 if unit == ' kbytes' else ram[key]}{unit}")
    lines.append(f"page size: {ram['page-size'] >> 10} kbytes")
    lines.append(f"multifd bytes: {ram['multifd-bytes'] >> 10} kbytes")
    lines.append(f"pages-per-second: {ram['pages-per-second']}")
    if ram["precopy-bytes"]:
        lines.append(f"precopy ram: {ram['precopy-bytes'] >> 10} kbytes")
    return lines


def _migration_in_rows(told: JSONObject, status: str | None) -> list[str]:
    """`info migrate` of QEMU 11.1.

    Args:
        told: the answer of `query-migrate`.
        status: the first row, None before there is a migration.
    """
    lines = []
    if status is not None:
        lines.append(f"Status: \t\t{status}")
    if times := [f"{name}={told[key]}" for name, key in _SHORT_TIMES if key in told]:
        lines.append(f"Time (ms): \t\t{', '.join(times)}")
    if ram := told.get("ram"):
        lines += [
            "RAM info:",
            f"  Throughput (Mbps): \t{ram['mbps']:.2f}",
            f"  Sizes: \t\tpagesize={short_size(ram['page-size'])},"
            f" total={short_size(ram['total'])}",
            f"  Transfers: \t\ttransferred={short_size(ram['transferred'])},"
            f" remain={short_size(ram['remaining'])}",
            f"    Channels: \t\tprecopy={short_size(ram['precopy-bytes'])},"
            f" multifd={short_size(ram['multifd-bytes'])},"
            f" postcopy={short_size(ram['postcopy-bytes'])}",
            f"    Page Types: \tnormal={ram['normal']}, zero={ram['duplicate']}",
            f"  Page Rates (pps): \ttransfer={ram['pages-per-second']}",
            f"  Others: \t\tdirty_syncs={ram['dirty-sync-count']},"
            f" downtime_bytes={ram['downtime-bytes']}",
        ]
    return lines


_SHORT_TIMES = (("total", "total-time"), ("setup", "setup-time"), ("down", "downtime"))
_GLOBALS = (
    *("globals:", "store-global-state: on", "only-migratable: {}", "send-configuration: on"),
    *("send-section-footer: on", "send-switchover-start: on", "clear-bitmap-shift: 18"),
)
_TIMES = (
    *(("total time", "total-time"), ("expected downtime", "expected-downtime")),
    *(("downtime", "downtime"), ("setup", "setup-time")),
)
_RAM = (
    ("remaining ram", "remaining", " kbytes"),
    ("total ram", "total", " kbytes"),
    ("duplicate", "duplicate", " pages"),
    ("normal", "normal", " pages"),
    ("normal bytes", "normal-bytes", " kbytes"),
    ("dirty sync count", "dirty-sync-count", ""),
)


def migrate_capabilities(rows: list[JSON]) -> list[str]:
    """`info migrate_capabilities`, of the answer of `query-migrate-capabilities`."""
    return [f"{row['capability']}: {'on' if row['state'] else 'off'}" for row in rows]


def info_migrate_parameters(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info migrate_parameters`."""
    told = standin_of(daemon).migration_parameters()
    lines = []
    for name, unit in (_PARAMETERS if daemon.compat is Compat.V10_0 else _PARAMETERS_11_1).items():
        value = told.get(name)
        if value is None:
            continue
        if name == "block-bitmap-mapping":
            lines += [f"{name}:", *_bitmaps(value)]
        elif type(value) is list:
            lines.append(" ".join([f"{name}:", *value]))
        else:
            if type(value) is bool:
                value = "on" if value else "off"
            elif unit == "'":
                value = f"'{value}'"
            lines.append(f"{name}: {value}{unit.strip(chr(39))}")
    return lines


def _bitmaps(nodes: list[JSONObject]) -> Iterator[str]:
    for node in nodes:
        yield f"  '{node['node-name']}' -> '{node['alias']}'"
        for bitmap in node["bitmaps"]:
            yield f"    '{bitmap['name']}' -> '{bitmap['alias']}'"


_BEFORE = {
    **dict.fromkeys(("announce-initial", "announce-max"), " ms"),
    "announce-rounds": "",
    "announce-step": " ms",
    **dict.fromkeys(("throttle-trigger-threshold", "cpu-throttle-initial"), ""),
    **dict.fromkeys(("cpu-throttle-increment", "cpu-throttle-tailslow", "max-cpu-throttle"), ""),
    **dict.fromkeys(("tls-creds", "tls-hostname"), "'"),
}
_BANDWIDTHS = dict.fromkeys(("max-bandwidth", "avail-switchover-bandwidth"), " bytes/second")
_BETWEEN = {
    **dict.fromkeys(("downtime-limit", "x-checkpoint-delay"), " ms"),
    **dict.fromkeys(("multifd-channels", "multifd-compression", "zero-page-detection"), ""),
    "xbzrle-cache-size": " bytes",
}
_AFTER = {
    "block-bitmap-mapping": "",
    "x-vcpu-dirty-limit-period": " ms",
    "vcpu-dirty-limit": " MB/s",
    **dict.fromkeys(("mode", "direct-io"), ""),
}
_PARAMETERS = {
    **_BEFORE,
    **_BANDWIDTHS,
    **_BETWEEN,
    "max-postcopy-bandwidth": "",
    "tls-authz": "'",
    **_AFTER,
}
"""The parameters of migration that are told, each with its unit; a quote is around a text."""
_PARAMETERS_11_1 = {
    **_BEFORE,
    "tls-authz": "'",
    **_BANDWIDTHS,
    "max-postcopy-bandwidth": " bytes/second",
    **_BETWEEN,
    **_AFTER,
    "x-rdma-chunk-size": " bytes",
    "cpr-exec-command": "",
}


def chardevs(rows: list[JSON]) -> list[str]:
    """`info chardev`, of the answer of `query-chardev`."""
    return [f"{row['label']}: filename={row['filename']}" for row in rows]


def cpus(rows: list[JSON]) -> list[str]:
    """`info cpus`, of the answer of `query-cpus-fast`."""
    lines = []
    for row in rows:
        mark = " " if row["cpu-index"] else "*"
        line = f"{mark} CPU #{row['cpu-index']}: thread_id={row['thread-id']}"
        if "qom-type" in row:
            line += f" model={row['qom-type'].rpartition('-' + row['target'])[0]}"
        lines.append(line)
    return lines


def info_iothreads(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info iothreads`."""
    from memd.standin.tunable import query_iothreads

    lines = []
    for row in query_iothreads(daemon.tree.objects.each(), os.getpid()):
        lines += [f"{row['id']}:", f"  thread_id={row['thread-id']}"]
        names = ("poll-max-ns", "poll-grow", "poll-shrink", "poll-weight", "aio-max-batch")
        lines += [f"  {name}={row[name]}" for name in names if name in row]
    return lines


def hotpluggable_cpus(rows: list[JSON]) -> list[str]:
    """`info hotpluggable-cpus`, of the answer of `query-hotpluggable-cpus`."""
    lines = ["Hotpluggable CPUs:"]
    for row in rows:
        lines += [f'  type: "{row["type"]}"', f'  vcpus_count: "{row["vcpus-count"]}"']
        if "qom-path" in row:
            lines.append(f'  qom_path: "{row["qom-path"]}"')
        lines.append("  CPUInstance Properties:")
        props = row["props"]
        lines += [f'    {name}: "{props[name]}"' for name in _LEVELS if name in props]
    return lines


_LEVELS = ("node-id", "socket-id", "die-id", "module-id", "cluster-id", "core-id", "thread-id")


def info_network(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info network`."""
    return [] if daemon.standin is None else daemon.standin.netdevs.lines()


def info_numa(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info numa`."""
    # Only a machine has CPUs: a daemon without one does not load its types.
    from memd.devices import machine_object

    config = daemon.machine.config
    cpus = machine_object.cpus(daemon.tree)
    sizes = {}
    for node in config.numa_nodes:
        backend = daemon.tree.objects.get((node.memdev or "").rpartition("/")[2])
        sizes[node.nodeid] = node.size if backend is None else backend.memory_size
    if not sizes and config.own_node:
        sizes[0] = config.ram_size
    plugged = dict.fromkeys(sizes, 0)
    for row in daemon.machine.devices():
        at = row["data"].get("node", 0)
        if at in plugged:
            plugged[at] += row["data"]["size"]
    lines = [f"{len(sizes)} nodes"]
    for number, size in sizes.items():
        there = [str(c.number) for c in cpus if c.props.get("node-id", 0) == number]
        lines.append(" ".join([f"node {number} cpus:", *there]))
        lines.append(f"node {number} size: {(size + plugged[number]) // _MIB} MB")
        lines.append(f"node {number} plugged: {plugged[number] // _MIB} MB")
    return lines


def info_pci(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info pci`."""
    if daemon.standin is None:
        return []
    from memd.standin.pci import pci_lines

    return [*pci_lines(query_pci(daemon, args))]


def query_pci(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`query-pci`, of a stand-in."""
    from memd.standin.pci import pci_buses

    assert daemon.standin is not None
    # A machine that was reset while it stood still is as before its start.
    state, came = daemon.run_state, daemon.config.incoming is not None
    ran = daemon.machine.guest.started or (came and state != "inmigrate")
    numbered = ran and state != "prelaunch"
    return pci_buses(daemon.machine, daemon.standin, numbered=numbered)


async def info_ramblock(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info ramblock`."""
    from memd.devices.ram_blocks import RamBlocks

    if daemon.standin is not None:
        blocks = daemon.standin.ram_blocks
    else:
        # Nothing has counted those that have gone.
        blocks = RamBlocks()
        for each in qom.backends(daemon):
            blocks.take(each, True)
    return [line async for line in in_turns(blocks.lines())]


async def info_qom_tree(daemon: Daemon, args: JSONObject) -> list[str]:
    """`info qom-tree [PATH]`: a line an object, by name, two spaces for every level."""
    tree, path = daemon.tree, args.get("path", "/machine")
    top, _ambiguous = tree.lookup(path)
    if top is None:
        return [f"Path '{path}' could not be resolved."]
    name = top.name if top.parent is not None or top is tree.root else "(null)"
    return [line async for line in in_turns(_tree_lines(top, name, ""))]


def _tree_lines(at: QObject, name: str, indent: str) -> Iterator[str]:
    yield f"{indent}/{name} ({at.qom_type.name})"
    for below, child in sorted(at.children.items()):
        yield from _tree_lines(child, below, indent + "  ")


async def qom_list(daemon: Daemon, args: JSONObject) -> list[str]:
    """`qom-list [PATH]`."""
    if "path" not in args:
        return ["/"]
    return [f"{row['name']} ({row['type']})" for row in await qom.qom_list(daemon, args)]


def qom_get(daemon: Daemon, args: JSONObject) -> list[str]:
    """`qom-get PATH PROPERTY`."""
    value = qom.qom_get(daemon, args)
    return encode(value, True).decode("ascii").rstrip("\r\n").replace("\r\n", "\n").split("\n")


async def qom_set(daemon: Daemon, args: JSONObject) -> None:
    """`qom-set [-j] PATH PROPERTY VALUE`: a text, or JSON with -j."""
    value = text = args["value"]
    name = args["property"]
    known = daemon.tree.resolve(args["path"]).qom_type.all_properties.get(name)
    if args.pop("json", False):
        try:
            value = json.loads(text)
        except ValueError:
            raise QMPError("JSON parse error, invalid keyword") from None
    elif known is not None:
        from memd.devices.arguments import value_of

        value = value_of(known.type, name, text)
    await qom.qom_set(daemon, {**args, "value": value})
