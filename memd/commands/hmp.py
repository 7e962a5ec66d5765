"""`human-monitor-command`: the human monitor's words that concern memory.

Formats and refusals were observed on QEMU 10.0.2. Every line ends in CR LF,
as the human monitor ends them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from types import CoroutineType
from typing import Any

from memd import __version__
from memd.commands import hmp_info, hmp_plug, hmp_registers, idle, qom
from memd.commands.daemon import Daemon, standin_of
from memd.commands.hmp_arguments import BLANKS, Usage, arguments, described, words
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.work import Command, Outcome, in_turns

Act = Callable[[Daemon, JSONObject], Any]
"""(daemon, arguments) to what is printed: a text, or a list of lines; anything else is nothing."""

_NAME = re.compile(f"[{BLANKS}]*([^{BLANKS}/]*)")

LONGEST_LINE = 16_384
"""Characters of a line. QEMU takes any number by QMP, and 4,095 on a terminal."""


def run_line(daemon: Daemon, args: JSONObject) -> JSON:
    """Run one line of the human monitor; what it prints is the value.

    Raises:
        QMPError: it is to be about a CPU that there is not.
    """
    if "cpu-index" in args:
        _check_cpu(daemon, args["cpu-index"])
    line = args["command-line"]
    if len(line) > LONGEST_LINE:
        raise QMPError(f"Parameter 'command-line' expects at most {LONGEST_LINE} characters")
    if not line.strip(BLANKS):
        return ""
    name, end = _word(line, 0)
    entry = _COMMANDS.get(name)
    if name == "info" and line[end:].strip(BLANKS):
        name, end = _word(line, end)
        entry = _subjects(daemon).get(name)
    typed = line[:end]
    if entry is None:
        answer = _unmodelled(daemon, typed)
        return f"unknown command: '{typed}'\r\n" if answer is None else answer
    names, specification, _description, act = entry
    if daemon.compat is not Compat.V10_0:
        specification = _SPECIFICATIONS_11_1.get(act, specification)
    try:
        given = arguments(names, typed, specification, line[end:])
        result = _run(daemon, act, given) if isinstance(act, str) else act(daemon, given)
        return _wait(result) if type(result) is CoroutineType else _printed(result)
    except (QMPError, Usage) as error:
        return _said(error)


def _run(daemon: Daemon, command: str, arguments: JSONObject) -> Any:
    """Run a command of QMP, whose value is not printed."""
    handler = daemon.handlers.get(command)
    if handler is None:
        standin_of(daemon)
        raise KeyError(command)
    return handler(daemon, hmp_plug.check(daemon, command, arguments))


def _printed(result: Any) -> JSON:
    if type(result) is Outcome:
        result.value = ""
        return result
    if type(result) is list:
        hmp_info.check_text(sum(map(len, result)))
        return "".join(f"{line}\r\n" for line in result)
    return result if type(result) is str else ""


async def _wait(command: Command[Any]) -> JSON:
    try:
        return _printed(await command)
    except (QMPError, Usage) as error:
        return _said(error)


def _said(error: QMPError | Usage) -> str:
    return str(error) if isinstance(error, Usage) else f"Error: {error.desc}\r\n"


def _unmodelled(daemon: Daemon, typed: str) -> str | None:
    """The answer to a line of words that QEMU has and memd has not; None to any other."""
    typed = typed.strip(BLANKS)
    if daemon.standin is None or not typed:
        return None
    first, *rest = words(typed)
    known = daemon.standin.catalogue.section("monitor")
    names = known["info"] if first == "info" else known["commands"]
    if not any((rest or [first])[0] in each for each in names):
        return None
    told = daemon.standin.recorded(typed)
    if told is not None:
        text: str = told["return"]
        return text
    return f"Error: memd knows '{typed}' and does not act on it\r\n"


def is_command(word: str) -> bool:
    """Whether a line of the human monitor may begin with that word."""
    return word in _COMMANDS


def names_for(daemon: Daemon, line: str) -> Iterable[str]:
    """The names of commands that may stand where the last word of a line does."""
    place = [each for each in line.split(" ")[:-1] if each]
    if place and place[0] in ("help", "?"):
        del place[0]
    if place not in ([], ["info"]):
        return ()
    if daemon.standin is None:
        return _subjects(daemon) if place else _COMMANDS
    known = daemon.standin.catalogue.section("monitor")
    if place:
        return chain.from_iterable(known["info"])
    # QEMU's help leaves it out.
    return chain(["info"], *known["commands"])


def _check_cpu(daemon: Daemon, index: int) -> None:
    from memd.devices.machine_object import cpus

    # QEMU keeps it in 32 bits.
    if index % 2**32 >= len(cpus(daemon.tree)):
        raise QMPError("Parameter 'cpu-index' expects a CPU number")


def _word(line: str, at: int) -> tuple[str, int]:
    """The name that comes next in a line, and where it ends: at a blank or a slash."""
    match = _NAME.match(line, at)
    # It may be empty.
    assert match is not None
    return match[1], match.end()


def _help(daemon: Daemon, args: JSONObject) -> list[str]:
    asked = words(args.get("cmd", ""))[:2]
    if not asked:
        return [_help_line(entry) for entry in _ENTRIES]
    if asked == ["info"]:
        return _info(daemon, {})
    if asked[0] == "info":
        entry, prefix = _subjects(daemon).get(asked[1]), "info "
    else:
        entry, prefix = _COMMANDS.get(asked[0]), ""
        asked = asked[:1]
    if entry is None:
        return [f"unknown command: '{' '.join(asked)}'"]
    return [_help_line(entry, prefix)]


def _info(daemon: Daemon, args: JSONObject) -> list[str]:
    return [_help_line(entry, "info ") for entry in _subjects(daemon).values()]


def _subjects(daemon: Daemon) -> dict[str, _Entry]:
    """The words that may follow `info`."""
    return _INFO if daemon.compat is Compat.V10_0 else _INFO_11_1


def _help_line(entry: _Entry, prefix: str = "") -> str:
    names, specification, description, _act = entry
    return f"{prefix}{names} {described(specification)} -- {description}"


def _info_version(daemon: Daemon, args: JSONObject) -> list[str]:
    major, minor, micro = daemon.compat.version
    return [f"{major}.{minor}.{micro}memd {__version__}"]


def _status(told: JSONObject) -> list[str]:
    state = told["status"]
    detail = f" ({state})" if state not in ("running", "paused") else ""
    return [f"VM status: {'running' if state == 'running' else 'paused'}{detail}"]


async def _info_memdev(daemon: Daemon, args: JSONObject) -> str:
    text = ""
    async for memdev in in_turns(qom.backends(daemon)):
        lines = [f"memory backend: {memdev.name}", f"  size:  {memdev.size}"]
        for flag in ("merge", "dump", "prealloc", "share", "reserve"):
            lines.append(f"  {flag}: {'true' if getattr(memdev, flag) else 'false'}")
        lines.append(f"  policy: {memdev.policy}")
        lines.append(f"  host nodes: {_ranges(memdev.host_nodes)}")
        text += "\r\n".join([*lines, ""])
    return f"{text}\r\n"


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers as QEMU does: 0-2,5."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _memory_devices(rows: list[JSON]) -> list[str]:
    lines = []
    for row in rows:
        data = row["data"]
        lines.append(f'Memory device [{row["type"]}]: "{data.get("id", "")}"')
        lines += [f"  {line}" for line in _memory_device(data)]
    return lines


def _memory_device(data: JSONObject) -> Iterator[str]:
    for name in _MEMORY_DEVICE:
        if name not in data:
            continue
        value = data[name]
        if name in ("addr", "memaddr"):
            value = f"0x{value:x}"
        elif type(value) is bool:
            value = "true" if value else "false"
        yield f"{name}: {value}"


_MEMORY_DEVICE = (
    *("addr", "memaddr", "slot", "node", "requested-size", "size", "max-size", "block-size"),
    *("memdev", "hotplugged", "hotpluggable"),
)
"""The members of a memory device that are told, in this order."""


def _memory_size_summary(summary: JSONObject) -> list[str]:
    return [f"{kind} memory: {summary[f'{kind}-memory']}" for kind in ("base", "plugged")]


def _of_standin(place: str) -> Act:
    """What a method of a stand-in's register does; `place` says where that is."""
    return lambda daemon, args: attrgetter(place)(standin_of(daemon))(args)


