"""Objects that can be changed, words that press keys: as a paused QEMU has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.standin import standin_pair, tell


def group(id: str, limits: dict[str, Any] | None = None, **options: Any) -> tuple[str, Any]:
    if limits is not None:
        options["limits"] = limits
    return "object-add", {"qom-type": "throttle-group", "id": id, **options}


def thread(id: str, **options: Any) -> tuple[str, Any]:
    told = {name.replace("_", "-"): value for name, value in options.items()}
    return "object-add", {"qom-type": "iothread", "id": id, **told}


def get(name: str, property: str) -> tuple[str, Any]:
    return "qom-get", {"path": f"/objects/{name}", "property": property}


def put(name: str, property: str, value: Any) -> tuple[str, Any]:
    return "qom-set", {"path": name, "property": property, "value": value}


def card(id: str, mac: Any) -> tuple[str, Any]:
    return "device_add", {"driver": "virtio-net-pci", "id": id, "mac": mac}


def line(text: str) -> tuple[str, Any]:
    return "human-monitor-command", {"command-line": text}


def test_limits_of_throughput(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        group("a1", {"iops-size": 4}),
        group("a2", {"bps-read-max": 4}),
        group("a3", {"bps-read-max": 4, "bps-read": 5}),
        group("a4", {"bps-read-max-length": 0}),
        group("a5", {"bps-read-max-length": 2}),
        group("a6", {"bps-read": 5, "bps-read-max-length": 2}),
        group("a7", {"bps-read": 5, "bps-read-max": 50, "bps-read-max-length": 2}),
        group("a8", {"bps-read": 5, "bps-read-max": 50, "bps-read-max-length": 1000000000000000}),
        group("a9", {"bps-read": 5, "bps-read-max": 5000, "bps-read-max-length": 1000000000000}),
        group("b1", {"bps-read": 5, "bps-read-max-length": 5000000000}),
        group("b2", {"bps-read": 1000000000000001}),
        group("b3", {"bps-total": 10, "bps-total-max": 20, "bps-read-max": 5}),
        group("b4", {"iops-total": -1}),
        group("b5", {"bps-total-max-length": -1}),
        group("b6", {"iops-size": -1, "iops-total": 5}),
        group("b7", None, **{"x-iops-total": -1}),
        group("b8", None, **{"x-iops-total-max": 10}),
        group("c1", None, **{"x-bps-total-max-length": 0}),
        group("c2", {"bps-read": 5, "bps-read-max": 1000000000000000, "bps-read-max-length": 2}),
        group("c3", {"bps-read": 5, "bps-total": 5, "iops-size": 3, "bps-write-max": 3}),
        group("c4", {"bps-read-max": 3, "iops-size": 3}),
        group("c5", {"bps-read-max": 3, "bps-total-max-length": 0}),
        group("c6", {"bps-read-max": 3, "bps-read-max-length": 5}),
        put("a7", "limits", {"bps-read": "x"}),
        put("a7", "limits", {"bps-read": None}),
        put("a7", "limits", {"bps-read": 1.5}),
        put("a7", "limits", {"bps-read": 18446744073709551615}),
        put("a7", "limits", {"bps-read-max": 0, "bps-read-max-length": 1}),
        get("a7", "limits"),
        put("a7", "x-iops-size", "x"),
        group("t2", {"iops-total": 100}),
        get("t2", "limits"),
        put("t2", "limits", {"bps-read": 100, "iops-size": 4}),
        get("t2", "limits"),
        put("t2", "limits", {"bps-read": 100, "bps-total": 4}),
        put("t2", "limits", {"bps-read-max": 100}),
        put("t2", "limits", {"foo": 100}),
        put("t2", "limits", {"bps-read": -1}),
        put("t2", "limits", 5),
        get("t2", "limits"),
        get("tg", "limits"),
    ]
    with standin_pair(
        directory, "-machine", "pc", "-object", "throttle-group,id=tg,x-iops-total=50"
    ) as pair:
        tell(pair, steps)


def threads(side: Side) -> Any:
    """What is told of them, but for the thread's own number."""
    told = side.monitor.execute("query-iothreads")["return"]
    return [{**each, "thread-id": 0} for each in told]


def test_iothreads(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        thread("i0", poll_max_ns=-1),
        thread("i1", thread_pool_min=70),
        thread("i2", thread_pool_max=0),
        thread("i3", thread_pool_min=8, thread_pool_max=4),
        thread("i4", thread_pool_min=-8),
        thread("i5", aio_max_batch=-8),
        thread("i6"),
        get("i6", "thread-pool-max"),
        get("i6", "thread-pool-min"),
        put("i6", "thread-pool-min", 99),
        put("i6", "thread-pool-max", 1 << 31),
        put("i6", "thread-pool-max", (1 << 31) - 1),
        put("i6", "thread-pool-max", 0),
        put("i6", "aio-max-batch", -3),
        put("i6", "poll-grow", "x"),
        put("i6", "poll-grow", 9223372036854775808),
    ]
    with standin_pair(
        directory, "-machine", "pc", "-object", "iothread,id=io1,poll-max-ns=5"
    ) as pair:
        tell(pair, steps)
        pair.same("query-iothreads", threads)


