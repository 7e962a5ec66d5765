from __future__ import annotations

import re

import pytest

from memd import __version__
from memd.cli.options import FLAGS, OPTIONS
from memd.cli.usage import USAGE
from memd.compat import Compat
from memd.config import NO_UUID
from tests.cli.lines import config, memd


def test_nothing_at_all() -> None:
    made = config(memd())
    assert made.default_socket is True
    assert (made.monitors, made.chardevs, made.objects) == ([], [], [])
    assert (made.name, made.uuid, made.pidfile) == (None, NO_UUID, None)
    assert not any((made.daemonize, made.insecure_tcp, made.deny_private_discard, made.stopped))
    assert made.compat is Compat.V10_0


def test_everything() -> None:
    made = config(
        memd(
            *("--qmp", "unix:/a,server=on,wait=off,pretty=on", "-qmp-pretty", "stdio"),
            *("--chardev", "socket,id=c0,host=::1,port=1,server=on", "--monitor", "c0"),
            *("--chardev", "null,id=c1", "--mon", "c1,mode=readline"),
            *("--object", "memory-backend-ram,id=m0,size=1M", "--name", "vm,debug-threads=on"),
            *("--pidfile", "/p", "--compat", "11.1", "--insecure-tcp", "--deny-private-discard"),
        )
    )
    assert made.default_socket is False
    assert [each.chardev.kind for each in made.monitors] == ["unix", "stdio", "tcp", "null"]
    assert [each.mode for each in made.monitors] == ["control"] * 3 + ["readline"]
    assert [each.pretty for each in made.monitors] == [True, True, False, False]
    assert made.objects == [{"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20}]
    assert (made.name, made.pidfile, made.compat) == ("vm", "/p", Compat.V11_1)
    assert made.insecure_tcp
    assert made.deny_private_discard
    assert config(memd("-daemonize")).daemonize


def test_the_release_decides_wherever_it_stands() -> None:
    line = ("--chardev", "socket,id=c,path=s,reconnect=1")
    assert memd(*line).status == 0
    for argv in ((*line, "--compat", "11.1"), ("--compat", "11.1", *line)):
        assert memd(*argv).stderr == (
            "--chardev socket,id=c,path=s,reconnect=1: Invalid parameter 'reconnect'\n"
        )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bogus"], "--bogus: invalid option"),
        (["-S"], "-S: invalid option"),
        (["--qmp"], "--qmp: requires an argument"),
        (["file"], "file: Unexpected argument"),
        (["--compat", "9.0"], "--compat 9.0: Parameter 'compat' does not accept value '9.0'"),
        (["--name", "foo=bar"], "--name foo=bar: Invalid parameter 'foo'"),
        (["--name", "x,id=y"], "--name x,id=y: Invalid parameter 'id'"),
        (
            ["--object", "memory-backend-ram,id=m0"],
            "--object memory-backend-ram,id=m0: Parameter 'size' is missing",
        ),
        (
            ["--object", "memory-backend-ram,id=m,size=1M", "-object", "memory-backend-ram,id=m"],
            "-object memory-backend-ram,id=m: Duplicate ID 'm' for object",
        ),
        (
            ["--daemonize", "--qmp", "stdio"],
            "--qmp stdio: cannot use stdio with -daemonize",
        ),
        # The first one counts.
        (["--name", "a=b", "--object", "x"], "--name a=b: Invalid parameter 'a'"),
        (["--name", "a=b", "--bogus"], "--bogus: invalid option"),
        (["--chardev", "x", "--name", "a=b"], "--name a=b: Invalid parameter 'a'"),
        (["--name", "a=b", "--help"], "--name a=b: Invalid parameter 'a'"),
    ],
)
def test_refused(argv: list[str], message: str) -> None:
    outcome = memd(*argv)
    assert (outcome.status, outcome.stderr, outcome.stdout) == (1, f"{message}\n", "")


def test_the_hint_follows() -> None:
    assert memd("--object", "memory-backend-ram,id=0").stderr.splitlines()[1:] == [
        "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
    ]


def test_a_warning_does_not_stop_it() -> None:
    outcome = memd("--chardev", "socket,id=c0,path=s,server,nowait")
    assert outcome.status == 0
    assert outcome.config is not None
    assert outcome.stderr.splitlines() == [
        "--chardev socket,id=c0,path=s,server,nowait: "
        "warning: short-form boolean option 'server' deprecated",
        "Please use server=on instead",
        "--chardev socket,id=c0,path=s,server,nowait: "
        "warning: short-form boolean option 'nowait' deprecated",
        "Please use wait=off instead",
    ]


def test_a_name_in_no_encoding() -> None:
    assert config(memd("--name", "a\udcffb")).name == "a\ufffdb"


@pytest.mark.parametrize("word", ["--help", "-help", "-h"])
def test_help(word: str) -> None:
    outcome = memd(word, "--name", "a=b")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, USAGE, "")


def test_help_knows_every_option_and_no_other() -> None:
    told = set(re.findall(r"(?<![\w-])--?([a-zA-Z][a-z-]*)", USAGE))
    assert told - {"x"} == set(OPTIONS | FLAGS)
    assert max(map(len, USAGE.splitlines())) <= 80


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_version(word: str) -> None:
    outcome = memd(word)
    assert (outcome.status, outcome.stdout) == (0, f"memd version {__version__}\n")


def test_questions_about_objects() -> None:
    assert memd("--object", "help").stdout.startswith("List of user creatable objects:\n")


def test_misbehaviour() -> None:
    control = "unix:b,server=on,wait=off"
    found = config(memd("--qmp", "unix:a,server=on", "--test-control", control))
    assert found.test_faults
    assert found.test_control == ["compat_monitor1"]
    assert [monitor.chardev.path for monitor in found.monitors] == ["a", "b"]
    assert config(memd("--test-faults")).test_faults
    assert not config(memd()).test_faults
