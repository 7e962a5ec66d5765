"""Records a QEMU's catalogue: starts it, asks it all that it offers, and writes that down.

Some questions end a QEMU (an object that is made to be looked at crashes it);
then another is started, and what was asked is left out. Descriptions are left
out too: they are QEMU's prose.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from memd.client import Client
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qapi.schema import Schema, definitions
from memd.qapi.types import AlternateType, BuiltinType, EnumType, Type
from memd.standin.catalogue import LISTED, write_catalogue
from memd.standin.expressions import expressions
from memd.standin.specimens import Way, ways
from memd.standin.types import inner_names

_PATIENCE = 30.0

_STARTS = 3
"""How often a QEMU is started that does not answer its first command, or misreads it: on a busy
machine one in some thousand starts of 10.0.2 was seen to."""

_UNKNOWN = "memd-is-no-member"
"""A member that no type has: what has it is never executed."""

_ELSEWHERE = frozenset(
    {
        *("add-fd", "qom-list-types", "query-commands", "query-command-line-options"),
        *("query-cpu-definitions", "query-machines", "query-qmp-schema", "query-version"),
    }
)
"""Commands without arguments that have a section of their own, or need what is not here."""

_OF_THE_PROCESS = frozenset(
    {
        *("query-chardev", "query-cpus-fast", "query-iothreads", "query-kvm", "query-status"),
        *("query-yank", "x-query-jit", "x-query-opcount", "x-query-ramblock"),
    }
)
"""Commands that tell of this one process: its sockets, its threads, its addresses."""

_CHANGING = frozenset(
    {
        *("chardev", "cpus", "history", "iothreads", "jit", "network", "opcount", "ramblock"),
        *("sync-profile", "usb", "usernet"),
    }
)
"""Words of `info` that tell of this one process, or of devices that come and go."""

_OF_PARTS = frozenset({"mtree", "qom-tree", "qtree"})
"""Words that tell of all that a machine has, which is little where it is none."""

_SHORT = 1 << 13
"""Characters of what `info` tells; what is longer tells of each device."""

_DEVICE = re.compile(r'name "(?P<name>[^"]+)"(, bus (?P<bus>[^,]+))?(, alias "(?P<alias>[^"]+)")?')
"""A device in the monitor's list of them."""

_DESCRIPTION = re.compile(r', desc ".*"')

_WORD = re.compile(r"[a-z][\w-]*(\|[\w?-]+)*")
"""The names of a command of the human monitor, in a line of its help."""

_QUIT = '{"execute": "qmp_capabilities"} {"execute": "quit"}'
_UNUSED = re.compile(r" global (\S+)\.memd-is-no-member=1 not used")

_LARGE = 1 << 62
_MOMENT = 2.0
_AT_ONCE = 8
_WITH_BUSES = (
    *("-m", "256M,slots=4,maxmem=4G", "-device", "virtio-serial-pci", "-device", "qemu-xhci"),
    *("-device", "virtio-scsi-pci", "-device", "intel-hda", "-device", "usb-ccid"),
)
"""Options that bring buses for devices."""

_AT_HAND = (
    *("-blockdev", "null-co,node-name=n0"),
    *("-object", "memory-backend-ram,id=m0,size=128M", "-audiodev", "none,id=a0"),
    *("-object", "cryptodev-backend-builtin,id=c0", "-fsdev", "synth,id=f0"),
)
_NEEDED = {
    "drive": ("drive", "n0"),
    "serial": ("serial", "1"),
    "chassis not": ("chassis_nr", "9"),
    "memdev": ("memdev", "m0"),
    "audiodev": ("audiodev", "a0"),
    "cryptodev": ("cryptodev", "c0"),
    "fsdev": ("fsdev", "f0"),
    "mount_tag": ("mount_tag", "f0"),
}
"""Words of complaints about something that a device lacks, and the property that gives it."""

PLACE = ("bus", "slot", "function", "qdev_id")
"""Members of a row of query-pci that tell of a device's place and name."""

_NARROW = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


_BEFORE_THE_START = (
    *("PCI", "ISA", "IDE", "SCSI", "usb-bus", "HDA", "virtio-serial-bus", "System", None),
)
"""Buses whose devices are plugged in before the start where they can't be later; None is that of
devices on no bus."""

