"""Machines on the command line: the same options to QEMU and to memd, and what both say.

Each line ends with a device that neither has. What is put together before it is
seen to pass, and no machine goes on to run.
"""

from __future__ import annotations

import io
import random
import subprocess
from contextlib import redirect_stderr

import pytest

from memd.app import run
from memd.cli import qemu_system
from memd.cli.report import CommandLineError
from memd.config import Report
from tests.differential.server import qemu_binary
from tests.differential.test_cli import qemu, release, said
from tests.seeds import seed_of_run

__all__ = ["release"]

ENDS = ("-device", "zzz")
ENDS_IN_JSON = ("-device", '{"driver":"zzz"}')

M0 = ("-object", "memory-backend-ram,id=m0,size=64M")
M1 = ("-object", "memory-backend-ram,id=m1,size=64M")
ROOM = ("-m", "64M,slots=3,maxmem=1G")
Q35 = ("-machine", "q35")
NVDIMMS = ("-machine", "q35,nvdimm=on")


def memd(*argv: str) -> str:
    """What a `qemu-system-memd` says that can't start."""
    written = io.StringIO()
    with redirect_stderr(written):
        report = Report("PROGRAM")
        try:
            config = qemu_system.parse_arguments(argv, report)
        except CommandLineError as error:
            error.tell(report)
        else:
            assert run(config) == 1
    return written.getvalue().replace("PROGRAM: ", "")


def compare(release: tuple[str, ...], *argv: str) -> None:
    done = qemu("-S", *argv)
    assert done.returncode == 1, done.stderr
    assert memd(*release, "-S", *argv) == said(done)


@pytest.mark.parametrize(
    "text",
    [
        *("", "256", "0", "1", "64M,slots=2", "64M,maxmem=1G", "64M,maxmem=64M", "1.5", "0x100"),
        *("64M,slots=2,maxmem=64M", "64M,slots=2,maxmem=32M", "64M,slots=300,maxmem=1G"),
        *("64M,slots=x,maxmem=1G", "64M,slots=-1,maxmem=1G", "64M,slots=0,maxmem=1G", "x", "foo=1"),
        *("size=", "10000000000000000000000", "64M,id=5", "64M,slots", "64M,maxmem=xx"),
        *("17592186044416", "64M,slots=1,maxmem=1000000001", "64M,size=12", "64M,slots=256"),
        "maxmem=256,slots=2,size=12",
    ],
)
def test_memory(text: str, release: tuple[str, ...]) -> None:
    compare(release, *Q35, "-m", text, *ENDS)


MACHINES: list[tuple[str, ...]] = [
    *(("-machine", text) for text in ("nope", "q35,foo=1", "none,nvdimm=on", "q35,nvdimm=x")),
    *(("-machine", text) for text in ("pc,nvdimm=on", "q35,acpi=3", "q35,max-fw-size=x")),
    *(("-machine", f"q35,{text}") for text in ("sgx-epc=x", "mem_merge=off,usb=off", "vmport=off")),
    ("-machine", "q35,memory-backend=nope"),
    ("-machine", "q35,memory-backend=m0", *M0),
    ("-machine", "q35,memory-backend=/objects/m0", *M0),
    ("-machine", "q35,memory-backend=m0", "-m", "32M", *M0),
    ("-machine", "none,memory-backend=m0", "-m", "32M", *M0),
    ("-machine", "q35,memory-backend=m0", "-m", "slots=3,maxmem=100M", *M0),
    ("-machine", "q35,memory-backend=tc", "-object", "thread-context,id=tc"),
    (*Q35, "-object", "memory-backend-ram,id=pc.ram,size=64M"),
    ("-machine", "none", "-m", "64M", "-object", "memory-backend-ram,id=ram,size=64M"),
    ("-machine", "q35,memory-backend=m0", *M0, *M1, "-m", "64M", "-numa", "node,memdev=m1"),
    *((*Q35, "-smp", text) for text in ("0", "x", "5000", "2,maxcpus=1", "2,clusters=2")),
    *((*Q35, "-smp", text) for text in ("2,sockets=2,cores=2", "4,sockets=3", "cpus=2,foo=3", "")),
    ("-machine", "pc", "-smp", "300"),
    (*Q35, "-m", "64M,slots=3", "-smp", "0"),
    (*Q35, "-m", "64M,slots=300,maxmem=1G", "-numa", "node"),
]


