"""Options of a QEMU's command line that a stand-in registers: as the command of their name would.

-netdev tap,id=n0,fd=5      netdev_add
-blockdev {"driver": …}     blockdev-add
-chardev file,id=c0,path=P  chardev-add
-serial chardev:c0          a use of the character device
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.cli.chardev import (
    BACKENDS,
    PROTOCOLS,
    UNSPOKEN,
    chardev_list,
    make_socket,
    parse_device,
    with_mux,
)
from memd.cli.keyval import HELP, parse_either
from memd.cli.objects import OBJECT
from memd.cli.opts import Opts, OptsList
from memd.cli.reading import Given, located
from memd.cli.report import Answered
from memd.config import Config, DeviceOption, StartCommand
from memd.errors import QMPError, is_identifier, missing, not_accepted
from memd.hostmem.deadline import at_start
from memd.json_types import JSONObject
from memd.option_text import pairs
from memd.qapi.numbers import parse_size
from memd.qapi.visit import as_signed

if TYPE_CHECKING:
    from memd.cli.qemu_system import QemuCommandLine
    from memd.qapi.types import ObjectType

_NETWORKS = {name: OptsList(name, "type", None) for name in ("netdev", "nic", "net")}
_LOG = ("logfile", "logappend")
_MOST_PORTS = {"parallel": 3}
_ALIASES = {"tty": "serial", "parport": "parallel"}
_DEVICES = ("serial", "parallel", "pipe")
_SPICE_CHARDEVS = {"spicevmc": ("channel", "type"), "spiceport": ("port", "fqdn")}
_NAMES_ALONE = ("braille", "msmouse", "pty", "qemu-vdagent", "testdev", "vc", "wctablet")
_KINDS = ("file", "udp", "ringbuf", "mux", *_SPICE_CHARDEVS, *_DEVICES, *_ALIASES, *_NAMES_ALONE)


def take_blockdev(line: QemuCommandLine, given: Given) -> None:
    """Take `-blockdev`."""
    line.register(given, "blockdev-add", *parse_either(given.value, line.config.compat, "driver"))


def take_netdev(line: QemuCommandLine, given: Given) -> None:
    """Take `-netdev`: in JSON, with dotted keys, or with keys that are given again for a list."""
    nested = given.value.startswith("{")
    if not nested:
        kind = next((value for key, value in pairs(given.value, "type") if key == "type"), None)
        nested = kind in ("stream", "dgram")
    if nested:
        options, is_json = parse_either(given.value, line.config.compat, "type")
        line.register(given, "netdev_add", options, is_json)
    else:
        take_network(line, given)


def take_network(line: QemuCommandLine, given: Given) -> None:
    """Take `-nic` or `-net`: a backend, a device that the machine makes, or both."""
    opts = line.parse(_NETWORKS[given.name], given)
    line.register(given, given.name, {"pairs": opts.with_id()})


_IMAGES = {
    "cdrom": {"index": "2", "media": "cdrom"},
    "pflash": {"if": "pflash"},
    **{f"fd{letter}": {"if": "floppy", "index": str(at)} for at, letter in enumerate("ab")},
    **{f"hd{letter}": {"index": str(at), "media": "disk"} for at, letter in enumerate("abcd")},
}
"""The drives of options that name a file."""


def take_drive(line: QemuCommandLine, given: Given) -> None:
    """Take `-drive`, or `-hda`, `-fda` and the like, which name a file."""
    if given.name == "drive":
        options = {name: "on" if value is None else value for name, value in pairs(given.value)}
    else:
        options = {"file": given.value, **_IMAGES[given.name]}
    line.register(given, "drive", options)


def take_vnc(line: QemuCommandLine, given: Given) -> None:
    """Take `-vnc`."""
    opts = line.checked(given)
    options: JSONObject = dict(opts.with_id())
    options |= {name: opts.switch(name) or False for name in ("password", "sasl")}
    line.register(given, "vnc", options)


_SPICE_KINDS = {
    **dict.fromkeys(("addr", "display", "image-compression", "jpeg-wan-compression"), "str"),
    **dict.fromkeys(("password-secret", "plaintext-channel", "rendernode"), "str"),
    **dict.fromkeys(("streaming-video", "tls-channel", "tls-ciphers", "x509-cacert-file"), "str"),
    **dict.fromkeys(("x509-cert-file", "x509-dh-key-file", "x509-dir", "x509-key-file"), "str"),
    **dict.fromkeys(("x509-key-password", "zlib-glz-wan-compression"), "str"),
    **dict.fromkeys(("agent-mouse", "disable-agent-file-xfer", "disable-copy-paste"), "bool"),
    **dict.fromkeys(("disable-ticketing", "gl", "ipv4", "ipv6", "playback-compression"), "bool"),
    **dict.fromkeys(("sasl", "seamless-migration", "unix"), "bool"),
    **dict.fromkeys(("head", "port", "tls-port"), "num"),
}
_SPICE = OptsList("spice", None, _SPICE_KINDS)


def take_spice(line: QemuCommandLine, given: Given) -> None:
    """Take `-spice`."""
    opts = line.parse(_SPICE, given)
    options = opts.values(_SPICE)
    for each in line.config.startup:
        if each.command == "spice":
            each.options.update(options)
            return
    line.register(given, "spice", options)


def take_fsdev(line: QemuCommandLine, given: Given) -> None:
    """Take `-fsdev`."""
    known = line.known("fsdev")
    opts = line.parse(known, given)
    for name, value in (("fsdriver", opts.get("fsdriver")), ("id", opts.id)):
        if value is None:
            raise QMPError(f"fsdev: No {name} specified")
    line.register(given, "fsdev", opts.values(known))


_NOT_FOR_FSDEV = ("mount_tag", "fmode", "dmode")


def take_virtfs(line: QemuCommandLine, given: Given) -> None:
    """Take `-virtfs`, which is an `-fsdev` and the device of it."""
    opts = line.checked(given)
    tag = opts.get("mount_tag")
    if tag is None or opts.get("fsdriver") is None:
        raise QMPError("Usage: -virtfs fsdriver,mount_tag=tag")
    id = tag if opts.id is None else opts.id
    if id in line.ids["fsdev"] or not is_identifier(id):
        raise QMPError(f"duplicate or invalid fsdev id: {id}")
    line.ids["fsdev"].add(id)
    options = {name: value for name, value in opts.pairs if name not in _NOT_FOR_FSDEV}
    line.register(given, "fsdev", {**options, "id": id})
    device = {"driver": "virtio-9p-pci", "fsdev": id, "mount_tag": tag}
    line.config.devices.append(DeviceOption(given.where, False, device))


def take_add_fd(line: QemuCommandLine, given: Given) -> None:
    """Take `-add-fd`: a descriptor that the process was started with goes into a set."""
    opts = line.checked(given)
    fd = _kept(opts, "fd")
    if fd <= 2:
        raise QMPError("fd cannot be a standard I/O stream")
    try:
        valid = os.get_inheritable(fd)
    except OSError:
        valid = False
    if not valid:
        raise QMPError("fd is not valid or already in use")
    added = [fd, _kept(opts, "set"), opts.get("opaque")]
    for each in line.config.startup:
        if each.command == "add-fd":
            each.options["added"].append(added)
            return
    line.register(given, "add-fd", {"added": [added]})


def _kept(opts: Opts, name: str) -> int:
    """The number of an option as QEMU keeps it, in 32 bits; raises `QMPError`."""
    number = opts.number(name)
    kept = -1 if number is None else as_signed(number, 32)
    if kept < 0:
        raise QMPError(f"{name} option is required and must be non-negative")
    return kept


_TPM_TYPES = (
    "Supported TPM types (choose only one):\n"
    " passthrough   Passthrough TPM backend driver\n"
    "    emulator   TPM emulator backend driver"
)
_TPMDEV = OptsList(
    "tpmdev", "type", dict.fromkeys(("type", "chardev", "path", "cancel-path"), "str")
)


def take_tpmdev(line: QemuCommandLine, given: Given) -> None:
    """Take `-tpmdev` of an emulator."""
    opts = line.parse(_TPMDEV, given)
    kind = opts.get("type")
    if opts.id is None:
        raise missing("id")
    if kind is None:
        raise QMPError("Parameter 'type' is missing", hint=_TPM_TYPES)
    if kind == "passthrough":
        raise _no_host_tpm(opts.get("path") or "/dev/tpm0")
    if kind != "emulator":
        raise QMPError("Parameter 'type' expects a TPM backend type", hint=_TPM_TYPES)
    for name in ("path", "cancel-path"):
        if opts.get(name) is not None:
            raise QMPError(f"Invalid parameter '{name}'")
    line.register(given, "tpmdev", dict(opts.with_id()))


def _no_host_tpm(path: str) -> QMPError:
    """Why a TPM of the host can't be passed on."""
    try:
        numbers = at_start(lambda: _device_of(path))
    except OSError as error:
        return QMPError(f"Cannot access TPM device using '{path}': {error.strerror}")
    driver = os.path.realpath(f"/sys/dev/char/{numbers}/subsystem")
    if not os.path.basename(driver).startswith("tpm"):
        return QMPError(f"'{path}' is not a TPM device.")
    return QMPError("memd passes no TPM of the host on")


