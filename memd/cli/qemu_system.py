"""The command `qemu-system-memd`: memd under a QEMU's options.

It takes what test harnesses and management software start a QEMU without a
machine with. What means something only to a machine is read over, what would
put something into one is refused. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, NoReturn

from memd.cli import options
from memd.cli.chardev import chardev_list, make_chardev, parse_device, with_mux
from memd.cli.defaults import default_parts, default_ports
from memd.cli.keyval import HELP, parse_either, parse_keyval
from memd.cli.options import CommandLine
from memd.cli.opts import Opts, OptsList
from memd.cli.reading import (
    Apply,
    Given,
    apply_options,
    compat_of,
    expand,
    located,
    read_options,
)
from memd.cli.report import Answered, CommandLineError
from memd.cli.start import run_command
from memd.compat import Compat
from memd.config import Chardev, Config, DeviceOption, Report, StartCommand
from memd.devices.kinds import FLASH
from memd.errors import QMPError, missing, not_accepted, unexpected
from memd.json_types import JSONObject
from memd.standin.catalogue import LISTED, find_catalogue

if TYPE_CHECKING:
    from memd.standin.catalogue import Catalogue

_KINDS = {"string": "str", "boolean": "bool", "number": "num", "size": "size"}
"""The kinds of values, by their names in a catalogue."""

_IMPLIED = {
    "fsdev": "fsdriver",
    "fw_cfg": "name",
    "icount": "shift",
    "option-rom": "romfile",
    "sandbox": "enable",
    "virtfs": "fsdriver",
    "vnc": "vnc",
}
"""The keys of first values that have none, by their options."""

_BOOTED = {
    **{name: name for name in ("append", "dtb", "initrd", "kernel", "shim")},
    "bios": "firmware",
}
"""Options that set a property of the machine, and its name."""

_READ_OVER = ("d", "D", "k", "seed")
_FLAGS_READ_OVER = ("full-screen", "no-fd-bootchk", "no-user-config", "win2k-hack")

REFUSED = (
    "acpitable",
    *("dfilter", "echr", "iscsi"),
    *("mtdblock", "plugin"),
    "sd",
    "xen-domid",
)
FLAGS_REFUSED = (
    *("enable-sync-profile", "jitdump", "perfmap"),
    *("xen-attach", "xen-domid-restrict"),
)


class QemuCommandLine(CommandLine):
    """A QEMU's command line on its way to a `Config`.

    Attributes:
        qtest: the address of the qtest protocol, or None.
        guest_name: whether messages begin with the guest's name.
        mon_seen: whether there was a `-mon`, which is warned about once.
        rtc: the options of `-rtc`.
    """

    qtest: str | None = None
    guest_name = mon_seen = False
    description: IO[str] | None = None

    def __init__(self, report: Report) -> None:
        super().__init__(report, extended=False)
        self.config.unmodelled = "refuse"
        self.config.one_client = True
        self.rtc = Opts()

    def known(self, option: str) -> OptsList:
        """The keys that the recorded QEMU has for an option; raises `QMPError`."""
        found = self.catalogue.section("options").get(option)
        if found is None:
            raise QMPError(f"There is no option group '{option}'")
        kinds = {row["name"]: _KINDS[row["type"]] for row in found["parameters"]}
        return OptsList(option, _IMPLIED.get(option), kinds)

    def checked(self, given: Given) -> Opts:
        """The options in an argument, all of which the recorded QEMU has; raises `QMPError`."""
        return self.parse(self.known(given.name), given)

    def register(
        self,
        given: Given,
        command: str,
        options: JSONObject,
        is_json: bool = True,
        failed: str = "",
    ) -> None:
        """Have an option acted on at the start; see `StartCommand`."""
        start = StartCommand(command, options, given.where, failed, is_json)
        self.config.startup.append(start)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of the QEMU that is stood in for; raises `QMPError`."""
        return find_catalogue(self.config.compat, self.config.catalogue)


