"""`-machine` and `-accel`: which machine it is to be, and what would run it.

There is no machine of any kind here but for its memory: of the properties
that QEMU's machines have, those about memory take effect. Texts and
their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from operator import attrgetter
from typing import Any

from memd.cli.keyval import HELP, parse_keyval
from memd.cli.opts import Opts, OptsList, Warn, parse_opts
from memd.cli.reading import Given, located
from memd.cli.report import Answered, CommandLineError
from memd.compat import Compat
from memd.config import Config, Report
from memd.devices.kinds import (
    FLASH,
    NONE,
    UNLISTED,
    MachineKind,
    find_kind,
    machine_kinds,
    recorded_kinds,
)
from memd.errors import QMPError, bad_type
from memd.json_types import JSONObject
from memd.qapi.keyval import SCALARS, visit_text
from memd.qapi.visit import visit_enum
from memd.qom.machine import check_value, machine_types, visit_low_half, words_of

_LEGACY = ("accel", "igd-passthru", "kernel-irqchip", "kvm-shadow-mem")
"""Names of what an accelerator has, not the machine."""

_HOLDERS = ("peripheral", "peripheral-anon", "unattached")
"""What is below a machine before its properties are set."""

_NO_OBJECT = {
    "boot": "Invalid parameter type for 'boot', expected: object",
    "memory": "Parameter 'memory' used inconsistently",
    "smp": "Invalid parameter type for 'smp', expected: object",
}
"""Properties with members, and what is said where a plain value is given."""

_BOOT = {
    **dict.fromkeys(("menu", "strict"), "bool"),
    **dict.fromkeys(("splash-time", "reboot-timeout"), "int64"),
    **dict.fromkeys(("order", "once", "splash"), "str"),
}

_BOOT_HELP = {name: "num" if kind == "int64" else kind for name, kind in _BOOT.items()}

_ARRAYS = ("CXLFixedMemoryWindow", "SgxEPC")

_ACCEL = OptsList("accel", "accel", None)

_SURE = ("tcg", "qtest")
"""The accelerators that every host has."""

_ACCELERATORS = {
    Compat.V10_0: ("kvm", "qtest", "tcg"),
    Compat.V11_1: ("kvm", "mshv", "nitro", "qtest", "tcg"),
}
"""The accelerators that can be requested. memd uses none, but says whether KVM is there."""


class MachineOptions:
    """The machine of a command line, and what would run it.

    Attributes:
        kind: which machine it is; `NONE` until `check_type` has found out.
        listed: gives the answer of a recorded QEMU to `query-machines`, if there is one.
    """

    def __init__(self) -> None:
        self._options: JSONObject = {}
        self._accels: list[tuple[Given, Opts]] = []
        self.kind = NONE
        self.listed: Callable[[], Sequence[JSONObject]] = tuple

    def take(self, given: Given, compat: Compat) -> None:
        """Take `-machine`; several add up.

        Raises:
            QMPError: it can't be read.
            Answered: it asks which machines or properties there are.
        """
        options, wants_help = parse_keyval(given.value, "type")
        _merge(self._options, {key.replace("_", "-"): value for key, value in options.items()})
        if wants_help:
            raise Answered(self._help(compat))

    def take_boot(self, given: Given) -> None:
        """Take `-boot`, which is `-machine boot.…`; raises `QMPError` or `Answered`."""
        options, wants_help = parse_keyval(given.value, "order")
        if wants_help:
            raise Answered(OptsList("boot-opts", None, _BOOT_HELP).describe())
        _merge(self._options, {"boot": options})

    def set(self, name: str, value: Any) -> None:
        """Set a property."""
        self._options[name] = value

    def has(self, name: str) -> bool:
        """Whether a property was given."""
        return name in self._options

    def text(self, name: str) -> str | None:
        """What a property was given as, None where it was not, or with members."""
        value = self._options.get(name)
        return value if isinstance(value, str) else None

    def take_members(self, name: str) -> JSONObject:
        """Remove and return the members given so far of a property that is used elsewhere."""
        return self._options.pop(name) if isinstance(self._options.get(name), dict) else {}

    def take_accel(self, given: Given, warn: Warn | None = None) -> None:
        """Take `-accel`.

        Args:
            given: it.
            warn: told of keys without a value.

        Raises:
            Answered: it asks which there are.
        """
        opts = parse_opts(_ACCEL, given.value, warn)
        kind = opts.get("accel")
        if kind is None or kind in HELP:
            raise Answered("Accelerators supported in QEMU binary:\ntcg\nkvm\n")
        self._accels.append((given, opts))

    def check_type(self, compat: Compat) -> None:
        """Find out which machine it is: where none is named, the recorded QEMU's default.

        Args:
            compat: whose machines.

        Raises:
            CommandLineError: there is none of that name, or no default.
        """
        name = self._options.get("type")
        if name == NONE.name:
            return
        listed = self.listed()
        if name is None:
            defaults = [row["name"] for row in listed if row.get("is-default")]
            if listed and not defaults:
                raise CommandLineError(
                    "No machine specified, and there is no default",
                    hint="Use -machine help to list supported machines",
                )
            name = defaults[0] if listed else NONE.name
        found = find_kind(name, compat, listed)
        if found is None and self._is_listed(name):
            raise CommandLineError(
                f'memd knows the machine "{name}" and has nothing of it',
                hint="Use -machine help to list the machines whose memory side it has",
            )
        if found is None:
            raise CommandLineError(
                f'unsupported machine type: "{name}"',
                hint="Use -machine help to list supported machines",
            )
        self.kind = found

    def choose_accelerators(self, report: Report, compat: Compat) -> list[str]:
        """The requested accelerators that are known, in their order.

        Raises:
            CommandLineError: there are none of those.
        """
        known = _ACCELERATORS[compat]
        found: list[str] = []
        failed = False
        named = self._options.get("accel")
        if named is not None:
            if self._accels:
                raise CommandLineError('The -accel and "-machine accel=" options are incompatible')
            for name in str(named).split(":"):
                if name in known:
                    found.append(name)
                elif name:
                    report.error(f"invalid accelerator {name}")
                    failed = True
        for given, opts in self._accels:
            kind = opts.get("accel") or ""
            if kind not in known:
                report.error(f"invalid accelerator {kind}", given.where)
                failed = True
                continue
            found.append(kind)
            if len(opts.pairs) > 1:
                from memd.cli.accel import check_accel

                with located(given.where):
                    check_accel(kind, opts, compat)
            if kind in _SURE:
                # None after it is looked at.
                break
        if not found and (self._accels or named is not None):
            raise CommandLineError(*([] if failed else ["no accelerator found"]))
        if failed:
            report.error(f"falling back to {'KVM' if found[0] == 'kvm' else found[0]}")
        return found

    def resolve(
        self,
        backends: Collection[str],
        objects: Mapping[str, str],
        audiodevs: Container[str],
        config: Config,
    ) -> JSONObject:
        """The properties that were given, by name and with values of their types.

        Args:
            backends: the ids of the memory backends that there will be.
            objects: the types of the objects that there are before the machine, by their ids.
            audiodevs: the ids of the audio backends that there will be.
            config: whose properties; its report is told of values that may not be meant so.

        Raises:
            QMPError: there is no such property, or it can't be that.
        """
        from memd.qapi.hash_order import object_order

        types = self._types(config.compat)
        values: JSONObject = {}
        for name in object_order(self._options):
            value = self._options[name]
            if name == "type" or (name in _LEGACY and isinstance(value, str)):
                continue
            values[name] = value = self._typed(name, value, types)
            check_value(name, value)
            _warn_of(name, value, config)
            if name in _CONFIDENTIAL:
                _check_confidential(name, value, objects)
            elif name == "pcspk-audiodev" and value not in audiodevs:
                raise QMPError(f"audiodev '{value}' not found")
        backend = values.get("memory-backend")
        if backend == "" and len(backends) == 1:
            # An empty path leads to the only one.
            (values["memory-backend"],) = backends
        elif backend is not None and backend.rpartition("/")[2] not in backends:
            raise QMPError(f"Memory backend '{backend}' not found")
        return values

    def _types(self, compat: Compat) -> dict[str, str]:
        """The types of the machine's properties, by their names."""
        machine, none = machine_types(compat)
        known = none if self.kind == NONE else machine
        types = {name: each.type for name, each in known.all_properties.items()}
        types |= {row[0]: row[1] for row in self.kind.properties}
        if self.kind.kind in ("q35", "pc"):
            types |= dict.fromkeys(FLASH, "string")
        return types

    def _typed(self, name: str, value: Any, types: Mapping[str, str]) -> Any:
        """A property's value of its type; raises `QMPError`."""
        if name in _NO_OBJECT:
            if not isinstance(value, dict):
                raise QMPError(_NO_OBJECT[name])
            return _boot(value)
        if name == "smp-cache":
            return _caches(value, self.kind.cache_levels)
        kind = types.get(name)
        if kind is None:
            what = "is not writable" if name in _HOLDERS else "not found"
            raise QMPError(f"Property '{self.kind.type_name}.{name}' {what}")
        return _value(kind, name, value)

    def _is_listed(self, name: str) -> bool:
        """Whether the recorded QEMU has a machine of that name."""
        return any(name == each["name"] for each in self.listed())

    def _help(self, compat: Compat) -> str:
        name = str(self._options.get("type", ""))
        recorded = self.listed()
        # With a name that no machine has, QEMU lists those that there are.
        if find_kind(name, compat, recorded) or self._is_listed(name):
            self.check_type(compat)
            from memd.cli.objects import object_type_help
            from memd.devices import register
            from memd.devices.machine_object import machine_type
            from memd.qom import Tree

            tree = Tree(compat)
            register(tree)
            listed = [row for row in self.kind.properties if row[0] not in UNLISTED]
            tree.add_type(machine_type(tree, self.kind._replace(properties=tuple(listed))))
            described = object_type_help(tree, self.kind.type_name)
            if described is not None:
                # QEMU 11.1 has it in the list of properties, but not here.
                lines = described.splitlines(keepends=True)
                return "".join(line for line in lines if not line.startswith("  spcr="))
        lines = []
        kinds = recorded_kinds(compat, recorded) if recorded else machine_kinds(compat)
        for kind in sorted(sorted(kinds, key=attrgetter("name"), reverse=True), key=_family):
            if kind.name != kind.kind and kind == find_kind(kind.kind, compat, recorded):
                lines.append(f"{kind.kind:<20} {kind.description} (alias of {kind.name})")
            told = " (default)" if kind.default else " (deprecated)" if kind.deprecated else ""
            lines.append(f"{kind.name:<20} {kind.description}{told}")
        return "Supported machines are:\n" + "".join(f"{line}\n" for line in lines)