def _device_of(path: str) -> str:
    """The numbers of a device that can be opened; raises `OSError`."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def take_incoming(line: QemuCommandLine, given: Given) -> None:
    """Take `-incoming`: how a machine is awaited that migrates; raises `QMPError`."""
    value, command = given.value, "incoming"
    options: JSONObject = {}
    if value == "defer":
        command = "incoming-later"
    elif value.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        options = {"channels": [parse_json_argument(value, line.config.compat)]}
    elif ":" in value:
        options = {"uri": value}
    elif value:
        raise not_accepted("channel-type", value)
    else:
        raise missing("channel-type")
    line.config.incoming = StartCommand(command, options, given.where)


def take_loadvm(line: QemuCommandLine, given: Given) -> None:
    """Take `-loadvm`: the snapshot that the machine is as when it starts."""
    line.config.loading = StartCommand("loadvm", {"tag": given.value})


def take_object(line: QemuCommandLine, given: Given) -> None:
    """Take `-object`, also of a type that is only known."""
    if given.value.startswith("{") or given.dotted:
        try:
            options, is_json = parse_either(given.value, line.config.compat, "qom-type")
        except QMPError:
            # It is said elsewhere what is wrong with it.
            options, is_json = {}, False
        kind = options.get("qom-type")
        if isinstance(kind, str) and _is_only_known(kind, line):
            line.register(given, "object-add", options, is_json)
        else:
            line.add_object(given)
        return
    given_pairs = [*pairs(given.value, "qom-type")]
    kind = next((value for key, value in given_pairs[::-1] if key == "qom-type"), None)
    if kind is None or not _is_only_known(kind, line):
        line.add_object(given)
    elif any(key in HELP for key, value in given_pairs if value is None):
        raise Answered(_properties(kind, line))
    else:
        from memd.qapi.opts import check_opts

        options = check_opts(_known_objects(line), line.parse(OBJECT, given).with_id())
        # QEMU names no place when an object can't be made.
        line.register(given._replace(where=""), "object-add", options)


def _properties(kind: str, line: QemuCommandLine) -> str:
    """What objects of a type of the catalogue's can be given."""
    from memd.cli.objects import object_type_help
    from memd.qom import Tree
    from memd.standin.types import CatalogueTypes

    tree = Tree(line.config.compat)
    tree.more_types = CatalogueTypes(line.catalogue, tree)
    return object_type_help(tree, kind) or ""


