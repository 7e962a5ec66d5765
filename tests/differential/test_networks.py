"""Networks: what is connected to what, as `info network` tells it."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from tests.differential.harness import Pair, Side
from tests.differential.standin import standin_pair, tell
from tests.ports import free_port
from tests.seeds import seed_of_run

Step = tuple[str, dict[str, Any]]


def word(line: str) -> Step:
    return "human-monitor-command", {"command-line": line}


def backend(id: str, kind: str = "user", **options: Any) -> Step:
    return "netdev_add", {"type": kind, "id": id, **options}


def device(driver: str, id: str | None = None, netdev: str | None = None, **more: str) -> Step:
    given = {"id": id, "netdev": netdev, **more}
    named = {name: value for name, value in given.items() if value is not None}
    return "device_add", {"driver": driver, **named}


def port(id: str, hub: int, **more: str) -> Step:
    return backend(id, "hubport", hubid=hub, **more)


def go(pair: Pair, steps: list[Step]) -> None:
    """Each step, and what is connected then."""
    for step in steps:
        if step[0] == "device_del":
            # The event comes before the answer or after it.
            pair.ask(*step)
            pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
        else:
            tell(pair, [step])
        tell(pair, [word("info network")])


def gone(id: str) -> Step:
    return "device_del", {"id": id}


def without(id: str) -> Step:
    return "netdev_del", {"id": id}


def mac(id: str) -> Step:
    return "qom-get", {"path": f"/machine/peripheral/{id}", "property": "mac"}


def test_devices_and_backends_come_and_go(directory: Path) -> None:
    options = (
        *("-machine", "pc", "-device", "qemu-xhci", "-netdev", "user,id=a", "-netdev"),
        *('{"type": "user", "id": "j", "restrict": true}', "-netdev", "user,id=w,net=10.1.0.0/16"),
        *("-netdev", "socket,id=s,udp=127.0.0.1:9,localaddr=127.0.0.1:0", "-device", "e1000"),
        *("-device", "e1000,netdev=w,id=e", "-device", "virtio-net-pci,netdev=j"),
    )
    steps = [
        *(device("usb-net", "u", "a"), device("usb-net", "v", "a"), device("rtl8139", "r", "s")),
        *(without("a"), device("virtio-net-pci", "v", "a"), gone("u"), without("a")),
        *(backend("a"), device("usb-net", None, "a"), backend("a"), without("w"), mac("e")),
        *(backend("w", net="10.2.0.0/255.255.0.0"), device("usb-net", "u", "w"), gone("u")),
        *(device("e1000", "m", mac="52:54:00:12:34:5C"), device("e1000", mac="00:00:00:00:00:00")),
        *(device("usb-net", "x", mac="52:54:00:12:34:60"), gone("x"), device("e1000", "y", "w")),
        *(device("e1000", "z", "r"), device("e1000", "z", "nope"), device("e1000")),
        *(backend("l", "socket", listen="127.0.0.1:0"), without("s"), without("e"), mac("y")),
        *(("set_link", {"name": name, "up": False}) for name in ("a", "s", "e1000.1", "e1000.9")),
    ]
    with standin_pair(directory, *options) as pair:
        go(pair, [word("info network"), *steps])


NETWORKS = (
    *("abc", "", "/24", "10.0.3.7/", "10.0.3.7/x", "10.0.3.7/3", "10.0.3.7/33", "fec0::/64"),
    *("10.0.3.0/255.0.255.0", "10.0.3.9/28", "10.0.3.7/ 24", "10.0.3.7/24 ", "10.0.3.7/0x18"),
    *("172.17.5.4", "172.32.5.4", "192.168.9.9", "192.167.9.9", "1", "0x0a.1.2.3/4", "224.1.2.3"),
    *("10.0.3.7/4294967320", "10.0.3.7/-4294967272", "10.0.3.7/99999999999999999999"),
    "x" * 60_000,
)


def test_addresses_of_networks(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        for net in NETWORKS:
            go(pair, [backend("n", net=net), without("n")])


OPTIONS: dict[str, tuple[Any, ...]] = {
    "ipv4": (True, False),
    "ipv6": (True, False),
    "net": ("10.0.2.0/24", "10.0.3.0/29", "10.0.2.0/30", "10.0.2.0/31", "10.0.2.0/32", "abc"),
    "host": ("10.0.2.9", "10.0.3.3", "10.0.2.3", "10.0.2.15", "", "abc"),
    "dns": ("10.0.2.2", "10.0.3.7", "1.1.1.1", "10.0.2", "abc"),
    "dhcpstart": ("10.0.2.2", "10.0.2.9", "10.0.3.1", "1.1.1.1", "abc"),
    "ipv6-prefix": ("fec0::", "fec1::1", "::", "abc"),
    "ipv6-prefixlen": (-1, 0, 1, 63, 126, 127),
    "ipv6-host": ("fec0::9", "fec1::9", "10.0.2.9", ""),
    "ipv6-dns": ("fec1::9", "abc"),
    "domainname": ("", "a", "é" * 128),
    "hostname": ("", "h" * 255, "h" * 256),
    "tftp-server-name": ("", "t" * 256),
    "hostfwd": ([], [{"str": "x"}]),
}


def test_options_of_networks(directory: Path) -> None:
    """Of several mistakes the same one is told."""
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}")
    chance = random.Random(seed)
    given: list[dict[str, Any]] = [
        {name: value} for name, values in OPTIONS.items() for value in values
    ]
    for _ in range(150):
        some = chance.sample(sorted(OPTIONS), chance.randint(2, 4))
        given.append({name: chance.choice(OPTIONS[name]) for name in some})
    with standin_pair(directory, "-machine", "none") as pair:
        given += {"smb": "/", "smbserver": "x"}, {"ipv6-prefixlen": 0, "ipv6-host": "fec1::9"}
        for options in given:
            tell(pair, [backend("n", **options), without("n")])


def test_hubs(directory: Path) -> None:
    options = (
        *("-machine", "pc", "-device", "qemu-xhci", "-netdev", "user,id=u", "-netdev"),
        *("hubport,id=h1,hubid=0", "-netdev", "hubport,id=h2,hubid=0", "-netdev"),
        *("hubport,id=h3,hubid=3,netdev=u", "-device", "e1000,netdev=h1,id=e"),
        *("-device", "virtio-net-pci,netdev=h2", "-device", "virtio-net-pci,id=f"),
    )
    steps = [
        *(without("h1"), without("u"), without("h3"), backend("u"), port("h4", 0, netdev="u")),
        *(port("h5", -1), port("h6", 5, netdev="nope"), port("h6", 3), port("h7", 3, netdev="h6")),
        *(without("h7"), device("usb-net", "x", "h6"), without("h6"), port("h6", 3), gone("x")),
        *(device("usb-net", "x", "h6"), gone("x"), without("h4"), port("h6", 1)),
        *(("set_link", {"name": name, "up": False}) for name in ("h1", "h2", "h5", "u")),
    ]
    with standin_pair(directory, *options) as pair:
        go(pair, [word("info network"), *steps])
        # QEMU ends there.
        tell(pair, [backend("w"), device("e1000", "g", "w")])
        for name in ("w", "h2"):
            said = pair.subject.ask(*port("h9", 0, netdev=name))
            assert said["error"]["desc"] == f"netdev '{name}' is in use"
        tell(pair, [word("info network")])


def test_ports_that_are_forwarded(directory: Path) -> None:
    def forwards(side: Side) -> str:
        told = str(side.ask(*word("info usernet"))["return"])
        # Nothing listens in memd, which has no descriptor to tell.
        return re.sub(r"(HOST_FORWARD\]) +-?\d+", r"\1", told)

    def both(*lines: str) -> None:
        # They are one after the other at a port of the host's, which only QEMU listens at.
        for line in lines:
            pair.ask(*word(line))
        pair.same("forwards", forwards)

    ports = [free_port() for _ in range(4)]
    with standin_pair(directory, "-machine", "pc") as pair:
        both("hostfwd_add tcp::5-:22", "hostfwd_remove tcp::5", "hostfwd_add n0 tcp::5-:22")
        tell(pair, [backend("n0", net="10.1.0.0/16"), backend("n1"), port("h", 3)])
        tell(pair, [port("g", 3, netdev="n1")])
        both(
            f"hostfwd_add tcp:127.0.0.1:{ports[0]}-:22",
            f"hostfwd_add n1 tcp:127.0.0.1:{ports[1]}-10.0.2.20:23",
            f"hostfwd_add n1 udp::{ports[2]}-:24",
            f"hostfwd_add n1 tcp:127.0.0.1:{ports[3]}-:25",
            f"hostfwd_add n0 tcp:127.0.0.1:{ports[3]}-:26",
        )
        both("hostfwd_add n9 tcp::5-:22", "hostfwd_add h tcp::5-:22", "hostfwd_add n1 tcp:x")
        both("hostfwd_add", "hostfwd_remove", "hostfwd_remove n1 x", "hostfwd_remove tcp:x:1")
        both(
            f"hostfwd_remove n1 tcp:127.0.0.1:{ports[1]}",
            f"hostfwd_remove n1 tcp:127.0.0.1:{ports[1]}",
            f"hostfwd_remove n1 udp::{ports[2]}",
            f"hostfwd_remove tcp:127.0.0.1:{ports[0]}",
        )
        pair.ask("netdev_del", {"id": "n1"})
        pair.same("forwards", forwards)
