"""`-netdev`, `-nic`, `-drive discard=` and an image alone: what is taken, and said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

LINES = [
    ["-netdev", "user,id=a,hostfwd=tcp::0-:22,hostfwd=tcp::0-:23,dnssearch=a,dnssearch=b"],
    ["-netdev", "user,id=a,ipv6=off,restrict=y,net=10.0.2.0/24"],
    ["-netdev", '{"type":"user","id":"a","hostfwd":[{"str":"tcp::0-:22"}]}'],
    ["-drive", "driver=null-co,id=a,if=none,discard=on"],
    ["-drive", "driver=null-co,id=a,if=none,discard=off"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_is_taken(directory: Path, line: list[str]) -> None:
    with standin_pair(directory, *line) as pair:
        tell(pair, [("netdev_del", {"id": "a"}), ("eject", {"device": "a"})])


WRONG = [
    *("user", "id=a", "user,id=1", "foo,id=a", "user,id=a,foo=1", "user,id=a,help"),
    *("user,id=a,restrict=foo", "user,id=a,ipv6-prefixlen=x", "hubport,id=a", "user,id=a,,"),
    *("hubport,id=a,hubid=x", "hubport,id=a,hubid=99999999999", "tap,id=a,queues=x"),
    *("user,id=a,hostfwd.0.str=tcp::0-:22", "stream,id=a", "stream,id=a,addr.type=unix,foo=1"),
]


@pytest.mark.parametrize(
    "line",
    [
        *(["-netdev", text] for text in WRONG),
        ["-netdev", "user,id=a", "-netdev", "user,id=a"],
        ["-drive", "driver=null-co,if=none,discard=foo"],
        ["/nonexistent/image"],
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