def _is_only_known(kind: str, line: QemuCommandLine) -> bool:
    """Whether it is a type of objects of the catalogue's that memd has none of."""
    from memd.qapi import load_schema
    from memd.qapi.types import EnumType

    compat = line.config.compat
    ours = load_schema(compat).commands["object-add"].arguments.branches
    if kind in ours or kind == "monitor-qmp":
        return False
    known = _known_objects(line)
    # Types without properties have no branch.
    assert known.tag is not None
    assert isinstance(known.tag.type, EnumType)
    return any(kind == each.name for each in known.tag.type.members)


def _known_objects(line: QemuCommandLine) -> ObjectType:
    """The type of the arguments of `object-add`, with all types of the catalogue's."""
    from memd.standin.schema import standin_schema

    schema = standin_schema(line.catalogue, line.config.compat, test=False)
    return schema.commands["object-add"].arguments


def take_chardev(line: QemuCommandLine, given: Given) -> None:
    """Take `-chardev`, also of a kind that no monitor can use.

    A log file is made in any case; nothing is said that could come into it.
    """
    compat = line.config.compat
    opts = line.parse(chardev_list(compat), given)
    kind = opts.get("backend")
    speaks = any(map(opts.switch, UNSPOKEN))
    if (kind in BACKENDS and not speaks) or kind not in (*BACKENDS, *_KINDS):
        log = _log(opts)
        if log:
            line.register(given, "logfile", log)
        line.monitors.add_parsed(_without(opts, *_LOG), given)
        return
    if opts.id is None:
        raise QMPError("chardev: no id specified")
    _add(line, opts.id, opts, given)


