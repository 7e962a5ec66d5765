"""`-machine` and `-accel`, where the only machine is none at all.

Texts and their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from memd.cli.keyval import HELP, parse_keyval
from memd.cli.reading import Given
from memd.cli.report import Answered, CommandLineError, Reporter
from memd.compat import Compat

_PROPERTIES = (
    *("append", "aux-ram-share", "boot", "confidential-guest-support", "dt-compatible", "dtb"),
    *("dump-guest-core", "dumpdtb", "firmware", "graphics", "hmat", "initrd", "kernel"),
    *("mem-merge", "memory", "memory-backend", "memory-encryption", "phandle-start", "shim"),
    *("smp", "spcr", "suppress-vmdesc", "usb"),
)
_SWITCHES = (
    *("aux-ram-share", "dump-guest-core", "graphics", "hmat", "mem-merge", "spcr"),
    *("suppress-vmdesc", "usb"),
)

_ACCELERATORS = {
    Compat.V10_0: ("kvm", "qtest", "tcg"),
    Compat.V11_1: ("kvm", "mshv", "nitro", "qtest", "tcg"),
}
"""Those that can be asked for. memd uses none, but says whether KVM is there."""


class Machine:
    """The machine of a command line, and what would run it."""

    __slots__ = ("_accels", "_options")

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._accels: list[Given] = []

    def take(self, given: Given, compat: Compat) -> None:
        """Take `-machine`; several add up.

        Raises:
            QMPError: it can't be read.
            Answered: it asks which machines or properties there are.
        """
        options, wants_help = parse_keyval(given.value, "type")
        self._options.update(options)
        if wants_help:
            raise Answered(self._help(compat))

    def take_accel(self, given: Given) -> None:
        """Take `-accel`.

        Raises:
            Answered: it asks which there are.
        """
        if given.value in HELP:
            raise Answered("Accelerators supported in QEMU binary:\ntcg\nkvm\n")
        self._accels.append(given)

    def check_type(self) -> None:
        """Raise `CommandLineError` unless it is none."""
        name = self._options.get("type") or "none"
        if name != "none":
            raise CommandLineError(
                f'unsupported machine type: "{name}"',
                hint="Use -machine help to list supported machines",
            )

    def choose_accelerators(self, report: Reporter, compat: Compat) -> list[str]:
        """Those that are asked for and there might be, the first first.

        Raises:
            CommandLineError: there are none of those.
        """
        asked = [(given.value.split(",")[0], given.where) for given in self._accels]
        named = self._options.get("accel")
        if named is not None:
            if asked:
                raise CommandLineError('The -accel and "-machine accel=" options are incompatible')
            asked = [(name, "") for name in str(named).split(":")]
        found = [name for name, _where in asked if name in _ACCELERATORS[compat]]
        unknown = [(name, where) for name, where in asked if name and name not in found]
        for name, where in unknown:
            report.error(f"invalid accelerator {name}", where)
        if asked and not found:
            raise CommandLineError(*([] if unknown else ["no accelerator found"]))
        if unknown:
            report.error(f"falling back to {'KVM' if found[0] == 'kvm' else found[0]}")
        return found

    def check_properties(self, objects: Container[str]) -> None:
        """Raise `CommandLineError` for a property that can't be set so.

        Args:
            objects: the ids of those that there will be.
        """
        from memd.qapi.numbers import parse_switch

        for name, value in self._options.items():
            if name in ("type", "accel"):
                continue
            if name not in _PROPERTIES:
                raise CommandLineError(f"Property 'none-machine.{name}' not found")
            if name in _SWITCHES and parse_switch(str(value)) is None:
                raise CommandLineError(f"Parameter '{name}' expects 'on' or 'off'")
            if name == "memory-backend" and value not in objects:
                raise CommandLineError(f"Memory backend '{value}' not found")

    def _help(self, compat: Compat) -> str:
        if self._options.get("type") == "none":
            from memd.cli.objects import object_type_help
            from memd.qom import Tree

            described = object_type_help(Tree(compat), "none-machine")
            if described is not None:
                return described
        return "Supported machines are:\nnone                 empty machine\n"
