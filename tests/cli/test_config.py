from __future__ import annotations

import pytest

from memd.cli.config import Chardev, Config, MonitorSpec
from memd.cli.report import Reporter


def test_a_monitor_shows_what_it_sits_on() -> None:
    chardev = Chardev("c0", "tcp")
    chardev.host, chardev.port, chardev.family = "h", "1", "ipv4"
    chardev.path, chardev.fd = "/s", 3
    chardev.server = chardev.wait = True
    chardev.reconnect, chardev.tls_creds = 7, "tls0"
    monitor = MonitorSpec("m0", chardev, "control", False, "-mon c0")
    for name in (
        *("kind", "path", "fd", "host", "port", "family"),
        *("server", "wait", "reconnect", "tls_creds"),
    ):
        assert getattr(monitor, name) == getattr(chardev, name)


@pytest.mark.parametrize(
    ("kind", "server", "expected"),
    [
        ("unix", True, "unix:/s,server=on"),
        ("unix", False, "unix:/s"),
        ("tcp", True, "tcp:h:1,server=on"),
        ("fd", True, "fd:3,server=on"),
        ("stdio", False, "stdio"),
    ],
)
def test_addresses_are_described(kind: str, server: bool, expected: str) -> None:
    chardev = Chardev("c0", kind)
    chardev.path, chardev.host, chardev.port, chardev.fd = "/s", "h", "1", 3
    chardev.server = server
    assert chardev.describe() == expected


def test_nothing_is_shared() -> None:
    one, other = Config(Reporter("a")), Config(Reporter("b"))
    one.objects.append({})
    one.monitors.append(MonitorSpec(None, Chardev("c", "null"), "control", False, ""))
    assert (other.objects, other.monitors) == ([], [])
