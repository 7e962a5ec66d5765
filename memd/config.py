"""The parsed options: plain data, which `cli/` makes and others read.

And `Report`, which says on standard error what may be wrong with it.
"""

from __future__ import annotations

import sys
from typing import NamedTuple, Protocol

from memd.compat import Compat
from memd.json_types import JSONObject

NO_UUID = "00000000-0000-0000-0000-000000000000"


class Report:
    """Writes messages to standard error.

    Attributes:
        program: the program's name.
        timestamp: whether messages begin with the time (`-msg timestamp=on`).
        name: what messages begin with (`-msg guest-name=on`), None for nothing.
    """

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

    def _write(self, kind: str, text: str, where: str, hint: str | None) -> None:
        if sys.stderr is None:
            return
        parts = [f"{self.program}: "]
        if self.name is not None:
            parts.insert(0, f"{self.name} ")
        if self.timestamp:
            parts.insert(0, f"{_now()} ")
        if where.startswith(":"):
            # A place in a file follows the program's name at once.
            parts[-1] = f"{self.program}{where}: "
        elif where:
            parts.append(f"{where}: ")
        parts += [kind, text, "\n"]
        if hint is not None:
            parts += [hint, "\n"]
        try:
            sys.stderr.write("".join(parts))
            sys.stderr.flush()
        except OSError:
            # Nobody reads it any more, and that is no reason to stop.
            pass


def _now() -> str:
    from datetime import UTC, datetime

    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


class Credentials(Protocol):
    """A process's user and groups, as the kernel says."""

    @property
    def uid(self) -> int:
        """Its effective user id."""

    @property
    def gid(self) -> int:
        """Its effective group id."""

    @property
    def groups(self) -> frozenset[int]:
        """Its supplementary group ids."""


class Allowed(NamedTuple):
    """Whose processes may be clients.

    Attributes:
        users: user ids.
        groups: group ids: of processes that run as that group, or are in it.
    """

    users: frozenset[int]
    groups: frozenset[int]

    def admits(self, peer: Credentials | None) -> bool:
        """Whether a process may; None, of whom the kernel knows nothing, may not."""
        if peer is None:
            return False
        if peer.uid in self.users or peer.gid in self.groups:
            return True
        return not self.groups.isdisjoint(peer.groups)


class Chardev:
    """Where a monitor can sit: a socket, standard input and output, or nothing.

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
        allowed: who may connect, None where that is left to `Config`.
        where: the option and its argument as given, for messages.
        spec: the argument as given.
    """

    __slots__ = (
        *("allowed", "family", "fd", "host", "id", "kind", "path", "port", "reconnect"),
        *("server", "spec", "tls_creds", "wait", "where"),
    )

    def __init__(self, id: str, kind: str, *, where: str = "", spec: str = "") -> None:
        self.id = id
        self.kind = kind
        self.path = ""
        self.fd = -1
        self.host = ""
        self.port = ""
        self.family = ""
        self.server = False
        self.wait = False
        self.reconnect = 0
        self.tls_creds: str | None = None
        self.allowed: Allowed | None = None
        self.where = where
        self.spec = spec

    def describe(self) -> str:
        """Its address in QEMU's form for messages, such as `unix:/run/x,server=on`."""
        if self.kind == "unix":
            address = f"unix:{self.path}"
        elif self.kind == "tcp":
            address = f"tcp:{self.host}:{self.port}"
        elif self.kind == "fd":
            address = f"fd:{self.fd}"
        else:
            return self.kind
        return f"{address},server=on" if self.server else address


class MonitorSpec(NamedTuple):
    """A monitor, and the character device that it sits on.

    Attributes:
        id: its name, or None.
        chardev: what it sits on.
        mode: "control" (QMP) or "readline" (human).
        pretty: whether answers are spread over lines.
        where: the option and its argument as given, for messages.
        readonly: whether only queries are run.
    """

    id: str | None
    chardev: Chardev
    mode: str
    pretty: bool
    where: str
    readonly: bool = False


DEFAULT_RAM = 128 << 20
"""Bytes of memory of a machine that was given no `-m` (observed on QEMU 10.0.2)."""


class NumaNode:
    """A node of `-numa node`.

    Attributes:
        nodeid: its number.
        cpus: the numbers of its CPUs.
        mem: bytes of `mem=`, or None.
        memdev: the id of the memory backend that is its memory, or None.
        initiator: the node whose CPUs are the nearest to it, or None.
    """

    def __init__(
        self,
        nodeid: int,
        *,
        cpus: list[int] | None = None,
        mem: int | None = None,
        memdev: str | None = None,
        initiator: int | None = None,
    ) -> None:
        self.nodeid = nodeid
        self.initiator = initiator
        self.cpus = cpus or []
        self.mem = mem
        self.memdev = memdev


def wrong_initiator(node: int, initiator: int) -> str:
    """What is said of a node with CPUs that another one is told to be the nearest to."""
    return f"The initiator of CPU NUMA node {node} should be itself (got {initiator})"


