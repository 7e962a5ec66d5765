"""The parsed options: plain data, which `cli/` makes and others read.

And `Report`, which says on standard error what may be wrong with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from memd.compat import Compat
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

NO_UUID = "00000000-0000-0000-0000-000000000000"


class Report:
    """Writes messages to standard error.

    Attributes:
        program: the program's name.
        timestamp: whether messages begin with the time (`-msg timestamp=on`).
        name: what messages begin with (`-msg guest-name=on`), None for nothing.
        write: takes lines instead, where standard error may not be waited for.
    """

    write: Callable[[bytes], None] | None = None

    def __init__(self, program: str) -> None:
        self.program = program
        self.timestamp = False
        self.name: str | None = None

    def error(self, text: str, where: str = "", hint: str | None = None) -> None:
        """Say what went wrong."""
        self._write("", text, where, hint)

    def warning(self, text: str, where: str = "", hint: str | None = None) -> None:
        """Say what may not be as it was meant."""
        self._write("warning: ", text, where, hint)

    def info(self, text: str, where: str = "") -> None:
        """Say what goes on."""
        self._write("info: ", text, where, None)

    def say(self, text: str) -> None:
        """Write lines as they are."""
        if sys.stderr is None:
            return
        if self.write is not None:
            self.write(f"{text}\n".encode(sys.stderr.encoding, "backslashreplace"))
        else:
            # Nobody may read it any more, and that is no reason to stop.
            with suppress(OSError):
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()

    def _write(self, kind: str, text: str, where: str, hint: str | None) -> None:
        begin = f"{_now()} " if self.timestamp else ""
        if self.name is not None:
            begin += f"{self.name} "
        # A place in a file follows the program's name at once.
        place = f": {where}" if where and not where.startswith(":") else where
        end = "" if hint is None else f"{hint}\n"
        self.say(f"{begin}{self.program}{place}: {kind}{text}\n{end}".removesuffix("\n"))


def _now() -> str:
    from datetime import UTC, datetime

    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


class Allowed(NamedTuple):
    """The users and groups whose processes may be clients.

    Attributes:
        users: user ids.
        groups: group ids: of processes that run as that group, or are in it.
    """

    users: frozenset[int]
    groups: frozenset[int]

    def admits(self, uid: int, gid: int, groups: frozenset[int]) -> bool:
        """Whether a process may, by its effective user and group and its supplementary groups."""
        return uid in self.users or gid in self.groups or not self.groups.isdisjoint(groups)


class Chardev(NamedTuple):
    """A character device for a monitor: a socket, standard input and output, or nothing.

    Attributes:
        id: its name, "compat_monitor0" and so on where `--qmp` made it.
        kind: "unix", "tcp", "fd" (an inherited socket), "stdio" or "null".
        path: kind "unix".
        fd: kind "fd".
        host: kind "tcp": a name or address, IPv6 without brackets; "" for every
            address.
        port: kind "tcp": a number or a service's name.
        family: kind "tcp": "ipv4" or "ipv6" where only that is wanted, or "".
        server: whether it listens; else it connects.
        wait: whether start-up waits for the first client; servers only.
        reconnect: milliseconds after which a lost connection is made anew, 0
            for never; clients only.
        tls_creds: kind "tcp": the id of the object with the TLS credentials to
            use, or None for a connection in clear.
        telnet: whether clients speak telnet.
        allowed: who may connect, None where that is left to `Config`.
        mux: whether several share it, under its id with "-base" added.
        where: the option and its argument as given, for messages.
    """

    id: str
    kind: str
    path: str = ""
    fd: int = -1
    host: str = ""
    port: str = ""
    family: str = ""
    server: bool = False
    wait: bool = False
    reconnect: int = 0
    tls_creds: str | None = None
    telnet: bool = False
    allowed: Allowed | None = None
    mux: bool = False
    where: str = ""

    def describe(self) -> str:
        """Its address in QEMU's form for messages, such as `unix:/run/x,server=on`."""
        if self.kind == "unix":
            address = f"unix:{self.path}"
        elif self.kind == "tcp":
            address = f"{'telnet' if self.telnet else 'tcp'}:{self.host}:{self.port}"
        elif self.kind == "fd":
            address = f"fd:{self.fd}"
        else:
            return self.kind
        return f"{address},server=on" if self.server else address


class MonitorSpec(NamedTuple):
    """A monitor, and the character device that it is served on.

    Attributes:
        id: its name, or None.
        chardev: what it is served on.
        mode: "control" (QMP) or "readline" (human).
        pretty: whether answers are spread over lines.
        where: the option and its argument as given, for messages.
        readonly: whether only queries are run.
    """

    id: str | None
    chardev: Chardev
    mode: str = "control"
    pretty: bool = False
    where: str = ""
    readonly: bool = False


