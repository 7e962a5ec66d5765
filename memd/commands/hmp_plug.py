"""The human monitor's words that plug in and out: `device_add`, `object_del` and so on.

What they print was observed on QEMU 10.0.2: nothing, or `Error: ` and why.
"""

from __future__ import annotations

import re
from typing import Any

from memd.commands import balloon as balloon_command
from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.option_text import pairs
from memd.standin.standin import StandIn

_NUMBER = re.compile(r"0x[0-9a-fA-F]+")


class Usage(Exception):
    """A line that is no use of a word.

    Args:
        text: what is printed first, "" for nothing.
        word: the word.
    """

    def __init__(self, text: str, word: str) -> None:
        lines = [text] * bool(text) + [f'Try "help {word}" for more information']
        super().__init__("".join(f"{line}\r\n" for line in lines))


def _options(text: str, implied: str) -> JSONObject:
    """`VALUE,KEY=VALUE,...`."""
    return {key: "on" if value is None else value for key, value in pairs(text, implied)}


async def device_add(daemon: Daemon, rest: str) -> None:
    """`device_add DRIVER,id=ID,...`."""
    from memd.config import DeviceOption
    from memd.devices.adding import add_device
    from memd.devices.arguments import arguments

    options = _options(rest, "driver")
    driver = options.get("driver")
    if type(driver) is not str or not driver:
        raise QMPError("Parameter 'driver' is missing")
    kind = daemon.tree.type_by_name(driver)
    await add_device(daemon.machine, arguments(DeviceOption("", False, options), kind))


def device_del(daemon: Daemon, rest: str) -> Any:
    """`device_del ID`."""
    return daemon.machine.del_device(rest)


async def object_add(daemon: Daemon, rest: str) -> None:
    """`object_add TYPE,id=ID,...`."""
    from memd.qapi.keyval import check_keyval

    kind = daemon.schema.commands["object-add"].arguments
    options = _options(rest, "qom-type")
    await daemon.tree.objects.create(check_keyval(kind, options))


def netdev_add(daemon: Daemon, rest: str) -> None:
    """`netdev_add TYPE,id=ID,...`."""
    from memd.qapi.keyval import check_keyval

    standin = _standin(daemon)
    options = _options(rest, "type")
    if standin.netdevs.find(str(options.get("id"))) is not None:
        # QEMU says why on its standard error.
        raise Usage("", "netdev_add")
    kind = daemon.schema.commands["netdev_add"].arguments
    checked = daemon.schema.checker("netdev_add")(check_keyval(kind, options))
    standin.netdevs.add(checked, lambda name: None)


def balloon(daemon: Daemon, rest: str) -> Any:
    """`balloon MIB`."""
    if not rest.isdecimal():
        end = f"invalid char '{rest[0]}' in" if rest else "unexpected end of"
        raise Usage(f"{end} expression", "balloon")
    balloon_command.balloon(daemon, {"value": int(rest) << 20})


def netdev_del(daemon: Daemon, rest: str) -> None:
    """`netdev_del ID`."""
    _standin(daemon).netdevs.delete(rest)


def sendkey(daemon: Daemon, rest: str) -> list[str]:
    """`sendkey KEY-KEY [MILLISECONDS]`: checked, and pressed nowhere."""
    keys, time = _words(rest, "sendkey", 2)
    if time and not time.isdecimal():
        raise Usage(f"invalid char '{time[0]}' in expression", "sendkey")
    for key in ["less"] if keys == "<" else keys.split("-"):
        if not _NUMBER.fullmatch(key) and not _fits(
            daemon, "send-key", {"keys": [{"type": "qcode", "data": key}]}
        ):
            return [f"invalid parameter: {key}"]
    return []


def watchdog_action(daemon: Daemon, rest: str) -> None:
    """`watchdog_action ACTION`."""
    (action,) = _words(rest, "watchdog_action", 1)
    if not _fits(daemon, "watchdog-set-action", {"action": action}):
        raise QMPError(f"invalid parameter value: {action}")
    daemon.actions["watchdog"] = action


def set_link(daemon: Daemon, rest: str) -> None:
    """`set_link NAME on|off`."""
    name, state = _words(rest, "set_link", 2)
    if state not in ("on", "off"):
        raise Usage("Expected 'on' or 'off'", "set_link")
    _standin(daemon).netdevs.set_link(name, state == "on")


def migrate_cancel(daemon: Daemon, rest: str) -> Any:
    """`migrate_cancel`."""
    return _standin(daemon).migration.cancel()


def _words(rest: str, word: str, most: int) -> list[str]:
    """The words after a word, "" for each that is missing of so many."""
    found = rest.split()
    if len(found) > most:
        raise Usage(f"{word}: extraneous characters at the end of line", word)
    return found + [""] * (most - len(found))


def _fits(daemon: Daemon, command: str, arguments: JSONObject) -> bool:
    """Whether a command that the stand-in knows takes these arguments."""
    _standin(daemon)
    try:
        daemon.schema.checker(command)(arguments)
    except QMPError:
        return False
    return True


async def chardev_remove(daemon: Daemon, rest: str) -> None:
    """`chardev-remove ID`."""
    await _standin(daemon).chardevs.remove(rest)


def _standin(daemon: Daemon) -> StandIn:
    if daemon.standin is None:
        raise QMPError("there is nothing of that kind: this is memd")
    return daemon.standin


async def object_del(daemon: Daemon, rest: str) -> None:
    """`object_del ID`."""
    await daemon.tree.objects.delete(rest)
