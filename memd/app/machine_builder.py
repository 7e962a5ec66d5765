"""The machine of a command line: its memory, what is plugged into it, its accelerator.

The order is QEMU's (observed on 10.0.2): first all objects, then the machine's
own memory, its nodes and its limits, then the devices.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from memd.backends.base import MemoryBackend
from memd.commands.daemon import Daemon
from memd.config import Config, DeviceOption, MachineConfig, NumaNode
from memd.devices.arguments import arguments
from memd.devices.kinds import NONE, find_kind
from memd.devices.machine_object import (
    add_cpus,
    check_addresses,
    check_initiators,
    check_limits,
    cpu_positions,
    set_machine,
    settle_caches,
    warning_of_low_memory,
)
from memd.errors import StartError, starting
from memd.json_types import JSONObject
from memd.qom import MemoryRegion
from memd.work import Run

if TYPE_CHECKING:
    from memd.devices.numa import NumaNodes

MakeObject = Callable[[JSONObject], Awaitable[None]]
"""Makes an object as `-object` does; raises `StartError`."""


class MachineBuilder:
    """A machine that was described, while it is put together.

    Args:
        daemon: what it is for.
    """

    def __init__(self, daemon: Daemon) -> None:
        config = daemon.config
        kind = find_kind(config.machine_kind or NONE.name, config.compat, config.machines) or NONE
        self._config = config
        self._machine = config.machine
        self._kind = kind
        self._daemon = daemon
        self._tree = daemon.tree
        daemon.machine_kind = kind
        set_machine(self._tree, kind, config.machine, config.machine_values)
        daemon.nodes = self._started_nodes() if config.preconfig else None
        if config.preconfig:
            self._set_config(config.machine)
            self._tree.machine.on_topology = self._take_topology

    def _started_nodes(self) -> NumaNodes:
        """The nodes of the command line, to which clients may add some."""
        from memd.devices.numa import NumaNodes

        config = self._config
        ids = {options["id"] for options in config.objects}
        hmat = config.machine_values.get("hmat", False)
        nodes = NumaNodes(self._kind, ids, self._positions(), hmat=hmat)
        for where, options in config.numa_options:
            with starting(where):
                nodes.take(options)
        return nodes

    def _positions(self) -> list[JSONObject]:
        return list(cpu_positions(self._kind, self._machine.smp))

    def _set_config(self, machine: MachineConfig) -> None:
        self._machine = self._daemon.machine.config = machine

    def _take_topology(self, smp: dict[str, int]) -> None:
        """Take the CPUs that a client wants the machine to be made with."""
        self._set_config(self._machine._replace(smp=smp))
        if self._daemon.nodes is not None:
            self._daemon.nodes.positions = self._positions()

    def _finish_nodes(self, nodes: NumaNodes) -> None:
        """Take the nodes over that clients have completed; raises `StartError`."""
        with starting():
            found = nodes.finish()
        nodes.warn(self._config.report)
        self._set_config(self._machine._replace(numa_nodes=found))

    async def assemble(self, make_object: MakeObject, run: Run) -> None:
        """Give it its memory and its devices. All objects of the command line are there.

        Raises:
            StartError: it can't have one of them.
        """
        if self._daemon.nodes is not None:
            self._finish_nodes(self._daemon.nodes)
        self._add_hardware()
        if self._config.globals:
            from memd.commands.standin import set_globals

            with starting():
                set_globals(self._daemon)
        await self._give_memory(make_object)
        standin = self._daemon.standin
        if standin is not None and self._machine.cpu_type and self._daemon.accel == "tcg":
            with starting():
                standin.check_cpus()
        await self._check_boot_files(run)
        of_drives = [] if standin is None else standin.devices_of_drives
        for device in (*self._config.devices, *of_drives):
            await self._plug(device, run)
        if "dumpdtb" in self._config.machine_values:
            raise StartError(
                "This machine doesn't have an FDT",
                hint="(Perhaps it doesn't support FDT at all, or perhaps you need to provide an FDT"
                " with the -fdt option?)",
            )

    async def _check_boot_files(self, run: Run) -> None:
        config = self._config
        if {"kernel", "firmware"}.isdisjoint(config.machine_values):
            return
        from memd.devices.boot_files import check_boot_files

        has_flash = "system.flash0" in self._tree.machine.children
        values, directories = config.machine_values, config.firmware_directories
        with starting():
            await run(check_boot_files(self._kind.kind, values, has_flash, directories))

    def _add_hardware(self) -> None:
        """Put CPUs, buses and all that is not memory into the tree."""
        if self._kind.kind == "none":
            return
        from memd.devices.parts import add_parts, settled

        daemon, root = self._daemon, self._tree.machine
        root.values |= settled(self._kind.kind, root.values)
        more = None if daemon.standin is None else daemon.standin.cpu_properties
        add_cpus(self._tree, self._kind, self._machine, more)
        daemon.machine.set_up()
        cpu_type = self._machine.cpu_type or self._kind.cpu_type
        add_parts(daemon.machine, cpu_type, daemon.accel)
        root.is_made = True

    async def _give_memory(self, make_object: MakeObject) -> None:
        machine = self._machine
        by_node = [node for node in machine.numa_nodes if node.memdev is not None]
        own = self._kind.ram_id and machine.memory_backend is None and not by_node
        own = own and machine.ram_size > 0
        path = self._config.mem_path
        if machine.memory_backend is not None:
            if path is not None:
                raise StartError("'-mem-path' can't be used together with'-machine memory-backend'")
            self._take_backend(machine.memory_backend, by_node)
        elif own:
            self._check_reserved()
        self._check_nodes(by_node)
        if own:
            id = self._kind.ram_id
            options: JSONObject = {"qom-type": "memory-backend-ram"}
            if path is not None:
                options = {"qom-type": "memory-backend-file", "mem-path": path}
            await make_object({**options, "id": id, "size": machine.ram_size})
            self._install(self._backend(id))
        with starting():
            check_initiators(self._kind, machine)
            settle_caches(self._kind, self._tree.machine)
            check_limits(self._kind, machine)
            below = self._tree.machine.values.get("max-ram-below-4g", 0)
            told = self._config.machine_values.get("max-ram-below-4g", 0)
            warning = warning_of_low_memory(self._kind, machine.ram_size, told)
            if warning is not None:
                self._config.report.warning(warning)
            check_addresses(self._kind, machine, below, self._config.compat)

    async def _plug(self, device: DeviceOption, run: Run) -> None:
        from memd.devices.adding import add_device

        with starting(device.where):
            options = device.options if device.is_json else arguments(device.options)
            await run(add_device(self._daemon.machine, options))

    def _take_backend(self, path: str, by_node: list[NumaNode]) -> None:
        """The machine's memory is a backend that was made for it."""
        backend = self._backend(path)
        if backend is None:
            raise StartError(f"Memory backend '{path}' not found")
        if by_node:
            raise StartError(
                "'-machine memory-backend' and '-numa memdev' properties are mutually exclusive"
            )
        if backend.size != self._machine.ram_size:
            raise StartError("Machine memory size does not match the size of the memory backend")
        self._install(backend)

    def _check_nodes(self, by_node: list[NumaNode]) -> None:
        """The nodes have their memory, and it is the machine's."""
        machine = self._machine
        total = sum(node.size for node in machine.numa_nodes)
        backends = []
        for node in by_node:
            backend = self._backend(node.memdev or "")
            if backend is None:
                raise StartError(f"memdev={node.memdev} is ambiguous")
            total += backend.size
            backends.append(backend)
        if machine.numa_nodes and total != machine.ram_size:
            raise StartError(
                f"total memory for NUMA nodes (0x{total:x}) should equal RAM size"
                f" (0x{machine.ram_size:x})"
            )
        if not backends:
            return
        whole = MemoryRegion(self._tree, total)
        self._tree.machine.add_child(f"{self._kind.ram_id}[0]", whole)
        at = 0
        for backend in backends:
            if backend.mapped_by is not None:
                raise StartError(f"memory backend {backend.name} can't be used multiple times.")
            backend.mapped_by = self._tree.machine
            if backend.shown is not None:
                backend.shown.place(whole, at)
            at += backend.size

    def _check_reserved(self) -> None:
        """Raise `StartError` where an object has the id of the machine's own memory."""
        id = self._kind.ram_id
        if self._tree.objects.get(id) is not None:
            raise StartError(
                f"object's id '{id}' is reserved for the default RAM backend,"
                " it can't be used for any other purposes",
                hint="Change the object's 'id' to something else or disable automatic creation of"
                f" the default RAM backend by setting 'memory-backend={id}' with '-machine'.",
            )

    def _install(self, backend: MemoryBackend | None) -> None:
        if backend is not None:
            backend.mapped_by = self._tree.machine
            self._tree.machine.set_property("memory-backend", f"/objects/{backend.name}")
            if self._kind.kind == "none" and backend.shown is not None:
                backend.shown.place(self._tree.resolve("/machine/unattached/system[0]"))

    def _backend(self, path: str) -> MemoryBackend | None:
        found, _ambiguous = self._tree.lookup(path, "memory-backend")
        return found if isinstance(found, MemoryBackend) else None


def choose_accelerator(config: Config) -> str:
    """The first of the accelerators asked for that this host has.

    Raises:
        StartError: it has none of them.
    """
    for number, name in enumerate(config.accels):
        refusal = _try_accelerator(name)
        if refusal is None:
            if number:
                config.report.error(f"falling back to {name}")
            return name
        for text in refusal[:-1]:
            config.report.error(text)
        if number + 1 == len(config.accels):
            raise StartError(refusal[-1])
        config.report.error(refusal[-1])
    return "tcg"


def _try_accelerator(name: str) -> list[str] | None:
    """Why an accelerator can't be used, in QEMU's words (10.0.2, 11.1.3), or None."""
    if name not in ("kvm", "mshv"):
        return None
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if name == "kvm":
            return [
                f"Could not access KVM kernel module: {reason}",
                f"failed to initialize kvm: {reason}",
            ]
        return [
            f"Failed to open /dev/mshv: {reason}",
            "failed to initialize mshv: Operation not permitted",
        ]
    return None
