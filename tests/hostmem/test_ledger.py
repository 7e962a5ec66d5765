"""What the ledger of huge pages makes of nodes: hosts with several are told of by numbers."""

from __future__ import annotations

import pytest

from memd.hostmem.capacity import HugePool
from memd.hostmem.ledger import Claim, Supply, lack

ANY: frozenset[int] = frozenset()
FIRST, SECOND = frozenset({0}), frozenset({1})


TWO_NODES = Supply(HugePool(16, 10, 4, 0, 0), [(0, 6), (1, 4)], [])
"""Ten pages are free, six of them on node 0; four are set aside."""


@pytest.mark.parametrize(
    ("claims", "lacking"),
    [
        ([], ""),
        ([Claim(6, 6, ANY)], ""),
        ([Claim(7, 7, ANY)], "6 are free and not set aside, and 7 could be claimed"),
        # What is set aside is others', who may take it on node 0.
        ([Claim(2, 2, FIRST)], ""),
        ([Claim(3, 3, FIRST)], "6 are free on node 0, and 7 could be claimed there"),
        # It is ours, and bound to the other node.
        ([Claim(4, 0, SECOND), Claim(6, 6, FIRST)], ""),
        # What is bound to no node may come from there.
        ([Claim(4, 0, ANY), Claim(3, 3, FIRST)], "6 are free on node 0, and 7 could be"),
        ([Claim(5, 0, SECOND)], "4 are free on node 1, and 5 could be claimed there"),
        ([Claim(4, 0, ANY), Claim(6, 6, FIRST | SECOND)], ""),
    ],
)
def test_nodes(claims: list[Claim], lacking: str) -> None:
    found = lack(TWO_NODES, claims)
    assert found.startswith(lacking)
    assert bool(found) is bool(lacking)


def test_what_the_kernel_sees_to() -> None:
    """It may gather pages beyond those there are, unless others count on what is left."""
    assert lack(TWO_NODES, [Claim(9, 9, ANY)], 9) == ""
    assert lack(TWO_NODES, [Claim(1, 1, ANY), Claim(9, 9, ANY)], 9) != ""
    text = "the control group allows 8 more, and 9 could be claimed"
    assert lack(TWO_NODES._replace(allowed=[20, 8]), [Claim(9, 9, ANY)], 9) == text