def test_addresses_of_cards(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        card("m1", "x"),
        card("m2", "52-54-00-aa-bb-cc"),
        ("qom-get", {"path": "/machine/peripheral/m2", "property": "mac"}),
        card("m3", "52:54:00:aa:bb"),
        card("m4", "52:54:00:aa:bb:cc:dd"),
        card("m5", "52:54:0:aa:bb:cc"),
        card("m6", ""),
        card("m7", "52:54:00:aa-bb:cc"),
        card("m8", "52:54:00:aa:bb:cg"),
        card("m9", "525400aabbcc"),
        card("n1", "52:54:00:aa:bb:c"),
        card("n2", "52x54:00:aa:bb:cc"),
        card("n3", "52:54:00:aa:bb: c"),
        card("n4", 5),
    ]
    with standin_pair(directory, "-machine", "pc") as pair:
        tell(pair, steps)


def test_the_human_monitor_presses_keys(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        line("set_link n0"),
        line("set_link n0 foo"),
        line("set_link n0 on x"),
        line("set_link n0 off"),
        line("info network"),
        line("set_link"),
        line("set_link n9 off"),
        line("watchdog_action reset x"),
        line("watchdog_action"),
        line("watchdog_action foo"),
        line("watchdog_action pause"),
        line("sendkey a b"),
        line("sendkey a 5"),
        line("sendkey a 5 6"),
        line("sendkey A"),
        line("/ a"),
        line("sendkey <"),
        line("sendkey unmapped"),
        line("sendkey ctrl-alt-delete"),
        line("sendkey 0xzz"),
        line("sendkey 5"),
        line("sendkey kp_multiply-f1"),
        line("migrate_cancel"),
        line("migrate_cancel x"),
    ]
    with standin_pair(
        directory,
        "-machine",
        "q35",
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,id=n0,netdev=n,mac=52:54:00:AB:CD:EF",
    ) as pair:
        tell(pair, steps)


def test_a_display_that_is_not_there(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("expire_password", {"protocol": "vnc", "time": ""}),
        ("expire_password", {"protocol": "vnc", "time": "+"}),
        ("expire_password", {"protocol": "vnc", "time": "5"}),
        ("expire_password", {"protocol": "vnc", "time": "+\u20035"}),
        ("expire_password", {"protocol": "vnc", "time": "-5"}),
        ("expire_password", {"protocol": "vnc", "time": "+-5"}),
        ("expire_password", {"protocol": "vnc", "time": "5x"}),
        ("expire_password", {"protocol": "vnc", "time": "0x5"}),
        ("expire_password", {"protocol": "vnc", "time": " 5"}),
        ("expire_password", {"protocol": "vnc", "time": "99999999999999999999999"}),
        ("expire_password", {"protocol": "spice", "time": "x"}),
        ("set_password", {"protocol": "spice", "password": "x", "connected": "fail"}),
        ("set_password", {"protocol": "vnc", "password": "x"}),
        ("set_password", {"protocol": "spice", "password": "x"}),
        ("set_password", {"protocol": "vnc", "password": "x", "connected": "disconnect"}),
        ("set_password", {"protocol": "vnc", "password": "x", "display": "foo"}),
        ("expire_password", {"protocol": "vnc", "time": "now"}),
        ("expire_password", {"protocol": "vnc", "time": "bogus"}),
        ("expire_password", {"protocol": "spice", "time": "+30"}),
        ("change-vnc-password", {"password": "x"}),
    ]
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, steps)


def limit(id: str, **limits: Any) -> tuple[str, Any]:
    none = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    return "block_set_io_throttle", {**none, "id": id, **limits}


@pytest.mark.parametrize("device", ["virtio-blk-pci,drive=n0,id=d0", "scsi-hd,drive=n0,id=d0"])
def test_limits_of_a_disk(directory: Path, device: str) -> None:
    told: tuple[str, Any] = ("query-block", {})
    path = "/machine/peripheral/d0"
    steps = [
        step
        for disk in ("d0", path, f"{path}/virtio-backend")
        for step in (
            *(limit(disk, iops=100), told),
            limit(disk, bps=5, bps_rd=5),
            limit(disk, bps=5, iops=9, iops_max=20, iops_max_length=2, iops_size=4, group="g"),
            *(told, limit(disk, bps_rd=9), told),
            *(limit(disk, device="n0"), limit(disk, bps=-1), limit(disk, bps=1, bps_max_length=0)),
            *(limit(disk), told, limit(disk, bps=1, bps_max=10, bps_max_length=1), told),
        )
    ]
    options = ("-blockdev", "null-co,node-name=n0,size=512", "-device", "virtio-scsi-pci,id=s")
    with standin_pair(directory, "-machine", "q35", *options, "-device", device) as pair:
        tell(pair, [*steps, limit("nope", iops=7)])
