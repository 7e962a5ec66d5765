from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from memd import __version__
from memd.cli import qemu_system
from memd.cli.usage import QEMU_USAGE
from memd.compat import Compat
from memd.standin.catalogue import SECTIONS, Catalogue, packaged, write_catalogue
from tests import NOT_THERE
from tests.cli.lines import config, qemu

LIBQTEST = (
    *("-qtest", "unix:/q.sock", "-qtest-log", "/dev/null"),
    *("-chardev", "socket,path=/q.qmp,id=char0", "-mon", "chardev=char0,mode=control"),
    *("-display", "none", "-audio", "none", "-nodefaults", "-machine", "none"),
    *("-accel", "qtest"),
)
LIBVIRT = (
    *("-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=kvm:tcg"),
    *("-qmp", "unix:/l.sock,server=on,wait=off", "-pidfile", "/l.pid", "-daemonize"),
)


def test_the_test_harness_of_qemu() -> None:
    made = config(qemu(*LIBQTEST, "--preconfig"))
    assert made.qtest is not None
    assert (made.qtest.kind, made.qtest.path, made.qtest.server) == ("unix", "/q.sock", False)
    assert made.qtest_log == "/dev/null"
    (monitor,) = made.monitors
    assert (monitor.chardev.path, monitor.chardev.server, monitor.mode) == (
        "/q.qmp",
        False,
        "control",
    )
    assert made.preconfig
    assert made.accels == ["qtest"]
    assert (made.stopped, made.default_socket) == (False, False)


def test_the_probe_of_libvirt() -> None:
    made = config(qemu(*LIBVIRT))
    (monitor,) = made.monitors
    assert (monitor.chardev.path, monitor.chardev.server, monitor.chardev.wait) == (
        "/l.sock",
        True,
        False,
    )
    assert made.stopped
    assert made.daemonize
    assert (made.pidfile, made.accels) == ("/l.pid", ["kvm", "tcg"])


def test_a_domain_of_libvirt() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        made = config(
            qemu(
                *("-name", "guest=vm,debug-threads=on", "-S"),
                *("-uuid", "550E8400-e29b-41d4-a716-446655440000"),
                *("-chardev", f"socket,id=charmonitor,fd={sock.fileno()},server=on,wait=off"),
                *("-mon", "chardev=charmonitor,id=monitor,mode=control"),
                *("-no-shutdown", "-boot", "strict=on", "-rtc", "base=utc", "-msg", "timestamp=on"),
                *("-sandbox", "on,obsolete=deny,spawn=deny", "-overcommit", "mem-lock=off"),
                *("-audiodev", '{"id":"audio1","driver":"none"}'),
            )
        )
        (monitor,) = made.monitors
        assert (monitor.id, monitor.chardev.kind, monitor.chardev.fd) == (
            "monitor",
            "fd",
            sock.fileno(),
        )
    assert (made.name, made.uuid) == ("vm", "550e8400-e29b-41d4-a716-446655440000")


def test_a_monitor_as_an_object() -> None:
    text = '{"qom-type":"monitor-qmp","id":"monitor","chardev":"c0"}'
    made = config(qemu("-object", text, "-chardev", "null,id=c0", "-compat", "11.1"))
    assert [(each.id, each.mode) for each in made.monitors] == [("monitor", "control")]
    assert made.objects == []
    assert qemu("-object", text, "-compat", "11.1").stderr == 'chardev "c0" not found\n'


def test_human_monitors() -> None:
    made = config(qemu("-monitor", "unix:/m,server=on,wait=off", "-monitor", "none"))
    assert [(each.mode, each.chardev.path) for each in made.monitors] == [("readline", "/m")]


def test_what_is_read_over() -> None:
    config(
        qemu(
            *("-global", "x.y=z", "-k", "de", "-usb"),
            *("-serial", "none", "-parallel", "null", "-net", "none", "-nic", "none", "-M", "none"),
            *("-vga", "none", "-D", "/x", "-d", "y", "-trace", "z", "-no-reboot", "-enable-kvm"),
            *("-compat", "deprecated-input=reject", "-action", "reboot=shutdown"),
            *("-machine", "type=none,usb=off,dump-guest-core=on"),
        )
    )


def test_display_adapters_are_listed() -> None:
    lines = qemu("-vga", "help").stdout.splitlines()
    assert [each.split()[0] for each in lines] == ["none", "std", "cirrus", "vmware", "virtio"]
    assert qemu("-vga", "qxl").stderr == "unknown vga type: qxl\n"


def test_a_memory_backend_for_the_machine() -> None:
    machine = ("-machine", "none,memory-backend=m0")
    config(qemu(*machine, "-object", "memory-backend-ram,id=m0,size=1M"))
    assert qemu(*machine).stderr == "Memory backend 'm0' not found\n"


@pytest.mark.parametrize("name", sorted({*qemu_system.REFUSED, *qemu_system.FLAGS_REFUSED}))
def test_what_needs_a_machine(name: str) -> None:
    argv = [f"-{name}"] if name in qemu_system.FLAGS_REFUSED else [f"-{name}", "x"]
    outcome = qemu(*argv)
    assert outcome.status == 1
    assert outcome.stderr == f"{' '.join(argv)}: memd does not support this option\n"