# Members of `smp`, `memory` and `boot`, alone and beside options of their own.
MACHINES += [
    *(("-machine", f"pc,{text}") for text in ("smp.cpus=2", "smp=2", "smp.foo=2", "smp.cpus=x")),
    *(("-machine", f"pc,{text}") for text in ("smp.cpus.a=1", "smp.cpus=0", "memory=32M")),
    *(("-machine", f"pc,memory.{text}") for text in ("foo=1", "size=x", "slots=x", "slots=2")),
    *(("-machine", f"pc,memory.{text}") for text in ("size.x=1", "slots.x=1", "max-size.0=4")),
    ("-machine", "pc,smp.foo.x=1"),
    *(("-machine", f"pc,memory.{text}") for text in ("max-size=1G,memory.slots=2", "maxmem=1G")),
    *(("-machine", f"pc,boot{text}") for text in ("=d", ".foo=1", ".order=z", ".menu=x")),
    *(("-machine", f"pc,boot.{text}") for text in ("splash-time=x", "splash-time=5", "order=d")),
    *(("-machine", f"none,{text}") for text in ("smp.cpus=2", "memory.slots=2")),
    ("-machine", "pc,smp.cpus=2", "-machine", "smp.maxcpus=1"),
    ("-machine", "pc,smp.cpus=3", "-smp", "maxcpus=2"),
    ("-smp", "maxcpus=2", "-machine", "pc,smp.cpus=3"),
    ("-m", "64M,slots=2", "-machine", "pc,memory.max-size=32M"),
]


# Of a plain value the last one counts, and members add up.
MACHINES += [
    ("-machine", f"pc,{first}", "-machine", second)
    for first, second in (
        *(("boot.order=c", "boot=x"), ("boot=x", "boot.order=c"), ("boot.order=c", "boot.menu=x")),
        *(("boot.order=c", "boot.order.x=c"), ("boot.order.x=c", "boot.order=c")),
        *(("boot.order.x=c", "boot.order.y=c"), ("usb=on", "usb.x=c"), ("usb=on", "usb=x")),
    )
]

# What has no members.
MACHINES += [
    *(
        ("-machine", f"pc,{name}.x=1")
        for name in ("usb", "kernel", "acpi", "max-fw-size", "sgx-epc")
    ),
    *(
        ("-machine", f"pc,{name}.0=1")
        for name in ("vmport", "memory-backend", "nvdimm-persistence")
    ),
    *(("-machine", f"pc,boot.{name}.x=1") for name in ("order", "menu", "splash-time", "foo")),
]

# What shares the caches of CPUs.
ONE_CACHE = "smp-cache.0.cache=l3,smp-cache.0.topology=core"
MACHINES += [
    *(("-machine", f"pc,smp-cache{text}") for text in ("=l1", "=", ".x=1", ".0=1", ".0.0=l3")),
    *(("-machine", f"pc,smp-cache.0.cache={text}") for text in ("l1i", "l1i,smp-cache.0.y=1")),
    *(("-machine", f"pc,smp-cache.0.topology={text}") for text in ("core", "x")),
    ("-machine", "pc,smp-cache.0.cache.0=l3,smp-cache.0.topology=core"),
    ("-machine", "pc,smp-cache.1.cache=l3,smp-cache.1.topology=core"),
    *(("-machine", f"pc,{ONE_CACHE},smp-cache.{text}=1") for text in ("0.x", "x")),
    *(
        ("-machine", f"pc,{ONE_CACHE}", "-machine", f"smp-cache{text}")
        for text in ("=x", ".foo=l1")
    ),
    *(
        ("-machine", f"pc,{ONE_CACHE.replace('core', level)}", *others)
        for level in ("book", "thread", "core")
        for others in (
            *(("-smp", "5000"), ("-m", "64M,slots=300,maxmem=1G"), ("-numa", "node,memdev=m9")),
            *(("-machine", "memory-backend=m9"), ("-machine", "foo=1"), M0),
        )
    ),
    ("-machine", f"pc,{ONE_CACHE.replace('l3', 'l1d').replace('core', 'die')}", *ROOM),
]


