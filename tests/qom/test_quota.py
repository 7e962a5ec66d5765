"""Quotas: what is refused, and that the count survives whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memd.errors import QMPError
from memd.places import ANYBODY
from memd.qom.quota import Charge, Quota


def refusal(quota: Quota, size: int, owner: int | None = None) -> str:
    with pytest.raises(QMPError) as caught:
        quota.check("m0", size, owner)
    return caught.value.desc


def test_without_limits_nothing_is_refused() -> None:
    quota = Quota()
    for _ in range(3):
        quota.check("m0", 1 << 63, 7)
        quota.charge(1 << 63, 7)
    assert (quota.objects, quota.memory, quota.users) == (3, 3 << 63, {7: 3 << 63})


def test_objects() -> None:
    quota = Quota(max_objects=2)
    for _ in range(2):
        quota.check("m0", 0, None)
        quota.charge(0, None)
    assert refusal(quota, 0) == (
        "cannot make object 'm0': there are 2 objects, --max-objects allows 2"
    )


def test_memory() -> None:
    quota = Quota(max_memory=100)
    quota.check("m0", 100, None)
    charge = quota.charge(60, None)
    assert refusal(quota, 41) == (
        "cannot make object 'm0' of 41 bytes: 60 bytes are in use, --max-memory allows 100"
    )
    quota.check("m0", 40, None)
    charge.end()
    quota.check("m0", 100, None)


def test_each_user() -> None:
    quota = Quota(max_memory_per_user=100)
    quota.charge(60, 1000)
    quota.charge(80, ANYBODY)
    # What the command line makes is nobody's.
    quota.check("m0", 1000, None)
    quota.check("m0", 100, 0)
    assert refusal(quota, 41, 1000) == (
        "cannot make object 'm0' of 41 bytes: 60 bytes are in use by user 1000,"
        " --max-memory-per-user allows 100"
    )
    assert refusal(quota, 21, ANYBODY) == (
        "cannot make object 'm0' of 21 bytes: 80 bytes are in use by those without a user id,"
        " --max-memory-per-user allows 100"
    )


def test_memory_that_outlives_its_object() -> None:
    quota = Quota()
    charge = quota.charge(10, 5)
    charge.hold()
    charge.end()
    assert (quota.objects, quota.memory, quota.users) == (0, 10, {5: 10})
    charge.memory_freed()
    charge.memory_freed()
    charge.end()
    assert (quota.objects, quota.memory, quota.users) == (0, 0, {})


class Life(RuleBasedStateMachine):
    """Objects come and go in any order; the counts are those of what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.quota = Quota()
        # Each charge, whether its object is there, and whether its memory is.
        self.charges: list[tuple[Charge, int, int | None]] = []
        self.objects: set[int] = set()
        self.memory: set[int] = set()

    @rule(size=st.integers(0, 5), owner=st.sampled_from([None, ANYBODY, 0, 1000]))
    def make(self, size: int, owner: int | None) -> None:
        self.objects.add(len(self.charges))
        self.charges.append((self.quota.charge(size, owner, 2), size, owner))

    @rule(which=st.integers(0, 9))
    def map(self, which: int) -> None:
        if which in self.objects:
            self.charges[which][0].hold()
            self.memory.add(which)

    @rule(which=st.integers(0, 9))
    def end(self, which: int) -> None:
        if which < len(self.charges):
            self.charges[which][0].end()
            self.objects.discard(which)

    @rule(which=st.integers(0, 9))
    def unmap(self, which: int) -> None:
        if which < len(self.charges):
            self.charges[which][0].memory_freed()
            self.memory.discard(which)

    @invariant()
    def counts(self) -> None:
        there = [self.charges[which][1:] for which in self.objects | self.memory]
        assert self.quota.objects == len(self.objects)
        assert self.quota.descriptors.taken == 2 * len(there)
        assert self.quota.memory == sum(size for size, _owner in there)
        for user in (ANYBODY, 0, 1000):
            mine = sum(size for size, owner in there if owner == user)
            assert self.quota.users.get(user, 0) == mine
        assert 0 not in self.quota.users.values()


TestLife = Life.TestCase
