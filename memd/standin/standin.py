"""What makes a daemon a stand-in: a catalogue, and what becomes of commands that are only known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qapi.schema import Command, Schema
from memd.qom.tree import Tree
from memd.standin.catalogue import Catalogue, packaged

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.blocks import Blocks
    from memd.standin.chardevs import Chardevs
    from memd.standin.devices import Devices
    from memd.standin.dump import Dump
    from memd.standin.images import Images
    from memd.standin.migration import Host, Migration
    from memd.standin.netdevs import Netdevs

REFUSE, SAMPLE = UNMODELLED = ("refuse", "sample")
"""What a command gets that is only known: an error, or an answer that is made up."""

_FULL = "q35"


class StandIn:
    """A catalogue that is served.

    Args:
        tree: gets the catalogue's types, once somebody asks for types.
        compat: whose catalogue is served where no other one is named.
        path: the catalogue, or None for that which comes with memd.
        unmodelled: one of `UNMODELLED`.
        machine: the type of the machine.

    Raises:
        QMPError: the catalogue can't be read.
    """

    def __init__(
        self, tree: Tree, compat: Compat, path: str | None, unmodelled: str, *, machine: str
    ) -> None:
        self.catalogue = Catalogue(packaged(compat) if path is None else path)
        self._compat = compat
        self._unmodelled = unmodelled
        self._machine = machine
        self._asked = 0
        self._chardevs: Chardevs | None = None
        self._netdevs: Netdevs | None = None
        self._blocks: Blocks | None = None
        self._images: Images | None = None
        self._parameters: dict[str, JSON] = {}
        self._migration: Migration | None = None
        self._dump: Dump | None = None
        self.host: Host | None = None
        """What it is in, set once that is there."""
        self._tree = tree
        self._devices: Devices | None = None
        from memd.standin.types import CatalogueTypes

        tree.more_types = CatalogueTypes(self.catalogue, tree)

    # Registers, each made when it is first asked for: a start that needs none imports none.

    @property
    def chardevs(self) -> Chardevs:
        """The character devices that clients add."""
        if self._chardevs is None:
            from memd.standin.chardevs import Chardevs

            self._chardevs = Chardevs(self._tree)
        return self._chardevs

    @property
    def netdevs(self) -> Netdevs:
        """The network backends."""
        if self._netdevs is None:
            from memd.standin.netdevs import Netdevs

            self._netdevs = Netdevs(self.chardevs)
        return self._netdevs

    @property
    def blocks(self) -> Blocks:
        """The block nodes."""
        if self._blocks is None:
            from memd.standin.blocks import Blocks

            self._blocks = Blocks(self._compat)
        return self._blocks

    @property
    def images(self) -> Images:
        """What is done with block nodes."""
        if self._images is None:
            from memd.standin.images import Images

            self._images = Images(self.blocks, self._tree.host.roots)
        return self._images

    @property
    def devices(self) -> Devices:
        """The devices that are not memory's."""
        if self._devices is None:
            from memd.standin.devices import Devices

            self._devices = Devices(self._tree, self.catalogue, self)
        return self._devices

    @property
    def migration(self) -> Migration:
        """What migrates."""
        if self._migration is None:
            from memd.standin.migration import Migration

            assert self.host is not None
            self._migration = Migration(self.host, self.migration_parameters, self._compat)
        return self._migration

    @property
    def dump(self) -> Dump:
        """What dumps the memory."""
        if self._dump is None:
            from memd.standin.dump import Dump

            assert self.host is not None
            self._dump = Dump(self.host.machine)
        return self._dump

    async def reset(self) -> None:
        """Forget every register; what they hold is closed."""
        if self._migration is not None:
            self._migration.give_up()
        if self._devices is not None:
            self._devices.clear()
        if self._netdevs is not None:
            self._netdevs.clear()
        if self._chardevs is not None:
            await self._chardevs.clear()
        if self._blocks is not None:
            await self._blocks.clear()
        self._migration = self._devices = self._netdevs = self._chardevs = None
        self._blocks = self._images = self._dump = None
        self._parameters.clear()
        self._asked = 0

    async def add_device(self, machine: Machine, args: dict[str, JSON]) -> None:
        """`device_add` of a type that memd has no part for, or of an alias.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        from memd.devices.adding import add_device, is_anothers, is_device

        driver = args["driver"]
        resolved = self.devices.resolve(driver)
        if is_device(resolved) and not is_anothers(machine, resolved):
            await add_device(machine, {**args, "driver": resolved})
        else:
            self.devices.add(machine, {**args, "driver": resolved})

    def schema(self, *, test: bool) -> Schema:
        """What it serves.

        Args:
            test: whether the commands of a daemon with --test-faults are in it.
        """
        from memd.standin.schema import standin_schema

        return standin_schema(self.catalogue, self._compat, test=test)

    def migration_parameters(self) -> dict[str, JSON]:
        """What `query-migrate-parameters` tells: the recorded QEMU's, and what was set."""
        recorded = self._answers()
        told = recorded.get("query-migrate-parameters", {}).get("return", {})
        return {**told, **self._parameters}

    def _answers(self) -> dict[str, JSON]:
        """What the recorded QEMU answered with such a machine, or one most like it."""
        answers = self.catalogue.section("answers")
        found: dict[str, JSON] = answers.get(self._machine) or answers[_FULL]
        return found

    def set_migration_parameters(self, parameters: dict[str, JSON]) -> None:
        """`migrate-set-parameters`; a null takes away what was set.

        Raises:
            QMPError: one can't have its value; none is set.
        """
        from memd.standin.parameters import check_parameters

        given = {name: "" if value is None else value for name, value in parameters.items()}
        check_parameters(given, {**self.migration_parameters(), **given}, self._compat)
        self._parameters.update(given)

    def answer(self, command: Command, arguments: dict[str, JSON]) -> JSON:
        """What a command comes to that memd does not act on.

        Args:
            command: the command.
            arguments: checked.

        Raises:
            QMPError: what the recorded QEMU said, or that memd does not act on it.
        """
        if not arguments:
            recorded = self._answers().get(command.name)
            if recorded is not None:
                if "error" in recorded:
                    raise QMPError(recorded["error"]["desc"], recorded["error"]["class"])
                return recorded["return"]
        if self._unmodelled == REFUSE:
            raise QMPError(
                f"memd knows '{command.name}' and does not act on it: have a test tell its"
                " answer, or start with --unmodelled sample"
            )
        if command.returns is None:
            return {}
        from memd.standin.specimens import Sampler

        self._asked += 1
        return Sampler(f"{command.name}/{self._asked}").value(command.returns)
