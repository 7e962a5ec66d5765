"""The dispatcher of a stand-in: every command of its catalogue is known."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from memd.backends.base import MemoryBackend
from memd.commands import machine, migration
from memd.commands.block import blockdev_add
from memd.commands.daemon import Daemon, standin_of
from memd.commands.descriptors import inherited, take_fd
from memd.commands.dispatcher import Dispatcher
from memd.commands.hmp_info import info_numa, info_ramblock, query_pci
from memd.commands.hmp_registers import query_virtio
from memd.commands.idle import IDLE
from memd.commands.table import HANDLERS, SESSION_HANDLERS, Handler, SessionHandler
from memd.compat import Compat
from memd.errors import QMPError, bad_type, device_not_found
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import as_signed
from memd.session import Session
from memd.standin.standin import StandIn
from memd.work import Command, Outcome

if TYPE_CHECKING:
    from memd.config import StartCommand
    from memd.standin.chardevs import TakeFd
    from memd.standin.spice import Spice
    from memd.standin.vnc import Vnc


class StandInDispatcher(Dispatcher):
    """Runs commands as memd does, and what memd has no part for as a register has it.

    Args:
        daemon: what they are run on.
    """

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon, {**HANDLERS, **REGISTERS}, {**SESSION_HANDLERS, **OF_CLIENTS})

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        if name in _KEEPING and _is_long(arguments):
            raise QMPError(f"'{name}' takes {MOST_KEPT} characters at most")
        return super().__call__(session, name, arguments, oob)

    def unmodelled(self, name: str, arguments: JSONObject) -> JSON:
        return standin_of(self._daemon).answer(self._daemon.schema.commands[name], arguments)


def _is_long(arguments: JSONObject) -> bool:
    """Whether the texts in arguments have more than `MOST_KEPT` characters together."""
    left = MOST_KEPT
    todo: list[JSON] = [arguments]
    while todo and left >= 0:
        value = todo.pop()
        if type(value) is str:
            left -= len(value)
        elif type(value) is dict:
            todo += value
            todo += value.values()
        elif type(value) is list:
            todo += value
    return left < 0


def _section(daemon: Daemon, name: str) -> JSON:
    return standin_of(daemon).catalogue.section(name)


Act = Callable[[StandIn], Callable[[JSONObject], Any]]
"""Gives what a register does for a command, with its arguments; it returns a value, a tuple of
events or nothing."""


def _register(act: Act) -> Handler:
    def handle(daemon: Daemon, args: JSONObject) -> JSON:
        return _answer(act(standin_of(daemon))(args))

    return handle


async def _later(command: Command[Any]) -> JSON:
    return _answer(await command)


def _answer(result: Any) -> JSON:
    if type(result) is CoroutineType:
        return _later(result)
    if type(result) is tuple:
        return Outcome(events=result)
    return {} if result is None else result


def _of_client(act: Callable[[StandIn], Callable[[JSONObject, TakeFd], Any]]) -> SessionHandler:
    """The same, of a command that takes descriptors that its client has named."""

    def handle(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
        return _answer(act(standin_of(daemon))(args, take_fd(session)))

    return handle


def inject_nmi(daemon: Daemon, args: JSONObject) -> JSON:
    """`inject-nmi`, which a guest that is not there has no answer to."""
    if daemon.machine.config.type == "none":
        raise QMPError("machine does not provide NMIs")
    return {}


def screendump(daemon: Daemon, args: JSONObject) -> JSON:
    """`screendump`: raise `QMPError`, as there is no picture."""
    from memd.standin.vnc import adapters

    if "device" in args and daemon.tree.lookup(args["device"])[0] is None:
        raise device_not_found(args["device"])
    if any(adapters(daemon.tree)):
        raise QMPError("memd has no picture of a display")
    raise QMPError("There is no console to take a screendump from")


def input_send_event(daemon: Daemon, args: JSONObject) -> JSON:
    """`input-send-event`: raise `QMPError` where nothing takes an event."""
    from memd.standin.vnc import adapters

    id = args.get("device")
    if id is not None:
        device = daemon.tree.resolve("/machine/peripheral").children.get(id)
        if device is None:
            raise device_not_found(id)
        head = as_signed(args.get("head", 0), 32)
        shown = next((each for each in adapters(daemon.tree) if each is device), None)
        if shown is None or not 0 <= head < shown.values.get("max_outputs", 1):
            raise QMPError(f"Device {id} (head {head}) is not bound to a QemuConsole")
    if daemon.run_state not in ("running", "suspended"):
        raise QMPError("VM not running")
    standin_of(daemon).devices.inputs.check_events(args["events"], id)
    return {}


async def dump_guest_memory(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`dump-guest-memory`: write what the machine's memory holds."""
    from memd.standin.channels import Opener

    tree, take = daemon.tree, take_fd(session)
    account, roots, sets = tree.objects.account, tree.host.roots, daemon.fdsets
    opener = Opener(account, roots, take, sets.open, may_run=False, fd_files=True)
    return Outcome(events=await standin_of(daemon).dump.start(args, opener))


