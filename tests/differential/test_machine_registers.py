"""CPUs that come later, the balloon, and what the human monitor tells of them and of others."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side, exact
from tests.differential.standin import standin_pair, tell
from tests.seeds import seed_of_run


def cpu(id: str | None = None, model: str = "qemu64", **props: Any) -> tuple[str, Any]:
    named = {name.replace("_", "-"): value for name, value in props.items()}
    return "device_add", {"driver": f"{model}-x86_64-cpu", **named, **({"id": id} if id else {})}


def word(line: str) -> tuple[str, Any]:
    return "human-monitor-command", {"command-line": line}


def of_peripheral(id: str, name: str) -> tuple[str, Any]:
    return "qom-get", {"path": f"/machine/peripheral/{id}", "property": name}


def test_cpus_come(directory: Path) -> None:
    present = ("query-hotpluggable-cpus", None)
    steps: list[tuple[str, Any]] = [
        present,
        cpu("c1", socket_id=0, core_id=1, thread_id=0),
        present,
        word("info hotpluggable-cpus"),
        cpu("c1", socket_id=1, core_id=1, thread_id=0),
        cpu("c2", socket_id=0, core_id=1, thread_id=0),
        cpu("c2", socket_id=5, core_id=1, thread_id=0),
        cpu("c2", socket_id=1, core_id=5, thread_id=0),
        cpu("c2", socket_id=1, core_id=1, thread_id=5),
        cpu("c2", socket_id=1, core_id=1, thread_id=0, die_id=2),
        cpu("c2"),
        cpu("c2", socket_id=1),
        cpu("c2", socket_id=1, core_id=0),
        cpu("c2", socket_id=1, core_id=0, thread_id=0, node_id=3),
        cpu("c2", socket_id="1", core_id=0, thread_id=0),
        cpu("c2", socket_id=1, core_id=0, thread_id=0, foo=1),
        cpu("c2", socket_id=1, core_id=0, thread_id=0, bus="pcie.0"),
        cpu("c2", socket_id=1, core_id=0, thread_id=0, bus="nope"),
        cpu(None, "host", socket_id=1, core_id=1, thread_id=0),
        cpu(None, "qemu32", socket_id=1, core_id=1, thread_id=0),
        cpu("c2", socket_id=1, core_id=0, thread_id=0, die_id=0),
        cpu(None, socket_id=2, core_id=2, thread_id=1),
        present,
        *(of_peripheral("c2", name) for name in ("socket-id", "core-id", "apic-id", "hotplugged")),
        of_peripheral("c2", "type"),
        ("device_del", {"id": "c2"}),
        ("device_del", {"id": "/machine/unattached/device[0]"}),
        present,
    ]
    topology = "2,maxcpus=18,sockets=3,cores=3,threads=2"
    with standin_pair(directory, "-machine", "q35", "-smp", topology) as pair:
        tell(pair, steps)

        def rows(side: Side) -> list[Any]:
            found = side.ask("query-cpus-fast")["return"]
            return [{name: row[name] for name in row if name != "thread-id"} for row in found]

        assert len(pair.same("query-cpus-fast", rows)) == 5


@pytest.mark.parametrize("machine", ["q35", "pc", "q35,acpi=off", "pc,acpi=off"])
def test_cpus_that_the_guest_does_not_know_of(directory: Path, machine: str) -> None:
    """Until its guest's system takes over hot-plugging no CPU leaves."""
    steps: list[tuple[str, Any]] = [
        cpu("c1", socket_id=0, core_id=1, thread_id=0),
        ("device_del", {"id": "c1"}),
        ("device_del", {"id": "/machine/unattached/device[0]"}),
        ("cont", None),
        *(("device_del", {"id": "c1"}), ("device_del", {"id": "c1"})),
    ]
    options = ("-machine", machine, "-smp", "1,maxcpus=2,cores=2,sockets=1", "-accel", "tcg")
    with standin_pair(directory, *options, own=("-guest-reacts", "never")) as pair:
        tell(pair, steps)