Take = Apply[QemuCommandLine]


def _nothing(line: QemuCommandLine, given: Given) -> None:
    pass


def _refuse(line: QemuCommandLine, given: Given) -> None:
    raise QMPError("memd does not support this option")


def _description(line: QemuCommandLine, given: Given) -> None:
    try:
        line.description = open(given.value, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise QMPError(f"open {given.value}: {error.strerror}") from None


_RTC = {"clock": ("host", "rt", "vm"), "driftfix": ("slew", "none")}


_TRACE = OptsList("trace", "enable", dict.fromkeys(("enable", "events", "file"), "str"))


def _trace(line: QemuCommandLine, given: Given) -> None:
    # What is named is not looked for: there are no events.
    line.parse(_TRACE, given)


def _rtc(line: QemuCommandLine, given: Given) -> None:
    line.rtc = line.checked(given)


def _set_clock(line: QemuCommandLine) -> None:
    """Take what `-rtc` says; raises `CommandLineError` where it can't be."""
    opts = line.rtc
    for name, words in _RTC.items():
        value = opts.get(name)
        if value is not None and value not in words:
            raise CommandLineError(f"invalid option value '{value}'")
    line.hardware.rtc_offset = _seconds_off(opts.get("base") or "utc")


def _seconds_off(base: str) -> float:
    """The seconds that a machine's clock is ahead of UTC."""
    if base == "utc":
        return 0.0
    import calendar
    import time

    if base == "localtime":
        return time.localtime().tm_gmtoff
    match = re.fullmatch(_DATE, base)
    if match is None:
        raise CommandLineError(
            "invalid datetime format",
            hint="valid formats: '2006-06-17T16:01:21' or '2006-06-17'",
        )
    year, month, day, *at = (int(each or 0) for each in match.groups())
    # There is no month that QEMU does not take.
    later, month = divmod(month - 1, 12)
    return calendar.timegm((year + later, month + 1, day, *at)) - time.time()


_DATE = r"(\d{1,4})-(\d{1,4})-(\d{1,4})(?:T(\d{1,4}):(\d{1,4}):(\d{1,4}))?"


def _run_with(line: QemuCommandLine, given: Given) -> None:
    opts = line.checked(given)
    if opts.has("chroot") or opts.has("exit-with-parent"):
        _refuse(line, given)
    user = opts.get("user")
    if user is not None and not _is_user(user):
        raise CommandLineError(
            f'User "user={user}" doesn\'t exist (and is not <uid>:<gid>)', where=given.where
        )


def _is_user(text: str) -> bool:
    """Whether it is a user's name, or numbers of a user and a group."""
    import pwd

    try:
        pwd.getpwnam(text)
    except KeyError:
        return re.fullmatch("[0-9]{1,9}:[0-9]{1,9}", text) is not None
    return True


def _set_actions(line: QemuCommandLine, actions: JSONObject) -> None:
    from memd.qapi import load_schema

    line.config.actions |= load_schema(line.config.compat).checker("set-action")(actions)


def _taken(module: str, *names: str, by: str = "take_{}") -> dict[str, Take]:
    """Options that functions of a module of this room take, which is imported for them.

    Args:
        by: the name of the function, which may have the option's in it.
    """
    return {name: partial(_take, module, by.format(name.replace("-", "_"))) for name in names}


def _take(module: str, function: str, line: QemuCommandLine, given: Given) -> None:
    from importlib import import_module

    getattr(import_module(f"memd.cli.{module}"), function)(line, given)


def _audiodev(line: QemuCommandLine, given: Given) -> None:
    line.config.default_audio = False
    line.register(given, "audiodev", *parse_either(given.value, line.config.compat, "driver"))


_CARDS = {
    **{name: ({"driver": name},) for name in ("adlib", "cs4231a", "gus", "sb16")},
    "ac97": ({"driver": "AC97"},),
    "es1370": ({"driver": "ES1370"},),
    "hda": ({"driver": "intel-hda"}, {"driver": "hda-duplex"}),
    "virtio": ({"driver": "virtio-sound-pci"},),
}
"""The sound cards of `-audio`, each with its devices, the last of which makes the sound."""


def _audio(line: QemuCommandLine, given: Given) -> None:
    """Take `-audio`: a backend, for a card that it names or for all that name none."""
    config = line.config
    if given.value in HELP:
        raise Answered(_help_of(line, "audiodev"))
    options, _help = parse_keyval(given.value, "driver")
    if "driver" not in options:
        raise missing("driver")
    card = options.pop("model", None)
    config.default_audio = card is None
    if options == {"driver": "none"} and card is None:
        return
    id = options.setdefault("id", "audiodev0")
    if card is not None and card not in _CARDS:
        kind = "sound card name" if config.compat is Compat.V10_0 else "audio device model"
        raise QMPError(f"Unknown {kind} `{card}'")
    for each in _CARDS.get(card, ()):
        config.devices.append(DeviceOption(given.where, False, dict(each)))
    if card is not None:
        config.devices[-1].options["audiodev"] = id
    command = "default-audiodev" if card is None else "audiodev"
    line.register(given, command, options, is_json=False)


def _mon(line: QemuCommandLine, given: Given) -> None:
    if line.config.compat is not Compat.V10_0 and not line.mon_seen:
        line.mon_seen = True
        line.config.report.warning(
            "'-mon' is deprecated, use '-object' with 'monitor-hmp' or 'monitor-qmp' types instead",
            given.where,
        )
    line.monitors.add_monitor(given)


def _monitor(line: QemuCommandLine, given: Given) -> None:
    if given.value not in ("none", "vc"):
        line.monitors.add_device(given, mode="readline")


def _msg(line: QemuCommandLine, given: Given) -> None:
    opts = line.checked(given)
    report = line.config.report
    report.timestamp = opts.switch("timestamp") or False
    line.guest_name = opts.switch("guest-name") or False
    _name_messages(line)


def _name(line: QemuCommandLine, given: Given) -> None:
    line.set_name(given)
    _name_messages(line)


def _name_messages(line: QemuCommandLine) -> None:
    line.config.report.name = line.config.name if line.guest_name else None


def _uuid(line: QemuCommandLine, given: Given) -> None:
    from memd.qapi.numbers import parse_uuid

    uuid = parse_uuid(given.value)
    if uuid is None:
        raise QMPError("failed to parse UUID string: wrong format")
    line.config.uuid = uuid


_POLICIES = {
    f"{what}-{way}": ("accept", *more)
    for what in ("deprecated", "unstable")
    for way, more in (("input", ("reject", "crash")), ("output", ("hide",)))
}
"""The keys of QEMU's own `-compat`, and their values."""


def _compat(line: QemuCommandLine, given: Given) -> None:
    if compat_of(given.value) is not None:
        return
    from memd.qapi.keyval import visit_text
    from memd.qapi.visit import visit_enum

    options, wants_help = parse_keyval(given.value)
    if wants_help:
        raise QMPError("Help is not available for this option")
    for name, words in _POLICIES.items():
        if name in options:
            visit_enum(words, visit_text)(options[name], name)
    for name in options:
        if name not in _POLICIES:
            raise unexpected(name)


def _qtest(line: QemuCommandLine, given: Given) -> None:
    line.qtest = given.value


def _qtest_log(line: QemuCommandLine, given: Given) -> None:
    line.config.qtest_log = None if given.value == "none" else given.value


def _display(line: QemuCommandLine, given: Given) -> None:
    if given.value.startswith("vnc="):
        vnc = given._replace(name="vnc", value=given.value.removeprefix("vnc="))
        OPTIONS["vnc"](line, vnc)
        return
    kind = parse_keyval(given.value, "type")[0].get("type")
    if kind != "none" and kind not in _help_of(line, "display").split():
        raise not_accepted("type", kind)


def _vga(line: QemuCommandLine, given: Given) -> None:
    if given.value == "help":
        raise Answered("".join(f"{name:<20} {what}\n" for name, what in _DISPLAY_ADAPTERS.items()))
    if given.value not in _DISPLAY_ADAPTERS:
        raise CommandLineError(f"unknown vga type: {given.value}")
    if given.value != "none":
        line.register(given, "vga", {"type": given.value})


_DISPLAY_ADAPTERS = {
    "none": "no graphic card",
    "std": "standard VGA (default)",
    "cirrus": "Cirrus VGA",
    "vmware": "VMWare SVGA",
    "virtio": "Virtio VGA",
}
"""The values of `-vga`, as its help lists them."""


def _usbdevice(line: QemuCommandLine, given: Given) -> None:
    line.hardware.machine.set("usb", "on")
    line.register(given, "usb", {"type": given.value})


def _cpu(line: QemuCommandLine, given: Given) -> None:
    line.hardware.cpu_model, _, line.hardware.cpu_features = given.value.partition(",")


def _boot_from(name: str) -> Take:
    """An option that is a property of the machine."""
    return lambda line, given: line.hardware.machine.set(name, given.value)


def _directory(line: QemuCommandLine, given: Given) -> None:
    """Take `-L`, which firmware is looked for in."""
    from memd.devices.boot_files import DIRECTORIES

    directories = line.config.firmware_directories
    if given.value in HELP:
        raise Answered("".join(f"{each}\n" for each in (*directories, *DIRECTORIES)))
    directories.append(given.value)


def _enable_kvm(line: QemuCommandLine, given: Given) -> None:
    line.hardware.machine.set("accel", "kvm")


def _help(line: QemuCommandLine, given: Given) -> None:
    from memd.cli.usage import QEMU_USAGE

    raise Answered(QEMU_USAGE)


def _version(line: QemuCommandLine, given: Given) -> None:
    from memd import __version__

    # Who asks a QEMU for its version reads the first number of the first line.
    release = ".".join(map(str, line.config.compat.version))
    raise Answered(f"QEMU emulator version {release} (memd {__version__})\n")


def _help_of(line: QemuCommandLine, name: str) -> str:
    """What the recorded QEMU lists for an option; raises `QMPError`."""
    return str(line.catalogue.section("lists")[name])


def _listed(take: Take) -> Take:
    """An option whose `help` lists what the recorded QEMU has."""

    def apply(line: QemuCommandLine, given: Given) -> None:
        if given.value in HELP:
            raise Answered(_help_of(line, given.name))
        take(line, given)

    return apply


OPTIONS: dict[str, Take] = {
    **{name: options.OPTIONS[name] for name in ("qmp", "qmp-pretty", "pidfile")},
    **{name: options.OPTIONS[name] for name in ("test-control", "clients", "mem-root")},
    "mon": _mon,
    "monitor": _monitor,
    "name": _name,
    "msg": _msg,
    "uuid": _uuid,
    "compat": _compat,
    "qtest": _qtest,
    "qtest-log": _qtest_log,
    "display": _display,
    "audio": _audio,
    "audiodev": _audiodev,
    "vga": _vga,
    "accel": lambda line, given: line.hardware.machine.take_accel(
        given, given.warn(line.config.report)
    ),
    "cpu": _cpu,
    "mem-path": options.text("mem_path"),
    **options.HARDWARE,
    "action": lambda line, given: _set_actions(line, dict(line.checked(given).pairs)),
    "watchdog-action": lambda line, given: _set_actions(line, {"watchdog": given.value}),
    "catalogue": options.text("catalogue"),
    "unmodelled": options.choice("unmodelled", "refuse", "sample"),
    **dict.fromkeys(("overcommit", "sandbox"), QemuCommandLine.checked),
    "boot": options.method("hardware.machine.take_boot"),
    **_taken("checked", "fw_cfg", "global", "icount", "option-rom", "smbios"),
    "rtc": _rtc,
    "run-with": _run_with,
    **_taken("register", "add-fd", "blockdev", "chardev", "debugcon", "fsdev", "gdb", "incoming"),
    **_taken("register", "loadvm", "netdev", "object", "spice", "tpmdev", "virtfs", "vnc"),
    **_taken("register", "serial", "parallel", by="take_port"),
    **_taken("register", "drive", "cdrom", "fda", "fdb", "hda", "hdb", by="take_drive"),
    **_taken("register", "hdc", "hdd", "pflash", by="take_drive"),
    **_taken("register", "nic", "net", by="take_network"),
    **dict.fromkeys(("readconfig", "set"), _nothing),
    "usbdevice": _usbdevice,
    **{name: _boot_from(each) for name, each in _BOOTED.items()},
    "L": _directory,
    "trace": _trace,
    **dict.fromkeys(_READ_OVER, _nothing),
    **dict.fromkeys(REFUSED, _refuse),
    "dump-vmstate": _description,
}
OPTIONS.update({name: _listed(OPTIONS[name]) for name in LISTED})
FLAGS: dict[str, Take] = {
    **{name: options.FLAGS[name] for name in ("daemonize", "test-faults", "allow-exec")},
    "S": options.flag("stopped"),
    "snapshot": _nothing,
    "nodefaults": lambda line, given: setattr(line.config, "default_audio", False),
    "usb": lambda line, given: line.hardware.machine.set("usb", "on"),
    "preconfig": options.flag("preconfig"),
    "only-migratable": options.flag("only_migratable"),
    "mem-prealloc": options.flag("mem_prealloc"),
    "s": lambda line, given: OPTIONS["gdb"](line, given._replace(value="tcp::1234")),
    "enable-kvm": _enable_kvm,
    "no-shutdown": lambda line, given: line.config.actions.update(shutdown="pause"),
    "no-reboot": lambda line, given: line.config.actions.update(reboot="shutdown"),
    "nographic": lambda line, given: line.hardware.machine.set("graphics", "off"),
    **dict.fromkeys(("help", "h"), _help),
    "version": _version,
    **dict.fromkeys(_FLAGS_READ_OVER, _nothing),
    **dict.fromkeys(FLAGS_REFUSED, _refuse),
}
"""The options with an argument, and those without one."""

_ORDER = (
    *("flash-chips", "add-fd", "audiodev", "default-audiodev", "spice", "logfile", "chardev-add"),
    *("object-add", "blockdev-add"),
    *("drive", "default-drive", "netdev_add", "netdev"),
    *("nic", "net", "default-net", "vga", "tpmdev", "port", "usb", "gdb", "vnc", "fsdev"),
)
"""The order of registering: QEMU takes options by kind, not as they were written."""


def _add_defaults(line: QemuCommandLine, given: Sequence[Given]) -> list[Given]:
    """Add what the machine has unless it is told otherwise; gives the options of its ports."""
    config = line.config
    drivers = {each.options["driver"] for each in config.devices}
    # A QEMU looks at -global, too.
    drivers |= {each.driver for each in config.globals}
    kind, names = line.hardware.machine.kind.kind, {each.name for each in given}
    monitor = not names.isdisjoint(("mon", "monitor", "qmp", "qmp-pretty"))
    ports = default_ports(given, kind, drivers, monitor=monitor)
    apply_options(ports, OPTIONS, line)
    config.startup += default_parts(given, kind, drivers)
    return ports


def _check_stdio(line: QemuCommandLine, given: Sequence[Given]) -> None:
    """Raise `CommandLineError` where a port would be on stdio, which is in use."""
    taken = any(chardev.kind == "stdio" for chardev in line.config.chardevs)
    # QEMU makes them in this order.
    for name, value, where, _dotted in sorted(given, key=lambda each: each.name != "serial"):
        if name in ("serial", "parallel") and value.removeprefix("mon:") == "stdio":
            if taken:
                raise CommandLineError(
                    "cannot use stdio by multiple character devices",
                    f"could not connect {name} device to character backend '{value}'",
                    where=where,
                )
            taken = True


def _check_together(line: QemuCommandLine) -> None:
    """Raise `CommandLineError` where an option is given that another one needs, or excludes."""
    config, machine = line.config, line.hardware.machine
    for name in ("append", "shim", "initrd"):
        if machine.text(name) is not None and machine.text("kernel") is None:
            raise CommandLineError(f"-{name} only allowed with -kernel option")
    incoming = config.incoming
    if config.loading is not None:
        for other, given in (("incoming", incoming is not None), ("preconfig", config.preconfig)):
            if given:
                raise CommandLineError(f"'{other}' and 'loadvm' options are mutually exclusive")
    if config.preconfig and incoming is not None and incoming.command == "incoming":
        raise CommandLineError("'preconfig' supports '-incoming defer' only")


def _open_qtest(line: QemuCommandLine) -> None:
    spec = line.qtest
    if spec is None:
        return
    config = line.config
    if spec.startswith("chardev:"):
        config.qtest = _named_chardev(config, spec)
        return
    with located(failed=f'Failed to initialize device for qtest: "{spec}"'):
        opts = parse_device(spec, chardev_list(config.compat))
        config.qtest = make_chardev(opts, "qtest", config.compat)


def _register_nulls(config: Config) -> None:
    """Have the register make the devices that lead nowhere and that no monitor is on."""
    monitors = {each.chardev.id for each in config.monitors}
    for each in reversed(config.chardevs):
        if each.kind == "null" and each.id not in monitors:
            config.chardevs.remove(each)
            null: JSONObject = {"type": "null", "data": {}}
            config.startup[:0] = [
                StartCommand("chardev-add", {"id": id, "backend": backend}, each.where)
                for id, backend in with_mux(each.id, null, each.mux)
            ]


def _use_drives(config: Config) -> None:
    """Have the machine take its own drives once all are there."""
    flash = config.machine_values.keys() & FLASH
    shown = config.preconfig and config.machine.type in ("pc", "q35")
    asking = ("drive", "default-drive", "port", "vga", "nic", "net", "default-net", "usb")
    if shown or flash or any(each.command in asking for each in config.startup):
        config.making = StartCommand("own-devices", {})
    if shown:
        config.startup.append(StartCommand("flash-chips", {}))


def _named_chardev(config: Config, spec: str) -> Chardev:
    """The `-chardev` that `-qtest chardev:ID` names, which is nobody else's then."""
    id = spec.removeprefix("chardev:")
    for monitor in config.monitors:
        if monitor.chardev.id == id:
            raise CommandLineError(f"chardev '{id}' is already in use", where=monitor.where)
    for chardev in config.chardevs:
        if chardev.id == id:
            config.chardevs.remove(chardev)
            return chardev
    raise CommandLineError(f'Failed to initialize device for qtest: "{spec}"')


def _read(argv: Sequence[str]) -> list[Given]:
    """The options of a command line, and those that `-readconfig` and `-set` stand for."""
    given = [
        # An image alone is that of the first disk.
        each if each.name else each._replace(name="hda")
        for each in read_options(argv, OPTIONS, FLAGS)
    ]
    if any(each.name == "readconfig" for each in given):
        from memd.cli.readconfig import take_file

        given = expand(given, "readconfig", partial(take_file, options=OPTIONS))
    if any(each.name == "set" for each in given):
        from memd.cli.set_option import take_set

        given = expand(given, "set", partial(take_set, options=OPTIONS))
    return given


def _check_fw_cfg(line: QemuCommandLine, given: Sequence[Given]) -> None:
    """Raise `CommandLineError` where `-fw_cfg` is for a machine that has none."""
    if line.hardware.machine.kind.kind in ("none", "x-remote"):
        for option in given:
            if option.name == "fw_cfg":
                raise CommandLineError("fw_cfg device not available", where=option.where)


def _write_to_copies(config: Config) -> None:
    """Take `-snapshot`: what is written to a drive is lost, unless it says otherwise."""
    for each in config.startup:
        if each.command == "drive":
            each.options.setdefault("snapshot", "on")


def _describe(line: QemuCommandLine, file: IO[str]) -> NoReturn:
    """Take `-dump-vmstate`: write what a machine's stream has, and raise `Answered`."""
    with file:
        # The devices have no state that could be described.
        json.dump({"vmschkmachine": {"Name": line.hardware.machine.kind.name}}, file, indent=2)
        file.write("\n")
    raise Answered("")


def parse_arguments(argv: Sequence[str], report: Report) -> Config:
    """The config of `qemu-system-memd ARGV...`.

    Args:
        argv: without the program's name.
        report: writes warnings.

    Raises:
        CommandLineError: it can't be run.
        Answered: it asks a question.
    """
    line = QemuCommandLine(report)
    config, hardware = line.config, line.hardware
    given = _read(argv)
    line.find_compat(given)
    hardware.machine.listed = partial(_machines, line)
    apply_options(given, OPTIONS | FLAGS, line)
    if not hardware.machine.has("graphics"):
        hardware.machine.set("graphics", "on")
    # A QEMU that is started like this serves clients of other machines, too.
    config.insecure_tcp = True
    _check_together(line)
    hardware.machine.check_type(config.compat)
    _set_clock(line)
    _check_fw_cfg(line, given)
    given = [*given, *_add_defaults(line, given)]
    line.monitors.finish()
    _check_stdio(line, given)
    # A QEMU makes memory after what it may refer to.
    config.objects.sort(key=lambda each: str(each["qom-type"]).startswith("memory-backend-"))
    with located():
        hardware.resolve()
    _check_cpu(line)
    if any(each.name == "snapshot" for each in given):
        _write_to_copies(config)
    _use_drives(config)
    config.accels = hardware.machine.choose_accelerators(report, config.compat)
    if line.description is not None:
        _describe(line, line.description)
    _open_qtest(line)
    _register_nulls(config)
    config.startup.sort(key=_moment)
    return config


def _moment(command: StartCommand) -> int:
    """When an option is acted on, by its place in `_ORDER`."""
    # The character device of a port is made with the port.
    of_port = command.command == "chardev-add" and command.failed
    return _ORDER.index("port" if of_port else command.command)


def _check_cpu(line: QemuCommandLine) -> None:
    """Raise `CommandLineError` where the QEMU that is stood in for has no such CPU model."""
    model, config = line.hardware.cpu_model, line.config
    if model is None or config.machine.type == "virt":
        return
    if not model:
        raise CommandLineError("-cpu option cannot be empty")
    # That a catalogue can't be read is told when it is needed.
    with contextlib.suppress(QMPError):
        known = line.catalogue.section("cpus")
        if model not in known:
            raise CommandLineError(f"unable to find CPU model '{model}'")
        features = line.hardware.cpu_features
        if features:
            from memd.qom import Tree
            from memd.standin.cpu_features import check_features

            kind = known[model]["typename"]
            with located():
                check_features(line.catalogue, Tree(config.compat), kind, features)
        if config.machine.type == "none":
            raise CommandLineError("apic-id property was not initialized properly")


def _machines(line: QemuCommandLine) -> Sequence[JSONObject]:
    """The machines of the QEMU that is stood in for."""
    if not line.config.machines:
        # That a catalogue can't be read is told when it is needed.
        with contextlib.suppress(QMPError):
            line.config.machines = line.catalogue.section("machines")
    return line.config.machines


def main(argv: Sequence[str] | None = None) -> int:
    """Run `qemu-system-memd`; gives its exit status.

    Args:
        argv: the arguments without the program's name; None for `sys.argv`'s.
    """
    return run_command("qemu-system-memd", parse_arguments, argv)
