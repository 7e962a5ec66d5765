"""The dispatcher of a stand-in: every command of its catalogue is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.commands import migration
from memd.commands.block import blockdev_add
from memd.commands.daemon import Daemon
from memd.commands.dispatcher import Dispatcher
from memd.commands.handed_over import inherited, take_fd
from memd.commands.power import watchdog_set_action
from memd.commands.table import HANDLERS, SESSION_HANDLERS, Handler, SessionHandler
from memd.errors import QMPError
from memd.json_types import JSON
from memd.session import Session
from memd.standin.standin import StandIn
from memd.work import Outcome

if TYPE_CHECKING:
    pass


class StandInDispatcher(Dispatcher):
    """Runs commands as memd does, and what memd has no part for as a register has it.

    Args:
        daemon: what they are run on.
        standin: its catalogue.
    """

    def __init__(self, daemon: Daemon, standin: StandIn) -> None:
        super().__init__(daemon, {**HANDLERS, **REGISTERS}, {**SESSION_HANDLERS, **OF_CLIENTS})
        self._standin = standin

    def unmodelled(self, name: str, arguments: dict[str, Any]) -> JSON:
        """See `Dispatcher.unmodelled`."""
        return self._standin.answer(self._daemon.schema.commands[name], arguments)


def _standin(daemon: Daemon) -> StandIn:
    assert daemon.standin is not None
    return daemon.standin


def _section(daemon: Daemon, name: str) -> JSON:
    return _standin(daemon).catalogue.section(name)


async def chardev_add(daemon: Daemon, session: Session, args: dict[str, Any]) -> JSON:
    """`chardev-add`."""
    return await _standin(daemon).chardevs.add(args["id"], args["backend"], take_fd(session))


async def chardev_change(daemon: Daemon, session: Session, args: dict[str, Any]) -> JSON:
    """`chardev-change`."""
    return await _standin(daemon).chardevs.change(args["id"], args["backend"], take_fd(session))


async def chardev_remove(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`chardev-remove`."""
    await _standin(daemon).chardevs.remove(args["id"])
    return {}


def chardev_send_break(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`chardev-send-break`."""
    _standin(daemon).chardevs.send_break(args["id"])
    return {}


def ringbuf_write(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`ringbuf-write`."""
    _standin(daemon).chardevs.write(args["device"], args["data"], args.get("format", "utf8"))
    return {}


def ringbuf_read(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`ringbuf-read`."""
    return _standin(daemon).chardevs.read(args["device"], args["size"], args.get("format", "utf8"))


def netdev_add(daemon: Daemon, session: Session, args: dict[str, Any]) -> JSON:
    """`netdev_add`."""
    _standin(daemon).netdevs.add(args, take_fd(session))
    return {}


def netdev_del(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`netdev_del`."""
    _standin(daemon).netdevs.delete(args["id"])
    return {}


async def blockdev_del(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`blockdev-del`."""
    await _standin(daemon).blocks.delete(args["node-name"])
    return {}


async def block_resize(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`block_resize`."""
    blocks = _standin(daemon).blocks
    await blocks.resize(args.get("device"), args.get("node-name"), args["size"])
    return {}


def query_block(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-block`."""
    return _standin(daemon).blocks.devices()


def query_blockstats(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-blockstats`."""
    return _standin(daemon).blocks.statistics(by_node=args.get("query-nodes", False))


def query_named_block_nodes(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-named-block-nodes`."""
    return _standin(daemon).blocks.nodes()


def nbd_server_start(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`nbd-server-start`."""
    _standin(daemon).blocks.start_serving()
    return {}


def nbd_server_stop(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`nbd-server-stop`."""
    return Outcome(events=_standin(daemon).blocks.stop_serving())


def nbd_server_add(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`nbd-server-add`."""
    _standin(daemon).blocks.export(args.get("name", args["device"]), args["device"])
    return {}


def nbd_server_remove(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`nbd-server-remove`."""
    return Outcome(events=_standin(daemon).blocks.unexport(args["name"]))


def query_block_exports(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-block-exports`."""
    return _standin(daemon).blocks.exports()


def no_job(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`job-*`: raise `QMPError`, as there is none."""
    raise QMPError("Job not found")


def no_block_job(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`block-job-*`: raise `QMPError`, as there is none."""
    id = args.get("device", args.get("id"))
    raise QMPError(f"Block job '{id}' not found", "DeviceNotActive")


def set_link(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`set_link`."""
    _standin(daemon).netdevs.set_link(args["name"], args["up"])
    return {}


def query_cpu_definitions(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-cpu-definitions`: the models of CPUs."""
    return _section(daemon, "cpus")["definitions"]


def query_cpu_model_expansion(daemon: Daemon, args: dict[str, Any]) -> JSON:
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


def query_command_line_options(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-command-line-options`: as the catalogue has them."""
    option = args.get("option")
    options = _section(daemon, "options")
    found = [each for each in options if option in (None, each["option"])]
    if option is not None and not found:
        raise QMPError(f"invalid option name: {option}")
    return found


def query_machines(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """`query-machines`: as the catalogue has them; none has properties for compatibility."""
    machines = _section(daemon, "machines")
    if args.get("compat-props"):
        return [{**each, "compat-props": []} for each in machines]
    return machines


async def at_start(daemon: Daemon, command: str, options: dict[str, JSON], is_json: bool) -> None:
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


REGISTERS: dict[str, Handler] = {
    "query-cpu-definitions": query_cpu_definitions,
    "query-cpu-model-expansion": query_cpu_model_expansion,
    "query-command-line-options": query_command_line_options,
    "query-machines": query_machines,
    "chardev-remove": chardev_remove,
    "chardev-send-break": chardev_send_break,
    "ringbuf-write": ringbuf_write,
    "ringbuf-read": ringbuf_read,
    "netdev_del": netdev_del,
    "migrate-set-parameters": migration.migrate_set_parameters,
    "query-migrate-parameters": migration.query_migrate_parameters,
    "query-migrate": migration.query_migrate,
    "migrate_cancel": migration.migrate_cancel,
    "migrate-continue": migration.migrate_continue,
    "migrate-start-postcopy": migration.migrate_start_postcopy,
    "blockdev-del": blockdev_del,
    "block_resize": block_resize,
    "query-block": query_block,
    "query-blockstats": query_blockstats,
    "query-named-block-nodes": query_named_block_nodes,
    "query-block-exports": query_block_exports,
    "nbd-server-start": nbd_server_start,
    "nbd-server-stop": nbd_server_stop,
    "nbd-server-add": nbd_server_add,
    "nbd-server-remove": nbd_server_remove,
    **dict.fromkeys(
        ("job-pause", "job-resume", "job-cancel", "job-complete", "job-dismiss", "job-finalize"),
        no_job,
    ),
    **dict.fromkeys(
        (
            *("block-job-pause", "block-job-resume", "block-job-cancel", "block-job-complete"),
            "block-job-set-speed",
        ),
        no_block_job,
    ),
    "set_link": set_link,
    "watchdog-set-action": watchdog_set_action,
}
"""What a stand-in does otherwise than memd, or besides."""

OF_CLIENTS: dict[str, SessionHandler] = {
    "chardev-add": chardev_add,
    "chardev-change": chardev_change,
    "netdev_add": netdev_add,
    "migrate": migration.migrate,
    "migrate-incoming": migration.migrate_incoming,
}
"""The same, of what takes descriptors that its client has named."""
