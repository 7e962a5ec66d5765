"""Options of a QEMU's command line that a stand-in registers: as the command of their name would.

-netdev tap,id=n0,fd=5      netdev_add
-blockdev {"driver": …}     blockdev-add
-chardev file,id=c0,path=P  chardev-add
-serial chardev:c0          a use of the character device
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memd.cli.chardev import BACKENDS, chardev_list, parse_device
from memd.cli.keyval import parse_keyval
from memd.cli.opts import Opts, parse_opts
from memd.config import Config, StartCommand
from memd.errors import QMPError
from memd.json_types import JSONObject

if TYPE_CHECKING:
    from memd.cli.options import CommandLine
    from memd.cli.reading import Given

_ORDER = ("logfile", "chardev-add", "object-add", "blockdev-add", "netdev_add", "use-chardev")
"""What is registered before what: QEMU takes options by kind, not as they were written."""

_COMMANDS = {"netdev": ("netdev_add", "type"), "blockdev": ("blockdev-add", "driver")}
_LOG = re.compile(r",log(file|append)=((?:,,|[^,])*)")
_ALIASES = {"tty": "serial", "parport": "parallel"}
_DEVICES = ("serial", "parallel", "pipe")
_KINDS = (
    *("file", "pty", "ringbuf", "mux", "spicevmc", "serial", "parallel", "pipe", "tty"),
    *("parport", "braille", "msmouse", "qemu-vdagent", "testdev", "vc", "wctablet"),
)
_NAMES_ALONE = ("null", "braille", "msmouse", "qemu-vdagent", "stdio", "testdev", "vc", "wctablet")


def register_option(line: CommandLine, given: Given) -> None:
    """Take `-netdev` or `-blockdev`."""
    command, implied = _COMMANDS[given.name]
    if given.value.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        options = parse_json_argument(given.value, line.config.compat)
        line.config.startup.append(StartCommand(command, options, True, given.where))
        return
    options = parse_keyval(given.value, implied)[0]
    line.config.startup.append(StartCommand(command, options, False, given.where))


def take_nic(line: CommandLine, given: Given) -> None:
    """Take `-nic`: its network backend is registered, without the device."""
    options = parse_keyval(given.value, "type")[0]
    if options.get("type") == "none":
        return
    for name in ("addr", "mac", "macaddr", "model", "vectors"):
        options.pop(name, None)
    options.setdefault("id", f"nic{len(line.config.startup)}")
    line.config.startup.append(StartCommand("netdev_add", options, False, given.where))


def take_incoming(line: CommandLine, given: Given) -> None:
    """Take `-incoming`: how a machine is awaited that migrates; raises `QMPError`."""
    value, command = given.value, "migrate-incoming"
    options: JSONObject = {}
    if value == "defer":
        command = "defer"
    elif value.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        options = {"channels": [parse_json_argument(value, line.config.compat)]}
    elif ":" in value:
        options = {"uri": value}
    elif value:
        raise QMPError(f"Parameter 'channel-type' does not accept value '{value}'")
    else:
        raise QMPError("Parameter 'channel-type' is missing")
    line.config.incoming = StartCommand(command, options, True, given.where)


def take_object(line: CommandLine, given: Given) -> bool:
    """Take `-object` of a type that is only known; False for any other, right or wrong."""
    is_json = given.value.startswith("{")
    try:
        if is_json:
            from memd.cli.json_argument import parse_json_argument

            options = parse_json_argument(given.value, line.config.compat)
        else:
            options = parse_keyval(given.value, "qom-type")[0]
    except QMPError:
        return False
    kind = options.get("qom-type")
    if not isinstance(kind, str) or "help" in options or not _is_only_known(kind, line.config):
        return False
    line.config.startup.append(StartCommand("object-add", options, is_json, given.where))
    return True


def _is_only_known(kind: str, config: Config) -> bool:
    """Whether it is a type of objects of the catalogue's that memd has none of."""
    from memd.qapi import load_schema

    ours = load_schema(config.compat).commands["object-add"].arguments.branches
    if kind in ours or kind == "monitor-qmp":
        return False
    from memd.standin.catalogue import Catalogue, packaged
    from memd.standin.schema import standin_schema

    catalogue = Catalogue(config.catalogue or packaged(config.compat))
    known = standin_schema(catalogue, config.compat, test=False)
    return kind in known.commands["object-add"].arguments.branches