@pytest.mark.parametrize("argv", MACHINES, ids=" ".join)
def test_machines(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    compare(release, *argv, *ENDS)


def test_any_caches(release: tuple[str, ...]) -> None:
    seed = seed_of_run()
    draw = random.Random(seed)
    print(f"MEMD_SEED={seed}")
    levels = ["core", "module", "die", "socket", "default"] * 4
    levels += ["thread", "cluster", "book", "drawer", "x", ""]
    for _ in range(30):
        given = [draw.choice(["pc", "pc", "q35", "none"])]
        for index in range(draw.randrange(1, 5)):
            cache, level = draw.choice(["l1d", "l1i", "l2", "l3", "l4"]), draw.choice(levels)
            given += [f"smp-cache.{index}.cache={cache}", f"smp-cache.{index}.topology={level}"]
        compare(release, "-machine", ",".join(given), *ENDS)


@pytest.mark.parametrize(
    "nodes",
    [
        *(("node",), ("node,foo=1",), ("foo",), ("node,nodeid=129",), ("node,nodeid=-1",), ("",)),
        *(
            ("node,nodeid=3",),
            ("node,nodeid=1", "node,nodeid=1"),
            ("node,cpus=5",),
            ("node,cpus=a",),
        ),
        *(("node,mem=128M",), ("node,memdev=m0,mem=1M",), ("node,memdev=m9",), ("node,id=5",)),
        *(("node,memdev=m0", "node,memdev=m1"), ("node,memdev=m0", "node,memdev=m0")),
        *(("node,memdev=m0",), ("cpu,node-id=0",), ("node,memdev=m0,nodeid=1", "node,memdev=m1")),
        ("node,memdev=m0", "node,memdev=m1", "node", "dist,src=0,dst=1,val=30"),
        ("node,memdev=m0", "node,memdev=m1", "dist,src=0,dst=2,val=30"),
        ("node,memdev=m0", "node,memdev=m1", "dist,src=0,dst=1,val=9"),
        ("node,memdev=m0", "node,memdev=m1", "dist,src=0,dst=0,val=11"),
    ],
    ids=" ".join,
)
def test_nodes(nodes: tuple[str, ...], release: tuple[str, ...]) -> None:
    options = [word for text in nodes for word in ("-numa", text)]
    compare(release, *Q35, *M0, *M1, *options, *ENDS)


def test_any_nodes_of_cpus(release: tuple[str, ...]) -> None:
    seed = seed_of_run()
    draw = random.Random(seed)
    print(f"MEMD_SEED={seed}")
    levels = ["socket-id", "socket-id", "core-id", "thread-id", "die-id", "module-id", "cluster-id"]
    for _ in range(25):
        given = ["node,memdev=m0", draw.choice(["node", "node,cpus=1", "node,initiator=0"])]
        for _ in range(draw.randrange(4)):
            place = {draw.choice(levels): draw.choice([0, 0, 1, 1, 2]) for _ in range(3)}
            node = draw.choice(["node-id=0", "node-id=1", "node-id=1", "node-id=2"])
            given.append(",".join(["cpu", node, *(f"{level}={at}" for level, at in place.items())]))
        # Of more threads a core QEMU warns, by the host's processor.
        dies = draw.choice([1, 1, 2])
        argv = [
            *("-machine", draw.choice(["q35", "pc", "q35,hmat=on"]), "-m", "64M", *M0),
            *("-smp", f"1,maxcpus={4 * dies},sockets=2,cores=2,threads=1,dies={dies}"),
        ]
        compare(release, *argv, *[word for text in given for word in ("-numa", text)], *ENDS)


@pytest.mark.parametrize(
    "nodes",
    [
        *(("node,memdev=m0,initiator=0",), ("node,memdev=m0,initiator=5",)),
        *(("node,memdev=m0,cpus=0,initiator=0",), ("node,memdev=m0,cpus=0,initiator=1",)),
        *(("node,memdev=m0,cpus=0", f"node,initiator={other}") for other in (0, 1, 3)),
        ("node,memdev=m0", "node,initiator=0"),
        ("node,initiator=0",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("machine", ["q35,hmat=on", "q35"])
def test_nearest_nodes(nodes: tuple[str, ...], machine: str, release: tuple[str, ...]) -> None:
    options = [word for text in nodes for word in ("-numa", text)]
    compare(release, *options, "-machine", machine, "-m", "64M", *M0, *ENDS)


def speed(value: str, initiator: int = 0, target: int = 0, level: str = "memory") -> str:
    """-numa hmat-lb of a type=value, such as read-latency=5."""
    kind, _, number = value.partition("=")
    what = kind.rpartition("-")[2]
    head = f"hmat-lb,initiator={initiator},target={target},hierarchy={level},data-type={kind}"
    return f"{head},{what}={number}" if number else head


def cache(level: int | str, size: str = "10K", node: int = 0) -> str:
    tail = "associativity=direct,policy=write-back,line=8"
    return f"hmat-cache,node-id={node},size={size},level={level},{tail}"


KNOWN = (speed("access-latency=5"), speed("access-bandwidth=1G"))

SPEEDS: list[tuple[str, ...]] = [
    *((text,) for text in ("hmat-lb", "hmat-lb,initiator=0,target=0", "hmat-cache", cache(1))),
    *((speed(text),) for text in ("zz=1", "read-latency", "write-bandwidth", "read-latency=x")),
    *((speed(text + ",bandwidth=1M"),) for text in ("read-latency", "read-latency=1")),
    (speed("read-bandwidth=1M") + ",latency=1",),
    *((speed("read-latency=5", *nodes),) for nodes in ((1, 0), (2, 3), (3, 3), (0, 2), (70000, 0))),
    (speed("read-latency=5", level="zz"),),
    (speed("read-latency=0"), speed("read-latency=5")),
    (speed("read-latency=5"), speed("read-latency=5", 0, 1), speed("read-latency=5")),
    (speed("read-latency=1"), speed("read-latency=65535", 0, 1)),
    (speed("read-latency=65535"), speed("read-latency=65534", 0, 1)),
    (speed("read-latency=700"), speed("read-latency=65535", 0, 1)),
    (speed("read-latency=100"), speed("read-latency=6553500", 0, 1)),
    (speed("read-latency=1"), speed("read-latency=70000", level="first-level"), speed("zz")),
    *((speed(f"read-bandwidth={size}"),) for size in ("1K", "65535M", "65536M")),
    (speed("read-bandwidth=65536M"), speed("read-bandwidth=1M", 0, 1)),
    (speed("read-bandwidth=32768M"), speed("read-bandwidth=32767M", 0, 1)),
    (speed("read-bandwidth=1M"), speed("read-bandwidth=65535M", 0, 1)),
    (speed("read-latency=0"), speed("read-bandwidth=1M"), cache(1)),
    *((*KNOWN, cache(level)) for level in (0, 1, 2, 4, 300)),
    *((*KNOWN, cache(1, node=node)) for node in (1, 2)),
    (*KNOWN, cache(1), cache(1)),
    (*KNOWN, cache(1), cache(2, "20K"), cache(3, "20K")),
    (*KNOWN, cache(1, "0"), cache(2, "1"), cache(3, "1M"), cache(3)),
]


@pytest.mark.parametrize("options", SPEEDS, ids=" ".join)
def test_how_fast_memory_is(options: tuple[str, ...], release: tuple[str, ...]) -> None:
    nodes = ("node,memdev=m0,cpus=0", "node,memdev=m1,initiator=0", *options)
    numa = [word for text in nodes for word in ("-numa", text)]
    compare(release, "-machine", "q35,hmat=on", "-m", "128M", *M0, *M1, *numa, *ENDS)


@pytest.mark.parametrize("option", [KNOWN[0], cache(1)])
def test_speeds_without_a_table(option: str, release: tuple[str, ...]) -> None:
    compare(release, *Q35, *M0, "-numa", "node,memdev=m0", "-numa", option, *ENDS)


@pytest.mark.parametrize(
    "argv",
    [
        *(("pc", "-qmp", "stdio"), ("q35", "-qmp", "stdio"), ("none", "-qmp", "stdio")),
        ("q35", "-nodefaults", "-qmp", "stdio"),
        ("q35", "-serial", "none", "-qmp", "stdio"),
        *(("pc", "-chardev", "stdio,id=c"), ("pc", "-monitor", "none", "-chardev", "stdio,id=c")),
    ],
    ids=" ".join,
)
def test_a_serial_port_on_standard_input(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    line = ("-S", "-nographic", "-machine", *argv, *ENDS)
    command = [*qemu_binary(), *line]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert memd(*release, *line) == said(done)


@pytest.mark.parametrize("machine", ["none", "q35"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            "-serial stdio -qmp stdio",
            "-qmp stdio -serial mon:stdio",
            "-monitor stdio -serial stdio",
        ),
        *("-serial stdio -serial stdio", "-serial mon:stdio -serial mon:stdio"),
        *("-parallel stdio -serial stdio", "-parallel mon:stdio -qmp stdio"),
        *("-serial mon:stdio -parallel mon:stdio", "-serial stdio -chardev stdio,id=c"),
        *("-nographic -serial mon:stdio -qmp stdio", "-nographic -parallel stdio -monitor none"),
    ],
)
def test_ports_on_standard_input(machine: str, text: str, release: tuple[str, ...]) -> None:
    line = ("-S", "-display", "none", "-machine", machine, *text.split(), *ENDS)
    done = subprocess.run(
        [*qemu_binary(), *line], input="", capture_output=True, text=True, check=False
    )
    assert memd(*release, *line) == said(done)


def test_no_nodes_without_a_machine(release: tuple[str, ...]) -> None:
    compare(release, "-machine", "none", "-numa", "node", *ENDS)


@pytest.mark.parametrize(
    "text",
    [
        *("pc-dimm", "pc-dimm,memdev=nope", "pc-dimm,memdev=m0,foo=1", "foo=1", "", "pc-dimm,id=5"),
        *("pc-dimm,memdev=m0,slot=x", "pc-dimm,memdev=m0,slot=7", "pc-dimm,memdev=m0,node=1"),
        *("nvdimm,memdev=m0,unarmed=x", "nvdimm,memdev=m0,label-size=x", "nvdimm,memdev=m0,uuid=x"),
        *("virtio-mem-pci,memdev=m0,requested-size=1M", "virtio-mem-pci,memdev=m0,bus=foo"),
        *("virtio-mem-pci,memdev=m0,node=5000000000", "pc-dimm,memdev=m0,addr=4G"),
        *("virtio-mem-pci,memdev=m0,addr=1f", "pc-dimm,memdev=m0,addr=0x100", "pc-dimm,memdev"),
        *("nvdimm,memdev=m0,label-size=128K", "driver=pc-dimm,memdev=m0,slot=0x1"),
        '{"driver":"nvdimm","memdev":"m0","unarmed":"on"}',
        '{"driver":"nvdimm","memdev":"m0","unarmed":true,"slot":"1"}',
        '{"driver":"pc-dimm","memdev":"m0","id":"d"}',
        *('{"memdev":"m0"}', '{"memdev"', '{"driver":"pc-dimm","driver":"pc-dimm"}', "[]"),
        *("pcie-root-port,foo=1", "pcie-root-port,chassis=300", "pcie-root-port,addr=1f"),
    ],
)
def test_devices(text: str, release: tuple[str, ...]) -> None:
    """The device stands before its object."""
    compare(release, *NVDIMMS, *ROOM, "-device", text, *M0, *ENDS_IN_JSON)


TWO_DEVICES: list[tuple[str, ...]] = [
    (*ROOM, "-device", "pc-dimm,id=d,memdev=m0", "-device", "pc-dimm,id=d,memdev=m0"),
    (
        *ROOM,
        "-device",
        '{"driver":"pc-dimm","id":"d","memdev":"m1"}',
        "-device",
        "pc-dimm,id=d,memdev=m0",
    ),
    (*ROOM, "-device", "pc-dimm,id=a,memdev=m0", "-device", "pc-dimm,id=b,memdev=m0"),
    (*ROOM, "-device", "pcie-root-port,id=a", "-device", "pcie-root-port,id=b"),
    (*ROOM, "-device", "pcie-root-port,id=a", "-device", "virtio-mem-pci,bus=a,memdev=m0"),
    (*ROOM, "-device", "nvdimm,id=a,memdev=m0"),
    ("-device", "pc-dimm,memdev=m0"),
    ("-numa", "node,memdev=m0", "-m", "64M,slots=2,maxmem=1G", "-device", "pc-dimm,memdev=m0"),
]


@pytest.mark.parametrize("argv", TWO_DEVICES, ids=" ".join)
def test_devices_and_their_surroundings(argv: tuple[str, ...], release: tuple[str, ...]) -> None:
    compare(release, *Q35, *M0, *M1, *argv, *ENDS_IN_JSON)


@pytest.mark.parametrize(
    "driver", ["pc-dimm", "nvdimm", "virtio-mem-pci", "pcie-root-port", "pci-bridge"]
)
def test_what_a_device_takes(driver: str, release: tuple[str, ...]) -> None:
    done = qemu("-device", f"{driver},help")
    from tests.cli.lines import qemu as line

    assert line(*release, "-device", f"{driver},help").stdout == done.stdout
