from __future__ import annotations

import pytest

from memd.cli.device_help import device_help
from memd.compat import Compat
from memd.errors import QMPError
from memd.standin.catalogue import find_catalogue


def test_the_devices_there_are() -> None:
    told = device_help(Compat.V10_0, None)
    for name in ("pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci", "pcie-root-port"):
        assert f'name "{name}"' in told


def test_what_one_takes() -> None:
    assert device_help(Compat.V10_0, "pc-dimm") == (
        "pc-dimm options:\n"
        "  addr=<uint64>          -  (default: 0)\n"
        "  memdev=<link<memory-backend>>\n"
        "  node=<uint32>          -  (default: 0)\n"
        "  size=<uint64>\n"
        "  slot=<int32>           -  (default: -1)\n"
    )
    assert "  unarmed=<bool>         - on/off (default: off)\n" in device_help(
        Compat.V10_0, "nvdimm"
    )


@pytest.mark.parametrize("name", ["zzz", "nvme", "memory-backend-ram", "device"])
def test_what_is_no_device(name: str) -> None:
    said = "expects a non-abstract device type$" if name == "device" else "not found$"
    with pytest.raises(QMPError, match=said):
        device_help(Compat.V10_0, name)


def test_what_a_catalogue_has() -> None:
    recorded = find_catalogue(Compat.V10_0)
    told = device_help(Compat.V10_0, "virtio-net", recorded)
    assert told.startswith("virtio-net-pci options:\n")
    assert "  any_layout=<bool>      - on/off (default: on)\n" in told
    with pytest.raises(QMPError, match="expects a non-abstract device type"):
        device_help(Compat.V10_0, "pci-device", recorded)


def test_other_spellings_are_left_out() -> None:
    """In 10.0 their names begin with `legacy-`; a property of 11.1 does, too."""
    recorded = find_catalogue(Compat.V11_1)
    assert "  legacy-cmb=<bool> " in device_help(Compat.V11_1, "nvme", recorded)
    assert "legacy-" not in device_help(Compat.V10_0, "nvdimm")