def _warn_of(name: str, value: Any, config: Config) -> None:
    """Tell of the value of a property that may not be meant so."""
    if name == "memory-encryption" and config.compat is not Compat.V10_0:
        config.report.warning(f"{name} is deprecated, use confidential-guest-support instead")
    if name == "max-ram-below-4g" and value < 1 << 20:
        config.report.warning(
            f"Only {value} bytes of RAM below the 4GiB boundary,"
            "BIOS may not work with less than 1MiB"
        )


def _family(kind: MachineKind) -> str:
    """Where a machine stands in QEMU's list; of a family those with greater names come first."""
    return {"microvm": "0", "pc": "1", "q35": "2"}.get(kind.kind, kind.kind)


def _merge(held: JSONObject, given: JSONObject, above: str = "") -> None:
    """Add what is given to what is held: of a plain value the last counts, members add up."""
    for name, value in given.items():
        old = held.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value, f"{above}{name}.")
        elif old is None or (isinstance(old, str) and isinstance(value, str)):
            held[name] = value
        else:
            raise QMPError(f"Parameters '{above}{name}.*' used inconsistently")


def _caches(given: Any, levels: tuple[str, ...]) -> Any:
    """The value of `smp-cache`, whose names are text still."""
    from memd.qom.machine_structs import shared_caches, visit_cache
    from memd.qom.topology import NO_CACHES

    if not isinstance(given, list):
        raise bad_type("smp-cache", "array")
    visit = visit_cache(visit_text)
    caches = [visit(each, f"smp-cache.{index}") for index, each in enumerate(given)]
    return shared_caches(NO_CACHES, caches, levels)