DEFAULT_RAM = 128 << 20
"""Bytes of memory of a machine that was given no `-m` (observed on QEMU 10.0.2)."""


class NumaNode(NamedTuple):
    """A node of `-numa node`.

    Attributes:
        nodeid: its number.
        cpus: the numbers of its CPUs.
        memdev: the id of the memory backend that is its memory, or None.
        size: bytes of the machine's own memory that are its, 0 where none were named.
        initiator: the node whose CPUs are the nearest to it, or None.
    """

    nodeid: int
    cpus: Sequence[int] = ()
    memdev: str | None = None
    size: int = 0
    initiator: int | None = None


def wrong_initiator(node: int, initiator: int) -> str:
    """The error for a node with CPUs whose initiator is another node."""
    return f"The initiator of CPU NUMA node {node} should be itself (got {initiator})"


class MachineConfig(NamedTuple):
    """The memory side of a machine.

    Attributes:
        type: "none", "q35", "pc", "isapc", "microvm", "x-remote" or "virt".
        ram_size: bytes of its memory at the start.
        slots: how many DIMMs can be plugged.
        maxmem: bytes that it can have with all of them; not more than `ram_size`
            where none can be plugged.
        nvdimm: whether it takes NVDIMMs.
        acpi: whether it tells its guest of DIMMs that come.
        pcie: whether a machine that need not have a PCI bus has one.
        memory_backend: the id of the backend that is its memory, or None.
        numa_nodes: the nodes of `-numa`, in their order.
        own_node: whether it has a NUMA node though none was asked for.
        guest_reacts: what the guest that is not there does when it is asked
            for something: "immediately", "after", "never" or "refuses".
        guest_delay_ms: milliseconds that it takes, with "after".
        cpu_type: the class of its CPUs; "" for that which the machine brings.
        cpu_features: what is said of their features, as in QEMU's `-cpu`.
        smp: the CPUs: every level of their topology and how many, "cpus" and
            "maxcpus"; empty for one CPU.
        rtc_offset: seconds that its clock is ahead of UTC.
    """

    type: str = "none"
    ram_size: int = DEFAULT_RAM
    maxmem: int = DEFAULT_RAM
    slots: int = 0
    nvdimm: bool = False
    acpi: bool = True
    pcie: bool = True
    memory_backend: str | None = None
    numa_nodes: Sequence[NumaNode] = ()
    own_node: bool = False
    guest_reacts: str = "immediately"
    guest_delay_ms: int = 0
    cpu_type: str = ""
    cpu_features: str = ""
    smp: Mapping[str, int] = {}
    rtc_offset: float = 0.0

    @property
    def has_power_management(self) -> bool:
        """Whether it has the ACPI device that a PC's guest is suspended by."""
        return self.type == "q35" or (self.type == "pc" and self.acpi)

    @property
    def has_acpi_device(self) -> bool:
        """Whether it has any that tells its guest of what comes and goes."""
        return self.has_power_management or (self.type in ("microvm", "virt") and self.acpi)

    @property
    def takes_dimms(self) -> bool:
        """Whether it has places for DIMMs; without, QEMU makes them real and puts them nowhere."""
        return self.type not in ("none", "microvm", "x-remote")


NO_MACHINE = MachineConfig(ram_size=0, maxmem=0)
"""The machine `none` without memory."""


class DeviceOption(NamedTuple):
    """A `-device` that was given.

    Attributes:
        where: the option and its argument as given, for messages.
        is_json: whether values have their types; else they are text.
        options: what `device_add` would be given.
    """

    where: str
    is_json: bool
    options: JSONObject


class StartCommand(NamedTuple):
    """A command that an option stands for, run before the devices of the command line are made.

    Attributes:
        command: its name, see `memd.commands.standin.AT_START`; not all are a client's.
        options: its arguments.
        where: the option and its argument as given, for messages; "" where the machine
            has it by itself.
        failed: what is said to fail for want of it, after what is wrong, or "".
        is_json: whether values have their types; else they are text.
    """

    command: str
    options: JSONObject
    where: str = ""
    failed: str = ""
    is_json: bool = True


class Global(NamedTuple):
    """A `-global`: what a property of devices is unless they are told otherwise.

    Attributes:
        driver: their type, or one that theirs is derived from.
        property: its name.
        value: its text.
    """

    driver: str
    property: str
    value: str


