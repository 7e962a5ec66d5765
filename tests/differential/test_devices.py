"""Memory devices: the same to a machine of QEMU's whose guest stands still, and to memd's.

A device that was plugged in stays there for the rest of its machine's life, so
each test has machines of its own. `MEMD_SEED` repeats a random sequence,
`MEMD_RANDOM_COMMANDS` makes it longer. (It takes QEMU 60 ms to refuse a device,
asleep: that is where the time goes.)
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side, fresh_id
from tests.differential.server import memd_argv, qemu_binary, qemu_compat, running
from tests.differential.standin import standin_pair

MIB = 1 << 20
GIB = 1 << 30
COMMANDS = int(os.environ.get("MEMD_RANDOM_COMMANDS", "1500"))

MEMORY = ("-m", "256M,slots=16,maxmem=8G")
PC = ("-machine", "pc,nvdimm=on", *MEMORY)
Q35 = ("-machine", "q35,nvdimm=on", *MEMORY)
PORTS = ("-device", "pcie-root-port,id=rp0,chassis=1", "-device", "pcie-root-port,id=rp1,chassis=2")

DRIVERS = ["pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci"]

Make = Callable[..., Pair]


def seeded() -> tuple[int, random.Random]:
    """A seed, and what comes of it."""
    seed = int(os.environ.get("MEMD_SEED", random.randrange(1 << 32)))
    return seed, random.Random(seed)


@pytest.fixture
def machines() -> Iterator[Make]:
    """Starts a QEMU and a memd with the same machine, neither of which ever runs."""
    qemu = [*qemu_binary(), "-nodefaults", "-nographic", "-S"]
    memd = [*memd_argv(qemu_compat()), "--guest-reacts", "never"]
    with ExitStack() as stack:

        def start(*machine: str) -> Pair:
            sides = []
            for name, command in (("QEMU", qemu), ("memd", memd)):
                # Short and of one length for both; see `Storage`.
                directory = Path(tempfile.mkdtemp(prefix="memd-test-"))
                stack.callback(shutil.rmtree, directory, ignore_errors=True)
                scratch = directory / "scratch"
                scratch.mkdir()
                server = running(name, [*command, *machine], directory, scratch)
                sides.append(Side(stack.enter_context(server), scratch))
            return Pair(*sides)

        yield start


def add(pair: Pair, driver: str, **options: Any) -> bool:
    """device_add; whether both took it. Underscores stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return "return" in pair.ask("device_add", {"driver": driver, **named})


def ram(pair: Pair, name: str, size: int, **options: Any) -> None:
    assert "return" in pair.add("ram", name, size=size, **options)


def file(pair: Pair, name: str, size: int, **options: Any) -> None:
    """A backend of a file that is full."""
    for side in (pair.reference, pair.subject):
        (side.scratch / name).write_bytes(b"x" * size)
    assert "return" in pair.add("file", name, size=size, mem_path=f"@DIR@/{name}", **options)


def expect_same_state(pair: Pair) -> None:
    """Fail unless the same is plugged in, and told of everywhere."""
    pair.ask("query-memory-devices")
    pair.ask("query-memory-size-summary")
    pair.ask("qom-list", {"path": "/machine/peripheral"})
    pair.ask("qom-list", {"path": "/machine/peripheral-anon"})
    pair.ask("human-monitor-command", {"command-line": "info memory-devices"})
    pair.ask("human-monitor-command", {"command-line": "info memory_size_summary"})


# What is wrong with a device, by name: each of them alone, and any two of them.

WRONG: dict[str, dict[str, Any]] = {
    "bus": {"bus": "nope"},
    "other bus": {"bus": "isa.0"},
    "id": {"id": "there"},
    "property": {"foo": 1},
    "look-up": {"memdev": "nope"},
    "no memdev": {"memdev": None},
    "other object": {"memdev": "/machine"},
    "busy": {"memdev": "busy"},
    "rom": {"memdev": "rom"},
    "populated": {"memdev": "populated"},
    "odd": {"memdev": "odd"},
    "large": {"memdev": "large"},
    "node": {"node": 9},
}
PLACES: dict[str, int] = {
    "align": 3,
    "range": 0x10000000,
    "end": 4 * GIB + 24 * GIB - 256 * MIB,
    "conflict": 5 * GIB,
}
Mistakes = dict[str, dict[str, Any]]

