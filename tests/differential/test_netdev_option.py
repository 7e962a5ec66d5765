"""`-netdev`, `-nic`, `-drive discard=` and an image alone: what is taken, and said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import NOT_THERE, prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

LINES = [
    ["-nic", "user,id=a,hostfwd=tcp::0-:22,hostfwd=udp:127.1:0x0-10.0.2.15:023"],
    ["-nic", "none,id=a,foo=1"],
    ["-nic", "id=a,mac=52:54:00:00:00:01,mac=52:54:00:00:00:02"],
    ["-net", "none,id=a"],
    [
        "-net",
        "nic,model=e1000,model=virtio",
        "-net",
        "user,id=a,hostfwd=tcp::0-:22,hostfwd=::0-:23",
    ],
    ["-netdev", "user,id=a,hostfwd=tcp::0-:22,hostfwd=tcp::0-:23,dnssearch=a,dnssearch=b"],
    ["-netdev", "user,id=a,guestfwd=tcp:10.0.2.100:1-null,guestfwd=::+2-null"],
    ["-netdev", "user,id=a,ipv6=off,restrict=y,net=10.0.2.0/24"],
    ["-netdev", '{"type":"user","id":"a","hostfwd":[{"str":"tcp::0-:22"}]}'],
    ["-drive", "driver=null-co,id=a,if=none,discard=on"],
    ["-drive", "driver=null-co,id=a,if=none,discard=off"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_is_taken(directory: Path, line: list[str]) -> None:
    with standin_pair(directory, *line) as pair:
        steps = [("human-monitor-command", {"command-line": "info network"})]
        tell(pair, [*steps, ("netdev_del", {"id": "a"}), ("eject", {"device": "a"})])


WRONG = [
    *("user", "id=a", "user,id=1", "foo,id=a", "user,id=a,foo=1", "user,id=a,help"),
    *("user,id=a,restrict=foo", "user,id=a,ipv6-prefixlen=x", "hubport,id=a", "user,id=a,,"),
    *("hubport,id=a,hubid=x", "hubport,id=a,hubid=99999999999", "tap,id=a,queues=x"),
    *("user,id=a,hostfwd.0.str=tcp::0-:22", "stream,id=a", "stream,id=a,addr.type=unix,foo=1"),
]

_LOCAL = "local.type=inet,local.host=127.0.0.1,local.port=0"
DATAGRAMS = [
    *("foo=1", _LOCAL, "local.type=unix,local.path=x", "remote.type=unix,remote.path=x"),
    "remote.type=inet,remote.host=127.0.0.1,remote.port=1",
    f"{_LOCAL},remote.type=unix,remote.path=x",
    "local.type=unix,local.path=x,remote.type=inet,remote.host=230.0.0.1,remote.port=1",
    "local.type=fd,local.str=0,remote.type=unix,remote.path=x",
]

RULES = [
    *("", "foo", "tcp:", "tcp::", "foo::1-:1", "tcp:x:1-:1", "tcp::1", "tcp::x-:1", "tcp::-1-:1"),
    *("tcp::65536-:1", "tcp::99999999999-:1", "tcp::0-", "tcp::0-22", "tcp::0-x:1", "tcp::0-:"),
    *("tcp::0-:0", "tcp::0-:65536", "tcp::0-:x", "unix:x-:1"),
    *("unix:", "unix:-:1", "unix:/x", "unix:/x-22", "unix:/x-x:1", "unix:/x-:0", "unixx:/x-:1"),
    f"unix:/{'x' * 107}-:1",
]
GUEST_RULES = [
    *("", "foo", "-null", "10.0.2.100:1-null", "udp:10.0.2.100:1-null", "tcp:10.0.2.100:1"),
    *(f"tcp:10.0.2.100:{port}-null" for port in ("", "0", "70000", "x", "5x", "0x5", "-1")),
    *(f"tcp:{host}:1-null" for host in ("x", "1.2.3.4", "10.0.2.2", "10.0.2.3")),
]
DRIVES = ["floppy,werror=stop", "floppy,rerror=report", "floppy,werror=foo", "ide,werror=foo"]
NETWORKS = [
    *("foo", "user,foo=1", "user,id=1", "user,restrict=x", "hubport", "nic,foo=1", "user,addr=1"),
    *("socket", "nic,vectors=x", "nic,netdev=x", "user,help", "user,hostfwd=foo", "user,mac.x=1"),
]


@pytest.mark.parametrize(
    "line",
    [
        *(["-netdev", text] for text in WRONG),
        *(["-netdev", f"user,id=a,hostfwd=tcp::0-:1,hostfwd={rule}"] for rule in RULES),
        *(["-netdev", f"user,id=a,guestfwd={rule}"] for rule in GUEST_RULES),
        *(["-netdev", f"dgram,id=a,{text}"] for text in DATAGRAMS),
        *([option, text] for option in ("-nic", "-net") for text in NETWORKS),
        *(["-nic", "user,id=a", option, "user,id=a"] for option in ("-nic", "-netdev")),
        *(["-net", text] for text in ("none,foo=1", "null", "id=a", "hubport,hubid=0")),
        ["-netdev", "user,id=a", "-netdev", "user,id=a"],
        ["-drive", "driver=null-co,if=none,discard=foo"],
        [f"{NOT_THERE}/image"],
        ["-machine", "isapc", "-drive", "driver=null-co,if=pflash"],
        ["-machine", "q35,sata=off", "-drive", "driver=null-co,if=ide"],
        *(["-machine", "pc", "-drive", f"driver=null-co,if={kind}"] for kind in DRIVES),
    ],
    ids=" ".join,
)
def test_mistakes(line: list[str]) -> None:
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        done = prefork.run([*argv, "-machine", "q35", "-display", "none", "-S", *line])
        assert done.returncode == 1
        said.append(done.stderr.partition(":")[2])
    assert said[0] == said[1]
