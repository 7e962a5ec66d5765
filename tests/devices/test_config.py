from __future__ import annotations

from memd.devices.config import DEFAULT_RAM, MachineConfig, NumaNode


def test_defaults() -> None:
    config = MachineConfig()
    assert (config.type, config.ram_size, config.maxmem) == ("none", DEFAULT_RAM, DEFAULT_RAM)
    assert (config.slots, config.nvdimm, config.memory_backend) == (0, False, None)
    assert (config.numa_nodes, config.smp) == ([], {})
    assert (config.guest_reacts, config.guest_delay_ms) == ("immediately", 0)


def test_room_for_more() -> None:
    config = MachineConfig("q35", ram_size=1, maxmem=3)
    assert (config.ram_size, config.maxmem) == (1, 3)


def test_nodes_share_nothing() -> None:
    first, second = NumaNode(0), NumaNode(1)
    first.cpus.append(1)
    assert second.cpus == []