@pytest.mark.parametrize(
    ("machine", "name"),
    [("none", "none"), ("pc", "pc-i440fx-10.0"), ("pc-q35-9.2", "pc-q35-9.2")],
)
def test_of_a_stream_the_machine_is_told(tmp_path: Path, machine: str, name: str) -> None:
    """By this Multipass finds out whether a suspended machine is of the same kind."""
    path = tmp_path / "state"
    outcome = qemu("-machine", machine, "-dump-vmstate", str(path))
    assert (outcome.status, outcome.stderr) == (0, "")
    assert json.loads(path.read_text()) == {"vmschkmachine": {"Name": name}}


def test_what_is_told_of_a_stream_can_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "state"
    outcome = qemu("-dump-vmstate", str(path))
    assert outcome.status == 1
    assert outcome.stderr == f"-dump-vmstate {path}: open {path}: No such file or directory\n"


REFUSED = [
    (["-bogus"], "-bogus: invalid option"),
    (["-insecure-tcp"], "-insecure-tcp: invalid option"),
    (["-display", "gtk"], "-display gtk: Parameter 'type' does not accept value 'gtk'"),
    (["-display", "none,foo"], "-display none,foo: Expected '=' after parameter 'foo'"),
    (["-vga", "foo"], "unknown vga type: foo"),
    (
        ["-machine", "q34"],
        'unsupported machine type: "q34"\nUse -machine help to list supported machines',
    ),
    (
        ["-compat", "11.1", "-machine", "nitro"],
        'memd knows the machine "nitro" and has nothing of it\n'
        "Use -machine help to list the machines whose memory side it has",
    ),
    (
        ["-machine", "pc-q35-9.0", "-catalogue", NOT_THERE],
        'unsupported machine type: "pc-q35-9.0"\nUse -machine help to list supported machines',
    ),
    (["-machine", "none,foo=bar"], "Property 'none-machine.foo' not found"),
    (["-machine", "none,usb=maybe"], "Parameter 'usb' expects 'on' or 'off'"),
    (["-machine", "none,foo"], "-machine none,foo: Expected '=' after parameter 'foo'"),
    (["-accel", "foo"], "-accel foo: invalid accelerator foo"),
    (["-machine", "none,accel=foo"], "invalid accelerator foo"),
    (["-machine", "none,accel="], "no accelerator found"),
    (
        ["-machine", "none,accel=tcg", "-accel", "kvm"],
        'The -accel and "-machine accel=" options are incompatible',
    ),
    (["-name", "foo=bar"], "-name foo=bar: Invalid parameter 'foo'"),
    (["-uuid", "x"], "-uuid x: failed to parse UUID string: wrong format"),
    (["-uuid", ""], "-uuid : failed to parse UUID string: wrong format"),
    (
        ["-uuid", "550e8400-e29b-41d4-a716-44665544000g"],
        "-uuid 550e8400-e29b-41d4-a716-44665544000g: failed to parse UUID string: wrong format",
    ),
    (["-msg", "foo=on"], "-msg foo=on: Invalid parameter 'foo'"),
    (["-sandbox", "foo"], "-sandbox foo: Parameter 'enable' expects 'on' or 'off'"),
    (["-compat", "help"], "-compat help: Help is not available for this option"),
    (["-compat", "foo"], "-compat foo: Expected '=' after parameter 'foo'"),
    (
        ["-qtest", "foo"],
        "'foo' is not a valid char driver\nFailed to initialize device for qtest: \"foo\"",
    ),
    (["-qtest", "tcp:x"], 'Failed to initialize device for qtest: "tcp:x"'),
    (
        ["-qmp", "unix:s,pretty=on"],
        "-qmp unix:s,pretty=on: Invalid parameter 'pretty'\n"
        "-qmp unix:s,pretty=on: parse error: unix:s,pretty=on",
    ),
    (
        ["-object", "memory-backend-ram,id=m,size=1M,host-nodes.0=0"],
        "-object memory-backend-ram,id=m,size=1M,host-nodes.0=0: Invalid parameter 'host-nodes.0'",
    ),
    # The order in which QEMU complains.
    (
        ["-machine", "bogus", "-chardev", "x"],
        'unsupported machine type: "bogus"\nUse -machine help to list supported machines',
    ),
    (["-machine", "none,foo=bar", "-chardev", "x"], "-chardev x: chardev: no id specified"),
    (["-accel", "foo", "-chardev", "x"], "-chardev x: chardev: no id specified"),
    (["-accel", "foo", "-uuid", "x"], "-uuid x: failed to parse UUID string: wrong format"),
]


@pytest.mark.parametrize(("argv", "message"), REFUSED)
def test_refused(argv: list[str], message: str) -> None:
    outcome = qemu(*argv)
    assert (outcome.status, outcome.stderr, outcome.stdout) == (1, f"{message}\n", "")


