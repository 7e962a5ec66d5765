"""Types of devices are there once they are asked for, and cost nothing before."""

from __future__ import annotations

import subprocess
import sys

from memd import devices
from memd.qom import Tree
from tests.differential.server import TREE


def test_types_are_known_when_they_are_asked_for() -> None:
    tree = Tree()
    assert tree.type_by_name("pc-dimm") is None
    tree = Tree()
    devices.register(tree)
    devices.register(tree)
    found = tree.type_by_name("pc-dimm")
    assert found is not None
    assert found.is_a("memory-device")


def test_a_daemon_without_devices_does_not_load_them() -> None:
    code = (
        "import sys; import memd.app.app; "
        "print(*[name for name in sys.modules if name.startswith('memd.devices.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"memd.devices.machine"}