def query_cpu_model_expansion(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-cpu-model-expansion`: what a model comes to, with what is changed about it."""
    from memd.standin.cpu_features import expansion

    model = args["model"]
    model_name, props = expansion(standin_of(daemon).catalogue, args["type"], model["name"])
    changed = model.get("props", {})
    if type(changed) is not dict:
        raise bad_type("model.props", "object")
    for name, value in changed.items():
        if name not in props:
            raise QMPError(f"Property '{model['name']}-x86_64-cpu.{name}' not found")
        if type(value) is not type(props[name]):
            kinds = {bool: "boolean", str: "string", int: "integer"}
            expected = kinds.get(type(props[name]), "string")
            raise bad_type(name, expected)
        props[name] = value
    return {"model": {"name": model_name, "props": props}}


def query_command_line_options(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-command-line-options`: as the catalogue has them."""
    option = args.get("option")
    options = _section(daemon, "options")
    if option is None:
        return [*options.values()]
    if option not in options:
        raise QMPError(f"invalid option name: {option}")
    return [options[option]]


def query_machines(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-machines`: as the catalogue has them; none has properties for compatibility."""
    machines = _section(daemon, "machines")
    if args.get("compat-props"):
        return [{**each, "compat-props": []} for each in machines]
    return machines


def set_globals(daemon: Daemon) -> None:
    """Give what there is without a `-device` the values of `-global`; raises `QMPError`."""
    standin = standin_of(daemon)

    def check(name: str, value: JSON) -> None:
        if name in standin.migration_parameters():
            daemon.schema.checker("migrate-set-parameters")({name: value})

    given = standin.globals.of_migration(check)
    if given:
        _set_migration(daemon, standin, given)
    standin.globals.apply_to_parts(daemon.machine.config.type)


def _set_migration(daemon: Daemon, standin: StandIn, given: JSONObject) -> None:
    """Set parameters and capabilities of migration, some of which `-global` spells with an "x-"."""
    known = standin.migration_parameters()
    values = {
        each: value for name, value in given.items() for each in (name, name.removeprefix("x-"))
    }
    standin.set_migration_parameters({each: values[each] for each in values.keys() & known.keys()})
    capabilities: list[JSON] = [
        {"capability": each["capability"], "state": values[each["capability"]]}
        for each in migration.query_migrate_capabilities(daemon, {})
        if each["capability"] in values
    ]
    migration.migrate_set_capabilities(daemon, {"capabilities": capabilities})


async def at_start(daemon: Daemon, start: StartCommand) -> None:
    """Register what an option of the command line asks for.

    Raises:
        QMPError: it can't be.
    """
    done = AT_START[start.command](daemon, standin_of(daemon), start)
    if done is not None:
        await done


async def _add_chardev(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    made = await standin.chardevs.make(start.options, inherited)
    if "pty" in made:
        # Who has started a QEMU with a terminal reads there which one it is.
        with contextlib.suppress(OSError):
            id = start.options["id"]
            print(f"char device redirected to {made['pty']} (label {id})", flush=True)


def _add_flash_chips(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    from memd.standin.flash import add_chips

    add_chips(daemon.machine, standin)


async def _add_own_devices(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    """Have the machine take the devices that it makes itself, once all are asked for."""
    from memd.standin.flash import plug_flash

    config = daemon.config
    daemon.machine.asked += (*standin.drives.asked(), *standin.netdevs.asked())
    plug_flash(daemon.machine, standin, config.machine_values, config.report.program)
    await standin.blocks.relock()


def _use_gdb(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    if daemon.config.machine.type == "none":
        raise QMPError("gdbstub: meaningless to attach gdb to a machine without any CPU.")
    standin.chardevs.use("gdb", changeable=False)


def _checked(daemon: Daemon, start: StartCommand) -> JSONObject:
    """The arguments of a client's command, checked; raises `QMPError`."""
    command, options = start.command, start.options
    typed = options if start.is_json else daemon.typed(command, options)
    return daemon.schema.checker(command)(typed)


def _audiodev(daemon: Daemon, start: StartCommand) -> JSONObject:
    """The options of an audio backend, checked; raises `QMPError`."""
    from memd.qapi.check import check_object
    from memd.qapi.keyval import check_keyval
    from memd.qapi.types import ArrayType, ObjectType

    listed = daemon.schema.commands["query-audiodevs"].returns
    if not isinstance(listed, ArrayType) or not isinstance(listed.element, ObjectType):
        return start.options
    return (check_object if start.is_json else check_keyval)(listed.element, start.options)


def _check_audiodev(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    """The backend of sound cards that name none: it is not listed."""
    _audiodev(daemon, start)


_ASKED = {
    "vga": {"std": "VGA", "cirrus": "cirrus-vga", "vmware": "vmware-svga", "virtio": "virtio-vga"},
    "usb": {
        "keyboard": "usb-kbd",
        "mouse": "usb-mouse",
        "tablet": "usb-tablet",
        "wacom-tablet": "usb-wacom-tablet",
    },
}
"""The types of the devices that the machine makes for `-vga` and `-usbdevice`, by their slots."""

_ISA_DISPLAYS = {"std": "isa-vga", "cirrus": "isa-cirrus-vga"}


def _ask_for(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    """Have the machine make a device; raises `QMPError`."""
    from memd.devices.machine import Asked

    slot, name = start.command, start.options["type"]
    known = _ASKED[slot]
    if slot == "vga" and daemon.config.machine.type == "isapc":
        known = _ISA_DISPLAYS
    if name in known:
        daemon.machine.asked.append(Asked(slot, known[name]))
    elif slot == "usb":
        raise QMPError(f"could not add USB device '{name}'")


def _add_network(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    """Add what `-netdev`, `-nic` or `-net` asks for, the last on the first hub.

    Raises:
        QMPError: it can't be.
    """
    pairs: Sequence[tuple[str, str]] = start.options["pairs"]
    netdevs, given = standin.netdevs, dict(pairs)
    # What the machine has by itself need not be checked, which takes the schema.
    own = start.command == "default-net"
    option = "net" if own else start.command
    device: JSONObject = {}
    if option == "nic":
        if given.get("type") == "none":
            return
        device = {"model": given.get("model", ""), "macaddr": given.get("mac", "")}
        pairs = [each for each in pairs if each[0] not in ("model", "mac")]
        if "type" not in given:
            pairs = [("type", "user"), *pairs]
    if option != "netdev" and "id" not in given:
        pairs = [("id", netdevs.make_up_id()), *pairs]
    checked: JSONObject = dict(pairs)
    if not own:
        from memd.qapi.opts import check_opts

        checked = check_opts(daemon.schema.commands["netdev_add"].arguments, pairs)
    kind, netdev = checked["type"], checked["id"]
    if option == "net" and kind == "none":
        return
    if option == "net" and kind == "hubport":
        raise QMPError(f"network backend '{kind}' is only supported with -netdev/-nic")
    if option == "net" and kind == "nic":
        device, netdev = checked, checked.get("netdev")
    else:
        netdevs.add(checked, inherited, own="id" not in given)
        if option == "net":
            netdevs.add_to_hub(netdev)
        if option != "nic":
            return
    name = checked["id"] if option == "net" else None
    _ask_for_nic(daemon, standin, name, device, netdev, option)


def _ask_for_nic(
    daemon: Daemon,
    standin: StandIn,
    name: str | None,
    device: JSONObject,
    netdev: str | None,
    option: str,
) -> None:
    """Have the machine make a network device.

    Args:
        name: its name; None for one that is made up.
        device: what is said of it.
        netdev: the backend that it is on.
        option: "nic" or "net".
    """
    named = model = device.get("model", "")
    if model == "virtio":
        model = "virtio-net-pci"
    if model:
        # A machine makes none that are on no bus of its.
        bus = standin.catalogue.section("devices").get(model, {}).get("bus")
    else:
        model = "" if daemon.machine_kind is None else daemon.machine_kind.nic
        bus = "ISA" if daemon.config.machine.type == "isapc" else "PCI"
    # That of -nic has no interrupt vectors.
    values = {"vectors": 0} if option == "nic" else {}
    values |= {name: value for name, value in device.items() if name == "vectors"}
    address = device.get("macaddr", "")
    standin.netdevs.ask_for(name, named, model, f"{bus} nic", address, netdev, values)


_MOST_SERIAL = 4
"""Serial ports of a machine; a command line may have more."""


def _use_port(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    """A serial or parallel port is on a character device, if the machine has so many.

    Raises:
        QMPError: there is no such device, or it is in use.
    """
    from memd.devices.machine import Asked

    id, port, number = (start.options[name] for name in ("id", "port", "number"))
    machine = daemon.config.machine.type
    there = machine not in ("none", "x-remote") and number < _MOST_SERIAL
    if machine == "microvm":
        values = daemon.config.machine_values
        there = port == "serial" and number == 0 and values.get("isa-serial", True)
    if standin.chardevs.find(id) is None:
        raise QMPError(f"could not connect {port} device to character backend 'chardev:{id}'")
    # The serial ports of PCs take another backend, no other port does.
    changeable = port == "serial" and machine != "virt"
    standin.chardevs.use(id, changeable=changeable, there=there)
    if there:
        daemon.machine.asked.append(Asked(port, f"isa-{port}"))


async def _add_drive(daemon: Daemon, standin: StandIn, start: StartCommand) -> None:
    from memd.config import DeviceOption

    typed = partial(daemon.typed, "blockdev-add")
    kind, name = await standin.drives.add(dict(start.options), typed)
    if kind == "virtio":
        device = {"driver": "virtio-blk-pci", "drive": name}
        standin.devices_of_drives.append(DeviceOption(start.where, False, device))
    if standin.drives.flash.keys() & daemon.config.machine_values.keys():
        raise QMPError("clashes with -machine")


AT_START: dict[str, Callable[[Daemon, StandIn, StartCommand], Awaitable[object] | None]] = {
    "add-fd": lambda daemon, its, start: daemon.fdsets.add_inherited(start.options["added"]),
    "audiodev": lambda daemon, its, start: its.audiodevs.add(_audiodev(daemon, start)),
    "blockdev-add": lambda daemon, its, start: blockdev_add(daemon, _checked(daemon, start)),
    "chardev-add": _add_chardev,
    "default-audiodev": _check_audiodev,
    "default-drive": lambda daemon, its, start: its.drives.add_default(
        start.options, partial(daemon.typed, "blockdev-add")
    ),
    "drive": _add_drive,
    "flash-chips": _add_flash_chips,
    "fsdev": lambda daemon, its, start: its.fsdevs.add(start.options),
    "gdb": _use_gdb,
    "incoming": lambda daemon, its, start: migration.incoming_at_start(
        daemon, daemon.schema.checker("migrate-incoming")(start.options)
    ),
    "incoming-later": lambda daemon, its, start: None,
    "loadvm": lambda daemon, its, start: its.snapshots.load(start.options),
    "logfile": lambda daemon, its, start: its.chardevs.make_log(
        start.options["logfile"], append=start.options["logappend"]
    ),
    **dict.fromkeys(("netdev", "nic", "net", "default-net"), _add_network),
    "netdev_add": lambda daemon, its, start: its.netdevs.add(_checked(daemon, start), inherited),
    "object-add": lambda daemon, its, start: daemon.tree.objects.create(_checked(daemon, start)),
    "own-devices": _add_own_devices,
    "port": _use_port,
    "spice": lambda daemon, its, start: its.spice.open(start.options),
    "tpmdev": lambda daemon, its, start: its.tpms.add(start.options),
    **dict.fromkeys(_ASKED, _ask_for),
    "vnc": lambda daemon, its, start: its.vnc.open(start.options),
}
"""What is done for an option at the start, by `StartCommand.command`."""


async def cont(daemon: Daemon, args: JSONObject) -> JSON:
    """`cont`: a machine that runs has its images."""
    if daemon.run_state not in ("inmigrate", "shutdown"):
        await standin_of(daemon).set_active(True)
    return machine.cont(daemon, args)


async def x_query_ramblock(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-query-ramblock`: the blocks, in the human monitor's form."""
    return _human(await info_ramblock(daemon, args))


def _human(lines: list[str]) -> JSON:
    """QAPI `HumanReadableText`."""
    return {"human-readable-text": "".join(f"{line}\n" for line in lines)}


def query_iothreads(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-iothreads`: each is told to run in memd's main thread."""
    from memd.standin import tunable

    return tunable.query_iothreads(daemon.tree.objects.each(), os.getpid())


def query_current_machine(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-current-machine`."""
    return {"wakeup-suspend-support": daemon.config.machine.has_power_management}


def query_acpi_ospm_status(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-acpi-ospm-status`: the slots for DIMMs and, since 11.1, for CPUs.

    Of none has a guest told anything.
    """
    from memd.devices.dimm import PcDimm

    config = daemon.machine.config
    if not config.has_acpi_device:
        raise QMPError("command is not supported, missing ACPI device")
    slots: list[JSONObject] = [
        {"slot": str(slot), "slot-type": "DIMM", "source": 0, "status": 0}
        for slot in range(config.slots)
    ]
    for each in daemon.machine.plugged:
        # Of an NVDIMM a guest is told otherwise.
        if type(each) is PcDimm and each.id is not None:
            slots[each.slot]["device"] = each.id
    kind = daemon.machine_kind
    if daemon.compat is not Compat.V10_0 and kind is not None and kind.hotpluggable_cpus:
        from memd.devices.machine_object import cpu_positions, cpus

        # A machine of 10.0 has the older interface for CPUs until its firmware wants the other.
        ids = {cpu.number: cpu.id for cpu in cpus(daemon.tree)}
        for number, _place in enumerate(cpu_positions(kind, config.smp)):
            slots.append({"slot": str(number), "slot-type": "CPU", "source": 0, "status": 0})
            if (id := ids.get(number)) is not None:
                slots[-1]["device"] = id
    return [*slots]


def set_numa_node(daemon: Daemon, args: JSONObject) -> JSON:
    """`set-numa-node`: as `-numa`, until the machine is made."""
    if daemon.nodes is None:
        raise QMPError("The command is permitted only before the machine has been created")
    from copy import deepcopy

    objects = daemon.tree.objects.children
    # What is refused has changed nothing.
    nodes = deepcopy(daemon.nodes)
    nodes.backends = {id for id in objects if isinstance(objects[id], MemoryBackend)}
    nodes.take(args)
    daemon.nodes = nodes
    return {}


def _display(its: StandIn, args: JSONObject) -> Spice | Vnc:
    """The display that a command names by its protocol."""
    return its.spice if args.get("protocol") == "spice" else its.vnc


ACTS = {
    "chardev-remove": "chardevs.remove",
    "chardev-send-break": "chardevs.send_break",
    "ringbuf-write": "chardevs.write",
    "ringbuf-read": "chardevs.read",
    "netdev_del": "netdevs.delete",
    "set_link": "netdevs.set_link",
    "query-rx-filter": "netdevs.rx_filters",
    "query-audiodevs": "audiodevs.query",
    "query-mice": "devices.inputs.query",
    "change-vnc-password": "vnc.set_password",
    "query-spice": "spice.query",
    "query-tpm": "tpms.query",
    "client_migrate_info": "spice.move_clients",
    "query-vm-generation-id": "devices.generation_id",
    "query-vnc": "vnc.query",
    "query-vnc-servers": "vnc.query_servers",
    "display-reload": "vnc.reload",
    "display-update": "vnc.update",
    "calc-dirty-rate": "dirty_rate.start",
    "query-dirty-rate": "dirty_rate.query",
    "query-dump": "dump.query",
    "migrate-set-parameters": "set_migration_parameters",
    "query-migrate-parameters": "migration_parameters",
    "query-migrate": "migration.query",
    "migrate_cancel": "migration.cancel",
    "migrate-continue": "migration.go_on",
    "migrate-start-postcopy": "migration.hurry",
    "blockdev-del": "blocks.delete",
    "blockdev-reopen": "reopening.reopen",
    "block-set-write-threshold": "blocks.set_threshold",
    "block-latency-histogram-set": "drives.media.set_histograms",
    "block_resize": "blocks.resize",
    "query-named-block-nodes": "blocks.nodes",
    "query-block": "drives.query",
    "query-blockstats": "drives.statistics",
    "block_set_io_throttle": "drives.media.limit",
    "blockdev-remove-medium": "drives.media.remove_medium",
    "blockdev-insert-medium": "drives.media.insert_medium",
    "blockdev-change-medium": "drives.media.change_medium",
    "eject": "drives.media.eject",
    "query-block-exports": "exports.query",
    "x-debug-query-block-graph": "blocks.graph",
    "block-export-add": "exports.add",
    "block-export-del": "exports.delete",
    "nbd-server-start": "exports.start",
    "nbd-server-stop": "exports.stop",
    "nbd-server-add": "exports.add_device",
    "nbd-server-remove": "exports.remove",
    "blockdev-create": "images.create",
    "blockdev-snapshot": "transactions.snapshot",
    "blockdev-snapshot-sync": "transactions.snapshot_sync",
    **{
        f"block-dirty-bitmap-{verb}": f"bitmaps.{verb}"
        for verb in ("add", "remove", "clear", "enable", "disable", "merge")
    },
    "transaction": "transactions.run",
    "blockdev-snapshot-internal-sync": "snapshots.make_of_node",
    "blockdev-snapshot-delete-internal-sync": "snapshots.delete_of_node",
    "change-backing-file": "images.change_backing",
    "x-blockdev-change": "blocks.change_child",
    "block-commit": "block_jobs.commit",
    "block-stream": "block_jobs.stream",
    "blockdev-mirror": "block_jobs.mirror",
    "drive-mirror": "block_jobs.drive_mirror",
    "blockdev-backup": "block_jobs.backup",
    "drive-backup": "block_jobs.drive_backup",
    "block-job-set-speed": "jobs.set_speed",
    "block-job-change": "jobs.change",
    "query-jobs": "jobs.query",
    "query-block-jobs": "jobs.query_block",
}
"""The commands that are a register's method, and where a stand-in has that."""


def _verb(command: str) -> Act:
    """A command about a job: `job-VERB` of any job, or `block-job-VERB`."""
    return lambda its: partial(its.jobs.command, command)


_VERBS = ("pause", "resume", "cancel", "complete", "finalize", "dismiss")

REGISTERS: dict[str, Handler] = {
    **IDLE,
    **{name: _register(attrgetter(place)) for name, place in ACTS.items()},
    "send-key": _register(lambda its: lambda args: None),
    "set_password": _register(lambda its: lambda args: _display(its, args).set_password(args)),
    "expire_password": _register(
        lambda its: lambda args: _display(its, args).expire_password(args)
    ),
    "blockdev-open-tray": _register(lambda its: partial(its.drives.media.move_tray, opened=True)),
    "blockdev-close-tray": _register(lambda its: partial(its.drives.media.move_tray, opened=False)),
    "snapshot-save": _register(lambda its: its.snapshots.job("save")),
    "snapshot-load": _register(lambda its: its.snapshots.job("load")),
    "snapshot-delete": _register(lambda its: its.snapshots.job("delete")),
    "query-pci": query_pci,
    "x-query-virtio": query_virtio,
    "query-current-machine": query_current_machine,
    "query-acpi-ospm-status": query_acpi_ospm_status,
    "cont": cont,
    "query-cpu-definitions": lambda daemon, args: [*_section(daemon, "cpus").values()],
    "query-cpu-model-expansion": query_cpu_model_expansion,
    "query-command-line-options": query_command_line_options,
    "query-machines": query_machines,
    "inject-nmi": inject_nmi,
    "screendump": screendump,
    "input-send-event": input_send_event,
    **{
        f"{prefix}job-{verb}": _register(_verb(f"{prefix}job-{verb}"))
        for prefix in ("", "block-")
        for verb in _VERBS
    },
    "watchdog-set-action": machine.watchdog_set_action,
    "query-iothreads": query_iothreads,
    "x-query-numa": lambda daemon, args: _human(info_numa(daemon, args)),
    "x-query-ramblock": x_query_ramblock,
    "set-numa-node": set_numa_node,
}
"""The commands that a stand-in runs otherwise than memd, or besides."""

OF_CLIENTS: dict[str, SessionHandler] = {
    "chardev-add": _of_client(lambda its: its.chardevs.add),
    "chardev-change": _of_client(lambda its: its.chardevs.change),
    "netdev_add": _of_client(lambda its: its.netdevs.add),
    "migrate": migration.migrate,
    "dump-guest-memory": dump_guest_memory,
    "migrate-incoming": migration.migrate_incoming,
}
"""The same, of what takes descriptors that its client has named."""

MOST_KEPT = 65_536
"""Characters of the arguments of a command that a register runs: it may keep a thousand such."""

_KEEPING = {*REGISTERS, *OF_CLIENTS, "blockdev-add", "device_add"} - {"ringbuf-write"}
"""The commands that registers run. A ring keeps no more than its size, whatever is written."""