def test_the_model_that_was_named(directory: Path) -> None:
    options = ("-machine", "pc", "-cpu", "Nehalem,+x2apic", "-smp", "1,maxcpus=2")
    place: dict[str, Any] = {"socket_id": 1, "core_id": 0, "thread_id": 0}
    with standin_pair(directory, *options) as pair:
        tell(
            pair,
            [
                ("query-hotpluggable-cpus", None),
                cpu("c1", **place),
                cpu("c1", "Nehalem", **place),
                ("query-hotpluggable-cpus", None),
                of_peripheral("c1", "socket-id"),
            ],
        )


def test_what_shares_the_caches_of_cpus(directory: Path) -> None:
    seed = seed_of_run()
    draw = random.Random(seed)
    where = {"path": "/machine", "property": "smp-cache"}
    levels = ["thread", "core", "module", "cluster", "die", "socket", "book", "drawer", "default"]

    def caches(*topology: tuple[str, str]) -> tuple[str, Any]:
        value = [{"cache": cache, "topology": level} for cache, level in topology]
        return "qom-set", {**where, "value": value}

    whole = caches(("l3", "die"), ("l2", "core"), ("l1i", "core"), ("l1d", "core"))
    steps: list[tuple[str, Any]] = [("qom-get", where)]
    for _ in range(60):
        names = draw.choices(["l1d", "l1i", "l2", "l3"], k=draw.randrange(4))
        # QEMU keeps half of what it refuses: all are set once more.
        steps += [caches(*((name, draw.choice(levels)) for name in names)), whole]
        steps += [
            caches((draw.choice(["l2", "l3"]), draw.choice(levels[1::4]))),
            ("qom-get", where),
        ]
    place: dict[str, Any] = {"core_id": 0, "thread_id": 0}
    steps += [
        *(whole, caches(("l2", "default")), cpu("c1", socket_id=1, **place), ("qom-get", where)),
        *(caches(("l3", "core"), ("l2", "die")), cpu("c2", socket_id=2, **place)),
        ("qom-get", where),
    ]
    given = "q35,smp-cache.0.cache=l3,smp-cache.0.topology=socket"
    with standin_pair(directory, "-machine", given, "-smp", "1,maxcpus=3,sockets=3") as pair:
        pair.note = f"MEMD_SEED={seed}"
        tell(pair, steps)


def test_a_cpu_tells_of_caches_once_they_were_set(directory: Path) -> None:
    where = {"path": "/machine", "property": "smp-cache"}
    place: dict[str, Any] = {"core_id": 0, "thread_id": 0}
    with standin_pair(directory, "-machine", "pc", "-smp", "1,maxcpus=3,sockets=3") as pair:
        for socket_id in (1, 2):
            steps = [cpu(None, socket_id=socket_id, **place), ("qom-get", where)]
            tell(pair, [*steps, ("qom-set", {**where, "value": []})])


def test_the_balloon_tells_what_guests_did(directory: Path) -> None:
    interval = "guest-stats-polling-interval"

    def set_it(value: Any) -> tuple[str, Any]:
        path = "/machine/peripheral/b0"
        return "qom-set", {"path": path, "property": interval, "value": value}

    told = of_peripheral("b0", interval)
    steps: list[tuple[str, Any]] = [
        word("info balloon"),
        ("device_add", {"driver": "virtio-balloon-pci", "id": "b0"}),
        ("device_add", {"driver": "virtio-balloon-pci", "id": "b1"}),
        *(told, of_peripheral("b0", "guest-stats"), set_it(2), told, set_it(-1), set_it(1 << 33)),
        *(set_it("x"), set_it(0), told),
        ("qom-set", {"path": "b0", "property": "guest-stats", "value": 1}),
        ("query-balloon", None),
        *(word("info balloon"), word("balloon 64"), word("balloon x"), word("balloon")),
        ("device_del", {"id": "b0"}),
        ("device_del", {"id": "b0"}),
    ]
    with standin_pair(directory, "-machine", "pc", own=("-guest-reacts", "never")) as pair:
        tell(pair, steps)