class MachineConfig:
    """The memory side of a machine.

    Attributes:
        type: "none", "q35", "pc" or "virt".
        ram_size: bytes of its memory at the start.
        slots: how many DIMMs can be plugged.
        maxmem: bytes that it can have with all of them; `ram_size` where none
            can be plugged.
        nvdimm: whether it takes NVDIMMs.
        memory_backend: the id of the backend that is its memory, or None.
        numa_nodes: the nodes of `-numa`, in their order.
        guest_reacts: what the guest that is not there does when it is asked
            for something: "immediately", "after", "never" or "refuses".
        guest_delay_ms: milliseconds that it takes, with "after".
        cpu_type: the class of its CPUs; "" for that which the machine brings.
        smp: the CPUs: every level of their topology and how many, "cpus" and
            "maxcpus"; empty for one CPU.
    """

    def __init__(
        self,
        type: str = "none",
        *,
        ram_size: int = DEFAULT_RAM,
        slots: int = 0,
        maxmem: int | None = None,
        nvdimm: bool = False,
        memory_backend: str | None = None,
        numa_nodes: list[NumaNode] | None = None,
        guest_reacts: str = "immediately",
        guest_delay_ms: int = 0,
        smp: dict[str, int] | None = None,
    ) -> None:
        self.type = type
        self.ram_size = ram_size
        self.slots = slots
        self.maxmem = ram_size if maxmem is None else maxmem
        self.nvdimm = nvdimm
        self.memory_backend = memory_backend
        self.numa_nodes = numa_nodes or []
        self.guest_reacts = guest_reacts
        self.guest_delay_ms = guest_delay_ms
        self.smp = smp or {}
        self.cpu_type = ""


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
        command: its name; "logfile", "use-chardev" and "defer" are no client's.
        options: its arguments.
        is_json: whether values have their types; else they are text.
        where: the option and its argument as given, for messages.
    """

    command: str
    options: JSONObject
    is_json: bool
    where: str


class Config:
    """What to run.

    Attributes:
        report: writes messages in QEMU's form.
        compat: whose texts and introspection are given.
        chardevs: all of them, those that no monitor sits on included.
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
        max_objects: how many objects there may be, 0 for any number.
        max_memory: bytes of all memory backends together, 0 for any number.
        max_memory_per_user: of those that one user's clients have made.
        accels: the accelerators that were asked for, the first first.
        stopped: whether it starts in run state "prelaunch" (`-S`).
        preconfig: whether it waits for x-exit-preconfig.
        machine_kind: the name of the machine; None for none that was described.
        machine: what was said of it.
        machine_values: its properties that were given, by name.
        devices: what is plugged into it, in the order in which QEMU does it.
        mem_path: the file, or the directory of a file, that is the machine's memory.
        one_client: whether a monitor has one client at a time, as in QEMU.
        qtest: where the qtest protocol is spoken, or None.
        qtest_log: the file for what is spoken there, or None.
        actions: what follows of a reboot, a shutdown, a panic and a watchdog, where
            that is not as usual.
        incoming: how a machine that migrates is awaited, None where none is.
        allow_exec: whether clients may name commands.
        startup: what a stand-in registers at the start, in the order of the command
            line.
        catalogue: the catalogue of a stand-in, None for the package's own.
        unmodelled: what a stand-in makes of commands that it only knows: "refuse",
            "sample"; None where it is memd alone.
        test_faults: whether there are commands that have things go wrong.
        test_control: the ids of the monitors that are for those alone.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.compat = Compat.V10_0
        self.chardevs: list[Chardev] = []
        self.monitors: list[MonitorSpec] = []
        self.default_socket = False
        self.objects: list[JSONObject] = []
        self.name: str | None = None
        self.uuid = NO_UUID
        self.pidfile: str | None = None
        self.daemonize = False
        self.insecure_tcp = False
        self.deny_private_discard = False
        self.allowed: Allowed | None = None
        self.mem_roots: list[str] = []
        self.stored: dict[str, int] = {}
        self.accept_loss = False
        self.one_client = False
        self.mem_path: str | None = None
        self.audit: str | None = None
        self.metrics: Chardev | None = None
        self.limits: dict[str, int] = {}
        self.templates: str | None = None
        self.template_sources: list[str] = []
        self.template_cache: int | None = None
        self.pools: list[tuple[JSONObject, int]] = []
        self.pool_reserve: int | None = None
        self.commit = "off"
        self.max_objects = 0
        self.max_memory = 0
        self.max_memory_per_user = 0
        self.accels: list[str] = []
        self.stopped = False
        self.preconfig = False
        self.machine_kind: str | None = None
        self.machine = MachineConfig(ram_size=0)
        self.machine_values: JSONObject = {}
        self.devices: list[DeviceOption] = []
        self.qtest: Chardev | None = None
        self.qtest_log: str | None = None
        self.actions: dict[str, str] = {}
        self.startup: list[StartCommand] = []
        self.incoming: StartCommand | None = None
        self.allow_exec = False
        self.catalogue: str | None = None
        self.unmodelled: str | None = None
        self.test_faults = False
        self.test_control: list[str] = []
