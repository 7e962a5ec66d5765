"""The dispatcher of a stand-in: every command of its catalogue is known."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from memd.commands import migration
from memd.commands.block import blockdev_add
from memd.commands.daemon import Daemon
from memd.commands.descriptors import inherited, take_fd
from memd.commands.dispatcher import Dispatcher
from memd.commands.machine import watchdog_set_action
from memd.commands.table import HANDLERS, SESSION_HANDLERS, Handler, SessionHandler
from memd.compat import Compat
from memd.errors import QMPError, device_not_found
from memd.json_types import JSON, JSONObject
from memd.session import Session
from memd.standin.standin import StandIn
from memd.work import Command, Outcome

if TYPE_CHECKING:
    from memd.standin.chardevs import TakeFd


class StandInDispatcher(Dispatcher):
    """Runs commands as memd does, and what memd has no part for as a register has it.

    Args:
        daemon: what they are run on.
        standin: its catalogue.
    """

    def __init__(self, daemon: Daemon, standin: StandIn) -> None:
        super().__init__(daemon, {**HANDLERS, **REGISTERS}, {**SESSION_HANDLERS, **OF_CLIENTS})
        self._standin = standin

    def unmodelled(self, name: str, arguments: JSONObject) -> JSON:
        """See `Dispatcher.unmodelled`."""
        return self._standin.answer(self._daemon.schema.commands[name], arguments)


def _standin(daemon: Daemon) -> StandIn:
    assert daemon.standin is not None
    return daemon.standin


def _section(daemon: Daemon, name: str) -> JSON:
    return _standin(daemon).catalogue.section(name)


Act = Callable[[StandIn, JSONObject], Any]


def _register(act: Act) -> Handler:
    """What a register does, as a command; it returns a value, a tuple of events or nothing."""

    def handle(daemon: Daemon, args: JSONObject) -> JSON:
        result = act(_standin(daemon), args)
        return _later(result) if type(result) is CoroutineType else _answer(result)

    return handle


async def _later(command: Command[Any]) -> JSON:
    return _answer(await command)


def _answer(result: Any) -> JSON:
    if type(result) is tuple:
        return Outcome(events=result)
    return {} if result is None else result


def _of_client(act: Callable[[StandIn, JSONObject, TakeFd], Any]) -> SessionHandler:
    """The same, of a command that takes descriptors that its client has named."""

    def handle(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
        return _register(lambda standin, args: act(standin, args, take_fd(session)))(daemon, args)

    return handle


def inject_nmi(daemon: Daemon, args: JSONObject) -> JSON:
    """`inject-nmi`, which a guest that is not there has no answer to."""
    if daemon.machine.config.type == "none":
        raise QMPError("machine does not provide NMIs")
    return {}


def screendump(daemon: Daemon, args: JSONObject) -> JSON:
    """`screendump`: raise `QMPError`, as there is no display."""
    if "device" in args:
        raise device_not_found(f"Device '{args['device']}' not found")
    raise QMPError("There is no console to take a screendump from")


async def dump_guest_memory(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`dump-guest-memory`: write what the machine's memory holds."""
    from memd.standin.channels import Opener

    opener = Opener(daemon.tree.host.roots, take_fd(session), may_run=False, fd_files=True)
    return Outcome(events=await _standin(daemon).dump.start(args, opener))


