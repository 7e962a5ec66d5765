from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.qom import Tree

LATER = ["monitor-qmp", "mshv-accel", "nitro-accel", "qtest-accel", "target-info-arm-machine"]


@pytest.mark.parametrize("name", ["tcg-accel", "kvm-accel", "chardev"])
def test_what_clients_ask_for_is_there(name: str) -> None:
    for compat in Compat:
        assert Tree(compat).type_by_name(name) is not None


@pytest.mark.parametrize("name", LATER)
def test_what_only_a_later_release_has(name: str) -> None:
    assert Tree(Compat.V11_1).type_by_name(name) is not None
    assert Tree(Compat.V10_0).type_by_name(name) is None


def test_descriptions_follow_the_release() -> None:
    for compat, known in ((Compat.V10_0, False), (Compat.V11_1, True)):
        kvm = Tree(compat).type_by_name("kvm-accel")
        assert kvm is not None
        assert ("honor-guest-pat" in kvm.all_properties) == known