DIMM: Mistakes = {"slot taken": {"slot": 3}, "no slot": {"slot": 99}, "slot": {"slot": "1"}}
LABEL: Mistakes = {
    "label": {"label_size": 3},
    "large label": {"label_size": 1 << 40},
    "uuid": {"uuid": "x"},
}
PCI: Mistakes = {"taken": {"addr": "1"}, "no place": {"addr": "zz"}, "function": {"addr": "1.2"}}
MEM: Mistakes = {
    "requested": {"requested_size": 3},
    "block": {"block_size": 3 * MIB},
    "small block": {"block_size": 4096},
    "large block": {"block_size": 1 << 40},
    "memslots": {"dynamic_memslots": True, "unplugged_inaccessible": "off"},
}


def wrongs(driver: str) -> dict[str, dict[str, Any]]:
    """All that can be wrong with a device of that type."""
    place = "memaddr" if driver.startswith("virtio") else "addr"
    own: dict[str, dict[str, dict[str, Any]]] = {
        "pc-dimm": DIMM,
        "nvdimm": {**DIMM, **LABEL},
        "virtio-mem-pci": {**PCI, **MEM},
        "virtio-pmem-pci": PCI,
    }
    found = {**WRONG, **{name: {place: at} for name, at in PLACES.items()}, **own[driver]}
    if driver in ("pc-dimm", "virtio-pmem-pci"):
        del found["rom"]
    if driver != "virtio-mem-pci":
        del found["populated"]
    if driver == "nvdimm":
        del found["odd"]
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_complained_of_first(machines: Make, driver: str) -> None:
    """Each mistake alone, then several at once."""
    seed, words = seeded()
    pair = machines(*PC)
    pair.note = f"MEMD_SEED={seed}"
    ram(pair, "m0", 8 * MIB)
    ram(pair, "busy", 8 * MIB)
    ram(pair, "populated", 2 * MIB, prealloc=True)
    ram(pair, "odd", 5 * MIB)
    ram(pair, "large", 10 * GIB, reserve=False)
    file(pair, "rom", 2 * MIB, readonly=True)
    assert add(pair, "pc-dimm", id="there", memdev="busy", slot=3, addr=5 * GIB)
    found = wrongs(driver)
    base = {"id": "new", "memdev": "m0"}
    for name, options in found.items():
        assert not add(pair, driver, **{**base, **options}), f"{name} is not wrong"
    for _time in range(COMMANDS // 100):
        several = dict(base)
        for name in words.sample(sorted(found), words.randint(2, 5)):
            several.update(found[name])
        assert not add(pair, driver, **several)
    expect_same_state(pair)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("ram", {"size": 2 * MIB}),
    ("ram", {"size": 3 * MIB}),
    ("ram", {"size": 5000}),
    ("ram", {"size": 4 * MIB, "share": True}),
    ("ram", {"size": 4 * MIB + (128 << 10)}),
    ("memfd", {"size": 12 << 10}),
    ("memfd", {"size": 4 * MIB}),
    ("file", {"size": 4096}),
    ("file", {"size": 2 * MIB + 4096}),
    ("file", {"size": 6 * MIB, "align": 4 * MIB}),
    ("file", {"size": 4 * MIB, "align": 2 * MIB, "share": True}),
    ("file", {"size": 4 * MIB, "readonly": True}),
    ("file", {"size": 4 * MIB, "readonly": True, "share": True}),
    ("file", {"size": 4 * MIB, "readonly": True, "rom": "off"}),
]
DEVICES: list[tuple[str, dict[str, Any]]] = [
    ("pc-dimm", {}),
    ("nvdimm", {}),
    ("nvdimm", {"unarmed": True}),
    ("nvdimm", {"unarmed": False, "label_size": 128 << 10}),
    ("nvdimm", {"unarmed": True, "label_size": 128 << 10}),
    ("virtio-mem-pci", {}),
    ("virtio-mem-pci", {"block_size": 1 * MIB}),
    ("virtio-mem-pci", {"block_size": 8 * MIB}),
    ("virtio-mem-pci", {"requested_size": 2 * MIB, "prealloc": True}),
    ("virtio-pmem-pci", {}),
]