def test_falling_back() -> None:
    outcome = qemu("-machine", "none,accel=kvm:foo:tcg")
    assert outcome.stderr == "invalid accelerator foo\nfalling back to KVM\n"
    assert outcome.config is not None
    assert outcome.config.accels == ["kvm", "tcg"]
    outcome = qemu("-accel", "foo", "-accel", "tcg,thread=single")
    assert outcome.stderr == "-accel foo: invalid accelerator foo\nfalling back to tcg\n"


def test_a_later_release_knows_more_accelerators() -> None:
    argv = ("-machine", "none,accel=kvm:mshv:tcg")
    assert config(qemu(*argv, "-compat", "11.1")).accels == ["kvm", "mshv", "tcg"]
    assert qemu(*argv).stderr == "invalid accelerator mshv\nfalling back to KVM\n"


def test_a_card_that_is_unknown_to_a_later_release() -> None:
    argv = ("-audio", "none,model=foo")
    said = "-audio none,model=foo: Unknown {} `foo'\n"
    assert qemu(*argv).stderr == said.format("sound card name")
    assert qemu(*argv, "-compat", "11.1").stderr == said.format("audio device model")


def test_mon_is_deprecated_in_a_later_release() -> None:
    argv = ("-chardev", "null,id=x", "-mon", "x", "-chardev", "null,id=y", "-mon", "y")
    assert qemu(*argv).stderr == ""
    assert qemu(*argv, "-compat", "11.1").stderr == (
        "-mon x: warning: '-mon' is deprecated, "
        "use '-object' with 'monitor-hmp' or 'monitor-qmp' types instead\n"
    )


def test_messages_may_begin_with_the_name() -> None:
    for argv in (
        ("-name", "vm", "-msg", "guest-name=on"),
        ("-msg", "guest-name=on", "-name", "vm"),
    ):
        assert qemu(*argv, "-uuid", "x").stderr.startswith("vm -uuid x: ")
    assert qemu("-msg", "guest-name=on", "-uuid", "x").stderr.startswith("-uuid x: ")
    assert qemu("-msg", "timestamp=on", "-uuid", "x").stderr[:2] == "20"


def test_questions() -> None:
    assert qemu("-help").stdout == QEMU_USAGE
    assert qemu("-version").stdout == f"QEMU emulator version 10.0.2 (memd {__version__})\n"
    told = qemu("-version", "-compat", "11.1").stdout
    assert told == f"QEMU emulator version 11.1.3 (memd {__version__})\n"
    assert "none " in qemu("-machine", "help").stdout
    assert qemu("-M", "none,help").stdout.startswith("none-machine options:\n")
    assert qemu("-accel", "help").stdout.endswith("tcg\nkvm\n")
    assert "mem-path=<string>" in qemu("-object", "memory-backend-file,help").stdout


def test_the_default_is_the_recorded_qemus(tmp_path: Path) -> None:
    """A QEMU of another architecture may have none."""
    catalogue = Catalogue(packaged(Compat.V10_0))
    sections = {name: catalogue.section(name) for name in SECTIONS}
    path = tmp_path / "catalogue"
    for row in sections["machines"]:
        row.pop("is-default", None)
    write_catalogue(str(path), catalogue.version, sections)
    assert qemu("-catalogue", str(path)).stderr == (
        "No machine specified, and there is no default\n"
        "Use -machine help to list supported machines\n"
    )
    next(row for row in sections["machines"] if row["name"] == "isapc")["is-default"] = True
    path = tmp_path / "another"
    write_catalogue(str(path), catalogue.version, sections)
    assert config(qemu("-catalogue", str(path))).machine_kind == "isapc"


def test_an_option_has_the_keys_of_its_release() -> None:
    option = ("-fsdev", "local,id=f,path=/,max_xattr=1")
    assert qemu(*option).stderr == f"{' '.join(option)}: Invalid parameter 'max_xattr'\n"
    (start, *_rest) = config(qemu("-nodefaults", "-compat", "11.1", *option)).startup
    assert start.options["max_xattr"] == 1
    option = ("-run-with", "exit-with-parent=on")
    assert "Invalid parameter" in qemu(*option).stderr
    assert "does not support" in qemu("-compat", "11.1", *option).stderr


def test_help_knows_what_is_taken() -> None:
    refused = {*qemu_system.REFUSED, *qemu_system.FLAGS_REFUSED}
    told = {
        word.strip(",.")[1:]
        for word in QEMU_USAGE.split()
        if word.startswith("-") and len(word) > 1
    }
    # Too small to name, or another name of one that is named.
    untold = {"L", "M", "h", "full-screen", "seed"}
    assert set(qemu_system.OPTIONS | qemu_system.FLAGS) - refused - untold <= told
    assert not told & refused


def test_releases_differ_in_their_json() -> None:
    assert qemu("-object", "{").stderr == "-object {: JSON parse error, premature EOI\n"
    assert qemu("-compat", "11.1", "-object", "{").stderr == (
        "-object {: 1:2: JSON parse error, premature end of input\n"
    )
    assert qemu("-compat", "11.1").config is not None
    made = config(qemu("-compat", "11.1"))
    assert made.compat is Compat.V11_1
