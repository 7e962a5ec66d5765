"""The human monitor's words that plug in and out, change settings and migrate.

Observed on QEMU 10.0.2: they print nothing, or `Error: ` and the reason.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from memd.commands import migration
from memd.commands.daemon import Daemon, standin_of
from memd.commands.descriptors import no_fd
from memd.commands.hmp_arguments import Usage
from memd.compat import Compat
from memd.errors import QMPError, missing
from memd.json_types import JSON, JSONObject
from memd.option_text import pairs
from memd.qapi.numbers import SIZE_HINT, parse_size
from memd.work import Outcome, in_turns

_NUMBER = re.compile(r"0x[0-9a-fA-F]+")
_NO_MEMBER = re.compile(r"Parameter '[^']+' does not accept value '(.*)'", re.DOTALL)
_IN_MIB = ("max-bandwidth", "avail-switchover-bandwidth", "max-postcopy-bandwidth")


def _options(text: str, implied: str) -> JSONObject:
    """`VALUE,KEY=VALUE,...`."""
    return {key: "on" if value is None else value for key, value in pairs(text, implied)}


async def device_add(daemon: Daemon, args: JSONObject) -> None:
    """`device_add DRIVER,id=ID,...`."""
    from memd.devices.adding import add_device
    from memd.devices.arguments import arguments

    options = _options(args.get("device", ""), "driver")
    driver = options.get("driver")
    if type(driver) is not str or not driver:
        raise missing("driver")
    await add_device(daemon.machine, arguments(options))


async def object_add(daemon: Daemon, args: JSONObject) -> None:
    """`object_add TYPE,id=ID,...`."""
    options = _options(args["object"], "qom-type")
    await daemon.tree.objects.create(_typed(daemon, "object-add", options))


def netdev_add(daemon: Daemon, args: JSONObject) -> None:
    """`netdev_add TYPE,id=ID,...`."""
    netdevs = standin_of(daemon).netdevs
    options = _options(args.get("netdev", ""), "type")
    if netdevs.find(str(options.get("id"))) is not None:
        # QEMU says why on its standard error.
        raise Usage("", "netdev_add")
    netdevs.add(_typed(daemon, "netdev_add", options), no_fd)


def hostfwd_add(daemon: Daemon, args: JSONObject) -> list[str]:
    """`hostfwd_add [NETDEV] RULE`."""
    id, rule = _network_and(args)
    try:
        standin_of(daemon).netdevs.forward(id, rule)
    except QMPError as error:
        return [error.desc]
    return []


def hostfwd_remove(daemon: Daemon, args: JSONObject) -> list[str]:
    """`hostfwd_remove [NETDEV] PROTOCOL:ADDRESS:PORT`."""
    id, source = _network_and(args)
    try:
        removed = standin_of(daemon).netdevs.forward_no_more(id, source)
    except QMPError as error:
        return [error.desc]
    return [f"host forwarding rule for {source} {'removed' if removed else 'not found'}"]


def _network_and(args: JSONObject) -> tuple[str | None, str]:
    """What is said of a network, and the network where it is named before that."""
    first, second = args["first"], args.get("second")
    return (None, first) if second is None else (first, second)


async def drive_add(daemon: Daemon, args: JSONObject) -> list[str]:
    """`drive_add [-n] PLACE OPTIONS`; see `_as_it_stands`."""
    options, of = _options(args["options"], ""), standin_of(daemon)
    types = partial(daemon.typed, "blockdev-add")
    try:
        if not args.get("node"):
            await of.drives.add(options, types, hotplugged=True)
            return ["OK"]
        await of.drives.add_node(options, types)
    except QMPError as error:
        return _as_it_stands(daemon, error)
    return []


async def drive_del(daemon: Daemon, args: JSONObject) -> list[str]:
    """`drive_del NAME`; see `_as_it_stands`."""
    of = standin_of(daemon)
    try:
        await of.drives.delete(args["id"])
    except QMPError as error:
        return _as_it_stands(daemon, error)
    return []


def _as_it_stands(daemon: Daemon, error: QMPError) -> list[str]:
    """An error about a drive as 10.0 prints it.

    11.1 prints all but those about its id as those of other words, so they are raised.
    """
    from memd.standin.block.drives import BadId

    if daemon.compat is not Compat.V10_0 and type(error) is not BadId:
        raise error
    return [error.desc, *([] if error.hint is None else [error.hint])]


async def nbd_server_start(daemon: Daemon, args: JSONObject) -> None:
    """`nbd_server_start [-a [-w]] URI`: with -a all drives are exported."""
    exports, drives = standin_of(daemon).exports, standin_of(daemon).drives
    if args.get("writable") and not args.get("all"):
        raise QMPError("-w only valid together with -a")
    kind, _, path = args["uri"].partition(":")
    where: JSONObject = {"type": "unix", "data": {"path": path}}
    if kind != "unix":
        host, _, port = args["uri"].rpartition(":")
        where = {"type": "inet", "data": {"host": host, "port": port}}
    await exports.start({"addr": where})
    for row in drives.rows() if args.get("all") else []:
        if row["device"] and "inserted" in row:
            await exports.add_device(
                {"device": row["device"], "writable": args.get("writable", False)}
            )


async def nbd_server_remove(daemon: Daemon, args: JSONObject) -> Outcome:
    """`nbd_server_remove [-f] NAME`."""
    return Outcome(events=await standin_of(daemon).exports.delete({"id": args["name"]}))


async def sendkey(daemon: Daemon, args: JSONObject) -> list[str]:
    """`sendkey KEY-KEY [MILLISECONDS]`: checked, and pressed nowhere."""
    keys = args["keys"]
    async for key in in_turns(["less"] if keys == "<" else keys.split("-")):
        pressed = {"keys": [{"type": "qcode", "data": key}]}
        if not _NUMBER.fullmatch(key) and not _fits(daemon, "send-key", pressed):
            return [f"invalid parameter: {key}"]
    return []


async def migrate(daemon: Daemon, args: JSONObject) -> list[str]:
    """`migrate [-d] [-r] URI`: goes on in the background in any case, which 10.0 says."""
    standin_of(daemon)
    detached = args.pop("detach", False)
    await migration.begin(daemon, args, no_fd)
    if detached or daemon.compat is not Compat.V10_0:
        return []
    return ["terminal does not allow synchronous migration, continuing detached"]


def migrate_set_capability(daemon: Daemon, args: JSONObject) -> JSON:
    """`migrate_set_capability NAME on|off`."""
    standin_of(daemon)
    given = check(daemon, "migrate-set-capabilities", {"capabilities": [args]})
    return migration.migrate_set_capabilities(daemon, given)


def migrate_set_parameter(daemon: Daemon, args: JSONObject) -> None:
    """`migrate_set_parameter NAME VALUE`."""
    of, command = standin_of(daemon), "migrate-set-parameters"
    name, text = args["parameter"], args["value"]
    known = daemon.schema.commands[command].arguments
    kind = next((each.type.name for each in known.members if each.name == name), None)
    if kind is None:
        raise QMPError(f"invalid parameter value: {name}")
    if name == "block-bitmap-mapping":
        raise QMPError("The block-bitmap-mapping parameter can only be set through QMP")
    if kind == "[str]":
        of.set_migration_parameters({name: _shell_words(text)})
        return
    if kind in ("size", "uint8", "uint32"):
        # Of a bandwidth a number alone is one of MiB.
        in_mib = name in _IN_MIB and text[-1:].isdigit()
        size = parse_size(f"{text}M" if in_mib else text)
        if size is None:
            raise _no_size(name, kind, text)
        text = str(size)
    of.set_migration_parameters(_typed(daemon, command, {name: text}))


def _shell_words(text: str) -> list[str]:
    import shlex

    lexer: Any = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return [*lexer]
    except ValueError:
        raise QMPError(
            f"Text ended before matching quote was found for {lexer.state}. (The text was “{text}”)"
        ) from None


def _no_size(name: str, kind: str, text: str) -> QMPError:
    if name in _IN_MIB:
        return QMPError(f"Invalid size {text}")
    if kind != "size":
        return QMPError(f"Parameter '{name}' expects uint64")
    told = f"Parameter '{name}' expects a non-negative number below 2^64\n{SIZE_HINT}"
    return QMPError(told.replace("\n", "\r\n"))


def check(daemon: Daemon, command: str, arguments: JSONObject) -> JSONObject:
    """The arguments of a command of QMP, checked; raises `QMPError`."""
    try:
        return daemon.schema.checker(command)(arguments)
    except QMPError as error:
        if match := _NO_MEMBER.fullmatch(error.desc):
            raise QMPError(f"invalid parameter value: {match[1]}") from None
        raise


def _typed(daemon: Daemon, command: str, options: JSONObject) -> JSONObject:
    return daemon.schema.checker(command)(daemon.typed(command, options))


def _fits(daemon: Daemon, command: str, arguments: JSONObject) -> bool:
    """Whether a command that the stand-in knows takes these arguments."""
    standin_of(daemon)
    try:
        check(daemon, command, arguments)
    except QMPError:
        return False
    return True
