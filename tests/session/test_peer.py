"""Who a client is, and whether it may be one."""

import pytest

from memd.config import Allowed
from memd.session import Peer


def test_it_names_itself() -> None:
    assert str(Peer(7, 1000, 100, frozenset({4, 27}))) == "pid 7, uid 1000, gid 100"


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        (Peer(7, 1, 50, frozenset()), True),
        (Peer(7, 2, 60, frozenset()), True),
        (Peer(7, 2, 50, frozenset({10, 60})), True),
        (Peer(7, 2, 50, frozenset({10, 1})), False),
        (Peer(7, 60, 1, frozenset()), False),
    ],
)
def test_who_may(peer: Peer, may: bool) -> None:
    allowed = Allowed(frozenset({1}), frozenset({60}))
    assert allowed.admits(peer.uid, peer.gid, peer.groups) is may