def test_nodes_of_cpus(directory: Path) -> None:
    """As told by their places, some of which are in no node."""
    options = ["-machine", "pc", "-smp", "3,maxcpus=8,sockets=2,cores=2,threads=2", "-m", "64M"]
    options += ["-object", "memory-backend-ram,id=m0,size=64M"]
    for text in (
        *(
            "node,memdev=m0",
            "node",
            "cpu,node-id=1,socket-id=0,core-id=0",
            "cpu,node-id=1,core-id=1",
        ),
        "cpu,node-id=0,socket-id=1,core-id=0,thread-id=1",
    ):
        options += ["-numa", text]
    with standin_pair(directory, *options) as pair:
        tell(pair, [("query-hotpluggable-cpus", None), word("info numa")])
        rows = pair.same(
            "query-cpus-fast",
            lambda side: [row["props"] for row in side.ask("query-cpus-fast")["return"]],
        )
        assert [row["node-id"] for row in rows] == [1, 1, 1]


def test_words_of_the_human_monitor(directory: Path) -> None:
    options = (
        *("-machine", "q35", "-smp", "2", "-m", "512,slots=2,maxmem=2G"),
        *("-object", "memory-backend-ram,id=r0,size=512M", "-numa", "node,memdev=r0,cpus=0-1"),
        *("-netdev", "user,id=n0", "-device", "e1000e,netdev=n0,id=e0"),
        *("-blockdev", "null-co,node-name=b0,size=1048576", "-device", "virtio-blk-pci,drive=b0"),
    )
    lines = (
        *("info network", "info block", "info block nope", "info numa", "info hotpluggable-cpus"),
        *("qom-list", "qom-list /nope", "qom-get /machine type", "qom-get /machine nope"),
        *("qom-get /nope a", "qom-get /objects/r0 share", "qom-get /objects/r0 host-nodes"),
        *("qom-set /objects/r0 merge off", "qom-get /objects/r0 merge"),
        *("qom-set /objects/r0 merge x", "qom-set /objects/r0 nope x", "qom-set /objects/r0"),
        *("qom-set -j /objects/r0 dump false", "qom-get /objects/r0 dump", "qom-get /machine"),
        *("netdev_add user,id=n2", "netdev_add user,id=n2", "netdev_add foo,id=n3"),
        *("netdev_add user", "netdev_del n2", "info nothing", "nothing"),
    )
    with standin_pair(directory, *options) as pair:
        tell(pair, [word(line) for line in lines])

        def count(text: str) -> str:
            return re.sub(r"thread_id=\d+", "thread_id=N", text)

        pair.same("info cpus", lambda side: count(side.ask(*word("info cpus"))["return"]))


def test_pci_devices(directory: Path) -> None:
    """Before firmware has run, what is behind a bridge is not seen."""
    on_q35 = (
        *("pcie-root-port,id=p0", "e1000e,id=e0", "virtio-blk-pci,drive=b0,id=d0,addr=9"),
        *("qemu-xhci", "virtio-balloon-pci,id=b0", "virtio-rng-pci,bus=p0,id=r0"),
        *("virtio-scsi-pci,addr=8.0,multifunction=on", "virtio-serial-pci,id=s1,addr=8.1"),
        "virtio-mem-pci,memdev=m0,id=vm0",
    )
    on_pc = (
        *("pci-bridge,id=p0,chassis_nr=2", "e1000,id=e0", "cirrus-vga,id=v", "ich9-ahci"),
        *(
            f"virtio-net-pci,{told}"
            for told in ("host_mtu=1500", "speed=0", "duplex=half", "rss=on")
        ),
    )
    more: tuple[str, ...] = (
        *("-blockdev", "null-co,node-name=b0", "-m", "128M,slots=1,maxmem=1G"),
        *("-object", "memory-backend-ram,id=m0,size=128M"),
    )
    plug = ("device_add", {"driver": "virtio-net-pci", "id": "n0"})
    for machine, devices in (("q35", on_q35), ("pc", on_pc), ("none", ())):
        place = directory / machine
        place.mkdir()
        options = [*(more if devices else ())]
        for device in devices:
            options += ["-device", device]
        with standin_pair(place, "-machine", machine, *options) as pair:
            asked = [("query-pci", None), word("info pci")]
            tell(pair, [*asked, plug, *asked, ("device_del", {"id": "n0"}), *asked])