WRONG_ON_PCI: list[dict[str, Any]] = [
    {"memaddr": 5},
    {"acpi-index": 16384},
    {"romsize": 5},
    {"addr": "40"},
    {"addr": 1.5},
    {"addr": 1 << 31},
    {"addr": 1 << 63},
    {"disable-modern": True, "disable-legacy": "on"},
    {"node": 7},
    {"failover_pair_id": ""},
]


def test_what_is_accessible(machines: Make) -> None:
    """`auto` depends on whether reading it takes memory."""
    pair = machines(*PC)
    kinds: list[tuple[str, dict[str, Any]]] = [
        *[("ram", {}), ("ram", {"share": True}), ("ram", {"reserve": False})],
        *[("memfd", {}), ("memfd", {"share": False}), ("shm", {})],
    ]
    options = {"unplugged_inaccessible": "auto", "dynamic_memslots": True}
    for number, (kind, given) in enumerate(kinds):
        assert "return" in pair.add(kind, f"m{number}", size=4 * MIB, **given)
        for more in ({"requested_size": 3}, {}, {"dynamic_memslots": False}):
            if add(
                pair, "virtio-mem-pci", memdev=f"m{number}", id=f"v{number}", **{**options, **more}
            ):
                name = {"path": f"v{number}", "property": "unplugged-inaccessible"}
                pair.ask("qom-get", name)
                break
        pair.ask("device_del", {"id": f"v{number}"})


@pytest.mark.parametrize("machine", [PC, (*Q35, *PORTS)], ids=["pc", "q35"])
def test_what_is_wrong_on_pci(machines: Make, machine: tuple[str, ...]) -> None:
    pair = machines(*machine)
    bus = {"bus": "rp0"} if machine is not PC else {}
    ram(pair, "m0", 2 * MIB)
    mistakes = [{**one, **other} for one, other in itertools.combinations(WRONG_ON_PCI, 2)]
    for mistake in (*WRONG_ON_PCI, *mistakes):
        # The reference keeps the number of what it has refused.
        if set(mistake) & {"romsize", "addr", "acpi-index", "disable-modern", "failover_pair_id"}:
            assert not add(pair, "virtio-mem-pci", memdev="m0", **bus, **mistake)
    add(pair, "virtio-mem-pci", memdev="m0", id="v0", vectors=65, **{"disable-modern": True}, **bus)
    add(pair, "virtio-mem-pci", memdev="m0", id="v0", vectors=65, **{"acpi-index": 3}, **bus)
    ram(pair, "m1", 2 * MIB)
    add(pair, "virtio-mem-pci", memdev="m1", **{"acpi-index": 3}, **bus)
    for name in ("vectors", "disable-modern", "disable-legacy", "acpi-index"):
        pair.ask("qom-get", {"path": "v0", "property": name})
    for region in ("virtio-mem-pci-msix[0]", "msix-table[0]", "msix-pba[0]"):
        for name in ("size", "addr"):
            pair.ask("qom-get", {"path": f"/machine/peripheral/v0/{region}", "property": name})


def test_read_only_backends(machines: Make) -> None:
    """Every device; what is refused leaves the backend to the next one."""
    pair = machines(*PC)
    names = iter(f"m{number}" for number in itertools.count())
    for options in (
        {"size": 4 * MIB, "readonly": True},
        {"size": 4 * MIB, "readonly": True, "share": True},
        {"size": 4 * MIB, "readonly": True, "rom": "off"},
    ):
        for driver, more in DEVICES[:6]:
            name = next(names)
            file(pair, name, **options)
            add(pair, driver, id=name, memdev=name, **more)
            pair.ask("object-del", {"id": name})
    expect_same_state(pair)
    pair.expect_same_files()


def test_what_it_takes_to_be_plugged_in(machines: Make) -> None:
    """Backends of all kinds, sizes and alignments, with any device."""
    seed, words = seeded()
    pair = machines(*PC)
    pair.note = f"MEMD_SEED={seed}"
    every = list(itertools.product(KINDS, DEVICES))
    for number, ((kind, options), (driver, more)) in enumerate(words.sample(every, 20)):
        name = f"m{number}"
        if kind == "file":
            file(pair, name, **options)
        else:
            assert "return" in pair.add(kind, name, **options)
        if words.random() < 0.3:
            more = {**more, "memaddr" if driver.startswith("virtio") else "addr": 1}
        add(pair, driver, id=name, memdev=name, **more)
        pair.ask("object-del", {"id": name})
    expect_same_state(pair)
    pair.expect_same_files()


