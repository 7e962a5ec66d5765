"""Command lines: the same arguments to QEMU and to memd, and what both say about them.

Each is followed by one that QEMU is sure to refuse, at the end of the stage
that is compared: a line that passes costs no running QEMU, and is seen to pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from memd.cli.keyval import parse_keyval
from memd.errors import QMPError
from tests.cli.lines import qemu as memd_side
from tests.differential.server import TREE, compat_options, qemu_argv, qemu_compat

READ = ("-uuid", "?")
READ_SAYS = "-uuid ?: failed to parse UUID string: wrong format\n"
"""Refused when the options have been read, one after another."""

MADE = ("-object", "memory-backend-ram,id=zz,size=0")
MADE_SAYS = "property 'size' of memory-backend-ram doesn't take value '0'\n"
"""Refused when character devices have been made, and before monitors are."""

JOINED = ("-mon", "nosuch")
"""Refused when all monitors before it have been made."""


def qemu(*argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run QEMU to its end."""
    command = qemu_argv()
    return subprocess.run(
        [*command, *argv], input=text, capture_output=True, text=True, timeout=60, check=False
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What QEMU wrote to standard error, without its name."""
    return re.sub(r"^\S*qemu-system-\S+: ", "", done.stderr, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def release() -> tuple[str, ...]:
    """The options that make memd's texts those of the reference."""
    return tuple(compat_options(qemu_compat()))


def compare(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    done = qemu(*argv)
    ours = memd_side(*release, "-machine", "none", *argv)
    assert (ours.status, ours.stderr, ours.stdout) == (done.returncode, said(done), done.stdout)


RAM = "memory-backend-ram,id=m0,size=1M"

OBJECTS = [
    *("", ",", ",,id=m", "=x,id=m", "foo", "foo,id=1", "foo,id=m,help", "id=m0,size=1M"),
    *(
        "help=on",
        "id=m,help",
        "help,id=1",
        f"{RAM}",
        f"{RAM},",
        f"{RAM},,",
        f"{RAM},=",
        f"{RAM},=5",
    ),
    *("memory-backend-ram", "memory-backend-ram,id=m0", "memory-backend-ram,size=1M"),
    *("memory-backend-ram,id", "memory-backend-ram,id=", "memory-backend-ram,id=a/b,size=1M"),
    *("memory-backend-ram,noid,size=1M", "memory-backend-ram,,id=0", "memory-backend-ram,,id=m"),
    *("memory-backend-ram,id=m,id=0,size=1M", "memory-backend-ram,a=1,,id=0", "id,size=1M"),
    *("qom-type=memory-backend-ram,id=m0,size=1M", f"{RAM},qom-type=memory-backend-file"),
    *(f"{RAM},size", f"{RAM},size=", f"{RAM},size=x", f"{RAM},size=1.5", f"{RAM},size=1.5M"),
    *(f"{RAM},size=1e3", f"{RAM},size=1MB", f"{RAM},size=-1", f"{RAM},size=16E", f"{RAM},size= 1"),
    *(f"{RAM},size=0x10k", f"{RAM},size=+1k", f"{RAM},size=1 ", f"{RAM},size=inf"),
    *(f"{RAM},share", f"{RAM},noshare", f"{RAM},share=maybe", f"{RAM},share=1", f"{RAM},share="),
    *(f"{RAM},share=On", f"{RAM},share=y", f"{RAM},share=maybe,share=off", f"{RAM},share==on"),
    *(f"{RAM},foo=1", f"{RAM},foo", f"{RAM},nofoo", f"{RAM},no", f"{RAM},delay", f"{RAM},nodelay"),
    *(f"{RAM},foo=bar,bar=foo", f"{RAM},a.b=1", f"{RAM},host-nodes.0=0", f"{RAM},foo bar=1"),
    *(f"{RAM},policy=foo", f"{RAM},policy", f"{RAM},policy=bind", f"{RAM},policy=BIND"),
    *(f"{RAM},host-nodes=0", f"{RAM},host-nodes=0-3", f"{RAM},host-nodes=3-1", f"{RAM},host-nodes"),
    *(f"{RAM},host-nodes=0,host-nodes=x", f"{RAM},host-nodes=65536", f"{RAM},host-nodes=-1"),
    *(f"{RAM},host-nodes=0-99999", f"{RAM},host-nodes=0-", f"{RAM},host-nodes=0x0"),
    *(f"{RAM},prealloc-threads=x", f"{RAM},prealloc-threads=4294967296"),
    *(f"{RAM},prealloc-threads=-1", f"{RAM},prealloc-threads=010", f"{RAM},prealloc-threads=1k"),
    *("memory-backend-file,id=f,size=1M", "memory-backend-file,id=f,size=1M,mem-path=a,,b"),
    *("memory-backend-file,id=f,size=1,mem-path=x,rom=maybe", "memory-backend-memfd,id=f,size=1"),
    *("memory-backend-memfd,id=f,size=1,seal=x", "thread-context,id=t,cpu-affinity=70000"),
    *("memory-backend-ram,help", "memory-backend-file,help", "memory-backend-memfd,?"),
    *("memory-backend-shm,id=m,help=off", "thread-context,help,share", "container,help"),
    *("{", "{}", "{} ", "{}}", "{}{", "{} x", "[]", "null", " {}", '{"a":1]', '{"a":nul}', "{,}"),
    *('{"a":"b', '{"a" "b"}', '{"a":%s}', '{"a":1,}', '{"a":1,"a":2}', '{"a":', "{'a':1}"),
    *('{"qom-type":1}', '{"qom-type":"foo"}', '{"qom-type":"help"}', '{"help":1}'),
    '{"qom-type":"memory-backend-ram"}',
    '{"qom-type":"memory-backend-ram","id":"m","size":"1M"}',
    '{"qom-type":"memory-backend-ram","id":"m","size":4096}',
    '{"qom-type":"memory-backend-ram","id":"m","size":4096,"share":"on"}',
    '{"qom-type":"memory-backend-ram","id":"m","size":4096,"foo":1,"bar":2}',
    '{"qom-type":"memory-backend-ram","id":"m","size":4096,"host-nodes":[66000]}',
]

LINES_READ: list[tuple[str, ...]] = [
    *(("-object", text) for text in OBJECTS),
    ("--object", RAM, "-object", f"{RAM},foo"),
    ("-object", RAM, "-object", "memory-backend-ram,id=m0,help"),
    ("-object", '{"qom-type":"memory-backend-ram","id":"m0","size":4096}', "-object", RAM),
    ("-object", "x", "-name", "a=b"),
    ("-name", "a=b", "-object", "x"),
    ("-object", "x", "-bogus"),
    *((word,) for word in ("-bogus", "--bogus", "---bogus", "-", "--", "-object=x", "-version=3")),
    *((word,) for word in ("-help-me",)),
    *(("-name", text) for text in ("", "a", "a,,b", ",", "=", "a=b", "a,id=0", "a,b,id=y")),
    *(("-name", text) for text in ("guest", "a,process", "a,debug-threads=maybe", "help")),
    *(("-msg", text) for text in ("", "a", "a=1", "no", ",timestamp", "id=0", "id=x", "id")),
    *(("-msg", text) for text in ("timestamp=maybe", "delay", "nodelay", "timestamp=off,,a=1")),
    *(("-uuid", text) for text in ("", "x", "550e8400-e29b-41d4-a716-44665544000g")),
    ("-uuid", "550e8400e29b41d4a716446655440000"),
    ("-uuid", "550E8400-E29B-41D4-A716-446655440000"),
    *(("-chardev", text) for text in ("", "socket", "foo,id=x", "id=x", "null,id", "null,id=")),
    *(("-chardev", f"null,id=x,{text}") for text in ("foo=1", "foo", "nofoo", "=3", "path=p", "")),
    *(("-chardev", f"null,id=x,{text}") for text in ("server=maybe", "server=ON", "server=1")),
    *(("-chardev", f"null,id=x,{text}") for text in ("server=true,wait=n", "server,nowait", ",")),
    *(("-chardev", f"null,id=x,{text}") for text in ("to=x", "to=1k", "to=0x10", "to=-1", "to=")),
    *(("-chardev", f"null,id=x,{text}") for text in ("to=99999999999999999999", "reconnect=foo")),
    *(("-chardev", f"null,id=x,{text}") for text in ("size=x", "size=-1", "size=16E", "size=1k")),
    *(
        ("-chardev", f"null,id=x,{text}")
        for text in ("help", "server=on,?", "help=on", "pretty=on")
    ),
    *(("-chardev", text) for text in ("null,foo=1,id=0", "null,foo,id=0", "null,foo,help")),
    ("-chardev", "null,id=x", "-chardev", "null,id=x,foo=1"),
    ("-chardev", "null,id=x", "-chardev", "null,id=x,help"),
    *(("-mon", text) for text in ("", "foo=bar", "x,foo", "x,pretty=maybe", "x,id=0", "x,help")),
    *(("-mon", text) for text in ("mode=foo", "mode=foo,pretty=maybe", "mode=control,x", "help")),
    ("-mon", "x,id=a", "-mon", "y,id=a"),
    *(("-qmp", text) for text in ("", "foo", "foo:x,y=z", "unix", "UNIX:s", "stdio,", "null,")),
    *(("-qmp", text) for text in ("tcp:", "tcp:a:", "tcp::", "tcp:host=h,port=1", "tcp:a:1,,")),
    *(("-qmp", text) for text in ("unix:s,foo", "unix:s,server=maybe", "unix:a=b", "unix:s,help")),
    *(("-qmp", text) for text in ("unix:s,pretty=on", "unix:s,id=0", "mon:foo", "chardev:")),
    ("-qmp", f"tcp:{'h' * 65}:1"),
    ("-qmp-pretty", "tcp:foo"),
    ("-chardev", "null,id=compat_monitor0", "-qmp", "null"),
    ("-qmp", "null", "-chardev", "null,id=compat_monitor0"),
    ("-qmp", "foo", "-chardev", "foo,id=x"),
    ("-display", "none,foo"),
    ("-display", "foo"),
    ("-machine", "none,foo"),
    ("-compat", "foo"),
    ("-sandbox", "foo"),
    ("-sandbox", "on,foo=bar"),
    ("-overcommit", "foo=bar"),
    ("-rtc", "foo=bar"),
]


@pytest.mark.parametrize("argv", LINES_READ, ids=" ".join)
def test_reading(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    compare((*argv, *READ), release)


@pytest.mark.parametrize(
    "argv",
    [("-qmp",), ("--object",), ("-name", "a", "-chardev")],
    ids=" ".join,
)
def test_an_argument_is_wanted(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    compare(argv, release)


SOCKET = "socket,id=c0"

# A descriptor of 977 no process of the tests has.
LINES_MADE: list[tuple[str, ...]] = [
    *(("-chardev", text) for text in ("", "socket", "null,id=x", "foo", "foo,id=x", "id=x")),
    *(("-chardev", f"{SOCKET},{text}") for text in ("fd=x", "fd=0x3", "fd=99999999999", "fd=977")),
    *(("-chardev", f"{SOCKET},{text}") for text in ("fd=-1", "fd=+977", "path=s,fd=3", "host=h")),
    *(
        ("-chardev", f"{SOCKET},{text}")
        for text in ("path=s,wait=off", "path=s,server=off,wait=on")
    ),
    *(("-chardev", f"{SOCKET},{text}") for text in ("path=s,websocket=on", "path=s,tls-creds=x")),
    *(("-chardev", f"{SOCKET},{text}") for text in ("path=s,tls-authz=x", "host=h,path=s")),
    ("-chardev", f"{SOCKET},path=s,server=on,reconnect=1"),
    ("-chardev", f"{SOCKET},path=s,reconnect=1,wait=off"),
    ("-chardev", f"{SOCKET},fd=3,reconnect=1,server=on"),
    ("-chardev", f"{SOCKET},path=s,reconnect=1,reconnect-ms=1,wait=on"),
    ("-chardev", f"{SOCKET},path=s,delay=on,nodelay=on"),
    ("-chardev", f"{SOCKET},host=h,port=1,ipv4=off,ipv6=off"),
    ("-chardev", f"{SOCKET},path=s,tls-creds=x,wait=off"),
    ("-chardev", f"{SOCKET},fd=3,reconnect=3,tls-creds=x"),
    ("-chardev", f"{SOCKET},path=s,server=on,server=off,wait=off"),
    *(("-qmp", text) for text in ("unix:s,wait=off", "unix:fd=x", "unix:fd=977", "null", "unix:")),
    *(("-qmp", text) for text in ("tcp:h:1,fd=3", "tcp:h:1,wait=off", "unix:fd=3,path=s")),
    ("-qmp", "stdio", "-chardev", "stdio,id=x"),
    ("-chardev", "foo,id=x", "-accel", "foo"),
    ("-accel", "foo"),
    ("-accel", "foo", "-accel", "bar"),
    ("-machine", "none,accel=foo"),
    ("-machine", "none,accel=", "-chardev", "null,id=x"),
    ("-machine", "none,accel=foo:tcg"),
    ("-machine", "none,accel=tcg", "-accel", "kvm"),
    ("-machine", "none,foo=bar"),
    ("-machine", "none,foo=bar", "-chardev", "foo,id=x"),
    ("-machine", "none,usb=maybe"),
    ("-machine", "foo", "-chardev", "foo,id=x"),
]


@pytest.mark.parametrize("argv", LINES_MADE, ids=" ".join)
def test_making(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    done = qemu(*argv, *MADE)
    ours = memd_side(*release, *argv)
    passed = MADE_SAYS if ours.config is not None else ""
    assert ours.stderr + passed == said(done)
    assert done.returncode == 1


X = ("-chardev", "null,id=x")
Y = ("-chardev", "null,id=y")

LINES_JOINED: list[tuple[str, ...]] = [
    ("-mon", ""),
    ("-mon", "mode=foo"),
    (*X, "-mon", "x"),
    ("-mon", "x", *X),
    (*X, "-mon", "chardev=x,mode=foo"),
    (*X, "-mon", "x,mode="),
    (*X, "-mon", "x,mode=control,pretty=on"),
    (*X, "-mon", "x,mode=control,pretty"),
    (*X, "-mon", "x,pretty=on"),
    (*X, "-mon", "w,pretty=on"),
    (*X, "-mon", "x,id=a", "-mon", "x,id=b"),
    (*X, *Y, "-mon", "x", "-mon", "x,pretty=on"),
    (*X, *Y, "-mon", "x,chardev=y", "-mon", "x", "-mon", "y"),
    (*X, "-qmp", "chardev:x"),
    (*X, "-qmp", "chardev:x", "-qmp", "chardev:x"),
    (*X, "-mon", "x", "-qmp", "chardev:x"),
    ("-qmp", "chardev:x"),
    ("-qmp", "null", "-mon", "compat_monitor0,mode=control"),
    ("-qmp", "null", "-qmp-pretty", "null"),
]


@pytest.mark.parametrize("argv", LINES_JOINED, ids=" ".join)
def test_joining(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    compare((*argv, *JOINED), release)


LONG = "a" * 128

KEYVALS = [
    *("foo", "foo,bar=1", "a=1", "a=1,", "a=1,,", "a=1,,b", ",", ",,", "=", "=1", "a=", "a==1"),
    *("a.0=1", "a.1=1", "a.0=1,a.1=2", "a.0=1,a.2=1", "a.0=1,a.x=1", "a=1,a.b=1", "a.b=1,a=1"),
    *("a.b.c=1", "a.b.c=1,a.b=1", "a.0.x=1", "a.0.0=1,a.0.2=1", "a.0=1,a.00=1", "a.00=1,a.2=1"),
    *("a b=1", "a!=1", "a!", "a.!=1", "a.b!x=1", "5=1", "5a=1", "a.5b=1", "a.-1=1", "a.=1", ".a=1"),
    *("a..b=1", "_a=1", "-a=1", "é=1", "__com_x=1", "__com.x_y=1", "__com.x=1", "__com=1"),
    *("__com.x_=1", "__.x_y=1", f"{LONG}=1", f"{LONG[1:]}=1", f"a.{LONG}=1", f"{LONG}!=1"),
    *("a=1,a.b!=1", "a=1,a.b", "a=1,a.b.c!=1", "a.1=1,foo", "a.1=1,5=1", "b.1=1,a.1=1,c.1=1"),
    *("help=1", "help.x", "?=1", "helpx"),
    *("a.99999999999999999999=1", "a.0=1,a.18446744073709551616=1", "a.0x=1", "a.0-1=1"),
]


@pytest.mark.parametrize("text", KEYVALS)
def test_keyvals(text: str) -> None:
    """By an option of QEMU's that takes them, and knows none of those keys."""
    try:
        options, _wants_help = parse_keyval(text)
    except QMPError as error:
        expected = re.escape(f"-compat {text}: {error.desc}\n")
    else:
        unknown = r"-compat .*: Parameter '.*' is unexpected\n"
        expected = unknown if options else re.escape(READ_SAYS)
    assert re.fullmatch(expected, said(qemu("-compat", text, *READ)))


SIZES = ["1", "4095", "1k", "1b", "1.5M", ".5M", "0x1000", "+1M", "010", "1.999k", "3T", "0x10"]


def test_values() -> None:
    """What a size is to both, asked of QEMU's property."""
    argv = []
    questions = []
    for number, size in enumerate(SIZES):
        argv += ["-object", f"memory-backend-ram,id=m{number},reserve=off,size={size}"]
        questions.append(f"qom-get /objects/m{number} size\n")
    ours = memd_side(*argv)
    assert ours.config is not None
    told = qemu(*argv, "-monitor", "stdio", "-S", text="".join([*questions, "quit\n"]))
    answers = [int(line) for line in told.stdout.split() if line.isdigit()]
    assert [options["size"] for options in ours.config.objects] == answers, told.stderr


def test_the_texts_are_written_as_they_are_said() -> None:
    """End to end: what the program itself writes, and how it exits."""
    argv = ("-name", "vm", "-msg", "guest-name=on", "-object", "memory-backend-ram,id=0")
    done = qemu(*argv)
    script = "import sys; from memd.cli.qemu_system import main; sys.exit(main())"
    ours = subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    assert ours.returncode == done.returncode == 1
    assert ours.stderr == re.sub(r"qemu-system-\S+:", "qemu-system-memd:", done.stderr)
    assert ours.stdout == done.stdout == ""


def test_outcomes_are_told_apart() -> None:
    """A line that is refused must not look like one that passes."""
    assert memd_side("-bogus").config is None
    assert memd_side("-name", "a").config is not None
