"""Monitors and what they sit on, as a command line describes them.

Their options are taken apart where they stand, and made sense of when all are
known, so that `-mon` may come before its `-chardev`. First all character
devices, then all monitors: the order in which QEMU 10.0.2 complains.
"""

from __future__ import annotations

from memd.cli.chardev import NOTHING, chardev_list, describe_backends, make_chardev, parse_device
from memd.cli.opts import Opts, OptsList, OptsParser
from memd.cli.reading import Given, located
from memd.cli.report import Answered
from memd.compat import Compat
from memd.config import Chardev, Config, MonitorSpec
from memd.errors import QMPError, bad_identifier, is_identifier, missing, not_accepted

OWN = {"readonly": "bool", "allow-user": "str", "allow-group": "str"}
"""Options of memd's monitors that QEMU's don't have."""

_MON = {"chardev": "str", "mode": "str", "pretty": "bool"}
MON = OptsList("mon", "chardev", _MON)
OWN_MON = OptsList("mon", "chardev", _MON | OWN)

MODES = ("control", "readline")


class Monitors:
    """Character devices and monitors on their way into a `Config`.

    Args:
        config: where they go.
        parser: takes their options apart.
        extended: whether there is more than in QEMU: addresses (`--qmp unix:...`)
            may have `pretty`, `stdio` options at all, and monitors `OWN`; and a
            `-mon` without a mode is for QMP.
    """

    def __init__(self, config: Config, parser: OptsParser, *, extended: bool) -> None:
        self._config = config
        self._parser = parser
        self._extended = extended
        self._labels = 0
        self._pending: list[tuple[Opts, Given]] = []
        self._pending_monitors: list[tuple[Opts, Given]] = []

    def add_chardev(self, given: Given) -> None:
        """Take `-chardev BACKEND,id=ID,...`."""
        self.add_parsed(self._parser.parse(chardev_list(self._config.compat), given), given)

    def add_parsed(self, opts: Opts, given: Given) -> None:
        """Take `-chardev`, whose options are taken apart."""
        self._pending.append((opts, given))

    def add_monitor(self, given: Given) -> None:
        """Take `-mon CHARDEV,...`."""
        known = OWN_MON if self._extended else MON
        self._pending_monitors.append((self._parser.parse(known, given), given))

    def add_device(self, given: Given, *, mode: str = "control", pretty: bool = False) -> str:
        """Take `-qmp ADDRESS`: a character device and a monitor on it at once; their id."""
        monitor = Opts()
        if given.value.startswith("chardev:"):
            label = given.value[len("chardev:") :]
            if not is_identifier(label):
                raise bad_identifier()
        else:
            label = f"compat_monitor{self._labels}"
            self._labels += 1
            opts = self._device(given, label)
            monitor.pairs += [pair for pair in opts.pairs if pair[0] in (*OWN, "pretty")]
            self._pending.append((opts, given))
        if label in self._parser.ids["mon"]:
            raise QMPError(f"Duplicate ID '{label}' for mon")
        self._parser.ids["mon"].add(label)
        monitor.id = label
        monitor.pairs += [("mode", mode), ("chardev", label)]
        if pretty:
            monitor.pairs.append(("pretty", "on"))
        self._pending_monitors.append((monitor, given))
        return label

    def add_object(self, given: Given, options: dict[str, object]) -> None:
        """Take a checked `-object monitor-qmp,id=ID,chardev=CHARDEV,...`."""
        monitor = Opts(str(options["id"]))
        monitor.pairs += [("mode", "control"), ("chardev", str(options["chardev"]))]
        if options.get("pretty"):
            monitor.pairs.append(("pretty", "on"))
        # QEMU names no place when what an object needs is not there.
        self._pending_monitors.append((monitor, Given(given.name, given.value, "")))

    def finish(self) -> None:
        """Make sense of all that was taken, and put it into the config.

        Raises:
            CommandLineError: something contradicts itself or something else.
            Answered: help was asked for.
        """
        chardevs: dict[str, Chardev] = {}
        for opts, given in self._pending:
            with located(given.where):
                chardev = self._make(opts, given)
            chardevs[chardev.id] = chardev
            self._config.chardevs.append(chardev)
        taken: set[str] = set()
        for opts, given in self._pending_monitors:
            with located(given.where):
                self._config.monitors.append(self._join(opts, given, chardevs, taken))

    def _device(self, given: Given, label: str) -> Opts:
        """The options of an address; QEMU says twice what is wrong with one."""
        with located(given.where, f"parse error: {given.value}"):
            if label in self._parser.ids["chardev"]:
                raise QMPError(f"Duplicate ID '{label}' for chardev")
            extra = {"pretty": "bool", **OWN} if self._extended else NOTHING
            known = chardev_list(self._config.compat, extra=extra)
            opts = parse_device(given.value, known, stdio_takes_options=self._extended)
        self._parser.ids["chardev"].add(label)
        opts.id = label
        return opts

    def _make(self, opts: Opts, given: Given) -> Chardev:
        if opts.get("backend") in ("help", "?"):
            raise Answered(describe_backends())
        if opts.id is None:
            raise QMPError("chardev: no id specified")
        config = self._config
        chardev = make_chardev(opts, opts.id, config.compat, config.objects, where=given.where)
        if chardev.kind == "stdio":
            if config.daemonize:
                raise QMPError("cannot use stdio with -daemonize")
            if any(other.kind == "stdio" for other in config.chardevs):
                raise QMPError("cannot use stdio by multiple character devices")
        return chardev

    def _join(
        self, opts: Opts, given: Given, chardevs: dict[str, Chardev], taken: set[str]
    ) -> MonitorSpec:
        mode = opts.get("mode")
        if mode is None:
            mode = "control" if self._extended else "readline"
        if mode not in MODES:
            raise not_accepted("mode", mode)
        label = opts.get("chardev")
        if label is None:
            raise missing("chardev")
        pretty = opts.switch("pretty") or False
        clash = pretty and mode == "readline"
        chardev = chardevs.get(label)
        if chardev is None and not (clash and self._config.compat is not Compat.V10_0):
            raise QMPError(f'chardev "{label}" not found')
        if chardev is None or clash:
            raise QMPError("'pretty' is not compatible with HMP monitors")
        if label in taken:
            raise QMPError(f"chardev '{label}' is already in use")
        taken.add(label)
        users = [value for key, value in opts.pairs if key == "allow-user"]
        groups = [value for key, value in opts.pairs if key == "allow-group"]
        if users or groups:
            if chardev.kind not in ("unix", "fd"):
                raise QMPError("who may connect can be told of UNIX sockets only")
            from memd.cli.access import allowed, id_of

            admitted = allowed(
                (id_of("user", each) for each in users), (id_of("group", each) for each in groups)
            )
            chardev = chardev._replace(allowed=admitted)
        readonly = opts.switch("readonly") or False
        return MonitorSpec(opts.id, chardev, mode, pretty, given.where, readonly=readonly)
