from __future__ import annotations

import pytest

from memd.errors import QMPError
from memd.qom import ChardevObject, Tree


def test_a_socket() -> None:
    tree = Tree()
    chardev = ChardevObject(tree, "socket", {"type": "unix", "path": "/run/x"})
    tree.chardevs.add_child("c0", chardev)
    assert tree.resolve("c0") is chardev
    assert chardev.get_property("type") == "chardev-socket"
    assert chardev.get_property("connected") is False
    chardev.connected = True
    assert chardev.get_property("connected") is True
    assert chardev.get_property("addr") == {"type": "unix", "path": "/run/x"}
    for name in ("connected", "addr"):
        with pytest.raises(QMPError) as caught:
            chardev.set_property(name, True)
        assert caught.value.desc == f"Property 'chardev-socket.{name}' is not writable"


@pytest.mark.parametrize("backend", ["stdio", "null"])
def test_others_show_their_type_alone(backend: str) -> None:
    chardev = ChardevObject(Tree(), backend)
    assert [*chardev.qom_type.all_properties] == ["type"]
    assert chardev.get_property("type") == f"chardev-{backend}"