_FIRMWARES = ("address", "irq", "io_range", "memory_range", "prefetchable_range")


def without_what_firmware_gives(told: Any) -> Any:
    """What `query-pci` says, less addresses and interrupts."""
    if isinstance(told, list):
        return sorted(map(without_what_firmware_gives, told), key=exact)
    if not isinstance(told, dict):
        return told
    return {
        name: without_what_firmware_gives(value)
        for name, value in told.items()
        if name not in _FIRMWARES
    }


def test_pci_devices_once_firmware_has_run(directory: Path) -> None:
    """The buses behind bridges have numbers, and what is there is seen."""
    devices = (
        *("pcie-root-port,id=p0,chassis=1", "virtio-net-pci,id=n0,bus=p0,netdev=u0"),
        *("pcie-root-port,id=p1,chassis=2,addr=7.0,multifunction=on", "virtio-rng-pci,id=r0"),
        *("pcie-root-port,id=p2,chassis=3,addr=7.1", "pcie-pci-bridge,id=p3,bus=p2"),
        *("pci-bridge,id=p4,bus=p3,addr=1,chassis_nr=9", "virtio-scsi-pci,id=s0,bus=p4,addr=2"),
        *("virtio-9p-pci,id=d0,fsdev=f0,mount_tag=a", "pcie-root-port,chassis=4,addr=9"),
        *("pcie-root-port,id=p5,chassis=5", "virtio-9p-pci,id=d1,fsdev=f0,mount_tag=b,bus=p5"),
        *("pcie-root-port,id=p6,chassis=6", "virtio-crypto-pci,id=c0,cryptodev=k0,bus=p6"),
        "virtio-blk-pci,drive=b0,id=b0,addr=a,disable-legacy=on",
    )
    options = [
        *("-object", "cryptodev-backend-builtin,id=k0", "-netdev", "hubport,id=u0,hubid=0"),
        *("-fsdev", "local,id=f0,path=/,security_model=none"),
        *("-blockdev", "null-co,node-name=b0"),
    ]
    for each in devices:
        options += ["-device", each]

    def told(side: Side) -> Any:
        return without_what_firmware_gives(side.ask("query-pci")["return"])

    def lines(side: Side) -> list[str]:
        text = side.ask(*word("info pci"))["return"]
        where = r"(?m) range .*| at 0x.*| \(not mapped\)|IRQ \d+"
        return re.sub(where, "", text).splitlines()

    def numbered(side: Side) -> bool:
        """Firmware gives a bus the number 255 until it knows how many are behind it."""
        buses = [
            each["pci_bridge"]["bus"] for each in told(side)[0]["devices"] if "pci_bridge" in each
        ]
        return all(0 < bus[end] < 255 for bus in buses for end in ("secondary", "subordinate"))

    with standin_pair(directory, "-machine", "q35", "-accel", "tcg", *options) as pair:
        tell(pair, [("query-pci", None), ("cont", None)])
        while not numbered(pair.reference):
            time.sleep(0.05)
        pair.same("query-pci", told)
        pair.same("info pci", lines)
        tell(pair, [("device_add", {"driver": "virtio-balloon-pci", "id": "n1", "bus": "p1"})])
        tell(pair, [("device_add", {"driver": "e1000", "id": "e1", "bus": "p4"})])
        pair.ask("stop")
        pair.same("query-pci", told)
        pair.same("info pci", lines)
        pair.ask("system_reset")
        pair.same("query-pci", lambda side: side.ask("query-pci"))


def test_the_file_that_is_the_memory(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35", "-m", "16M", "-mem-path", "@DIR@/f") as pair:
        asked = ("type", "share", "size")
        ram = [("qom-get", {"path": "/objects/pc.ram", "property": name}) for name in asked]
        tell(pair, [("query-memdev", None), *ram])
        pair.same("files", lambda side: sorted(side.files()))
