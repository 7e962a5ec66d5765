"""A daemon as a stand-in: the catalogue, the registers, and commands that are only known."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError, reset_meanwhile
from memd.json_types import JSON, JSONObject
from memd.qapi.schema import Command, Schema
from memd.standin.catalogue import find_catalogue
from memd.work import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memd.config import DeviceOption
    from memd.devices.machine import Machine
    from memd.qom import Property
    from memd.standin.audiodevs import Audiodevs
    from memd.standin.block.bitmaps import Bitmaps
    from memd.standin.block.block_jobs import BlockJobs
    from memd.standin.block.blocks import Blocks
    from memd.standin.block.drives import Drives
    from memd.standin.block.exports import Exports
    from memd.standin.block.images import Images
    from memd.standin.block.internal_snapshots import Snapshots
    from memd.standin.block.jobs import Jobs
    from memd.standin.block.reopening import Reopening
    from memd.standin.block.transactions import Transactions
    from memd.standin.chardevs import Chardevs
    from memd.standin.devices import Devices
    from memd.standin.dirty_rate import DirtyRate
    from memd.standin.dump import Dump
    from memd.standin.fsdevs import Fsdevs
    from memd.standin.globals import Globals
    from memd.standin.listeners import Listeners
    from memd.standin.migration import Host, Migration
    from memd.standin.netdevs import Netdevs
    from memd.standin.spice import Spice
    from memd.standin.tpms import Tpms
    from memd.standin.vnc import Vnc

log = logging.getLogger(__name__)

_FULL = "q35"


class StandIn:
    """A catalogue that is served.

    Args:
        host: the daemon; its tree gets the catalogue's types, once somebody asks for types.

    Attributes:
        catalogue: what is served.
        devices_of_drives: the devices that `-drive if=virtio` asks for.
        ram_blocks: the RAM blocks of backends.

    Raises:
        QMPError: the catalogue can't be read.
    """

    def __init__(self, host: Host) -> None:
        config, tree = host.config, host.tree
        self.catalogue = find_catalogue(config.compat, config.catalogue)
        self._host = host
        self._tree = tree
        self._compat = config.compat
        self._machine = config.machine.type
        self._asked = 0
        self._closed = False
        self._parameters: JSONObject = {}
        self.devices_of_drives: list[DeviceOption] = []
        from memd.devices.ram_blocks import RamBlocks
        from memd.standin.types import CatalogueTypes

        tree.more_types = CatalogueTypes(self.catalogue, tree)
        self.ram_blocks = RamBlocks()
        tree.objects.on_listed = self.ram_blocks.take

    def check_cpus(self) -> None:
        """Say what the machine's CPUs lack; raises `QMPError` where it can't have them."""
        from memd.standin.cpu_features import complaints

        machine, report = self._host.machine.config, self._host.config.report
        said, may_lack = complaints(self.catalogue, self._tree, machine, machine.cpu_type)
        for warning in said * (machine.smp.get("cpus", 1) if may_lack else 1):
            report.warning(warning)
        if not may_lack:
            raise QMPError("TCG doesn't support requested features")

    def cpu_properties(self, type_name: str) -> dict[str, Property]:
        """What all CPUs of the machine have; see `cpu_properties` of `cpu_features`."""
        from memd.standin.cpu_features import cpu_properties

        return cpu_properties(self.catalogue, self._tree, self._host.machine.config, type_name)

    # Registers, each made when it is first asked for: a start that needs none imports none.

    @cached_property
    def chardevs(self) -> Chardevs:
        """The character devices that clients add."""
        from memd.standin.chardevs import Chardevs

        return Chardevs(self._tree, lambda: self.spice.in_use, self._host.fdsets)

    @cached_property
    def netdevs(self) -> Netdevs:
        """The network backends."""
        from memd.standin.netdevs import Netdevs

        return Netdevs(self.chardevs, self._tree.objects.account, self._compat)

    @cached_property
    def blocks(self) -> Blocks:
        """The block nodes."""
        from memd.standin.block.blocks import Blocks

        blocks = Blocks(self._compat, self._tree, self._host.fdsets, self._say)
        blocks.inactive = self._host.run_state == "inmigrate"
        return blocks

    @cached_property
    def drives(self) -> Drives:
        """The drives that block nodes are in."""
        from memd.standin.block.drives import Drives

        has_ide = self._host.config.machine_values.get("sata", True)
        return Drives(self.blocks, self._tree, self._machine, has_ide=has_ide)

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs."""
        from memd.standin.block.jobs import Jobs

        return Jobs(self.blocks)

    @cached_property
    def images(self) -> Images:
        """The images of block nodes."""
        from memd.standin.block.images import Images

        return Images(self.blocks, self.jobs, self._tree.host.roots)

    @cached_property
    def block_jobs(self) -> BlockJobs:
        """The jobs about block nodes."""
        from memd.standin.block.block_jobs import BlockJobs

        return BlockJobs(self.blocks, self.images, self.jobs)

    @cached_property
    def bitmaps(self) -> Bitmaps:
        """The dirty bitmaps of block nodes."""
        from memd.standin.block.bitmaps import Bitmaps

        return Bitmaps(self.blocks)

    @cached_property
    def transactions(self) -> Transactions:
        """Several changes of block nodes at once."""
        from memd.standin.block.transactions import Transactions

        return Transactions(self.blocks, self.images, self.block_jobs, self.bitmaps)

    @cached_property
    def reopening(self) -> Reopening:
        """Other options for block nodes."""
        from memd.standin.block.reopening import Reopening

        return Reopening(self.blocks, self._tree.host.roots)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Internal snapshots."""
        from memd.standin.block.internal_snapshots import Snapshots

        return Snapshots(self.blocks, self.jobs, self._compat, self._host, self.migration)

    @cached_property
    def listeners(self) -> Listeners:
        """The listening sockets of servers that it lacks."""
        from memd.standin.listeners import Listeners

        return Listeners(self._host.machine)

    @cached_property
    def exports(self) -> Exports:
        """The exports of block nodes."""
        from memd.standin.block.exports import Exports

        return Exports(self.blocks, self.listeners)

    @cached_property
    def vnc(self) -> Vnc:
        """The VNC display."""
        from memd.standin.vnc import Vnc

        return Vnc(self.listeners, self._tree, self._compat)

    @cached_property
    def dirty_rate(self) -> DirtyRate:
        """The measurement of dirtied memory."""
        from memd.standin.dirty_rate import DirtyRate

        return DirtyRate(self._host.machine)

    @cached_property
    def devices(self) -> Devices:
        """The devices that are not memory's."""
        from memd.standin.devices import Devices

        return Devices(
            *(self._tree, self.catalogue, self.chardevs, self.netdevs, self.drives, self.blocks),
            *(self.fsdevs, self.tpms, self.audiodevs, self._host.config.globals),
            only_migratable=self._host.config.only_migratable,
        )

    @cached_property
    def globals(self) -> Globals:
        """The values of `-global`."""
        from memd.standin.globals import Globals

        config = self._host.config
        given = config.globals
        return Globals(given, self._tree, self.catalogue, self.devices, self._warn)

    def _serves(self) -> bool:
        """Whether there are clients, none of whom may wait for who reads standard error."""
        return self._host.machine.started or self._host.config.preconfig

    def _say(self, text: str) -> None:
        if not self._serves():
            self._host.config.report.say(text)
            return
        for line in text.splitlines():
            log.warning("%s", line)

    def _warn(self, text: str, hint: str | None = None) -> None:
        report = self._host.config.report
        if not self._serves():
            report.warning(text, hint=hint)
            return
        # A QEMU 10.0 does not name itself in a command.
        program = "" if self._compat is Compat.V10_0 else f"{report.program}: "
        self._say("\n".join(filter(None, (f"{program}warning: {text}", hint))))

    def warn(self) -> None:
        """Tell of what may not be meant so, once the machine is made."""
        config = self._host.config
        # About a network that the machine has by itself nothing is said.
        own = any(each.command == "default-net" for each in config.startup)
        if "netdevs" in vars(self) and not own:
            for each in self.netdevs.warnings():
                self._warn(each)
        if config.globals:
            self.globals.warn_of_unused()

    @cached_property
    def fsdevs(self) -> Fsdevs:
        """The directories for guests."""
        from memd.standin.fsdevs import Fsdevs

        return Fsdevs(self._tree.host.roots, self._compat)

    @cached_property
    def audiodevs(self) -> Audiodevs:
        """The audio backends."""
        from memd.standin.audiodevs import Audiodevs

        return Audiodevs(self._tree, has_default=self._host.config.default_audio)

    @cached_property
    def tpms(self) -> Tpms:
        """The TPM."""
        from memd.standin.tpms import Tpms

        return Tpms(self.chardevs)

    @cached_property
    def spice(self) -> Spice:
        """The SPICE display."""
        from memd.standin.spice import Spice

        return Spice(self.listeners)

    @cached_property
    def migration(self) -> Migration:
        """The migration of the machine."""
        from memd.standin.migration import Migration

        asked = self.migration_parameters, self._compat, self.set_active, self._blockers
        return Migration(self._host, *asked)

    def _blockers(self) -> Sequence[tuple[str, str]]:
        return self.devices.blockers() if "devices" in vars(self) else ()

    @cached_property
    def dump(self) -> Dump:
        """The dump of the memory."""
        from memd.standin.dump import Dump

        return Dump(self._host.machine)

    async def set_active(self, active: bool) -> None:
        """Lock the images, or leave them to another machine; see `Blocks.set_active`."""
        if "blocks" in vars(self):
            await self.blocks.set_active(active)

    async def close(self) -> None:
        """Close what the registers hold; it is not used any more."""
        self._closed = True
        registers = ("devices", "netdevs", "chardevs", "listeners", "exports", "jobs", "blocks")
        for name in ("migration", "dump", *registers):
            if name in vars(self):
                await getattr(self, name).close()

    async def store(self) -> None:
        """Put bitmaps into their images: the process ends."""
        if "blocks" in vars(self):
            await self.blocks.store()

    def end(self) -> None:
        """Remove the sockets and links that were made for clients: the process ends. May wait."""
        for name in ("chardevs", "listeners", "migration"):
            if name in vars(self):
                getattr(self, name).remove_names()

    async def add_device(self, machine: Machine, args: JSONObject) -> None:
        """`device_add` of a type that memd has no part for, or of an alias.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        from memd.devices.adding import add_device, check_migrating, is_anothers, is_device

        if "devices" not in vars(self):
            # What the first one needs takes tens of milliseconds to import.
            for name in ("chardevs", "netdevs", "blocks", "drives", "fsdevs", "devices"):
                getattr(self, name)
                await Turn()
            check_migrating(machine)
            if self._closed:
                raise reset_meanwhile()
        driver = args["driver"]
        resolved = self.devices.resolve(driver)
        if is_device(resolved) and not is_anothers(machine, resolved):
            await add_device(machine, {**args, "driver": resolved})
        else:
            await self.devices.add(machine, {**args, "driver": resolved})

    def schema(self, *, test: bool) -> Schema:
        """The schema that it serves.

        Args:
            test: whether the commands of a daemon with --test-faults are in it.
        """
        from memd.standin.schema import standin_schema

        return standin_schema(self.catalogue, self._compat, test=test)

    def migration_parameters(self, args: object = None) -> JSONObject:
        """The value of `query-migrate-parameters`: the recorded QEMU's, and what was set."""
        recorded = self._answers()
        told = recorded.get("query-migrate-parameters", {}).get("return", {})
        return {**told, **self._parameters}

    def _answers(self) -> JSONObject:
        """The answers of the recorded QEMU with such a machine, or one most like it."""
        answers = self.catalogue.section("answers")
        found: JSONObject = answers.get(self._machine) or answers[_FULL]
        return found

    def recorded(self, command: str) -> JSONObject | None:
        """What the recorded QEMU answered to a command without arguments, None for nothing."""
        answer: JSONObject | None = self._answers().get(command)
        return answer

    def set_migration_parameters(self, parameters: JSONObject) -> None:
        """`migrate-set-parameters`; a null takes away what was set.

        Raises:
            QMPError: one can't have its value; none is set.
        """
        from memd.standin.parameters import check_parameters

        given = {name: "" if value is None else value for name, value in parameters.items()}
        check_parameters(given, {**self.migration_parameters(), **given}, self._compat)
        self._parameters.update(given)

    def answer(self, command: Command, arguments: JSONObject) -> JSON:
        """The value of a command that memd does not act on.

        Args:
            command: the command.
            arguments: checked.

        Raises:
            QMPError: what the recorded QEMU said, or that memd does not act on it.
        """
        if not arguments:
            recorded = self.recorded(command.name)
            if recorded is not None:
                if "error" in recorded:
                    raise QMPError(recorded["error"]["desc"], recorded["error"]["class"])
                return recorded["return"]
        if self._host.config.unmodelled == "refuse":
            raise QMPError(
                f"memd knows '{command.name}' and does not act on it: have a test tell its"
                " answer, or start with --unmodelled sample"
            )
        if command.returns is None:
            return {}
        from memd.standin.specimens import Sampler

        self._asked += 1
        return Sampler(f"{command.name}/{self._asked}").value(command.returns)