def _boot(members: JSONObject) -> Any:
    """The value of `boot`, all of whose members are text still."""
    from memd.qapi.keyval import typed
    from memd.qom.machine_structs import visit_boot

    return visit_boot(typed(members, _BOOT, "boot"), "boot")


_CONFIDENTIAL = {
    "confidential-guest-support": "Device '{}' not found",
    "memory-encryption": "No such memory encryption object '{}'",
}
"""Properties that name an object which keeps memory from the host, and the error for none such."""

_KEEPS_FROM_HOST = ("sev-guest", "sev-snp-guest", "tdx-guest")


def _check_confidential(name: str, path: str, objects: Mapping[str, str]) -> None:
    """Raise `QMPError`: there is no such object, or no accelerator that supports it."""
    if not path and name == "confidential-guest-support":
        return
    kind = objects.get(path.removeprefix("/objects/"))
    if kind is None and path not in ("/machine", "machine", "/objects", "objects"):
        raise QMPError(_CONFIDENTIAL[name].format(path))
    if kind not in _KEEPS_FROM_HOST:
        raise bad_type("confidential-guest-support", "confidential-guest-support")
    if kind == "sev-snp-guest":
        raise QMPError(f"cannot set up private guest memory for {kind}: KVM required")
    raise QMPError(f"accelerator does not support confidential guest {kind}")


def _value(kind: str, name: str, text: Any) -> Any:
    """A property's value from its text."""
    if kind in _ARRAYS:
        raise bad_type(name, "array")
    words = words_of(name, kind)
    return (_VISITS.get(kind, visit_text) if words is None else visit_enum(words, visit_text))(
        text, name
    )


_VISITS = {**SCALARS, "int": visit_low_half(SCALARS["int"]), "uint64_t": SCALARS["uint64"]}
"""The visits of the types of properties, whose values are text."""