def test_classes(machines: Make) -> None:
    pair = machines(*Q35)
    for name in (*DRIVERS, "virtio-mem", "virtio-pmem", "device", "virtio-md-pci", "nope"):
        pair.ask("device-list-properties", {"typename": name})
        pair.ask("qom-list-properties", {"typename": name})


def test_huge_pages(machines: Make, hugepages: Callable[[int], None]) -> None:
    # Two for each backend, on both sides; as many again for those that are populated.
    hugepages(16)
    pair = machines(*PC)
    for number, (driver, more) in enumerate(
        [
            ("pc-dimm", {}),
            ("nvdimm", {"label_size": 128 << 10}),
            ("virtio-mem-pci", {"block_size": 1 * MIB}),
            ("virtio-mem-pci", {"requested_size": 2 * MIB, "prealloc": True}),
            ("virtio-pmem-pci", {}),
        ]
    ):
        name = f"m{number}"
        assert "return" in pair.add("memfd", name, size=4 * MIB, hugetlb=True)
        place = "memaddr" if driver.startswith("virtio") else "addr"
        add(pair, driver, id=f"d{number}", memdev=name, **{place: 4096})
        if not add(pair, driver, id=f"d{number}", memdev=name, **more):
            pair.ask("object-del", {"id": name})
    expect_same_state(pair)


@pytest.mark.parametrize("machine", [PC, (*Q35, *PORTS)], ids=["pc", "q35"])
def test_what_is_told_of_a_device(machines: Make, machine: tuple[str, ...]) -> None:
    pair = machines(*machine)
    port = iter(["rp0", "rp1"] if "-device" in machine else [None, None])
    ram(pair, "m0", 4 * MIB)
    assert add(pair, "pc-dimm", id="d0", memdev="m0", node=0)
    ram(pair, "m1", 4 * MIB)
    assert add(pair, "nvdimm", id="n0", memdev="m1", label_size=128 << 10)
    ram(pair, "m2", 4 * MIB)
    assert add(pair, "virtio-mem-pci", id="v0", memdev="m2", bus=next(port))
    ram(pair, "m3", 4 * MIB)
    assert add(pair, "virtio-pmem-pci", id="p0", memdev="m3", bus=next(port))
    ram(pair, "m4", 4 * MIB)
    assert add(pair, "pc-dimm", memdev="m4")
    expect_same_state(pair)
    paths = [f"/machine/peripheral/{id}" for id in ("d0", "n0", "v0", "p0")]
    paths += [
        "/machine/peripheral-anon/device[0]",
        *(f"{path}/virtio-backend" for path in paths[2:]),
    ]
    paths += ["v0", "virtio-backend", "d0/memdev", "v0/memdev", "p0/virtio-bus"]
    paths += ["/machine/device-memory[0]", "/objects/m0/m0[0]", "/objects/m1/m1[0]"]
    paths += ["/machine/peripheral/n0/nvdimm-memory[0]", "/machine/peripheral/v0/msix-pba[0]"]
    for path in paths:
        told = pair.reference.ask("qom-list", {"path": path})
        if path.endswith("virtio-bus"):
            continue
        pair.ask("qom-list", {"path": path})
        for item in told.get("return", ()):
            pair.ask("qom-get", {"path": path, "property": item["name"]})
            if item["name"] != "realized":
                for value in (0, True, "x"):
                    arguments = {"path": path, "property": item["name"], "value": value}
                    pair.ask("qom-set", arguments)
    for id in ("d0", "n0", "v0", "p0", "nope", *paths, "/machine", "v0/virtio-backend"):
        pair.ask("device_del", {"id": id})
        pair.ask("device_del", {"id": id})
    for number in range(5):
        pair.refuse("object-del", {"id": f"m{number}"})
    for id in ("d0", "n0", "v0", "p0"):
        line = f"info qom-tree /machine/peripheral/{id}"
        pair.ask("human-monitor-command", {"command-line": line})
    expect_same_state(pair)