_NOT_MIGRATABLE = "--only-migratable"
"""A word of what a device says that is not migratable and has to be."""

_OF_ONE = frozenset(
    {
        *("type", "realized", "hotplugged", "hotpluggable", "addr", "legacy-addr", "bootindex"),
        *("bootindexA", "bootindexB", "channel", "scsi-id", "lun", "unit", "nr", "index", "irq"),
        *("iobase", "mac", "fp_start_macaddr", "switch_id", "serial", "device_id", "sas_address"),
        *("guid", "memaddr", "date", "osk", "attached", "guest-stats"),
    }
)
"""Properties that tell of this one device and its place, of the clock, or of no memory at all."""


class Plugged(NamedTuple):
    """What is known of a device that was plugged in with nothing given but its type.

    Attributes:
        says: the complaint, "" where there was none, None where there was no answer.
        comes: whether it may come while the machine runs, as far as its type goes.
        bars: what it says where it has to be migratable and is not, else "".
        pci: its row of query-pci without its place, None where it has none.
        values: its properties' values.
        buses: the names and types of the buses in it, but those for PCI devices, and whether
            devices come and go on them; "@" in a name stands for its id.
    """

    says: str | None
    comes: bool = True
    bars: str = ""
    pci: JSON = None
    values: JSONObject = {}  # noqa: RUF012
    buses: Sequence[tuple[str, str, bool]] = ()


class RecordingError(Exception):
    """A binary that can't be recorded; the text says why."""


