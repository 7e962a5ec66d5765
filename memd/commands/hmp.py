"""`human-monitor-command`: the human monitor's words that concern memory.

Formats and refusals were observed on QEMU 10.0.2. Every line ends in CR LF,
as the human monitor ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from memd import __version__
from memd.commands import control, hmp_info, hmp_plug, machine, power, qom
from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom.dump import qom_tree_text
from memd.work import Outcome

_Run = Callable[[Daemon, str], JSON]
"""(daemon, argument) to the text, or an `Outcome` whose value is the text."""


_BLANKS = " \t\n\v\f\r"


LONGEST_LINE = 16_384
"""Characters of a line. QEMU takes any number by QMP, and 4,095 on a terminal."""


def human_monitor_command(daemon: Daemon, args: JSONObject) -> JSON:
    """Run one line of the human monitor; what it prints is the value.

    Raises:
        QMPError: it is to be about a CPU that there is not.
    """
    if "cpu-index" in args:
        _check_cpu(daemon, args["cpu-index"])
    line = args["command-line"]
    if len(line) > LONGEST_LINE:
        raise QMPError(f"Parameter 'command-line' expects at most {LONGEST_LINE} characters")
    if not line.strip(_BLANKS):
        return ""
    name, end = _word(line, 0)
    entry = _find(_COMMANDS, name)
    if name == "info" and line[end:].strip(_BLANKS):
        name, end = _word(line, end)
        entry = _find(_INFO, name)
    typed = line[:end]
    if entry is None:
        return _unmodelled(daemon, typed) or f"unknown command: '{typed}'\r\n"
    names, parameters, _description, run = entry
    rest = line[end:].strip(_BLANKS)
    if rest and not parameters:
        return (
            f"{names}: extraneous characters at the end of line\r\n"
            f'Try "help {typed}" for more information\r\n'
        )
    if parameters and not parameters.startswith("[") and not rest:
        if names != "device_add":
            return f'{names}: string expected\r\nTry "help {typed}" for more information\r\n'
    return run(daemon, rest)


def _unmodelled(daemon: Daemon, typed: str) -> str:
    """What is said of a line that begins with a word that QEMU has and memd has not."""
    if daemon.standin is None:
        return ""
    first, *rest = typed.split()
    known = daemon.standin.catalogue.section("monitor")
    names = known["info"] if first == "info" else known["commands"]
    if not any((rest or [first])[0] in each for each in names):
        return ""
    return f"Error: memd knows '{typed.strip()}' and does not act on it\r\n"


def is_command(word: str) -> bool:
    """Whether a line of the human monitor may begin with that word."""
    return _find(_COMMANDS, word) is not None


def _check_cpu(daemon: Daemon, index: int) -> None:
    from memd.devices.machine_object import cpus

    # QEMU keeps it in 32 bits.
    if index % 2**32 >= len(cpus(daemon.tree)):
        raise QMPError("Parameter 'cpu-index' expects a CPU number")


def _word(line: str, at: int) -> tuple[str, int]:
    """The name that comes next in a line, and where it ends: at a blank or a slash."""
    while at < len(line) and line[at] in _BLANKS:
        at += 1
    end = at
    while end < len(line) and line[end] not in _BLANKS and line[end] != "/":
        end += 1
    return line[at:end], end


def _help(daemon: Daemon, rest: str) -> str:
    if not rest:
        return "".join(_help_line(entry, "") for entry in _COMMANDS)
    words = rest.split(None, 2)[:2]
    if words == ["info"]:
        return _info(daemon, "")
    if words[0] == "info":
        entry, prefix = _find(_INFO, words[1]), "info "
    else:
        entry, prefix = _find(_COMMANDS, words[0]), ""
        words = words[:1]
    if entry is None:
        return f"unknown command: '{' '.join(words)}'\r\n"
    return _help_line(entry, prefix)


def _info(daemon: Daemon, rest: str) -> str:
    return "".join(_help_line(entry, "info ") for entry in _INFO)


def _help_line(entry: _Entry, prefix: str) -> str:
    names, parameters, description, _run = entry
    return f"{prefix}{names} {parameters} -- {description}\r\n"


def _info_version(daemon: Daemon, rest: str) -> str:
    major, minor, micro = daemon.compat.version
    return f"{major}.{minor}.{micro}memd {__version__}\r\n"


def _info_status(daemon: Daemon, rest: str) -> str:
    state = daemon.run_state
    detail = f" ({state})" if state not in ("running", "paused") else ""
    return f"VM status: {'running' if state == 'running' else 'paused'}{detail}\r\n"


def _info_memdev(daemon: Daemon, rest: str) -> str:
    text = []
    for memdev in qom.query_memdev(daemon, {}):
        text.append(f"memory backend: {memdev['id']}")
        text.append(f"  size:  {memdev['size']}")
        for flag in ("merge", "dump", "prealloc", "share", "reserve"):
            text.append(f"  {flag}: {'true' if memdev[flag] else 'false'}")
        text.append(f"  policy: {memdev['policy']}")
        text.append(f"  host nodes: {_ranges(memdev['host-nodes'])}")
    return "".join(line + "\r\n" for line in [*text, ""])


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers as QEMU does: 0-2,5."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _info_memory_devices(daemon: Daemon, rest: str) -> str:
    lines = []
    for row in daemon.machine.devices():
        data = row["data"]
        lines.append(f'Memory device [{row["type"]}]: "{data.get("id", "")}"')
        lines += [f"  {line}" for line in _memory_device(data)]
    return "".join(line + "\r\n" for line in lines)


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
"""What is told of a memory device, in this order."""


def _info_memory_size_summary(daemon: Daemon, rest: str) -> str:
    summary = daemon.machine.memory_summary()
    return (
        f"base memory: {summary['base-memory']}\r\nplugged memory: {summary['plugged-memory']}\r\n"
    )


def _info_name(daemon: Daemon, rest: str) -> str:
    return "" if daemon.name is None else f"{daemon.name}\r\n"


def _info_uuid(daemon: Daemon, rest: str) -> str:
    return f"{daemon.uuid}\r\n"


def _info_kvm(daemon: Daemon, rest: str) -> str:
    return f"kvm support: {'enabled' if daemon.kvm_enabled else 'disabled'}\r\n"


def _info_qom_tree(daemon: Daemon, rest: str) -> str:
    return qom_tree_text(daemon.tree, rest) if rest else qom_tree_text(daemon.tree)


def _as_text(handler: Callable[[Daemon, JSONObject], JSON]) -> _Run:
    """Make a handler that returns nothing a word of the human monitor."""

    def run(daemon: Daemon, rest: str) -> JSON:
        try:
            outcome = handler(daemon, {})
        except QMPError as error:
            return f"Error: {error.desc}\r\n"
        if type(outcome) is Outcome:
            outcome.value = ""
            return outcome
        return ""

    return run


_Entry = tuple[str, str, str, _Run]
"""Names separated by `|`, parameters, description, function."""

_COMMANDS: tuple[_Entry, ...] = (
    ("cont|c", "", "resume emulation", _as_text(machine.cont)),
    ("chardev-remove", "id", "remove a character device", hmp_plug.word(hmp_plug.chardev_remove)),
    ("device_add", "driver[,prop=value]", "plug a device in", hmp_plug.word(hmp_plug.device_add)),
    ("device_del", "device", "ask for a device back", hmp_plug.word(hmp_plug.device_del)),
    ("balloon", "[target]", "ask the guest for memory", hmp_plug.word(hmp_plug.balloon)),
    ("help|?", "[cmd]", "show the help", _help),
    ("info", "[subcommand]", "show various information about the system state", _info),
    ("migrate_cancel", "", "cancel the migration", hmp_plug.word(hmp_plug.migrate_cancel)),
    ("netdev_add", "type,id=ID", "make a network backend", hmp_plug.word(hmp_plug.netdev_add)),
    ("netdev_del", "id", "remove a network backend", hmp_plug.word(hmp_plug.netdev_del)),
    ("object_add", "type,id=ID", "make an object", hmp_plug.word(hmp_plug.object_add)),
    ("object_del", "id", "delete an object", hmp_plug.word(hmp_plug.object_del)),
    ("qom-get", "path property", "print a property", hmp_plug.word(hmp_info.qom_get)),
    ("qom-list", "[path]", "list an object's properties", hmp_plug.word(hmp_info.qom_list)),
    ("qom-set", "[-j] path property value", "set a property", hmp_plug.word(hmp_info.qom_set)),
    ("quit|q", "", "quit the emulator", _as_text(control.quit)),
    ("sendkey", "keys [hold_ms]", "press keys", hmp_plug.word(hmp_plug.sendkey)),
    ("set_link", "name on|off", "set a network link", hmp_plug.word(hmp_plug.set_link)),
    ("stop|s", "", "stop emulation", _as_text(machine.stop)),
    ("system_powerdown", "", "ask the guest to shut down", _as_text(power.system_powerdown)),
    ("system_reset", "", "reset the machine", _as_text(power.system_reset)),
    ("system_wakeup", "", "wake a guest that is suspended", _as_text(power.system_wakeup)),
    (
        "watchdog_action",
        "action",
        "set what follows of a watchdog",
        hmp_plug.word(hmp_plug.watchdog_action),
    ),
)

_INFO: tuple[_Entry, ...] = (
    ("balloon", "", "show balloon information", hmp_plug.word(hmp_info.info_balloon)),
    ("block", "[-n] [-v] [device]", "show the block devices", hmp_plug.word(hmp_info.info_block)),
    ("chardev", "", "show the character devices", hmp_plug.word(hmp_info.info_chardev)),
    ("cpus", "", "show infos for each CPU", hmp_plug.word(hmp_info.info_cpus)),
    (
        "hotpluggable-cpus",
        "",
        "Show information about hotpluggable CPUs",
        hmp_plug.word(hmp_info.info_hotpluggable_cpus),
    ),
    ("iothreads", "", "show iothreads", hmp_plug.word(hmp_info.info_iothreads)),
    ("kvm", "", "show KVM information", _info_kvm),
    ("memdev", "", "show memory backends", _info_memdev),
    ("memory-devices", "", "show memory devices", _info_memory_devices),
    (
        "memory_size_summary",
        "",
        "show the amount of initially allocated and present hotpluggable (if enabled) memory in"
        " bytes.",
        _info_memory_size_summary,
    ),
    ("network", "", "show the network state", hmp_plug.word(hmp_info.info_network)),
    ("numa", "", "show NUMA information", hmp_plug.word(hmp_info.info_numa)),
    ("name", "", "show the current VM name", _info_name),
    ("pci", "", "show PCI info", hmp_plug.word(hmp_info.info_pci)),
    ("qom-tree", "[path]", "show QOM composition tree", _info_qom_tree),
    ("status", "", "show the current VM status (running|paused)", _info_status),
    ("uuid", "", "show the current VM UUID", _info_uuid),
    ("version", "", "show the version of QEMU", _info_version),
)


def _find(table: tuple[_Entry, ...], name: str) -> _Entry | None:
    for entry in table:
        if name in entry[0].split("|"):
            return entry
    return None