def query_cpu_model_expansion(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-cpu-model-expansion`: what a model comes to, with what is changed about it."""
    model = args["model"]
    kind = _section(daemon, "cpus")["expansions"][args["type"]]
    known = kind["models"].get(model["name"])
    if known is None:
        raise QMPError(f"The CPU type '{model['name']}' is not a recognized CPU type")
    if "error" in known:
        raise QMPError(known["error"]["desc"], known["error"]["class"])
    gone = set(known["unset"])
    props = {name: value for name, value in kind["base"].items() if name not in gone}
    props.update(known["set"])
    changed = model.get("props", {})
    if type(changed) is not dict:
        raise QMPError("Invalid parameter type for 'model.props', expected: object")
    for name, value in changed.items():
        if name not in props:
            raise QMPError(f"Property '{model['name']}-x86_64-cpu.{name}' not found")
        if type(value) is not type(props[name]):
            kinds = {bool: "boolean", str: "string", int: "integer"}
            expected = kinds.get(type(props[name]), "string")
            raise QMPError(f"Invalid parameter type for '{name}', expected: {expected}")
        props[name] = value
    return {"model": {"name": known["name"], "props": props}}


def query_command_line_options(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-command-line-options`: as the catalogue has them."""
    option = args.get("option")
    options = _section(daemon, "options")
    found = [each for each in options if option in (None, each["option"])]
    if option is not None and not found:
        raise QMPError(f"invalid option name: {option}")
    return found


def query_machines(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-machines`: as the catalogue has them; none has properties for compatibility."""
    machines = _section(daemon, "machines")
    if args.get("compat-props"):
        return [{**each, "compat-props": []} for each in machines]
    return machines


async def at_start(daemon: Daemon, command: str, options: JSONObject, is_json: bool) -> None:
    """What an option of the command line registers.

    Args:
        command: a command, or "logfile" or "use-chardev".
        options: its arguments.
        is_json: whether values have their types; else they are text.

    Raises:
        QMPError: it can't be.
    """
    standin = _standin(daemon)
    if command == "logfile":
        await standin.chardevs.make_log(options["logfile"], append=options["logappend"])
    elif command == "use-chardev":
        standin.chardevs.use(options["id"])
    elif command == "defer":
        pass
    elif command == "migrate-incoming":
        await migration.incoming_at_start(daemon, daemon.schema.checker(command)(options))
    elif command == "chardev-add":
        await standin.chardevs.add(options["id"], options["backend"], inherited)
    else:
        if not is_json:
            from memd.qapi.keyval import check_keyval

            options = check_keyval(daemon.schema.commands[command].arguments, options)
        checked = daemon.schema.checker(command)(options)
        if command == "object-add":
            await daemon.tree.objects.create(checked)
        elif command == "netdev_add":
            standin.netdevs.add(checked, inherited)
        else:
            await blockdev_add(daemon, checked)


def query_pci(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-pci`."""
    from memd.standin.pci import pci_buses

    return pci_buses(daemon.machine, _standin(daemon).catalogue)


def query_iothreads(daemon: Daemon, args: JSONObject) -> JSON:
    """`query-iothreads`: each is told to run in memd's main thread."""
    from memd.standin import tunable

    return tunable.query_iothreads(daemon.tree.objects.each(), os.getpid())


def block_set_io_throttle(daemon: Daemon, args: JSONObject) -> JSON:
    """`block_set_io_throttle`: limits of a device's, which can be read back."""
    if ("id" in args) == ("device" in args):
        raise QMPError("Need exactly one of 'device' and 'id'")
    id = args.get("id", "")
    if not _standin(daemon).blocks.limit(id, args):
        path = id if id.startswith("/") else f"/machine/peripheral/{id}"
        if "device" in args or daemon.tree.lookup(path)[0] is None:
            raise device_not_found(f"Device '{args.get('device', id)}' not found")
        raise QMPError("Device does not have a block device backend")
    return {}


def set_password(daemon: Daemon, args: JSONObject) -> JSON:
    """`set_password`, `change-vnc-password`: raise `QMPError`, as there is no display."""
    _check_spice(args)
    if args.get("connected", "keep") != "keep":
        raise QMPError("parameter 'connected' must be 'keep' when 'protocol' is 'vnc'")
    later = daemon.compat is not Compat.V10_0
    raise QMPError("No VNC display is present" if later else "Could not set password")


def expire_password(daemon: Daemon, args: JSONObject) -> JSON:
    """`expire_password`: raise `QMPError`, as there is no display."""
    time = args["time"]
    number = time.removeprefix("+") if _SECONDS.fullmatch(time) else None
    if time not in ("now", "never") and (number is None or abs(int(number)) >= 1 << 64):
        raise QMPError(f"Parameter 'time' doesn't take value '{time}'")
    _check_spice(args)
    raise QMPError("Could not set password expire time")


_SECONDS = re.compile(r"\+?\s*[+-]?[0-9]{1,20}")


def _check_spice(args: JSONObject) -> None:
    if args.get("protocol") == "spice":
        raise QMPError("SPICE is not in use", "DeviceNotActive")


def _jobs(prefix: str, id: str, *, block: bool) -> dict[str, Handler]:
    """The commands about a job: those about any, or about one of a block device."""

    def of(verb: str, id: str) -> Handler:
        def act(standin: StandIn, args: JSONObject) -> Any:
            force = args.get("force", not block)
            return standin.images.jobs.command(verb, args[id], block=block, force=force)

        return _register(act)

    return {
        **{f"{prefix}{verb}": of(verb, id) for verb in ("pause", "resume", "cancel", "complete")},
        **{f"{prefix}{verb}": of(verb, "id") for verb in ("finalize", "dismiss")},
    }


_ACTS: dict[str, Act] = {
    "chardev-remove": lambda standin, args: standin.chardevs.remove(args["id"]),
    "chardev-send-break": lambda standin, args: standin.chardevs.send_break(args["id"]),
    "ringbuf-write": lambda standin, args: standin.chardevs.write(
        args["device"], args["data"], args.get("format", "utf8")
    ),
    "ringbuf-read": lambda standin, args: standin.chardevs.read(
        args["device"], args["size"], args.get("format", "utf8")
    ),
    "netdev_del": lambda standin, args: standin.netdevs.delete(args["id"]),
    "send-key": lambda standin, args: None,
    "query-dump": lambda standin, args: standin.dump.query(),
    "set_link": lambda standin, args: standin.netdevs.set_link(args["name"], args["up"]),
    "migrate-set-parameters": StandIn.set_migration_parameters,
    "query-migrate-parameters": lambda standin, args: standin.migration_parameters(),
    "query-migrate": lambda standin, args: standin.migration.query(),
    "migrate_cancel": lambda standin, args: standin.migration.cancel(),
    "migrate-continue": lambda standin, args: standin.migration.go_on(args["state"]),
    "migrate-start-postcopy": lambda standin, args: standin.migration.hurry(),
    "blockdev-del": lambda standin, args: standin.blocks.delete(args["node-name"]),
    "block_resize": lambda standin, args: standin.blocks.resize(
        args.get("device"), args.get("node-name"), args["size"]
    ),
    "query-block": lambda standin, args: standin.blocks.devices(),
    "query-blockstats": lambda standin, args: standin.blocks.statistics(
        by_node=args.get("query-nodes", False)
    ),
    "query-named-block-nodes": lambda standin, args: standin.blocks.nodes(
        flat=args.get("flat", False)
    ),
    "query-block-exports": lambda standin, args: standin.blocks.exports(),
    "nbd-server-start": lambda standin, args: standin.blocks.start_serving(),
    "nbd-server-stop": lambda standin, args: standin.blocks.stop_serving(),
    "nbd-server-add": lambda standin, args: standin.blocks.export(
        args["name"] if "name" in args else args["device"], args["device"]
    ),
    "nbd-server-remove": lambda standin, args: standin.blocks.unexport(args["name"]),
    "blockdev-create": lambda standin, args: standin.images.create(args),
    "blockdev-snapshot": lambda standin, args: standin.images.snapshot(args),
    "blockdev-snapshot-sync": lambda standin, args: standin.images.snapshot_sync(args),
    "transaction": lambda standin, args: standin.images.transaction(args["actions"]),
    "block-commit": lambda standin, args: standin.images.commit(args),
    "block-stream": lambda standin, args: standin.images.stream(args),
    "blockdev-mirror": lambda standin, args: standin.images.mirror(args),
    "drive-mirror": lambda standin, args: standin.images.drive_mirror(args),
    "blockdev-backup": lambda standin, args: standin.images.backup(args),
    "drive-backup": lambda standin, args: standin.images.drive_backup(args),
    "block-job-set-speed": lambda standin, args: standin.images.jobs.set_speed(
        args["device"], args["speed"]
    ),
    "block-job-change": lambda standin, args: standin.images.jobs.change(
        args["id"], args["copy-mode"]
    ),
    "query-jobs": lambda standin, args: standin.images.jobs.query(),
    "query-block-jobs": lambda standin, args: standin.images.jobs.query_block(),
}
"""What registers do."""

REGISTERS: dict[str, Handler] = {
    **{name: _register(act) for name, act in _ACTS.items()},
    "query-pci": query_pci,
    "query-cpu-definitions": lambda daemon, args: _section(daemon, "cpus")["definitions"],
    "query-cpu-model-expansion": query_cpu_model_expansion,
    "query-command-line-options": query_command_line_options,
    "query-machines": query_machines,
    "inject-nmi": inject_nmi,
    "screendump": screendump,
    **_jobs("job-", "id", block=False),
    **_jobs("block-job-", "device", block=True),
    "watchdog-set-action": watchdog_set_action,
    "query-iothreads": query_iothreads,
    "block_set_io_throttle": block_set_io_throttle,
    **dict.fromkeys(("set_password", "change-vnc-password"), set_password),
    "expire_password": expire_password,
}
"""What a stand-in does otherwise than memd, or besides."""

OF_CLIENTS: dict[str, SessionHandler] = {
    "chardev-add": _of_client(
        lambda standin, args, take: standin.chardevs.add(args["id"], args["backend"], take)
    ),
    "chardev-change": _of_client(
        lambda standin, args, take: standin.chardevs.change(args["id"], args["backend"], take)
    ),
    "netdev_add": _of_client(lambda standin, args, take: standin.netdevs.add(args, take)),
    "migrate": migration.migrate,
    "dump-guest-memory": dump_guest_memory,
    "migrate-incoming": migration.migrate_incoming,
}
"""The same, of what takes descriptors that its client has named."""
