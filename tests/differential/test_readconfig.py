"""`-readconfig FILE`: what is in the file is given, and said of mistakes, as by QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import NOT_THERE, prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

# The sections of Incus's own.
INCUS = """
# Machine
[machine]
graphics = "off"
type = "q35"
usb = "off"

[accel]
accel = "tcg"

[global]
driver = "ICH9-LPC"
property = "disable_s3"
value = "1"

[boot-opts]
strict = "on"

[memory]
size = "64M"
maxmem = "1G"
slots = "4"

[object "mem0"]
qom-type = "memory-backend-memfd"
size = "64M"
share = "on"
policy = "bind"
host-nodes.0 = "0"

[numa]
type = "node"
nodeid = "0"
memdev = "mem0"

[smp-opts]
cpus = "2"
sockets = "1"
cores = "2"
threads = "1"

[chardev "console"]
backend = "ringbuf"
size = "4096"

[chardev "log"]
path = "a,b"
backend = "file"

[device "qemu_pcie0"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.0"
multifunction = "on"

[device "qemu_balloon"]
driver = "virtio-balloon-pci"
bus = "qemu_pcie0"
addr = "00.0"
"""


def test_a_configuration_of_incus(directory: Path) -> None:
    path = directory / "conf"
    path.write_text(INCUS)
    with standin_pair(directory, "-readconfig", str(path)) as pair:
        tell(
            pair,
            [
                ("query-memdev", None),
                ("query-memory-size-summary", None),
                ("query-hotpluggable-cpus", None),
                ("qom-list", {"path": "/machine/peripheral"}),
                ("qom-get", {"path": "/machine", "property": "usb"}),
                ("qom-get", {"path": "qemu_balloon", "property": "type"}),
                ("ringbuf-write", {"device": "console", "data": "x"}),
            ],
        )
        pair.same("files", lambda side: sorted(side.files()))


WRONG = {
    "no section": "foo\n",
    "a key before any": 'k = "v"\n',
    "no such section": '[nope "x"]\n k = "v"\n',
    "an unquoted name": '[device x]\n driver = "e1000"\n',
    "no keys": '[machine]\n  type = "q35"\n[device]\n',
    "an unquoted value": '[device "x"]\n k = v\n',
    "no such type": '\n[object "m0"]\n# c\n qom-type = "nope"\n',
    "no such backend": '[chardev "c0"]\n backend = "nope"\n',
    "no such machine": '[machine]\n type = "nope"\n',
    "no such device": '[device "x"]\n driver = "nope"\n',
    "two of a name": '[device "d"]\n driver = "e1000"\n[device "d"]\n addr = "5"\n',
    "no id": '[object]\n qom-type = "memory-backend-ram"\n size = "1M"\n',
    "a comma": '[device "d"]\n driver = "e1000"\n addr = "5,6"\n',
    "a list in one": '[object "m0"]\n qom-type = "memory-backend-ram"\n host-nodes = "0"\n',
    "a help": '[object "m0"]\n qom-type = "memory-backend-ram"\n help = "on"\n',
    "two objects of a name": 2 * '[object "m0"]\n qom-type = "secret"\n data = "x"\n',
    "no such accelerator": '[accel]\n accel = "nope"\n thread = "multi"\n',
    "a comment that is two lines": f"#{'x' * 1100}\n[nope]\n",
    "a value that does not end": '[machine]\n type = "nope\n',
    "a value without a quote": '[chardev "x"]\n backend = "nope',
    "carriage returns": '[machine]\r\n type = "nope"\r\n',
    "blanks alone": '[machine]\n  \n type = "nope"\n',
    "a zero": '[machine]\n\0\n type = "nope"\n',
    "a section in blanks": ' [machine]\n type = "nope"\n',
    "no blanks": '[object "m0"]\n size="1M"\n',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_mistakes(directory: Path, text: str) -> None:
    path = directory / "conf"
    path.write_text(text)
    said = [first_line(argv, str(path)) for argv in both()]
    assert said[0] == said[1]


def test_a_file_that_is_not_there() -> None:
    said = [first_line(argv, f"{NOT_THERE}/conf") for argv in both()]
    assert said[0] == said[1]


def test_a_file_is_read_whole(directory: Path) -> None:
    path = directory / "conf"
    path.write_text(f"#{'x' * 1000}\n" * 1040 + "[nope]\n")
    said = [first_line(argv, str(path)) for argv in both()]
    assert said[0] == said[1]


def test_one_without_an_end() -> None:
    said = first_line(qemu_system_memd(qemu_compat()), "/dev/zero")
    assert said == " -readconfig /dev/zero: '/dev/zero' has more than 1048576 bytes"


def both() -> tuple[list[str], list[str]]:
    return qemu_binary(), qemu_system_memd(qemu_compat())


def first_line(argv: list[str], path: str) -> str:
    """What is said first on standard error, without the program's name."""
    line = ["-machine", "q35", "-nodefaults", "-display", "none", "-S", "-readconfig", path]
    done = prefork.run([*argv, *line])
    assert done.returncode == 1
    return done.stderr.partition("\n")[0].partition(":")[2]