def _kvm(told: JSONObject) -> list[str]:
    return [f"kvm support: {'enabled' if told['enabled'] else 'disabled'}"]


def _of_query(command: str, lines: Callable[[Any], list[str]]) -> Act:
    """What the lines of a word are, from the answer of a query of QMP."""
    return lambda daemon, args: lines(_run(daemon, command, {}))


_Entry = tuple[str, str, str, Act | str]
"""Names separated by `|`, arguments as of `hmp_arguments`, description, and what it does: a
function, or the command of QMP that takes these arguments."""

_ENTRIES: tuple[_Entry, ...] = (
    ("cont|c", "", "resume emulation", "cont"),
    ("chardev-remove", "id:s", "remove a character device", "chardev-remove"),
    ("chardev-send-break", "id:s", "send a break", "chardev-send-break"),
    ("delvm", "tag:s", "delete a snapshot of the machine", _of_standin("snapshots.delete")),
    ("device_add", "device:S?", "plug a device in", hmp_plug.device_add),
    ("device_del", "id:s", "ask for a device back", "device_del"),
    ("balloon", "value:M", "ask the guest for memory", "balloon"),
    ("block_resize", "device:B,size:o", "resize an image", "block_resize"),
    (
        "change",
        "force:-f,device:B,filename:F,format:s?,read-only-mode:s?",
        "change a medium",
        "blockdev-change-medium",
    ),
    ("drive_add", "node:-n,place:s,options:s", "add a drive", hmp_plug.drive_add),
    ("hostfwd_add", "first:s,second:s?", "forward a port to a guest", hmp_plug.hostfwd_add),
    (
        "hostfwd_remove",
        "first:s,second:s?",
        "forward a port no more",
        hmp_plug.hostfwd_remove,
    ),
    ("drive_del", "id:B", "remove a drive", hmp_plug.drive_del),
    ("eject", "force:-f,device:B", "eject a medium", "eject"),
    ("expire_password", "protocol:s,time:s", "expire a password", "expire_password"),
    ("help|?", "cmd:S?", "show the help", _help),
    ("info", "item:s?", "show various information about the system state", _info),
    ("loadvm", "tag:s", "load a snapshot of the machine", _of_standin("snapshots.load")),
    ("migrate", "detach:-d,resume:-r,uri:s", "migrate to a URI", hmp_plug.migrate),
    ("migrate_cancel", "", "cancel the migration", "migrate_cancel"),
    ("migrate_continue", "state:s", "continue a migration that pauses", "migrate-continue"),
    (
        "migrate_set_capability",
        "capability:s,state:b",
        "switch a capability of migration",
        hmp_plug.migrate_set_capability,
    ),
    (
        "migrate_set_parameter",
        "parameter:s,value:s",
        "set a parameter of migration",
        hmp_plug.migrate_set_parameter,
    ),
    ("migrate_start_postcopy", "", "send as fast as can be", "migrate-start-postcopy"),
    ("nbd_server_add", "writable:-w,device:B,name:s?", "export a node", "nbd-server-add"),
    ("nbd_server_remove", "force:-f,name:s", "remove an export", hmp_plug.nbd_server_remove),
    ("nbd_server_start", "all:-a,writable:-w,uri:s", "listen", hmp_plug.nbd_server_start),
    ("nbd_server_stop", "", "stop the NBD server", "nbd-server-stop"),
    ("netdev_add", "netdev:S?", "make a network backend", hmp_plug.netdev_add),
    ("netdev_del", "id:s", "remove a network backend", "netdev_del"),
    ("object_add", "object:S", "make an object", hmp_plug.object_add),
    ("object_del", "id:s", "delete an object", "object-del"),
    ("qom-get", "path:s,property:s", "print a property", hmp_info.qom_get),
    ("qom-list", "path:s?", "list an object's properties", hmp_info.qom_list),
    ("qom-set", "json:-j,path:s,property:s,value:S", "set a property", hmp_info.qom_set),
    ("quit|q", "", "quit the emulator", "quit"),
    ("savevm", "tag:s?", "make a snapshot of the machine", _of_standin("snapshots.save")),
    ("sendkey", "keys:s,hold-time:i?", "press keys", hmp_plug.sendkey),
    ("set_link", "name:s,up:b", "set a network link", "set_link"),
    (
        "snapshot_blkdev_internal",
        "device:B,name:s",
        "make an internal snapshot of a device",
        "blockdev-snapshot-internal-sync",
    ),
    (
        "snapshot_delete_blkdev_internal",
        "device:B,name:s,id:s?",
        "delete an internal snapshot of a device",
        "blockdev-snapshot-delete-internal-sync",
    ),
    ("stop|s", "", "stop emulation", "stop"),
    ("system_powerdown", "", "ask the guest to shut down", "system_powerdown"),
    ("system_reset", "", "reset the machine", "system_reset"),
    ("system_wakeup", "", "wake a guest that is suspended", "system_wakeup"),
    ("watchdog_action", "action:s", "set what a watchdog does", "watchdog-set-action"),
)

