from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qom import MonitorObject, Tree


def _listed() -> tuple[Tree, MonitorObject]:
    tree = Tree(Compat.V11_1)
    monitor = MonitorObject(tree, "mon0", "c0")
    tree.objects.attach(monitor)
    return tree, monitor


def test_its_properties() -> None:
    tree, monitor = _listed()
    assert tree.resolve("/objects/mon0") is monitor
    values = {name: monitor.get_property(name) for name in monitor.qom_type.all_properties}
    assert values == {
        "type": "monitor-qmp",
        "chardev": "c0",
        "pretty": False,
        "close-action": "none",
    }


def test_they_can_be_set() -> None:
    _tree, monitor = _listed()
    monitor.set_property("pretty", True)
    monitor.set_property("chardev", "c1")
    monitor.set_property("close-action", "delete")
    assert (monitor.pretty, monitor.chardev, monitor.close_action) == (True, "c1", "delete")
    with pytest.raises(QMPError) as caught:
        monitor.set_property("close-action", "zz")
    assert caught.value.desc == "Parameter 'close-action' does not accept value 'zz'"


def test_it_stays() -> None:
    _tree, monitor = _listed()
    with pytest.raises(QMPError) as caught:
        monitor.check_delete()
    assert caught.value.desc == "Cannot delete the current QMP monitor"