def record(binary: str, path: str) -> None:
    """Record a QEMU's catalogue.

    Args:
        binary: the QEMU.
        path: the file to write.

    Raises:
        RecordingError: it does not start, or does not answer as a QEMU.
        OSError: the file can't be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="memd-") as directory:
            _record(_Binary(binary, directory), path)
    except (QMPError, ConnectionError, TimeoutError, KeyError, TypeError) as error:
        raise RecordingError(f"{binary}: {error}") from error


class _Binary:
    """A QEMU that is started anew where it ended."""

    def __init__(self, binary: str, directory: str) -> None:
        self._binary = binary
        self._directory = directory
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def run(self, machine: str, *more: str) -> Iterator[Client]:
        """A paused one, without a guest."""
        address = os.path.join(self._directory, f"{next(self._numbers)}.sock")
        command = [
            *(self._binary, "-S", "-no-user-config", "-nodefaults", "-display", "none"),
            *("-machine", machine, "-accel", "tcg", *more),
            *("-qmp", f"unix:{address},server=on,wait=off"),
        ]
        for left in range(_STARTS - 1, -1, -1):
            with tempfile.TemporaryFile() as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory
                )
                try:
                    client = self._connect(process, address, log)
                    break
                except (QMPError, TimeoutError):
                    _end(process)
                    if not left:
                        raise
                except BaseException:
                    _end(process)
                    raise
        try:
            with client:
                yield client
        finally:
            _end(process)

    def _connect(self, process: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> Client:
        """Connect as soon as it listens."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return Client(address, timeout=_PATIENCE)
            except (FileNotFoundError, ConnectionError):
                # It may also end, and say why, after it has listened.
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip()
                    text = f"{self._binary} does not start: {said}"
                    raise RecordingError(text) from None
                time.sleep(0.01)

    def list(self, option: str) -> str:
        """What there is for an option, without descriptions."""
        command = [self._binary, "-machine", "q35", f"-{option}", "help"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE
        )
        # What follows the list of displays is prose.
        return _DESCRIPTION.sub("", done.stdout.partition("\nSome ")[0])

    def staying(self, drivers: Sequence[str]) -> set[str]:
        """The devices that can't come later: what `-global` says of others may be used yet."""
        # One of migration is made by itself, and would say that it has no such property.
        named = [each for each in drivers if each != "migration"]
        given = [f"driver={each},property={_UNKNOWN},value=1" for each in named]
        command = [
            *(self._binary, "-S", "-nodefaults", "-display", "none", "-machine", "none"),
            *("-qmp", "stdio", *(word for each in given for word in ("-global", each))),
        ]
        done = subprocess.run(
            command, input=_QUIT, capture_output=True, text=True, timeout=_PATIENCE
        )
        return set(_UNUSED.findall(done.stderr))

    def plug_each(self, buses: Mapping[str, str | None]) -> dict[str, Plugged]:
        """The complaint of each device that is plugged in with nothing given but its type.

        Args:
            buses: the devices, each with the type of bus that it is for, None for none.

        Returns:
            what is known of each.
        """
        # QEMU sleeps 50 ms over each that it refuses.
        every = list(buses.items())
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            parts = pool.map(self._plug, (every[at::_AT_ONCE] for at in range(_AT_ONCE)))
        return {driver: said for part in parts for driver, said in part.items()}

    def _plug(self, devices: Sequence[tuple[str, str | None]]) -> dict[str, Plugged]:
        said = self._plug_into(devices, "-only-migratable")
        barred = [each for each in devices if _NOT_MIGRATABLE in (said[each[0]].says or "")]
        again = self._plug_into(barred)
        return said | {
            name: each._replace(bars=said[name].says or "") for name, each in again.items()
        }

    def _plug_into(
        self, devices: Sequence[tuple[str, str | None]], *options: str
    ) -> dict[str, Plugged]:
        said: dict[str, Plugged] = {}
        todo = list(devices)
        while todo:
            with self.run("pc", *_WITH_BUSES, *options) as client:
                client.set_timeout(_MOMENT)
                first = len(todo)
                while todo:
                    driver, bus = todo[0]
                    said[driver] = Plugged(None)
                    id = f"plugged{len(said)}"
                    try:
                        client.execute("device_add", {"driver": driver, "id": id})
                        said[driver] = _plugged(client, id)
                    except QMPError as error:
                        said[driver] = (
                            self._plug_first(driver, *options)
                            if bus in _BEFORE_THE_START
                            else Plugged(error.desc)
                        )._replace(
                            comes=error.desc != f"Device '{driver}' does not support hotplugging"
                        )
                        if "no slot/function available" in error.desc and len(todo) < first:
                            # Another one has the room.
                            break
                    except (ConnectionError, TimeoutError):
                        todo.pop(0)
                        break
                    todo.pop(0)
        return said

    def _plug_first(self, driver: str, *options: str) -> Plugged:
        """A device that is plugged in before the start, if it can be."""
        given: dict[str, str] = {}
        complaint: str | None = None
        said = ""
        while True:
            given |= {name: value for word, (name, value) in _NEEDED.items() if word in said}
            device = ",".join((f"{driver},id=plugged0", *map("=".join, given.items())))
            before = said
            try:
                with self.run(
                    "q35", *_WITH_BUSES, *_AT_HAND, *options, "-device", device
                ) as client:
                    found = _plugged(client, "plugged0")
                    left = {name: found.values[name] for name in found.values if name not in given}
                    return found._replace(says=complaint or "", values=left)
            except RecordingError as error:
                _, sign, rest = str(error).rpartition(f"-device {device}: ")
                said = rest.partition("\n")[0] if sign else ""
                complaint = said if complaint is None else complaint
            except (QMPError, ConnectionError, TimeoutError):
                return Plugged(complaint)
            if not any(word in said and word not in before for word in _NEEDED):
                return Plugged(said if _NOT_MIGRATABLE in said else complaint)

    def states(self) -> dict[str, str]:
        """What the state of each type of device is called in a stream of migration."""
        path = os.path.join(self._directory, "states")
        command = [self._binary, "-machine", "q35", "-display", "none", "-dump-vmstate", path]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE)
        with open(path, encoding="utf-8") as file:
            return {
                name: each["Description"]["name"]
                for name, each in json.load(file).items()
                if "Description" in each
            }

    def ask_each(
        self, machine: str, questions: Sequence[tuple[str, JSONObject | None]]
    ) -> Iterator[JSON | QMPError | None]:
        """The answers, in order; None where a question ended the QEMU."""
        at = 0
        while at < len(questions):
            with self.run(machine) as client:
                while at < len(questions):
                    command, arguments = questions[at]
                    at += 1
                    try:
                        yield client.execute(command, arguments)
                    except QMPError as error:
                        yield error
                    except ConnectionError:
                        yield None
                        break


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _record(binary: _Binary, path: str) -> None:
    sections: JSONObject = {}
    with binary.run("none") as client:
        release = client.execute("query-version")["qemu"]
        sections["machines"] = client.execute("query-machines")
        sections["options"] = _options(client)
        schema = _schema(client)
        cpus = client.execute("query-cpu-definitions")
        sections["cpus"] = {each["name"]: each for each in cpus}
        sections |= _expansions(client, [*sections["cpus"]])
        sections["monitor"] = _monitor(client)
    with binary.run("none", "--preconfig") as client:
        preconfig = _preconfig(client, schema["entries"])
    sections["schema"] = definitions(expressions(**schema, preconfig=preconfig), ())
    sections["lists"] = {name: binary.list(name) for name in LISTED}
    sections["types"], sections["rows"] = _types(binary)
    sections["devices"] = _devices(binary, sections["types"], sections["rows"])
    questions = [(name, None) for name in _unasked(schema)]
    sections["answers"] = {
        machine: {
            name: _answer(answer)
            for (name, _), answer in zip(
                questions, binary.ask_each(machine, questions), strict=True
            )
            if answer is not None
        }
        | _told(binary, machine, sections["monitor"]["info"])
        for machine in ("none", "q35", "pc", "isapc", "microvm")
    }
    version = (release["major"], release["minor"], release["micro"])
    write_catalogue(path, version, sections)


