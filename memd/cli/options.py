"""The command line of `memd`, in the spelling of qemu-storage-daemon and QEMU."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from memd.cli.bounds import NAMES as BOUNDS
from memd.cli.monitors import Monitors
from memd.cli.objects import parse_object
from memd.cli.opts import OptsList, parse_opts
from memd.cli.reading import Given, Option, apply_options, compat_of, read_options
from memd.cli.report import Answered, CommandLineError
from memd.compat import Compat
from memd.config import Chardev, Config, MonitorSpec, Report
from memd.errors import QMPError

if TYPE_CHECKING:
    from memd.cli.hardware import Hardware

__all__ = ["Chardev", "Config", "MonitorSpec", "parse_arguments"]

NAME = OptsList(
    "name", "guest", {"guest": "str", "process": "str", "debug-threads": "bool"}, takes_id=False
)


class CommandLine:
    """A command line on its way to a `Config`.

    Args:
        report: writes warnings.
        default_mode: that of a `-mon` without one.
        extended: whether memd's own additions to QEMU's spellings are taken.
    """

    def __init__(self, report: Report, *, default_mode: str, extended: bool) -> None:
        self.config = Config(report)
        self.extended = extended
        self.monitors = Monitors(self.config, mode=default_mode, extended=extended)
        self.object_ids: set[str] = set()
        self.allowed_users: list[str] = []
        self.allowed_groups: list[str] = []
        self._hardware: Hardware | None = None

    @property
    def hardware(self) -> Hardware:
        """The options that describe a machine; imported for those who want one."""
        if self._hardware is None:
            from memd.cli.hardware import Hardware

            self._hardware = Hardware(self.config)
        return self._hardware

    def check_machine(self) -> None:
        """Raise `CommandLineError` for a machine that there is not."""
        if self._hardware is not None:
            self._hardware.machine.check_type(self.config.compat)

    def resolve_machine(self) -> None:
        """Make sense of what was said of a machine, if anything was.

        Raises:
            CommandLineError: there can't be such a machine.
        """
        if self._hardware is not None:
            self._hardware.resolve()

    def add_object(self, given: Given) -> None:
        """Take `-object`."""
        options = parse_object(
            given.value,
            self.config.compat,
            self.object_ids,
            given.warn(self.config.report),
            nesting=self.extended,
        )
        if options["qom-type"] == "monitor-qmp":
            self.monitors.add_object(given, options)
        else:
            self.config.objects.append(options)

    def add_pool(self, given: Given) -> None:
        """Take `-pool`."""
        from memd.cli.pools import parse_pool

        self.config.pools.append(parse_pool(given.value, self.config.compat))

    def set_name(self, given: Given) -> None:
        """Take `-name`."""
        opts = parse_opts(NAME, given.value, given.warn(self.config.report))
        name = opts.get("guest")
        if name is not None:
            # It goes to clients, as UTF-8.
            self.config.name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def add_qmp(self, given: Given, *, pretty: bool = False) -> None:
        """Take `-qmp`, or `-qmp-pretty`."""
        self.monitors.add_device(given, pretty=pretty)

    def find_compat(self, given: Sequence[Given]) -> None:
        """Look for a release among the options: it decides how others are read."""
        for each in given:
            if each.name == "compat":
                self.config.compat = compat_of(each.value) or self.config.compat


def flag(name: str) -> Option[CommandLine]:
    """An option without an argument, that sets a member of the config."""
    return Option(lambda line, given: setattr(line.config, name, True), argument=False)


def text(name: str) -> Option[CommandLine]:
    """An option whose argument is a member of the config."""
    return Option(lambda line, given: setattr(line.config, name, given.value))


def several(name: str) -> Option[CommandLine]:
    """An option that is given once for each member of a list of the config."""
    return Option(lambda line, given: getattr(line.config, name).append(given.value))


def choice(name: str, *values: str) -> Option[CommandLine]:
    """An option whose argument is one of a few values of a member of the config."""

    def apply(line: CommandLine, given: Given) -> None:
        setattr(line.config, name, one_of(given.name, given.value, values))

    return Option(apply)


def size(name: str) -> Option[CommandLine]:
    """An option whose argument is a member of the config, in bytes."""

    def apply(line: CommandLine, given: Given) -> None:
        from memd.cli.bounds import size_of

        setattr(line.config, name, size_of(given.name, given.value))

    return Option(apply)


def one_of(name: str, value: str, values: Container[str]) -> str:
    """A value; raises `QMPError` where it is none of those that a parameter takes."""
    if value not in values:
        raise QMPError(f"Parameter '{name}' does not accept value '{value}'")
    return value


def _compat(line: CommandLine, given: Given) -> None:
    one_of("compat", given.value, [each.value for each in Compat])


def _allow_user(line: CommandLine, given: Given) -> None:
    from memd.cli.access import user_id

    # Checked here, where messages name the option.
    user_id(given.value)
    line.allowed_users.append(given.value)


def _allow_group(line: CommandLine, given: Given) -> None:
    from memd.cli.access import group_id

    group_id(given.value)
    line.allowed_groups.append(given.value)


def _test_control(line: CommandLine, given: Given) -> None:
    line.config.test_faults = True
    line.config.test_control.append(line.monitors.add_device(given))


def _clients(line: CommandLine, given: Given) -> None:
    line.config.one_client = one_of("clients", given.value, ("one", "many")) == "one"


def _bound(line: CommandLine, given: Given) -> None:
    from memd.cli.bounds import set_bound

    set_bound(line.config, given.name, given.value)


def _metrics(line: CommandLine, given: Given) -> None:
    from memd.cli.metrics import metrics_address

    line.config.metrics = metrics_address(given.value)


HARDWARE: dict[str, Option[CommandLine]] = {
    **dict.fromkeys(
        ("machine", "M"), Option(lambda line, given: line.hardware.take_machine(given))
    ),
    "m": Option(lambda line, given: line.hardware.take_memory(given)),
    "smp": Option(lambda line, given: line.hardware.take_smp(given)),
    "numa": Option(lambda line, given: line.hardware.take_numa(given)),
    "device": Option(lambda line, given: line.hardware.take_device(given)),
    "guest-reacts": Option(lambda line, given: line.hardware.take_guest_reacts(given)),
}
"""The options that describe a machine."""


def _help(line: CommandLine, given: Given) -> None:
    from memd.cli.usage import USAGE

    raise Answered(USAGE)


def _version(line: CommandLine, given: Given) -> None:
    from memd import __version__

    raise Answered(f"memd version {__version__}\n")


OPTIONS: dict[str, Option[CommandLine]] = {
    "qmp": Option(CommandLine.add_qmp),
    "qmp-pretty": Option(lambda line, given: line.add_qmp(given, pretty=True)),
    "object": Option(CommandLine.add_object),
    "pool": Option(CommandLine.add_pool),
    "pool-reserve": size("pool_reserve"),
    "commit": choice("commit", "strict", "off"),
    "chardev": Option(lambda line, given: line.monitors.add_chardev(given)),
    **dict.fromkeys(
        ("monitor", "mon"), Option(lambda line, given: line.monitors.add_monitor(given))
    ),
    "name": Option(CommandLine.set_name),
    "pidfile": text("pidfile"),
    "daemonize": flag("daemonize"),
    "compat": Option(_compat),
    "insecure-tcp": flag("insecure_tcp"),
    "deny-private-discard": flag("deny_private_discard"),
    "accept-loss": flag("accept_loss"),
    "allow-user": Option(_allow_user),
    "allow-group": Option(_allow_group),
    "allow-exec": flag("allow_exec"),
    "mem-root": several("mem_roots"),
    "metrics": Option(_metrics),
    "audit": text("audit"),
    "clients": Option(_clients),
    "templates": text("templates"),
    "template-source": several("template_sources"),
    "template-cache": size("template_cache"),
    "test-faults": flag("test_faults"),
    "test-control": Option(_test_control),
    **{name: Option(_bound) for name in BOUNDS},
    **HARDWARE,
    "help": Option(_help, argument=False),
    "h": Option(_help, argument=False),
    "version": Option(_version, argument=False),
    "V": Option(_version, argument=False),
}


def parse_arguments(argv: Sequence[str], report: Report) -> Config:
    """What `memd ARGV...` is to run.

    Args:
        argv: without the program's name.
        report: writes warnings.

    Raises:
        CommandLineError: it can't be run.
        Answered: it asks a question.
    """
    line = CommandLine(report, default_mode="control", extended=True)
    given = read_options(argv, OPTIONS)
    line.find_compat(given)
    apply_options(given, OPTIONS, line)
    line.check_machine()
    line.monitors.finish()
    line.resolve_machine()
    config = line.config
    if config.templates is None and (config.template_sources or config.template_cache is not None):
        raise CommandLineError("--template-source and --template-cache need --templates DIR")
    if line.allowed_users or line.allowed_groups:
        from memd.cli.access import allowed

        line.config.allowed = allowed(line.allowed_users, line.allowed_groups)
    line.config.default_socket = not line.config.monitors
    return line.config