def test_sizes_that_are_asked_for(machines: Make) -> None:
    pair = machines(*PC)
    ram(pair, "m0", 8 * MIB)
    assert add(pair, "virtio-mem-pci", id="v0", memdev="m0")
    for value in (2 * MIB, 8 * MIB, 10 * MIB, MIB, 0, -1, 1 << 63, "2M", 2.0, None, True, 4 * MIB):
        pair.ask("qom-set", {"path": "v0", "property": "requested-size", "value": value})
        pair.ask("query-memory-devices")
    pair.ask("device_del", {"id": "v0"})
    pair.ask("qom-set", {"path": "v0", "property": "requested-size", "value": 0})
    pair.ask("device_del", {"id": "v0"})
    pair.ask("qom-set", {"path": "v0", "property": "requested-size", "value": 2 * MIB})


@pytest.mark.parametrize(
    ("kind", "ram_size"),
    [("q35", "2815M"), ("q35", "2816M"), ("pc", "3583M"), ("pc", "3584M"), ("q35", "6G")],
)
def test_where_the_area_is(machines: Make, kind: str, ram_size: str) -> None:
    # The reference sets no memory aside for what nobody touches.
    pair = machines("-machine", kind, "-m", f"{ram_size},slots=3,maxmem=16G")
    ram(pair, "m0", 2 * MIB)
    assert not add(pair, "pc-dimm", memdev="m0", addr=0x10000000)
    assert add(pair, "pc-dimm", memdev="m0")
    assert not add(pair, "nvdimm", memdev="m0")
    expect_same_state(pair)


def test_without_room(machines: Make) -> None:
    pair = machines("-machine", "pc", "-m", "256M")
    ram(pair, "m0", 2 * MIB)
    for driver in DRIVERS:
        assert not add(pair, driver, memdev="m0")
        assert not add(pair, driver)
    expect_same_state(pair)


def test_nodes(machines: Make) -> None:
    nodes = ["-numa", "node,nodeid=0,memdev=n0", *["-numa", "node,nodeid=1"]]
    pair = machines(*Q35, *PORTS, "-object", "memory-backend-ram,id=n0,size=256M", *nodes)
    for number in range(3):
        ram(pair, f"m{number}", 2 * MIB)
        ram(pair, f"v{number}", 2 * MIB)
        added = add(pair, "pc-dimm", memdev=f"m{number}", node=number)
        assert added is (number < 2)
        bus = f"rp{number % 2}"
        added = add(pair, "virtio-mem-pci", memdev=f"v{number}", node=number, bus=bus, addr="1")
        assert added is (number < 2)
    pair.refuse("object-del", {"id": "n0"})
    assert not add(pair, "pc-dimm", memdev="n0")
    expect_same_state(pair)


def test_fragments(machines: Make) -> None:
    pair = machines(*PC)
    for number in range(8):
        ram(pair, f"m{number}", 2 * MIB)
        at = (5 + number) * GIB - 2 * MIB
        assert add(pair, "pc-dimm", memdev=f"m{number}", addr=at)
    for number, (driver, size, block) in enumerate(
        [
            ("pc-dimm", 1 * GIB, None),
            ("virtio-mem-pci", 2 * GIB, 2 * GIB),
            ("virtio-mem-pci", 1 * GIB, 64 * GIB),
            ("virtio-mem-pci", 1 * GIB, 1 << 63),
            ("pc-dimm", 1 * GIB, None),
            ("virtio-pmem-pci", 6 * GIB, None),
        ]
    ):
        ram(pair, f"l{number}", size, reserve=False)
        add(pair, driver, memdev=f"l{number}", block_size=block)
    expect_same_state(pair)


# Random sequences