def _told(binary: _Binary, machine: str, words: list[list[str]]) -> JSONObject:
    """What the human monitor's `info` tells of a machine, where that is no long list."""
    left_out = _CHANGING if machine == "none" else _CHANGING | _OF_PARTS
    names = [f"info {each[0]}" for each in words if each[0] not in left_out]
    questions = [("human-monitor-command", {"command-line": name}) for name in names]
    asked = zip(names, binary.ask_each(machine, [*questions]), strict=True)
    return {
        name: _answer(text) for name, text in asked if isinstance(text, str) and len(text) <= _SHORT
    }


def _answer(answer: JSON | QMPError) -> JSON:
    if isinstance(answer, QMPError):
        return {"error": {"class": answer.error_class, "desc": answer.desc}}
    return {"return": answer}


def _options(client: Client) -> JSON:
    """Options and their parameters, without what the help says of them."""
    return {
        option["option"]: {
            "option": option["option"],
            "parameters": [
                {name: value for name, value in each.items() if name != "help"}
                for each in option["parameters"]
            ],
        }
        for option in client.execute("query-command-line-options")
    }


def _monitor(client: Client) -> JSON:
    """The human monitor's words, with their short forms, and those of its `info`."""

    def words(text: str) -> list[list[str]]:
        # A line that goes on with the one before begins with a space or a bracket.
        found = (_WORD.match(line.removeprefix("info ")) for line in text.splitlines())
        return [match[0].split("|") for match in found if match is not None]

    ask = "human-monitor-command"
    return {
        "commands": words(client.execute(ask, {"command-line": "help"})),
        "info": words(client.execute(ask, {"command-line": "help info"})),
    }


def _expansions(client: Client, names: Sequence[str]) -> JSONObject:
    """What each CPU model comes to, as differences from the first of its kind, the base."""
    bases: JSONObject = {}
    expansions: JSONObject = {"bases": bases}
    for kind in ("static", "full"):
        models: JSONObject = {}
        base: JSONObject | None = None
        for name in sorted(names):
            try:
                model = client.execute(
                    "query-cpu-model-expansion", {"type": kind, "model": {"name": name}}
                )["model"]
            except QMPError as error:
                models[name] = {"error": _answer(error)["error"]}
                continue
            values = model.get("props", {})
            base = values if base is None else base
            models[name] = {
                "name": model["name"],
                "set": {each: value for each, value in values.items() if base.get(each) != value},
                "unset": [each for each in base if each not in values],
            }
        expansions[kind], bases[kind] = models, base
    return expansions