class Config:
    """The configuration of a daemon.

    Attributes:
        report: writes messages in QEMU's form.
        compat: whose texts and introspection are given.
        chardevs: all of them, those that no monitor uses included.
        monitors: in the order of the command line.
        default_socket: whether to serve the default socket, since nothing else
            was asked for.
        objects: what `object-add` would be given, checked, in the order of the
            command line.
        name: the guest's name, or None.
        uuid: the guest's UUID, in lower case.
        pidfile: where the process id goes, or None.
        daemonize: whether to go on in the background.
        insecure_tcp: whether TCP beyond this machine is served in clear.
        deny_private_discard: whether discarding a private mapping's range,
            which changes the file for everybody else, is refused.
        allowed: who may connect, None for no restriction.
        mem_roots: the directories below which clients' files have to be, none
            for anywhere.
        stored: descriptors that a service manager kept for the last daemon, by name.
        accept_loss: whether to start although what it kept is not whole.
        audit: where each command that acts is recorded: "journal", "off", a
            file's path, or None for the journal if memd runs under it.
        metrics: where metrics are served, or None.
        limits: what clients may take of the daemon: those of `memd.server.limits.Limits`
            that were given.
        templates: the template store's directory, or None.
        template_sources: URLs of where templates are that it has not.
        template_cache: bytes of what was fetched that it keeps, None for any number.
        pools: what is made before it is asked for: what `object-add` would be given,
            checked, but for the id, and how many are to be ready.
        pool_reserve: bytes of the host's memory that this leaves free, None for as many
            as usual.
        commit: whether a lack of huge pages later is refused: "strict" or "off".
        quota: what clients may create: those of `memd.qom.quota.Quota`'s bounds that were given.
        accels: the accelerators that were asked for, the first first.
        stopped: whether it starts in run state "prelaunch" (`-S`).
        preconfig: whether it waits for x-exit-preconfig.
        machine_kind: the name of the machine; None for none that was described.
        machines: the answer of a recorded QEMU to `query-machines`, where that machine is
            one of another release.
        machine: what was said of it.
        numa_options: the `-numa` options as given, and what is in each.
        machine_values: its properties that were given, by name.
        firmware_directories: where its firmware is looked for, besides the usual ones.
        devices: what is plugged into it, in the order in which QEMU does it.
        default_audio: whether sound cards of a stand-in need to name no backend.
        globals: values of properties of devices that are not told otherwise, in their order.
        mem_path: the file, or the directory of a file, that is the machine's memory.
        mem_prealloc: whether memory backends are preallocated unless told otherwise.
        one_client: whether a monitor has one client at a time, as in QEMU.
        qtest: where the qtest protocol is spoken, or None.
        qtest_log: the file for what is spoken there, or None.
        actions: what follows of a reboot, a shutdown, a panic and a watchdog, where
            that is not as usual.
        making: what is to be run as the machine is made, None for nothing.
        incoming: how a machine that migrates is awaited, None where none is.
        loading: has a snapshot of the machine loaded, None for none.
        only_migratable: whether devices with which it can't be migrated are refused.
        allow_exec: whether clients may name commands.
        startup: what a stand-in registers at the start, in the order of the command
            line.
        catalogue: the catalogue of a stand-in, None for the package's own.
        unmodelled: what a stand-in makes of commands that it only knows: "refuse",
            "sample"; None where it is memd alone.
        test_faults: whether there are commands that have things go wrong.
        test_control: the ids of the monitors that are for those alone.
    """

    compat = Compat.V10_0
    default_socket = False
    name: str | None = None
    uuid = NO_UUID
    pidfile: str | None = None
    daemonize = False
    insecure_tcp = False
    deny_private_discard = False
    allowed: Allowed | None = None
    accept_loss = False
    one_client = False
    mem_path: str | None = None
    mem_prealloc = False
    audit: str | None = None
    metrics: Chardev | None = None
    templates: str | None = None
    template_cache: int | None = None
    pool_reserve: int | None = None
    commit = "off"
    stopped = False
    preconfig = False
    machine_kind: str | None = None
    machines: Sequence[JSONObject] = ()
    machine = NO_MACHINE
    qtest: Chardev | None = None
    qtest_log: str | None = None
    making: StartCommand | None = None
    incoming: StartCommand | None = None
    loading: StartCommand | None = None
    only_migratable = False
    allow_exec = False
    default_audio = True
    catalogue: str | None = None
    unmodelled: str | None = None
    test_faults = False

    def __init__(self, report: Report) -> None:
        self.report = report
        self.chardevs: list[Chardev] = []
        self.monitors: list[MonitorSpec] = []
        self.objects: list[JSONObject] = []
        self.mem_roots: list[str] = []
        self.stored: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self.quota: dict[str, int] = {}
        self.template_sources: list[str] = []
        self.pools: list[tuple[JSONObject, int]] = []
        self.accels: list[str] = []
        self.machine_values: JSONObject = {}
        self.firmware_directories: list[str] = []
        self.numa_options: list[tuple[str, JSONObject]] = []
        self.devices: list[DeviceOption] = []
        self.globals: list[Global] = []
        self.actions: dict[str, str] = {}
        self.startup: list[StartCommand] = []
        self.test_control: list[str] = []