class Words:
    """Makes commands up; see tests/differential/test_random_sequences.py."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.memory = ["m0", "m1", "m2", "m3", "m4"]

    def some(self, *choices: Any, junk: float = 0.05) -> Any:
        if self.random.random() < junk:
            return self.random.choice([None, True, 0, 1, -1, 1.5, "", "x", "on", [], {}, 1 << 63])
        return self.random.choice(choices)

    def id(self) -> Any:
        return self.some(
            "d0", "d1", "d2", "d3", "v0", "m0", "nope", "type", "/machine/peripheral/d1"
        )

    def memdev(self) -> Any:
        return self.some(*self.memory, *self.memory, "/objects/m1", "objects/m2", "nope", "d0")

    def object_add(self) -> tuple[str, dict[str, Any]]:
        index = self.random.randrange(len(self.memory))
        arguments: dict[str, Any] = {
            "qom-type": f"memory-backend-{self.some('ram', 'ram', 'memfd', junk=0)}",
            "size": self.some(2 * MIB, 4 * MIB, 8 * MIB, 3 * MIB, 16 << 10, junk=0),
            "id": self.memory[index],
        }
        if self.random.random() < 0.1:
            arguments["prealloc"] = True
        if self.random.random() < 0.4:
            # What is mapped stays mapped: a new name for what comes.
            self.memory[index] = arguments["id"] = fresh_id()
        return "object-add", arguments

    def device_add(self) -> tuple[str, dict[str, Any]]:
        driver = self.some(*DRIVERS, *DRIVERS[:3], junk=0.02)
        virtio = isinstance(driver, str) and driver.startswith("virtio")
        arguments: dict[str, Any] = {"driver": driver}
        if self.random.random() < 0.9:
            arguments["memdev"] = self.memdev()
        if self.random.random() < 0.8:
            arguments["id"] = self.id()
        place = 4 * GIB + self.random.randrange(32) * 2 * MIB
        options: dict[str, Callable[[], Any]] = {
            "memaddr" if virtio else "addr": lambda: self.some(place, place, place + 4096, GIB),
            "node": lambda: self.some(0, 0, 1),
            "bus": lambda: self.some("pci.0", "pcie.0", "rp0", "rp1", "isa.0", "nope", 3),
            **({"foo": lambda: 1} if self.random.random() < 0.1 else {}),
        }
        if virtio:
            options["addr"] = lambda: self.some("3", "4.1", "4", "4.2", "1f", 40, "0x5", "20")
            options["multifunction"] = lambda: self.some(True, False)
            options["requested-size"] = lambda: self.some(0, 2 * MIB, 4 * MIB, 3)
            options["block-size"] = lambda: self.some(2 * MIB, 4 * MIB, MIB)
        else:
            options["slot"] = lambda: self.some(0, 1, 2, 3, 7, 15, 16)
            options["unarmed"] = lambda: self.some(True, False)
            options["label-size"] = lambda: self.some(128 << 10, 1 << 20, 4096)
        for name, make in options.items():
            if self.random.random() < 0.15:
                arguments[name] = make()
        return "device_add", arguments

    def qom(self, command: str) -> tuple[str, dict[str, Any]]:
        names = [
            "addr",
            "slot",
            "node",
            "memdev",
            "size",
            "requested-size",
            "memaddr",
            "hotplugged",
        ]
        arguments = {"path": self.id(), "property": self.random.choice(names)}
        if not isinstance(arguments["path"], str):
            arguments["path"] = "v0"
        if command == "qom-set":
            arguments["value"] = self.some(0, 2 * MIB, 4 * MIB, 6 * MIB, "m0", "x")
        return command, arguments

    def command(self) -> tuple[str, dict[str, Any] | None]:
        match self.random.random():
            case share if share < 0.25:
                return self.object_add()
            case share if share < 0.65:
                return self.device_add()
            case share if share < 0.75:
                return "object-del", {"id": self.random.choice(self.memory)}
            case share if share < 0.83:
                return "device_del", {
                    "id": self.some(*self.memory, junk=0) if share < 0.76 else "v0"
                }
            case share if share < 0.97:
                return self.qom(self.random.choice(["qom-get", "qom-set"]))
            case share if share < 0.985:
                return "query-memory-devices", None
        return "query-memory-size-summary", None


@pytest.mark.parametrize("machine", [PC, (*Q35, *PORTS)], ids=["pc", "q35"])
def test_random_sequences(machines: Make, machine: tuple[str, ...]) -> None:
    seed, random_ = seeded()
    pair = machines(*machine)
    words = Words(random_)
    pair.note = f"MEMD_SEED={seed}"
    for _number in range(COMMANDS // 12):
        pair.ask(*words.command())
    expect_same_state(pair)


def test_what_has_left_leaves_its_id(directory: Path) -> None:
    """Nobody needs to wait for the event of a device that no guest is asked for."""
    options = ("-machine", "q35", "-device", "qemu-xhci", "-device", "virtio-scsi-pci")
    with standin_pair(directory, *options) as pair:
        for driver in ("usb-kbd", "scsi-cd"):
            for command, arguments in (
                ("device_add", {"driver": driver, "id": "d"}),
                ("device_del", {"id": "d"}),
            ) * 2:
                assert pair.ask(command, arguments) == {"return": {}}