def _log(opts: Opts) -> JSONObject:
    """What a backend has of a log file."""
    path = opts.get("logfile")
    return {} if path is None else {"logfile": path, "logappend": opts.switch("logappend") or False}


def _without(opts: Opts, *names: str) -> Opts:
    rest = Opts(opts.id)
    rest.pairs = [each for each in opts.pairs if each[0] not in names]
    return rest


def take_port(line: QemuCommandLine, given: Given) -> None:
    """Take `-serial` or `-parallel`."""
    number = line.ports[given.name]
    if number >= _MOST_PORTS.get(given.name, number + 1):
        raise QMPError(f"too many {given.name} ports")
    line.ports[given.name] += 1
    value = given.value.removeprefix("mon:")
    if given.value == "none":
        return
    id = f"{given.name}{number}"
    use = {"id": id, "port": given.name, "number": number}
    if value.startswith("chardev:"):
        line.register(given, "port", {**use, "id": value.removeprefix("chardev:")})
        return
    failed = f"could not connect {given.name} device to character backend '{given.value}'"
    _add_named(line, given, id, failed)
    line.register(given, "port", use)


def _address(line: QemuCommandLine, id: str, text: str) -> Opts:
    """The character device that an address stands for; raises `QMPError`."""
    opts = Opts(id)
    if text in ("pty", "vc") or text.startswith("vc:"):
        opts.pairs.append(("backend", text[:3].removesuffix(":")))
    elif text.startswith(("file:", "pipe:")):
        kind, _, path = text.partition(":")
        opts.pairs += [("backend", kind), ("path", path)]
    else:
        opts = parse_device(text, chardev_list(line.config.compat))
    return opts


def take_debugcon(line: QemuCommandLine, given: Given) -> None:
    """Take `-debugcon`: an ISA device of that name, and what it is on."""
    _add_named(line, given, "debugcon", f"invalid character backend '{given.value}'")
    device = {"driver": "isa-debugcon", "id": "debugcon", "chardev": "debugcon"}
    line.config.devices.append(DeviceOption(given.where, False, device))