_COMMANDS = {name: entry for entry in _ENTRIES for name in entry[0].split("|")}

_SUBJECTS: tuple[_Entry, ...] = (
    ("balloon", "", "show balloon information", _of_query("query-balloon", hmp_info.balloon)),
    ("block", "nodes:-n,verbose:-v,device:B?", "show the block devices", hmp_info.info_block),
    (
        "block-jobs",
        "",
        "show the block jobs",
        _of_query("query-block-jobs", hmp_registers.block_jobs),
    ),
    ("blockstats", "", "show statistics of drives", hmp_registers.info_blockstats),
    ("chardev", "", "show the character devices", _of_query("query-chardev", hmp_info.chardevs)),
    ("cpus", "", "show infos for each CPU", _of_query("query-cpus-fast", hmp_info.cpus)),
    ("history", "", "show what was typed before", lambda daemon, args: []),
    (
        "hotpluggable-cpus",
        "",
        "Show information about hotpluggable CPUs",
        _of_query("query-hotpluggable-cpus", hmp_info.hotpluggable_cpus),
    ),
    (
        "dirty_rate",
        "",
        "show the rate of dirtied memory",
        _of_query("query-dirty-rate", hmp_registers.dirty_rate),
    ),
    ("dump", "", "show the state of a dump", _of_query("query-dump", hmp_registers.dump)),
    ("iothreads", "", "show iothreads", hmp_info.info_iothreads),
    ("kvm", "", "show KVM information", _of_query("query-kvm", _kvm)),
    ("memdev", "", "show memory backends", _info_memdev),
    (
        "memory-devices",
        "",
        "show memory devices",
        _of_query("query-memory-devices", _memory_devices),
    ),
    (
        "memory_size_summary",
        "",
        "show the amount of initially allocated and present hotpluggable (if enabled) memory in"
        " bytes.",
        _of_query("query-memory-size-summary", _memory_size_summary),
    ),
    ("network", "", "show the network state", hmp_info.info_network),
    ("numa", "", "show NUMA information", hmp_info.info_numa),
    ("migrate", "", "show migration status", hmp_info.info_migrate),
    (
        "migrate_capabilities",
        "",
        "show the capabilities of migration",
        _of_query("query-migrate-capabilities", hmp_info.migrate_capabilities),
    ),
    (
        "migrate_parameters",
        "",
        "show the parameters of migration",
        hmp_info.info_migrate_parameters,
    ),
    ("mice", "", "show which mouse receives events", _of_query("query-mice", hmp_registers.mice)),
    (
        "name",
        "",
        "show the current VM name",
        _of_query("query-name", lambda told: [*told.values()]),
    ),
    ("opcount", "", "show a count of instructions", lambda daemon, args: [idle.NO_PROFILER]),
    ("pci", "", "show PCI info", hmp_info.info_pci),
    ("qom-tree", "path:s?", "show QOM composition tree", hmp_info.info_qom_tree),
    ("ramblock", "", "show the RAM blocks of backends", hmp_info.info_ramblock),
    ("snapshots", "", "show the internal snapshots", hmp_info.info_snapshots),
    (
        "status",
        "",
        "show the current VM status (running|paused)",
        _of_query("query-status", _status),
    ),
    ("tpm", "", "show the TPM", _of_query("query-tpm", hmp_registers.tpm)),
    ("uuid", "", "show the current VM UUID", _of_query("query-uuid", lambda told: [told["UUID"]])),
    ("usb", "", "show the USB devices", hmp_registers.info_usb),
    (
        "usernet",
        "",
        "show the ports that user networks forward",
        lambda daemon, _args: [*standin_of(daemon).netdevs.forwards()],
    ),
    ("version", "", "show the version of QEMU", _info_version),
    ("virtio", "", "show the virtio devices", _of_query("x-query-virtio", hmp_registers.virtio)),
    (
        "vm-generation-id",
        "",
        "show the generation id",
        _of_query("query-vm-generation-id", lambda told: [told["guid"]]),
    ),
    ("vnc", "", "show the VNC display", _of_query("query-vnc-servers", hmp_registers.vnc)),
)

_INFO = {entry[0]: entry for entry in _SUBJECTS}

_INFO_11_1 = {name: entry for name, entry in _INFO.items() if name != "opcount"}
"""QEMU 11.1 counts no instructions any more."""

_SPECIFICATIONS_11_1: dict[Act | str, str] = {
    hmp_info.info_migrate: "all:-a",
    hmp_plug.migrate_set_parameter: "parameter:s,value:S",
}
"""The arguments of words that take others since QEMU 11.1, by what the word does."""
