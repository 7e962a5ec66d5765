"""The options that describe a machine, and what they come to together.

They are taken where they stand and made sense of when all are known: a device
may come before its backend, and a node before the machine that it belongs to.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from memd.cli.device import parse_device
from memd.cli.machine import MachineOptions
from memd.cli.memory import MemoryOption
from memd.cli.opts import Opts, parse_opts
from memd.cli.reading import Given
from memd.cli.smp import parse_smp, topology
from memd.compat import Compat
from memd.config import DEFAULT_RAM, Config, MachineConfig, NumaNode
from memd.devices.kinds import MachineKind
from memd.errors import QMPError
from memd.json_types import JSONObject

REACTIONS = ("immediately", "never", "refuses")

_ISAPC_MODELS = {"486", "athlon", "kvm32", "pentium", "pentium2", "pentium3", "qemu32"}
"""The CPU models that QEMU 11.1 takes on `isapc` without a warning."""


class Hardware:
    """`-machine`, `-accel`, `-m`, `-smp`, `-numa`, `-device` and `--guest-reacts`.

    Args:
        config: where they go; its report is told of what may not be meant so.

    Attributes:
        machine: what `-machine` and `-accel` say.
        cpu_model: what `-cpu` names.
        cpu_features: what `-cpu` says besides.
        rtc_offset: seconds that the machine's clock is ahead of UTC.
    """

    cpu_model: str | None = None
    cpu_features = ""
    rtc_offset = 0.0
    _smp: JSONObject | None = None
    _reaction = ("immediately", 0)

    def __init__(self, config: Config) -> None:
        self._config = config
        self.machine = MachineOptions()
        self._memory = MemoryOption()
        self._numa: list[tuple[Given, Opts]] = []
        self._device_ids: set[str] = set()

    # One option at a time. Each raises `QMPError` where it can't be read, and
    # `Answered` where it asks what there is.

    def take_machine(self, given: Given) -> None:
        """Take `-machine`."""
        self.machine.take(given, self._config.compat)
        members = self.machine.take_members("smp")
        if members:
            self._add_smp(members)
        self._memory.add(self.machine.take_members("memory"))

    def take_memory(self, given: Given) -> None:
        """Take `-m`."""
        self._memory.take(given, self._config.report)

    def take_smp(self, given: Given) -> None:
        """Take `-smp`."""
        self._add_smp(parse_smp(given.value))

    def _add_smp(self, options: JSONObject) -> None:
        self._smp = {**(self._smp or {}), **options}

    def take_numa(self, given: Given) -> None:
        """Take `-numa`."""
        from memd.cli.numa import NUMA

        self._numa.append((given, parse_opts(NUMA, given.value, given.warn(self._config.report))))

    def take_device(self, given: Given) -> None:
        """Take `-device`."""
        self._config.devices.append(parse_device(given, self._config, self._device_ids))

    def take_guest_reacts(self, given: Given) -> None:
        """Take `--guest-reacts immediately|after=MS|never|refuses`."""
        text = given.value
        if text in REACTIONS:
            self._reaction = (text, 0)
            return
        word, _equals, milliseconds = text.partition("=")
        if word != "after" or not (milliseconds.isascii() and milliseconds.isdecimal()):
            raise QMPError(
                f"Parameter 'guest-reacts' does not accept value '{text}'",
                hint="Use immediately, after=MILLISECONDS, never or refuses.",
            )
        self._reaction = ("after", int(milliseconds[:9]))

    # All of them

    def resolve(self) -> None:
        """Write into the config what they come to.

        Raises:
            QMPError: they contradict each other, or the machine.
            CommandLineError: one of them does, or can't be.
        """
        config, kind = self._config, self.machine.kind
        # QEMU makes the devices in its own spelling first, then those in JSON.
        config.devices.sort(key=lambda device: device.is_json)
        smp: dict[str, int] = {}
        if self._smp is not None:
            smp = topology(self._smp, kind.processors)
        default = 0 if kind.kind == "none" else DEFAULT_RAM
        memory = self._memory.resolve(default)
        backends = {
            options["id"]: options["size"]
            for options in config.objects
            if options["qom-type"].startswith("memory-backend-")
        }
        config.machine_values = values = self.machine.resolve(
            backends, _before_the_machine(config), _audiodevs(config), config
        )
        backend = values.pop("memory-backend", None)
        size = memory.size
        if size is None and backend is not None:
            size = backends[backend.rpartition("/")[2]]
        ram_size = default if size is None else size
        # A backend does not say how much there may be, only how much there is.
        maxmem = memory.maxmem or memory.size or default
        named = self.cpu_model is not None and kind.cpu_type.endswith("x86_64-cpu")
        config.machine_kind = kind.name
        cpu_type = f"{self.cpu_model}-x86_64-cpu" if named else ""
        self._warn_of_age(kind, cpu_type)
        config.machine = MachineConfig(
            kind.kind,
            ram_size=ram_size,
            slots=memory.slots,
            maxmem=maxmem,
            nvdimm=values.get("nvdimm", False),
            acpi=kind.kind != "isapc" and values.get("acpi") != "off",
            pcie=kind.kind != "microvm"
            or (values.get("pcie") == "on" and values.get("acpi") != "off"),
            memory_backend=backend,
            numa_nodes=self._nodes(kind, backends, smp, values.get("hmat", False)),
            own_node=kind.own_node and (memory.slots > 0 or maxmem > ram_size),
            guest_reacts=self._reaction[0],
            guest_delay_ms=self._reaction[1],
            cpu_type=cpu_type,
            cpu_features=self.cpu_features if cpu_type else "",
            rtc_offset=self.rtc_offset,
            smp=smp,
        )

    def _warn_of_age(self, kind: MachineKind, cpu_type: str) -> None:
        """Warn of a machine, or of CPUs for one, that QEMU is going to drop."""
        warning = self._config.report.warning
        if kind.deprecated:
            warning(
                f"Machine type '{kind.name}' is deprecated: machines more than 3 years old are"
                " subject to deletion after 6 years"
            )
        later = self._config.compat is not Compat.V10_0
        if cpu_type and kind.kind == "isapc" and later and self.cpu_model not in _ISAPC_MODELS:
            warning(f"cpu type {cpu_type} is deprecated for isapc machine")

    def _nodes(
        self, kind: MachineKind, backends: Container[str], smp: Mapping[str, int], hmat: bool
    ) -> list[NumaNode]:
        if not self._numa:
            return []
        from memd.cli.numa import numa_nodes
        from memd.devices.machine_object import cpu_positions

        positions = list(cpu_positions(kind, smp))
        return numa_nodes(self._numa, kind, backends, positions, self._config, hmat=hmat)


_LATER = ("memory-backend-", "filter-", "rng-egd", "qtest", "cryptodev-vhost-user", "colo-compare")
"""How types of objects begin that are made once the machine has its properties."""


def _before_the_machine(config: Config) -> dict[str, str]:
    """The types of the objects that are made before the machine has its properties, by id."""
    known = [each.options for each in config.startup if each.command == "object-add"]
    return {
        each["id"]: each["qom-type"]
        for each in (*config.objects, *known)
        if isinstance(each.get("id"), str) and not str(each.get("qom-type")).startswith(_LATER)
    }


def _audiodevs(config: Config) -> set[str]:
    """The ids of the audio backends that there will be."""
    made = [each for each in config.startup if each.command in ("audiodev", "default-audiodev")]
    return {each.options["id"] for each in made if isinstance(each.options.get("id"), str)}