def _types(binary: _Binary) -> tuple[JSONObject, list[JSON]]:
    """Types, what each has that the one above it has not, and the rows of all properties."""
    with binary.run("none") as client:
        listed = client.execute("qom-list-types", {"abstract": True})
        above = {each["name"]: each.get("parent") for each in listed}
        implementers = {
            name: _names(client.execute("qom-list-types", {"implements": name, "abstract": True}))
            for name in sorted(above)
            if _is_interface(name, above)
        }
    names = sorted(above)
    questions = [("qom-list-properties", {"typename": name}) for name in names]
    asked = dict(zip(names, binary.ask_each("none", questions), strict=True))
    properties = {
        name: {each["name"]: _row(each) for each in answer} if isinstance(answer, list) else None
        for name, answer in asked.items()
    }
    table: list[JSON] = []
    numbers: dict[str, int] = {}
    abstract = {each["name"] for each in listed if each.get("abstract")}
    found: JSONObject = {}
    for name in names:
        own, inherited = properties[name] or {}, properties.get(above[name] or "") or {}
        added = []
        for each, row in own.items():
            if inherited.get(each) != row:
                number = numbers.setdefault(repr(row), len(table))
                if number == len(table):
                    table.append(row)
                added.append(number)
        found[name] = {
            "parent": above[name],
            "abstract": name in abstract,
            "added": added,
            "interfaces": [],
            # What ended the QEMU is as unknown as what it would not tell.
            "removed": None if properties[name] is None else sorted(set(inherited) - set(own)),
        }
    for interface, those in implementers.items():
        for name in those:
            if name != interface and above[name] not in those:
                found[name]["interfaces"].append(interface)
    return found, table


def _devices(binary: _Binary, types: JSONObject, rows: list[list[JSON]]) -> JSON:
    """The bus, the alias, the first complaint of each device, and what it decides by itself.

    Args:
        types: each type, with the numbers of its properties among `rows`.
    """

    def defaults(name: str | None) -> JSONObject:
        if name is None:
            return {}
        own = (rows[number] for number in types[name]["added"])
        return defaults(types[name]["parent"]) | {row[0]: row[2] for row in own if len(row) == 3}

    with binary.run("none") as client:
        text = client.execute("human-monitor-command", {"command-line": "info qdm"})
    found: JSONObject = {}
    for line in text.splitlines():
        match = _DEVICE.match(line)
        if match is not None:
            found[match["name"]] = {
                "bus": match["bus"],
                "alias": match["alias"],
                # Those that come with a machine, and cannot be asked for.
                "user": not line.endswith(", no-user"),
            }
    staying = binary.staying(list(found))
    said = binary.plug_each(
        {name: each["bus"] for name, each in found.items() if each["user"] and name[-4:] != "-cpu"}
    )
    states = binary.states()
    for name, each in found.items():
        known = said.get(name, Plugged(None))
        each["says"], each["pci"], each["buses"] = known.says, known.pci, known.buses
        each["hotplug"] = name not in staying and known.comes
        parts = (name, *inner_names(name))
        own, _, blocker = known.bars.partition(" for: ")
        each["state"] = (
            next(filter(None, map(states.get, parts)), name) if own and not blocker else None
        )
        each["blocker"] = blocker or None
        unset = defaults(name)
        # A property without a default is empty, or nothing.
        each["values"] = {
            key: value
            for key, value in known.values.items()
            if (value or key in unset) and value != unset.get(key)
        }
    return found


def _plugged(client: Client, id: str) -> Plugged:
    """What there is to know of a device that is plugged in."""
    return Plugged(
        "", pci=_pci(client, id), values=_values(client, id), buses=sorted(_buses(client, id))
    )


def _buses(client: Client, id: str) -> Iterator[tuple[str, str, bool]]:
    buses, pci = (
        _names(client.execute("qom-list-types", {"implements": each})) for each in ("bus", "PCI")
    )
    # A virtio device's own buses are in its inner half.
    for half in ("", "/virtio-backend"):
        path = f"/machine/peripheral/{id}{half}"
        with contextlib.suppress(QMPError):
            for each in client.execute("qom-list", {"path": path}):
                kind = each["type"].removeprefix("child<").removesuffix(">")
                if kind in buses - pci:
                    asked = {"path": f"{path}/{each['name']}", "property": "hotplug-handler"}
                    comes = client.execute("qom-get", asked) != ""
                    yield each["name"].replace(id, "@"), kind, comes


def _pci(client: Client, id: str) -> JSON:
    """The row of a device in query-pci, wherever it is; None for none."""
    for bus in client.execute("query-pci"):
        for each in bus["devices"]:
            if each["qdev_id"] == id:
                return {name: value for name, value in each.items() if name not in PLACE}
    return None


