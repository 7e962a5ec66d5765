from __future__ import annotations

import pytest

from memd.cli.device_help import device_help
from memd.compat import Compat
from memd.config import Config, Report
from memd.errors import QMPError


def _config(*, standin: bool = False) -> Config:
    config = Config(Report("memd"))
    config.unmodelled = "refuse" if standin else None
    return config


def test_the_devices_there_are() -> None:
    told = device_help(_config(), None)
    for name in ("pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci", "pcie-root-port"):
        assert f'name "{name}"' in told


def test_what_one_takes() -> None:
    assert device_help(_config(), "pc-dimm") == (
        "pc-dimm options:\n"
        "  addr=<uint64>          -  (default: 0)\n"
        "  memdev=<link<memory-backend>>\n"
        "  node=<uint32>          -  (default: 0)\n"
        "  size=<uint64>\n"
        "  slot=<int32>           -  (default: -1)\n"
    )
    assert "  unarmed=<bool>         - on/off (default: off)\n" in device_help(_config(), "nvdimm")


@pytest.mark.parametrize("name", ["zzz", "nvme", "memory-backend-ram", "device"])
def test_what_is_no_device(name: str) -> None:
    said = "expects a non-abstract device type$" if name == "device" else "not found$"
    with pytest.raises(QMPError, match=said):
        device_help(_config(), name)


def test_what_a_catalogue_has() -> None:
    told = device_help(_config(standin=True), "virtio-net")
    assert told.startswith("virtio-net-pci options:\n")
    assert "  any_layout=<bool>      - on/off (default: on)\n" in told
    with pytest.raises(QMPError, match="expects a non-abstract device type"):
        device_help(_config(standin=True), "pci-device")


def test_other_spellings_are_left_out() -> None:
    """In 10.0 their names begin with `legacy-`; a property of 11.1 does, too."""
    later = _config(standin=True)
    later.compat = Compat.V11_1
    assert "  legacy-cmb=<bool> " in device_help(later, "nvme")
    assert "legacy-" not in device_help(_config(), "nvdimm")