def take_gdb(line: QemuCommandLine, given: Given) -> None:
    """Take `-gdb` or `-s`: an address that no debugger is answered at."""
    if not given.value:
        raise QMPError("gdbstub: missing connection string")
    if given.value == "none":
        return
    # It is no use to wait for a debugger.
    waits = given.value.startswith("tcp:")
    value = f"{given.value},wait=off,nodelay=on,server=on" if waits else given.value
    failed = "gdbstub: couldn't create chardev"
    _add_named(line, given._replace(value=value), "gdb", failed)
    line.register(given, "gdb", {})


def _add_named(line: QemuCommandLine, given: Given, id: str, failed: str) -> None:
    """Register the character device of an address; says also what fails for want of it."""
    value = given.value.removeprefix("mon:")
    with located(given.where, failed):
        opts = _address(line, id, value)
    if value != given.value:
        # The human monitor has it, too.
        opts.pairs.append(("mux", "on"))
    _add(line, id, opts, given, failed)


def _add(line: QemuCommandLine, id: str, opts: Opts, given: Given, failed: str = "") -> None:
    with located(given.where, failed):
        made = _backend(opts, line.config)
    for name, backend in with_mux(id, made, opts.switch("mux") or False):
        options = {"id": name, "backend": backend}
        line.register(given, "chardev-add", options, failed=failed)


def _inet(opts: Opts, host: str, port: str) -> JSONObject:
    """An address, with the families that are asked for."""
    families = {each: opts.switch(each) for each in ("ipv4", "ipv6") if opts.has(each)}
    return {
        "type": "inet",
        "data": {"host": opts.get(host) or "", "port": opts.get(port) or "", **families},
    }


def _socket(opts: Opts, config: Config) -> JSONObject:
    """QAPI's `ChardevSocket` of options; raises `QMPError`."""
    made = make_socket(opts, "", config.compat, config.objects)
    if made.tls_creds is not None:
        raise QMPError("'tls-creds' is not supported")
    addr = (
        {"type": "unix", "data": {"path": made.path, "abstract": False, "tight": True}}
        if made.kind == "unix"
        else _inet(opts, "host", "port")
    )
    wait = {"wait": False} if made.server else {}
    spoken = {each: True for each in PROTOCOLS if opts.switch(each)}
    return {"server": made.server, **spoken, **wait, "addr": addr}


def _backend(opts: Opts, config: Config) -> JSONObject:
    """QAPI's `ChardevBackend` of options; raises `QMPError`."""
    given = opts.get("backend") or ""
    kind = _ALIASES.get(given, given)
    data = _log(opts)
    path = opts.get("path")
    if kind in ("file", *_DEVICES):
        if path is None:
            raise QMPError(f"chardev: {given}: no filename given")
        data["out" if kind == "file" else "device"] = path
        if kind == "file":
            data["append"] = opts.switch("append") or False
            if opts.get("input-path") is not None:
                data["in"] = opts.get("input-path")
    elif kind == "ringbuf":
        size = opts.get("size")
        if size is not None:
            data["size"] = parse_size(size)
    elif kind == "mux":
        data["chardev"] = opts.get("chardev") or ""
    elif kind in _SPICE_CHARDEVS:
        what, member = _SPICE_CHARDEVS[kind]
        name = opts.get("name")
        if name is None:
            raise QMPError(f"chardev: spice {what}: no name given")
        data[member] = name
    elif kind == "socket":
        data |= _socket(opts, config)
    elif kind == "udp":
        if not opts.get("port"):
            raise QMPError("chardev: udp: remote port not specified")
        data["remote"] = _inet(opts, "host", "port")
        if opts.has("localaddr") or opts.has("localport"):
            data["local"] = _inet(opts, "localaddr", "localport")
    elif kind == "pty":
        data |= {} if path is None else {"path": path}
    elif kind not in ("null", "stdio", *_NAMES_ALONE):
        raise QMPError(f"'{given}' is not a valid char driver name")
    return {"type": kind, "data": data}
