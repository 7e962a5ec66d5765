"""What a stand-in registers beside memory: the same rules and words as a paused QEMU's."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Any

from tests import NOT_THERE
from tests.differential.harness import Side
from tests.differential.server import PATIENCE
from tests.differential.standin import standin_pair, tell


def chardev(id: str, type: str, **data: Any) -> tuple[str, Any]:
    return "chardev-add", {"id": id, "backend": {"type": type, "data": data}}


def remove(id: str) -> tuple[str, Any]:
    return "chardev-remove", {"id": id}


def unix(path: str) -> dict[str, Any]:
    return {"type": "unix", "data": {"path": path}}


def test_chardevs(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        chardev("c0", "null"),
        chardev("c0", "null"),
        chardev("1x", "null"),
        chardev("f0", "file", out="@DIR@/f0"),
        chardev("f1", "file", out=f"{NOT_THERE}/x"),
        chardev("fs", "file", out="/dev/stdout"),
        chardev("fe", "file", out="/proc/self/fd/2", append=True),
        chardev("f2", "file", out="@DIR@/f2", logfile="@DIR@/log", logappend=True),
        chardev("f3", "file", out="@DIR@/f3", logfile=f"{NOT_THERE}/log"),
        chardev("r0", "ringbuf"),
        chardev("r1", "ringbuf", size=3),
        chardev("r2", "ringbuf", size=16),
        chardev("m0", "mux", chardev="c0"),
        chardev("m1", "mux", chardev="nope"),
        chardev("m2", "mux", chardev="c0"),
        chardev("s0", "socket", addr=unix("@DIR@/s0"), server=True, wait=False),
        chardev("s1", "socket", addr=unix("@DIR@/nobody"), server=False),
        chardev("s1", "socket", addr=unix(f"{NOT_THERE}/s1"), server=True, wait=False),
        chardev("s2", "socket", addr={"type": "fd", "data": {"str": "nofd"}}, server=False),
        chardev("p0", "pipe", device="@DIR@/nothing"),
        chardev("p1", "pipe", device="@DIR@/pipe"),
        chardev("se", "serial", device="@DIR@/nothing"),
        ("ringbuf-write", {"device": "r2", "data": "hello"}),
        ("ringbuf-read", {"device": "r2", "size": 3}),
        ("ringbuf-read", {"device": "r2", "size": 30}),
        ("ringbuf-write", {"device": "r2", "data": "aGk=", "format": "base64"}),
        ("ringbuf-read", {"device": "r2", "size": 30, "format": "base64"}),
        ("ringbuf-read", {"device": "r2", "size": 0}),
        *(
            ("ringbuf-write", {"device": "r2", "data": text, "format": "base64"})
            for text in ("@@@@", "aGk aGk=", "aG", "\u00e9", "aGk=")
        ),
        ("ringbuf-read", {"device": "r2", "size": 30}),
        ("ringbuf-read", {"device": "c0", "size": 3}),
        ("ringbuf-write", {"device": "nope", "data": ""}),
        ("chardev-send-break", {"id": "c0"}),
        ("chardev-send-break", {"id": "nope"}),
        ("chardev-change", {"id": "c0", "backend": {"type": "null", "data": {}}}),
        ("chardev-change", {"id": "nope", "backend": {"type": "null", "data": {}}}),
        ("chardev-change", {"id": "r0", "backend": {"type": "null", "data": {}}}),
        remove("c0"),
        remove("nope"),
        remove("m0"),
        remove("c0"),
        remove("f0"),
        remove("s0"),
        ("qom-list", {"path": "/chardevs"}),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        for side in (pair.reference, pair.subject):
            for end in ("in", "out"):
                os.mkfifo(side.scratch / f"pipe.{end}")
        tell(pair, steps)
        names = pair.same(
            "query-chardev",
            lambda side: [
                each
                for each in side.ask("query-chardev")["return"]
                if each["label"] != "compat_monitor0"
            ],
        )
        assert len(names) == 7
        pair.same("files", lambda side: sorted(side.files()))


def test_a_terminal_and_an_address_are_real(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        for side in (pair.reference, pair.subject):
            pty = side.monitor.execute(*chardev("p0", "pty"))["return"]["pty"]
            assert os.path.exists(pty)
            local = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
            side.monitor.execute(*chardev("t0", "socket", addr=local, server=True, wait=False))
            told = {
                each["label"]: each["filename"]
                for each in side.monitor.execute("query-chardev")["return"]
            }
            assert told["p0"] == f"pty:{pty}"
            assert told["t0"].startswith("disconnected:tcp:127.0.0.1:")
            assert told["t0"].endswith(",server=on")


def test_netdevs(directory: Path) -> None:
    def add(type: str, id: str, **options: Any) -> tuple[str, Any]:
        return "netdev_add", {"type": type, "id": id, **options}

    steps = [
        add("user", "n0"),
        add("hubport", "h0", hubid=1),
        add("hubport", "h0", hubid=1),
        add("user", "1bad"),
        add("tap", "t0", fd="nope"),
        add("tap", "t0", fds="a:b"),
        add("nic", "x"),
        add("none", "x"),
        add("socket", "s0"),
        add("vhost-user", "v0", chardev="nope"),
        add("vhost-vdpa", "v1"),
        chardev("c0", "null"),
        add("vhost-user", "v0", chardev="c0"),
        ("set_link", {"name": "h0", "up": False}),
        ("set_link", {"name": "nope", "up": True}),
        ("netdev_del", {"id": "h0"}),
        ("netdev_del", {"id": "h0"}),
        add("hubport", "h0", hubid=2),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)


def test_descriptors_that_are_handed_over_are_held_and_closed(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        monitor, before = pair.subject.monitor, pair.subject.holdings().descriptors
        read, write = os.pipe()
        try:
            for name in ("a", "b"):
                monitor.send(
                    b'{"execute": "getfd", "arguments": {"fdname": "%s"}}' % name.encode(), [read]
                )
                assert monitor.read_answer() == {"return": {}}
        finally:
            os.close(read)
            os.close(write)
        arguments = {"type": "tap", "id": "t0", "fds": "a:b"}
        assert monitor.execute("netdev_add", arguments) == {"return": {}}
        assert pair.subject.holdings().descriptors.total() == before.total() + 2
        # They are named no more.
        assert "error" in monitor.execute("closefd", {"fdname": "a"})
        assert monitor.execute("netdev_del", {"id": "t0"}) == {"return": {}}
        assert pair.subject.holdings().descriptors == before


def device(driver: str, **properties: Any) -> tuple[str, Any]:
    return "device_add", {
        "driver": driver,
        **{name.replace("_", "-"): value for name, value in properties.items()},
    }


BUSES = (
    *("-device", "virtio-scsi-pci,id=scsi0", "-device", "qemu-xhci,id=usb0"),
    *("-device", "virtio-serial-pci,id=vs"),
)


def test_devices(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        chardev("c0", "null"),
        ("netdev_add", {"type": "hubport", "id": "h0", "hubid": 1}),
        device("nope"),
        device("pci-device"),
        device("PIIX4_PM", id="q"),
        device("piix3-ide", id="q"),
        device("isa-serial", id="q"),
        device("virtio-net-pci", id="n0", mq="x"),
        device("virtio-net-pci", id="n0", mq=True, vectors="x"),
        device("virtio-net-pci", id="n0", mac=5),
        device("virtio-net-pci", id="n0", host_mtuu=70000),
        device("virtio-net-pci", id="n0", disable_legacy="x"),
        device("virtio-net-pci", id="n0", addr=0),
        device("virtio-net-pci", id="n0", netdev="nope"),
        device("virtio-net-pci", id="n0", netdev="h0", addr="0a.0"),
        device("virtio-net-pci", id="n0"),
        device("virtio-net-pci", id="n1", netdev="h0"),
        device("virtio-net-pci", id="n1", addr="0a.0"),
        device("e1000", id="e0"),
        device("scsi-hd", id="sd0"),
        device("scsi-hd", id="sd0", drive="nope"),
        device("scsi-hd", id="sd0", bus="usb0.0"),
        device("scsi-hd", id="sd0", bus="nope"),
        device("usb-kbd", id="k0", bus="scsi0.0"),
        device("usb-kbd", id="k0", foo=1),
        device("usb-kbd", id="k0", bus="usb0.0"),
        device("usb-kbd", id="k0"),
        device("virtio-rng-pci", id="r0", rng="nope"),
        device("vhost-vsock-pci", id="v0"),
        device("virtio-9p-pci", id="f0"),
        device("vfio-pci", id="vf0"),
        device("nvme", id="nv0"),
        device("sd-card", id="sdc"),
        device("virtconsole", id="vc0", chardev="nope"),
        device("virtconsole", id="vc0", chardev="c0"),
        device("virtserialport", id="vc1", chardev="c0"),
        ("chardev-remove", {"id": "c0"}),
        ("set_link", {"name": "n0", "up": False}),
        ("device_del", {"id": "nope"}),
        ("qom-get", {"path": "n0", "property": "mac_"}),
        ("qom-get", {"path": "k0", "property": "hotplugged"}),
        ("qom-get", {"path": "e0", "property": "realized"}),
        ("qom-set", {"path": "e0", "property": "mac", "value": "52:54:00:12:34:57"}),
        ("qom-list", {"path": "/machine/peripheral"}),
    ]
    with standin_pair(directory, "-machine", "pc", *BUSES) as pair:
        tell(pair, steps)


def test_a_port_of_the_guests_is_not_open_before_it_opens_it(directory: Path) -> None:
    chardevs = [(f"c{i}", {"type": "null", "data": {}}) for i in range(2)]
    with standin_pair(directory, "-machine", "pc", "-device", "virtio-serial-pci") as pair:
        tell(
            pair,
            [
                *(("chardev-add", {"id": id, "backend": kind}) for id, kind in chardevs),
                device("virtserialport", id="p0", chardev="c0"),
                device("virtconsole", id="p1", chardev="c1"),
            ],
        )
        pair.same("open", open_ones)


def open_ones(side: Side) -> dict[str, bool]:
    return {each["label"]: each["frontend-open"] for each in side.ask("query-chardev")["return"]}


def test_a_device_that_goes_gives_back_what_it_took(directory: Path) -> None:
    with standin_pair(directory, "-machine", "pc", *BUSES) as pair:
        tell(
            pair,
            [
                ("blockdev-add", {"driver": "null-co", "node-name": "n0", "size": 1 << 20}),
                device("scsi-hd", id="sd0", drive="n0"),
                device("scsi-hd", id="sd1", drive="n0"),
                ("blockdev-del", {"node-name": "n0"}),
                device("usb-kbd", id="k0", bus="usb0.0"),
            ],
        )
        for side in (pair.reference, pair.subject):
            # The event comes before the answer or after it.
            assert side.monitor.execute("device_del", {"id": "k0"}) == {"return": {}}
            event = side.monitor.read_event("DEVICE_DELETED")
            assert event["data"] == {"device": "k0", "path": "/machine/peripheral/k0"}
            assert side.monitor.execute("device_del", {"id": "sd0"}) == {"return": {}}
            side.monitor.read_event("DEVICE_DELETED")
        tell(
            pair,
            [
                device("usb-kbd", id="k0", bus="usb0.0"),
                ("device_del", {"id": "k1"}),
                ("blockdev-del", {"node-name": "n0"}),
            ],
        )


QCOW2 = struct.pack(
    ">4sIQIIQIIQQIIQQQQII",
    *(b"QFI\xfb", 3, 0, 0, 16, 4 << 20, 0, 1, 196608, 65536, 1, 0, 0, 0, 0, 0, 4, 104),
)
"""The header of an image of 4 MiB."""


def test_block_nodes(directory: Path) -> None:
    def node(driver: str, name: str | None = None, **options: Any) -> dict[str, Any]:
        named = {} if name is None else {"node-name": name}
        return {"driver": driver, **named, **options}

    def add(driver: str, name: str | None = None, **options: Any) -> tuple[str, Any]:
        return "blockdev-add", node(driver, name, **options)

    raw, image = {"filename": "@DIR@/raw"}, {"filename": "@DIR@/image"}
    steps = [
        add("file", "f0", **raw),
        add("file", "f0", **raw),
        add("file", "f1", filename="@DIR@/nothing"),
        add("file", "f1", filename="/dev/null"),
        add("raw", "r0", file="f0"),
        add("raw", "r1", file="nope"),
        add("qcow2", "q0", file=node("file", **image)),
        add("qcow2", "q1", file=node("file", **raw)),
        add("null-co", "n0", size=1 << 20),
        add("null-co"),
        add("null-co", "1x"),
        add("null-co", "x" * 40),
        ("blockdev-del", {"node-name": "f0"}),
        ("blockdev-del", {"node-name": "nope"}),
        ("query-block", None),
        ("query-blockstats", None),
        ("block_resize", {"node-name": "n0", "size": 2 << 20}),
        ("block_resize", {"node-name": "nope", "size": 1}),
        ("block_resize", {"node-name": "r0", "size": -5}),
        ("block_resize", {"size": 5}),
        ("block_resize", {"node-name": "r0", "size": 2 << 20}),
        ("job-dismiss", {"id": "nope"}),
        ("block-job-cancel", {"device": "nope"}),
        ("nbd-server-stop", None),
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
        ("nbd-server-add", {"device": "nope"}),
        ("nbd-server-add", {"device": "q0"}),
        ("query-block-exports", None),
        ("nbd-server-remove", {"name": "nope"}),
        ("nbd-server-remove", {"name": "q0"}),
        ("nbd-server-stop", None),
        device("virtio-blk-pci", id="vb", drive="n0"),
        ("query-block", None),
        ("query-blockstats", None),
        ("blockdev-del", {"node-name": "q0"}),
        ("blockdev-del", {"node-name": "r0"}),
        ("blockdev-del", {"node-name": "f0"}),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        for side in (pair.reference, pair.subject):
            (side.scratch / "raw").write_bytes(bytes(1 << 20))
            (side.scratch / "image").write_bytes(QCOW2.ljust(1 << 18, b"\0"))
        before = pair.subject.holdings().descriptors
        tell(pair, steps)
        nodes = [
            [
                each
                for each in side.ask("query-named-block-nodes")["return"]
                if each["drv"] != "file"
            ]
            for side in (pair.reference, pair.subject)
        ]
        assert nodes[0] == nodes[1]
        pair.same("size", lambda side: (side.scratch / "raw").stat().st_size)
        assert pair.subject.holdings().descriptors == before


def test_an_image_is_what_its_header_says(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        for side in (pair.reference, pair.subject):
            (side.scratch / "image").write_bytes(QCOW2.ljust(1 << 18, b"\0"))
        below = {"driver": "file", "filename": "@DIR@/image", "node-name": "f0"}
        tell(pair, [("blockdev-add", {"driver": "qcow2", "node-name": "q0", "file": below})])
        told = pair.ask("query-named-block-nodes")["return"]
        assert sorted(each["image"]["virtual-size"] for each in told) == [1 << 18, 4 << 20]


def test_the_human_monitor_plugs_too(directory: Path) -> None:
    lines = [
        *("device_add", "device_add nope", "device_add e1000,id=e0", "device_add e1000,foo=1"),
        *("device_del nope", "device_del", "object_add memory-backend-ram,id=m0,size=1M"),
        *("object_add nope,id=x", "object_add memory-backend-ram,id=m0,size=1M"),
        *("object_add memory-backend-ram", "object_del m0", "object_del m0", "object_del"),
        *("netdev_del x", "chardev-remove x", "object_add rng-builtin,id=r0", "object_del r0"),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        tell(pair, [("human-monitor-command", {"command-line": line}) for line in lines])


def test_objects_that_do_nothing(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("object-add", {"qom-type": "rng-random", "id": "r0", "filename": "/dev/urandom"}),
        ("object-add", {"qom-type": "rng-random", "id": "r0"}),
        ("object-add", {"qom-type": "iothread", "id": "io0", "poll-max-ns": "x"}),
        ("object-add", {"qom-type": "nope", "id": "x"}),
        ("qom-get", {"path": "/objects/r0", "property": "filename"}),
        ("qom-list", {"path": "/objects"}),
        device("virtio-rng-pci", id="d0", rng="r0"),
        ("qom-get", {"path": "d0", "property": "rng"}),
        ("object-del", {"id": "nope"}),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        tell(pair, steps)


MIGRATION_PARAMETERS: dict[str, tuple[Any, ...]] = {
    "announce-initial": (-1, 0, 100000, 100001),
    "announce-max": (100000, 100001),
    "announce-rounds": (0, 1000, 1001),
    "announce-step": (0, 1, 10000, 10001),
    "throttle-trigger-threshold": (0, 1, 100, 101),
    "cpu-throttle-initial": (0, 1, 99, 100),
    "cpu-throttle-increment": (0, 1, 99, 100),
    "max-cpu-throttle": (0, 98, 99, 100),
    "max-bandwidth": (0, (1 << 64) - 1),
    "downtime-limit": (0, 2000000, 2000001),
    "multifd-channels": (0, 1, 255),
    "multifd-zlib-level": (0, 9, 10),
    "multifd-zstd-level": (0, 20, 21),
    "multifd-qatzip-level": (0, 1, 9, 10),
    "xbzrle-cache-size": (0, 4095, 4096, 5000, 65536),
    "vcpu-dirty-limit": (0, 1),
    "x-vcpu-dirty-limit-period": (0, 1, 1000, 1001),
    "tls-hostname": ("h", None),
    "mode": ("cpr-reboot", "normal"),
}


def test_migration_parameters_are_kept(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("query-migrate-parameters", None),
        ("migrate-set-parameters", {"downtime-limit": 500, "max-bandwidth": 1 << 30}),
        ("migrate-set-parameters", {"multifd-channels": 4, "tls-creds": "t0"}),
        ("migrate-set-parameters", {"tls-creds": None}),
        ("query-migrate-parameters", None),
        ("query-migrate", None),
        *(
            ("migrate-set-parameters", {name: value})
            for name, values in MIGRATION_PARAMETERS.items()
            for value in values
        ),
        ("query-migrate-parameters", None),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)


def test_the_qtest_protocol_on_a_named_device(directory: Path) -> None:
    options = ("-qtest", "chardev:q0", "-qtest-log", "none")
    device = "socket,id=q0,path=@DIR@/q0,server=on,wait=off"
    with standin_pair(directory, "-machine", "none", "-chardev", device, *options) as pair:

        def endianness(side: Side) -> str:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(side.scratch / "q0"))
                sock.sendall(b"endianness\n")
                with sock.makefile("rb") as answers:
                    return answers.readline().decode()

        assert pair.same("endianness", endianness) == "OK little\n"
