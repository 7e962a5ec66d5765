from __future__ import annotations

from memd.config import MachineConfig
from memd.devices.adding import add_device
from memd.work import run_here
from tests.commands.fakes import Console

NONE = ("DeviceNotActive", "No balloon device has been activated")


def test_without_a_device() -> None:
    console = Console()
    assert console.refusal("query-balloon") == NONE
    assert console.refusal("balloon", value=0) == NONE


def test_nobody_blows_it_up() -> None:
    console = Console(machine=MachineConfig("q35", ram_size=64 << 20, maxmem=64 << 20))
    console.daemon.machine.started = False
    run_here(add_device(console.daemon.machine, {"driver": "virtio-balloon-pci"}))
    assert console("query-balloon") == {"actual": 64 << 20}
    assert console("balloon", value=1 << 20) == {}
    assert console("query-balloon") == {"actual": 64 << 20}
    for value in (0, -1):
        assert console.refusal("balloon", value=value) == (
            "GenericError",
            "Parameter 'value' expects a size",
        )
