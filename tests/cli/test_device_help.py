from __future__ import annotations

import pytest

from memd.cli.device_help import device_help
from memd.compat import Compat
from memd.errors import QMPError


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


@pytest.mark.parametrize("name", ["zzz", "memory-backend-ram", "device"])
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(QMPError, match=rf"^Device '{name}' not found$"):
        device_help(Compat.V10_0, name)
