"""Starts with ids that are taken or can't be, and with descriptors that lead to anything."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from memd.compat import Compat
from tests.differential.server import (
    PATIENCE,
    TREE,
    qemu_binary,
    qemu_compat,
    qemu_system_memd,
)
from tests.differential.starts import start
from tests.seeds import seed_of_run

NAMED: dict[str, tuple[str, ...]] = {
    "chardev": ("-chardev", "null,id={id}"),
    "socket": ("-chardev", "socket,id={id},path=s,server=on,wait=off"),
    "secret": ("-object", "secret,id={id},data=x"),
    "memory": ("-object", "memory-backend-ram,id={id},size=4096"),
    "monitor": ("-chardev", "null,id=other", "-mon", "other,mode=control,id={id}"),
    "network": ("-netdev", "hubport,id={id},hubid=0"),
    "node": ("-blockdev", "null-co,node-name={id}"),
    "drive": ("-drive", "if=none,driver=null-co,id={id}"),
    "set": ("-add-fd", "fd=2,set={id}"),
    "audio": ("-audiodev", "none,id={id}"),
}
"""Options that name something."""

IDS = ("type", "compat_monitor0", "", "1", "a" * 200)
"""`type` is what a directory of objects has itself, `compat_monitor0` is a -qmp's."""

ELSEWHERE = (("memory", "compat_monitor0"), ("audio", "type"))
"""What QEMU 11.1 tells at another option than memd; see docs/deviations.md."""


def options_of(names: Sequence[str], id: str) -> list[str]:
    return [word.format(id=id) for name in names for word in NAMED[name]]


def compare(options: Sequence[str], directory: Path) -> None:
    """Both start, or are refused in the same words."""
    options = ["-machine", "none", *options]
    reference = start(qemu_binary(), options, cwd=directory)
    subject = start(qemu_system_memd(qemu_compat()), options, cwd=directory)
    assert subject == reference, options


@pytest.mark.parametrize("name", NAMED)
def test_ids(name: str, directory: Path) -> None:
    for id in IDS:
        if qemu_compat() is Compat.V10_0 or (name, id) not in ELSEWHERE:
            compare(options_of([name], id), directory)


def test_memory_before_what_it_refers_to(directory: Path) -> None:
    memory = ("-object", "memory-backend-ram,id=m,size=4096,prealloc-context=t")
    compare([*memory, "-object", "thread-context,id=t"], directory)
    compare(memory, directory)


def test_two_of_an_id(directory: Path) -> None:
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}")
    draw = random.Random(seed)
    for _ in range(12):
        # Of an id that can't be, another option may be told by memd.
        compare(options_of(draw.choices([*NAMED], k=2), "a"), directory)


def _unix(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    return socket.socket(socket.AF_UNIX, kind).detach()


def _listening() -> int:
    sock = socket.socket(socket.AF_UNIX)
    # An abstract name of the kernel's own.
    sock.bind("")
    sock.listen()
    return sock.detach()


DESCRIPTORS: dict[str, Callable[[], int]] = {
    "listening": _listening,
    "unconnected": _unix,
    "datagrams": lambda: _unix(socket.SOCK_DGRAM),
    "internet": lambda: socket.socket(socket.AF_INET).detach(),
    "directory": lambda: os.open(".", os.O_RDONLY),
    "path": lambda: os.open(".", os.O_PATH),
    "closed": lambda: -1,
}
"""What a number on a command line may lead to, other than the connection that it should."""

GIVEN = (
    ("-chardev", "socket,id=c,fd={fd}"),
    ("-chardev", "socket,id=c,fd={fd},server=on,wait=off", "-mon", "c,mode=control"),
    ("-qmp", "unix:fd={fd}"),
    ("-add-fd", "fd={fd},set=1", "-chardev", "file,id=c,path=/dev/fdset/1"),
)
"""Options that take one."""

QUIT = '{"execute": "qmp_capabilities"}{"execute": "quit"}'


def given(argv: Sequence[str], options: Sequence[str], fd: int) -> tuple[int, str, int]:
    """The status of a start that is ended at once, what it says, and how often it answers."""
    done = subprocess.run(
        [*argv, *("-S", "-display", "none", "-nodefaults", "-machine", "none", "-qmp", "stdio")]
        + [word.format(fd=977 if fd < 0 else fd) for word in options],
        pass_fds=() if fd < 0 else (fd,),
        input=QUIT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    said = re.sub(r"^qemu-system-\w+: ", "", done.stderr, flags=re.MULTILINE)
    return done.returncode, said, done.stdout.count('"return"')


@pytest.fixture(params=DESCRIPTORS)
def descriptor(request: pytest.FixtureRequest) -> Iterator[int]:
    fd = DESCRIPTORS[request.param]()
    yield fd
    if fd >= 0:
        os.close(fd)


def test_descriptors(descriptor: int) -> None:
    for options in GIVEN:
        reference = given(qemu_binary(), options, descriptor)
        assert given(qemu_system_memd(qemu_compat()), options, descriptor) == reference, options


def test_a_stream_that_can_not_be_read(descriptor: int) -> None:
    """It is awaited, or the start fails with a line; QEMU's words depend on what it reads."""
    status, said, answers = given(qemu_system_memd(), ("-incoming", "fd:{fd}"), descriptor)
    assert status == 1 or (status, answers) == (0, 2), said
    assert "Traceback" not in said