def _values(client: Client, id: str) -> JSONObject:
    """The values of a device's properties that can be read."""
    path = f"/machine/peripheral/{id}"
    found = {}
    for each in client.execute("qom-list", {"path": path}):
        if not each["type"].startswith(("child<", "link<")) and each["name"] not in _OF_ONE:
            with contextlib.suppress(QMPError):
                asked = {"path": path, "property": each["name"]}
                found[each["name"]] = client.execute("qom-get", asked)
    return found


def _names(listed: list[JSONObject]) -> set[str]:
    return {each["name"] for each in listed}


def _is_interface(name: str | None, above: dict[str, str | None]) -> bool:
    while name is not None:
        if name == "interface":
            return True
        name = above.get(name)
    return False


def _row(told: JSONObject) -> list[JSON]:
    """A property: its name, its type, and its default where there is one."""
    row = [told["name"], told["type"]]
    return [*row, told["default-value"]] if "default-value" in told else row


def _unasked(schema: JSON) -> list[str]:
    """The commands that need no arguments and return something."""
    by_name = {each["name"]: each for each in schema["entries"] if each["meta-type"] == "object"}
    found = []
    for each in schema["entries"]:
        if each["meta-type"] != "command" or each["name"] in _ELSEWHERE | _OF_THE_PROCESS:
            continue
        returned = by_name.get(each["ret-type"])
        if returned is not None and not returned["members"]:
            continue
        if all("default" in member for member in by_name[each["arg-type"]]["members"]):
            found.append(each["name"])
    return found


def _preconfig(client: Client, entries: list[JSONObject]) -> list[str]:
    """The commands that can be run before x-exit-preconfig."""
    found = []
    for each in entries:
        if each["meta-type"] == "command":
            try:
                client.execute(each["name"], {_UNKNOWN: None})
            except QMPError as error:
                if "permitted only after machine initialization" not in error.desc:
                    found.append(each["name"])
    return found


def _schema(client: Client) -> JSON:
    """The schema, and what query-qmp-schema leaves out of it, found out by asking wrongly."""
    entries = client.execute("query-qmp-schema")
    schema = Schema(definitions(expressions(entries, {}, {}, [], []), ()), ())
    widths: dict[str, str] = {}
    alternates: dict[str, str] = {}
    unchecked = []
    seen = set()
    for command in schema.commands.values():
        for way in ways(command):
            if command.name in unchecked:
                break
            key = f"{way.owner.name}.{way.member.name}"
            if key in seen and not way.listed:
                continue
            seen.add(key)
            if isinstance(way.type, BuiltinType) and way.type.name == "int":
                widths[key] = _width(client, command.name, way)
            elif isinstance(way.type, AlternateType) and way.type.name not in alternates:
                alternates[way.type.name] = _alternate(client, command.name, way)
            elif way.type.name == "str" and not way.listed and way.siblings:
                text = _complaint(client, command.name, way, 5)
                if not text.startswith("Invalid parameter type"):
                    unchecked.append(command.name)
    return {
        "entries": entries,
        "widths": {key: width for key, width in widths.items() if width != "int"},
        "alternates": alternates,
        "unchecked": unchecked,
    }


def _complaint(client: Client, command: str, way: Way, value: JSON) -> str:
    """The complaint of a QEMU about a value at the end of a way; nothing is executed."""
    try:
        client.execute(command, {**way.arguments(value), _UNKNOWN: None})
    except QMPError as error:
        return error.desc
    raise KeyError(f"{command} takes what it does not know")


def _width(client: Client, command: str, way: Way) -> str:
    """The kind of integer that a member is."""
    text = _complaint(client, command, way, _LARGE)
    for narrow in _NARROW:
        if text.endswith(f" expects {narrow}_t"):
            return narrow
    text = _complaint(client, command, way, "x")
    return "uint64" if text.endswith(" expects uint64") else "int"


def _alternate(client: Client, command: str, way: Way) -> str:
    """An alternate's name, which only a complaint gives."""
    assert isinstance(way.type, AlternateType)
    kinds = {_kind(each) for each in way.type.alternatives.values()}
    wrong = {"bool": True, "str": "x", "null": None, "int": 1}
    value = next(value for kind, value in wrong.items() if kind not in kinds)
    return _complaint(client, command, way, value).rpartition("expected: ")[2]


def _kind(type_: Type) -> str:
    if isinstance(type_, BuiltinType):
        return type_.name
    return "str" if isinstance(type_, EnumType) else type_.name
