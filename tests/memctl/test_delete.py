from __future__ import annotations

from tests.memctl.conftest import Memctl


def test_deleting(memctl: Memctl) -> None:
    for id in ("m0", "m1", "m2"):
        memctl.out("add", f"ram,id={id},size=64k")
    assert memctl.out("del", "m1") == ""
    assert memctl.data("del", "m0", "m2") == {"deleted": ["m0", "m2"]}
    assert memctl.out("ls", "-q") == ""


def test_one_that_is_not_there(memctl: Memctl) -> None:
    """Those before it are gone, those behind it stay."""
    for id in ("m0", "m2"):
        memctl.out("add", f"ram,id={id},size=64k")
    assert memctl.error("del", "m0", "m1", "m2") == "object 'm1' not found"
    assert memctl.out("ls", "-q") == "m2\n"
    memctl.out("del", "m2")