def in_order(commands: list[StartCommand]) -> list[StartCommand]:
    """What is registered at the start, in QEMU's order."""
    return sorted(commands, key=lambda each: _ORDER.index(each.command))


def take_chardev(line: CommandLine, given: Given) -> bool:
    """Take `-chardev` of a kind that no monitor sits on; False for one that may be under one.

    A log file is made in any case; nothing is said that could come into it.
    """
    kind = given.value.partition(",")[0].removeprefix("backend=")
    if kind in BACKENDS or kind not in _KINDS:
        _take_log(line, given)
        return False
    opts = parse_opts(chardev_list(line.config.compat), given.value)
    if opts.id is None:
        raise QMPError("chardev: no id specified")
    _add(line, opts.id, opts, given)
    return True


def _take_log(line: CommandLine, given: Given) -> None:
    log = {match[1]: match[2].replace(",,", ",") for match in _LOG.finditer(given.value)}
    if "file" in log:
        given.value = _LOG.sub("", given.value)
        options = {"logfile": log["file"], "logappend": log.get("append") == "on"}
        line.config.startup.append(StartCommand("logfile", options, True, given.where))


def take_port(line: CommandLine, given: Given) -> None:
    """Take `-serial` or `-parallel`."""
    value = given.value.removeprefix("mon:")
    if value in ("none", "null", "vc", "stdio"):
        return
    if value.startswith("chardev:"):
        options = {"id": value.removeprefix("chardev:")}
        line.config.startup.append(StartCommand("use-chardev", options, True, given.where))
        return
    number = sum(each.command == "chardev-add" for each in line.config.startup)
    id = f"{given.name}{number}"
    opts = Opts(id)
    if value == "pty":
        opts.pairs.append(("backend", "pty"))
    elif value.startswith(("file:", "pipe:")):
        kind, _, path = value.partition(":")
        opts.pairs += [("backend", kind), ("path", path)]
    else:
        opts = parse_device(value, chardev_list(line.config.compat))
    _add(line, id, opts, given)
    options = {"id": id}
    line.config.startup.append(StartCommand("use-chardev", options, True, given.where))


def _add(line: CommandLine, id: str, opts: Opts, given: Given) -> None:
    backend = {"id": id, "backend": _backend(id, opts)}
    line.config.startup.append(StartCommand("chardev-add", backend, True, given.where))


def _backend(id: str, opts: Opts) -> JSONObject:
    """QAPI's `ChardevBackend` of options."""
    given = opts.get("backend") or ""
    kind = _ALIASES.get(given, given)
    data: JSONObject = {}
    if opts.get("logfile") is not None:
        data["logfile"] = opts.get("logfile")
        data["logappend"] = opts.switch("logappend") or False
    path = opts.get("path")
    if kind in ("file", *_DEVICES):
        if path is None:
            raise QMPError(f"chardev: {given}: no filename given")
        data["out" if kind == "file" else "device"] = path
        if kind == "file":
            data["append"] = opts.switch("append") or False
            if opts.get("input-path") is not None:
                data["in"] = opts.get("input-path")
    elif kind == "ringbuf":
        size = opts.number("size")
        if size is not None:
            data["size"] = size
    elif kind == "mux":
        data["chardev"] = opts.get("chardev") or ""
    elif kind == "spicevmc":
        data["type"] = opts.get("name") or ""
    elif kind == "socket":
        data["server"] = opts.switch("server") or False
        if data["server"]:
            data["wait"] = False
        data["addr"] = (
            {"type": "unix", "data": {"path": path}}
            if path is not None
            else {
                "type": "inet",
                "data": {"host": opts.get("host") or "", "port": opts.get("port") or ""},
            }
        )
    elif kind not in ("pty", *_NAMES_ALONE):
        raise QMPError(f"'{given}' is not a valid char driver name")
    return {"type": kind, "data": data}
