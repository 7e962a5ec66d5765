from __future__ import annotations

import socket

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


@pytest.mark.parametrize(
    ("family", "connected"), [(socket.AF_UNIX, False), (socket.AF_VSOCK, True)]
)
def test_whether_a_socket_that_was_given_is_connected(family: int, connected: bool) -> None:
    """One of vsock(7) is not polled: another process that has it may keep it locked."""
    chardev = ChardevObject(Tree(), "socket")
    here, there = socket.socketpair()
    with here:
        chardev.hold(here.fileno(), family)
        assert chardev.is_connected
        there.close()
        assert chardev.is_connected is connected
