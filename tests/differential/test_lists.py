"""What `help` tells that there is for an option, but for descriptions: which programs read it."""

from __future__ import annotations

import re

import pytest

from tests import prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd

_OF_MODULES = ("audiodev", "chardev", "display")
"""Options for which a QEMU lists what is installed with it."""

_OF_A_MODULE = re.compile('name "(qxl|.*-gl[-"])')
"""Devices that a QEMU has with modules for SPICE or OpenGL, as the recorded 11.1 did."""


def told(argv: list[str], *line: str) -> list[str]:
    done = prefork.run([*argv, *line])
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "option", ["accel", "cpu", "device", "netdev", "nic", "object", *_OF_MODULES]
)
@pytest.mark.parametrize("help", ["help", "?"])
def test_lists(option: str, help: str) -> None:
    qemu = [re.sub(', desc ".*"', "", each) for each in told(qemu_binary(), f"-{option}", help)]
    memd = told(qemu_system_memd(qemu_compat()), f"-{option}", help)
    if option in _OF_MODULES:
        # Prose follows an empty line.
        names = qemu[: qemu.index("")] if "" in qemu else qemu
        assert [each for each in names if each not in memd] == []
    elif option == "object":
        assert [each for each in memd if each not in qemu] == []
    else:
        assert [each for each in memd if each in qemu or not _OF_A_MODULE.match(each)] == qemu


@pytest.mark.parametrize("type", ["virtio-net", "virtio-blk-pci", "usb-tablet", "nvme", "pc-dimm"])
def test_properties_of_a_device(type: str) -> None:
    """A description of a single property is not recorded."""
    qemu, memd = (
        [re.sub("- (?!on/off).*?(?=$|\\(default)", "- ", each).strip("- ") for each in lines]
        for lines in (
            told(argv, "-device", f"{type},help")
            for argv in (qemu_binary(), qemu_system_memd(qemu_compat()))
        )
    )
    assert memd == qemu


@pytest.mark.parametrize("type", ["nosuch", "device", "memory-backend-ram"])
def test_properties_of_what_is_no_device(type: str) -> None:
    """It is no error to ask."""
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        done = prefork.run([*argv, "-device", f"{type},help"])
        said.append((done.returncode, re.sub(r"^qemu-system-\w+: ", "", done.stderr)))
    assert said[1] == said[0]


@pytest.mark.parametrize("type", ["throttle-group", "iothread", "filter-dump", "secret"])
def test_properties_of_an_object(type: str) -> None:
    line = ("-object", f"{type},help")
    memd = told(qemu_system_memd(qemu_compat()), *line)
    assert memd == told(qemu_binary(), *line)
