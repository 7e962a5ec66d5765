"""A machine to plug things into, with a clock that the test winds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memd.compat import Compat
from memd.config import MachineConfig
from memd.json_types import JSON
from memd.qom import ObjectType
from memd.qom.builtin_objects import Bus
from memd.work import Command, Event
from tests.commands.fakes import Console
from tests.stepping import Running, close_all

MIB = 1 << 20
GIB = 1 << 30


class Clock:
    """Calls what is due when it is told that time goes by.

    Attributes:
        now: seconds since the start.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @property
    def expects(self) -> int:
        """How many calls are yet to come."""
        return len(self._due)

    def later(self, delay: float, act: Callable[[], None]) -> Callable[[], None]:
        entry = (self.now + delay, next(self._numbers), act)
        heapq.heappush(self._due, entry)
        return lambda: self._due.remove(entry)

    def wind(self, seconds: float = 0.0) -> None:
        """Let so many seconds go by."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _number, act = heapq.heappop(self._due)
            act()
        self.now = end


_STANDING = {
    "q35": {0: "mch", 31 * 8: "ICH9-LPC", 31 * 8 + 2: "ich9-ahci", 31 * 8 + 3: "ICH9-SMB"},
    "pc": {0: "i440FX", 8: "PIIX3", 9: "piix3-ide", 11: "PIIX4_PM"},
}
"""The parts on the PCI bus of a machine, which has no others here, by their places."""


class Bench(Console):
    """A client of a daemon with a machine that runs.

    Attributes:
        clock: winds itself only when told to.
        told: the events that clients got, in order.
        waits: whether the test ends what goes on without a client.
        spawned: what does so then.
    """

    def __init__(
        self,
        type: str = "pc",
        compat: Compat = Compat.V10_0,
        *,
        running: bool = True,
        started: bool = True,
        **config: Any,
    ) -> None:
        options = {"ram_size": 256 * MIB, "slots": 4, "maxmem": 8 * GIB, "nvdimm": True}
        super().__init__(compat, machine=MachineConfig(type, **{**options, **config}))
        self.clock = Clock()
        self.told: list[tuple[str, JSON]] = []
        self.waits = False
        self.spawned: list[Running] = []
        machine = self.machine = self.daemon.machine
        machine.set_up()
        for place, kind in _STANDING.get(type, {}).items():
            assert machine.buses.pci is not None
            machine.buses.pci.occupy(place, kind, multifunction=place > 0)
        if type in _STANDING:
            isa_type = ObjectType("ISA", machine.tree.basics()["bus"])
            isa = Bus(isa_type, machine.tree, hotplug=False)
            isa.name = "isa.0"
            machine.buses.add_other(isa)
        machine.emit = self._note
        machine.later = self.clock.later
        machine.spawn = self._spawn
        machine.started = started
        self.daemon.run_state = "running" if running else "prelaunch"

    def _spawn(self, command: Command[None], _what: str) -> None:
        running = Running(command)
        if self.waits:
            self.spawned.append(running)
        else:
            running.finish()

    def _note(self, events: tuple[Event, ...]) -> None:
        self.told += [(event.name, event.data) for event in events]

    def take(self) -> list[tuple[str, JSON]]:
        """What was told since it was last asked, once everything due has happened."""
        self.clock.wind()
        told, self.told = self.told, []
        return told

    def ram(self, id: str, size: int = 2 * MIB, **options: Any) -> None:
        """Make a backend."""
        assert self("object-add", qom_type="memory-backend-ram", id=id, size=size, **options) == {}

    def file(self, id: str, path: Path, **options: Any) -> None:
        """Make a backend of a file, as large as it is."""
        options |= {"mem_path": str(path), "size": path.stat().st_size}
        assert self("object-add", qom_type="memory-backend-file", id=id, **options) == {}

    def add(self, driver: str, **options: Any) -> JSON:
        """Plug a device in, with a backend of its own unless one is named."""
        if "memdev" not in options:
            options["memdev"] = f"mem-{options.get('id', 'anon')}"
            self.ram(options["memdev"])
        return self("device_add", driver=driver, **options)

    def refuse(self, driver: str, **options: Any) -> str:
        """Try to plug in what is refused; the error's text."""
        return self.refusal("device_add", driver=driver, **options)[1]

    def get(self, path: str, name: str) -> JSON:
        """A property."""
        return self("qom-get", path=path, property=name)

    def info(self, id: str) -> JSON:
        """What is told of a device."""
        rows = [row["data"] for row in self("query-memory-devices") if row["data"].get("id") == id]
        return rows[0] if rows else None

    def backend(self, id: str) -> Any:
        """A backend."""
        return self.daemon.tree.objects.get(id)

    def close(self) -> None:
        """Let all memory go."""

        close_all(self.daemon.tree)
