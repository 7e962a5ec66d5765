"""What a command line comes to."""

from __future__ import annotations

from typing import Any

from memd.cli.report import Reporter
from memd.compat import Compat

JSON = Any

NO_UUID = "00000000-0000-0000-0000-000000000000"


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
        where: the option and its argument as given, for messages.
        spec: the argument as given.
    """

    __slots__ = (
        *("family", "fd", "host", "id", "kind", "path", "port", "reconnect", "server"),
        *("spec", "tls_creds", "wait", "where"),
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


class MonitorSpec:
    """A monitor, and the character device that it sits on.

    Attributes:
        id: its name, or None.
        chardev: what it sits on; its attributes can be read here too.
        mode: "control" (QMP) or "readline" (human).
        pretty: whether answers are spread over lines.
        where: the option and its argument as given, for messages.
    """

    __slots__ = ("chardev", "id", "mode", "pretty", "where")

    def __init__(
        self, id: str | None, chardev: Chardev, mode: str, pretty: bool, where: str
    ) -> None:
        self.id = id
        self.chardev = chardev
        self.mode = mode
        self.pretty = pretty
        self.where = where

    @property
    def kind(self) -> str:
        """See `Chardev`."""
        return self.chardev.kind

    @property
    def path(self) -> str:
        """See `Chardev`."""
        return self.chardev.path

    @property
    def fd(self) -> int:
        """See `Chardev`."""
        return self.chardev.fd

    @property
    def host(self) -> str:
        """See `Chardev`."""
        return self.chardev.host

    @property
    def port(self) -> str:
        """See `Chardev`."""
        return self.chardev.port

    @property
    def family(self) -> str:
        """See `Chardev`."""
        return self.chardev.family

    @property
    def server(self) -> bool:
        """See `Chardev`."""
        return self.chardev.server

    @property
    def wait(self) -> bool:
        """See `Chardev`."""
        return self.chardev.wait

    @property
    def tls_creds(self) -> str | None:
        """See `Chardev`."""
        return self.chardev.tls_creds

    @property
    def reconnect(self) -> int:
        """See `Chardev`."""
        return self.chardev.reconnect


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
        accels: the accelerators that were asked for, the first first.
        stopped: whether it starts in run state "prelaunch" (`-S`).
        preconfig: whether it waits for x-exit-preconfig.
        qtest: where the qtest protocol is spoken, or None.
        qtest_log: the file for what is spoken there, or None.
    """

    __slots__ = (
        *("accels", "chardevs", "compat", "daemonize", "default_socket"),
        *("deny_private_discard", "insecure_tcp", "monitors", "name", "objects", "pidfile"),
        *("preconfig", "qtest", "qtest_log", "report", "stopped", "uuid"),
    )

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.compat = Compat.V10_0
        self.chardevs: list[Chardev] = []
        self.monitors: list[MonitorSpec] = []
        self.default_socket = False
        self.objects: list[dict[str, JSON]] = []
        self.name: str | None = None
        self.uuid = NO_UUID
        self.pidfile: str | None = None
        self.daemonize = False
        self.insecure_tcp = False
        self.deny_private_discard = False
        self.accels: list[str] = []
        self.stopped = False
        self.preconfig = False
        self.qtest: Chardev | None = None
        self.qtest_log: str | None = None
