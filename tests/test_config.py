from __future__ import annotations

import pytest

from memd.config import DEFAULT_RAM, Chardev, Config, MachineConfig, MonitorSpec, Report


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
    chardev = Chardev("c0", kind, path="/s", fd=3, host="h", port="1", server=server)
    assert chardev.describe() == expected


def test_nothing_is_shared() -> None:
    one, other = Config(Report("a")), Config(Report("b"))
    one.objects.append({})
    one.monitors.append(MonitorSpec(None, Chardev("c", "null"), "control", False, ""))
    assert (other.objects, other.monitors) == ([], [])


def test_defaults() -> None:
    config = MachineConfig()
    assert (config.type, config.ram_size, config.maxmem) == ("none", DEFAULT_RAM, DEFAULT_RAM)
    assert (config.slots, config.nvdimm, config.memory_backend) == (0, False, None)
    assert (config.numa_nodes, config.smp) == ((), {})
    assert (config.guest_reacts, config.guest_delay_ms) == ("immediately", 0)


def test_room_for_more() -> None:
    config = MachineConfig("q35", ram_size=1, maxmem=3)
    assert (config.ram_size, config.maxmem) == (1, 3)
