"""The command line of `memd`, in the spelling of qemu-storage-daemon and QEMU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn

from memd.cli.bounds import NAMES as BOUNDS
from memd.cli.monitors import Monitors
from memd.cli.objects import parse_object
from memd.cli.opts import OptsList, OptsParser, parse_opts
from memd.cli.reading import Apply, Given, apply_options, compat_of, located, read_options
from memd.cli.report import Answered, CommandLineError
from memd.compat import Compat
from memd.config import Config, Report
from memd.errors import not_accepted

if TYPE_CHECKING:
    from memd.cli.hardware import Hardware

NAME = OptsList(
    "name", "guest", {"guest": "str", "process": "str", "debug-threads": "bool"}, takes_id=False
)


class CommandLine:
    """A command line on its way to a `Config`.

    Args:
        report: writes warnings.
        extended: whether memd's own additions to QEMU's spellings are taken.

    Attributes:
        described: the machine; None where none is described.
        parse: takes the options in an argument apart; see `OptsParser`.
        ids: those that were given so far, by the name of the option's list.
    """

    def __init__(self, report: Report, *, extended: bool) -> None:
        self.config = Config(report)
        self.extended = extended
        parser = OptsParser(report)
        self.parse, self.ids = parser.parse, parser.ids
        self.monitors = Monitors(self.config, parser, extended=extended)
        self.ports: Counter[str] = Counter()
        self.allowed: dict[str, list[int]] = {"user": [], "group": []}
        self.described: Hardware | None = None

    @property
    def hardware(self) -> Hardware:
        """The options that describe a machine; imported for those who want one."""
        if self.described is None:
            from memd.cli.hardware import Hardware

            self.described = Hardware(self.config)
        return self.described

    def add_object(self, given: Given) -> None:
        """Take `-object`."""
        options = parse_object(
            given.value,
            self.config.compat,
            self.ids["object"],
            given.warn(self.config.report),
            nesting=self.extended,
            always=given.dotted,
        )
        if options["qom-type"] == "monitor-qmp":
            self.monitors.add_object(given, options)
        else:
            self.config.objects.append(options)

    def set_name(self, given: Given) -> None:
        """Take `-name`."""
        opts = parse_opts(NAME, given.value, given.warn(self.config.report))
        name = opts.get("guest")
        if name is not None:
            # It goes to clients, as UTF-8.
            self.config.name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def find_compat(self, given: Sequence[Given]) -> None:
        """Look for a release among the options: it decides how others are read."""
        for each in given:
            if each.name == "compat":
                self.config.compat = compat_of(each.value) or self.config.compat


Take = Apply[CommandLine]


def flag(name: str) -> Take:
    """An option without an argument, that sets a member of the config."""
    return lambda line, given: setattr(line.config, name, True)


def text(name: str) -> Take:
    """An option whose argument is a member of the config."""
    return lambda line, given: setattr(line.config, name, given.value)


def several(name: str) -> Take:
    """An option that is given once for each member of a list of the config."""
    return lambda line, given: getattr(line.config, name).append(given.value)


def choice(name: str, *values: str) -> Take:
    """An option whose argument is one of a few values of a member of the config."""
    return lambda line, given: setattr(line.config, name, one_of(given.name, given.value, values))


def size(name: str) -> Take:
    """An option whose argument is a member of the config, in bytes."""

    def take(line: CommandLine, given: Given) -> None:
        from memd.cli.bounds import size_of

        setattr(line.config, name, size_of(given.name, given.value))

    return take


def method(place: str) -> Take:
    """An option that a method of a part of the command line takes."""
    return lambda line, given: attrgetter(place)(line)(given)


def one_of(name: str, value: str, values: Container[str]) -> str:
    """A value; raises `QMPError` where it is none of those that a parameter takes."""
    if value not in values:
        raise not_accepted(name, value)
    return value


def _compat(line: CommandLine, given: Given) -> None:
    one_of("compat", given.value, [each.value for each in Compat])


def _allow(line: CommandLine, given: Given) -> None:
    from memd.cli.access import id_of

    kind = given.name.removeprefix("allow-")
    line.allowed[kind].append(id_of(kind, given.value))


def _test_control(line: CommandLine, given: Given) -> None:
    line.config.test_faults = True
    line.config.test_control.append(line.monitors.add_device(given))


def _clients(line: CommandLine, given: Given) -> None:
    line.config.one_client = one_of("clients", given.value, ("one", "many")) == "one"


def _pool(line: CommandLine, given: Given) -> None:
    from memd.cli.pools import parse_pool

    line.config.pools.append(parse_pool(given.value, line.config.compat))


def _bound(line: CommandLine, given: Given) -> None:
    from memd.cli.bounds import set_bound

    set_bound(line.config, given.name, given.value)


def _metrics(line: CommandLine, given: Given) -> None:
    from memd.cli.metrics import metrics_address

    line.config.metrics = metrics_address(given.value)


def _help(line: CommandLine, given: Given) -> NoReturn:
    from memd.cli.usage import USAGE

    raise Answered(USAGE)


def _version(line: CommandLine, given: Given) -> NoReturn:
    from memd import __version__

    raise Answered(f"memd version {__version__}\n")


HARDWARE: dict[str, Take] = {
    **dict.fromkeys(("machine", "M"), method("hardware.take_machine")),
    "m": method("hardware.take_memory"),
    "smp": method("hardware.take_smp"),
    "numa": method("hardware.take_numa"),
    "device": method("hardware.take_device"),
    "guest-reacts": method("hardware.take_guest_reacts"),
}
"""The options that describe a machine."""

OPTIONS: dict[str, Take] = {
    "qmp": method("monitors.add_device"),
    "qmp-pretty": lambda line, given: line.monitors.add_device(given, pretty=True),
    "object": CommandLine.add_object,
    "pool": _pool,
    "pool-reserve": size("pool_reserve"),
    "commit": choice("commit", "strict", "off"),
    "chardev": method("monitors.add_chardev"),
    **dict.fromkeys(("monitor", "mon"), method("monitors.add_monitor")),
    "name": CommandLine.set_name,
    "pidfile": text("pidfile"),
    "compat": _compat,
    **dict.fromkeys(("allow-user", "allow-group"), _allow),
    "mem-root": several("mem_roots"),
    "metrics": _metrics,
    "audit": text("audit"),
    "clients": _clients,
    "templates": text("templates"),
    "template-source": several("template_sources"),
    "template-cache": size("template_cache"),
    "test-control": _test_control,
    **dict.fromkeys(BOUNDS, _bound),
    **HARDWARE,
}
FLAGS: dict[str, Take] = {
    "daemonize": flag("daemonize"),
    "insecure-tcp": flag("insecure_tcp"),
    "deny-private-discard": flag("deny_private_discard"),
    "accept-loss": flag("accept_loss"),
    "allow-exec": flag("allow_exec"),
    "test-faults": flag("test_faults"),
    **dict.fromkeys(("help", "h"), _help),
    **dict.fromkeys(("version", "V"), _version),
}
"""The options with an argument, and those without one."""


def parse_arguments(argv: Sequence[str], report: Report) -> Config:
    """The config of `memd ARGV...`.

    Args:
        argv: without the program's name.
        report: writes warnings.

    Raises:
        CommandLineError: it can't be run.
        Answered: it asks a question.
    """
    line = CommandLine(report, extended=True)
    given = read_options(argv, OPTIONS, FLAGS)
    line.find_compat(given)
    apply_options(given, OPTIONS | FLAGS, line)
    config, hardware = line.config, line.described
    if hardware is not None:
        hardware.machine.check_type(config.compat)
    line.monitors.finish()
    if hardware is not None:
        with located():
            hardware.resolve()
    if config.templates is None and (config.template_sources or config.template_cache is not None):
        raise CommandLineError("--template-source and --template-cache need --templates DIR")
    if any(line.allowed.values()):
        from memd.cli.access import allowed

        config.allowed = allowed(*line.allowed.values())
    config.default_socket = not config.monitors
    return config
