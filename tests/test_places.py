"""What users may have of what is scarce."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.places import KEPT, KEPT_PER_USER, SPARE, Account, Places
from tests.users import STRANGER

ROOT, OWN, OTHER, ANOTHER = 0, 5, STRANGER, STRANGER + 1


def test_the_operator_gets_in_while_others_have_all_that_they_may() -> None:
    places = Places(40, apart=(ROOT, OWN))
    while places.has_free_place(OTHER):
        places.take(OTHER)
    assert places.of(OTHER) == 40 - 2 * SPARE
    for user in (ROOT, OWN):
        for _ in range(SPARE):
            assert places.has_free_place(user)
            places.take(user)
        assert not places.has_free_place(user)
    assert places.taken == 40


def test_one_user_leaves_room_for_others() -> None:
    places = Places(40, each=10, apart=())
    places.take(OTHER, 10)
    assert not places.has_free_place(OTHER)
    assert places.has_free_place(ANOTHER, 10)
    assert not places.has_free_place(ANOTHER, 11)
    places.give_back(OTHER)
    assert places.has_free_place(OTHER)


def test_room_is_made_by_what_has_more_than_its_share() -> None:
    """A user's own oldest first; that of one who has no more than its share never."""
    places = Places(16, 3 / 4, apart=(ROOT,), spare=0)
    places.take(OTHER, 12)
    places.take(ANOTHER, 3)
    pending = [("r", ROOT), ("o", OTHER), ("a", ANOTHER), ("o2", OTHER)]
    assert not places.has_free_place(ANOTHER)
    assert places.to_end_for(ANOTHER, pending) == "a"
    # Nothing of its own can end.
    assert places.to_end_for(ANOTHER, [("r", ROOT), ("o", OTHER)]) == "o"
    assert places.to_end_for(ANOTHER, [("r", ROOT)]) is None
    places.give_back(OTHER, 3)
    places.take(ROOT, 4)
    assert places.to_end_for(OTHER, [("r", ROOT), ("a", ANOTHER)]) is None
    assert places.of(ROOT) == 4
    # Nothing ends where that would make no room.
    places = Places(4, apart=(), within=Places(1, apart=()))
    places.take(OTHER, 3)
    assert places.to_end_for(OTHER, [("o", OTHER)]) is None


@pytest.mark.parametrize("own", [OWN, ROOT])
@pytest.mark.parametrize("share", [1 / 2, 3 / 4])
def test_the_share_of_one_user_is_of_what_is_set_aside_for_nobody(share: float, own: int) -> None:
    """Of four or more the first of two users leaves some for the second."""
    for total in range(4, 80):
        places = Places(total, share, apart=(ROOT, own))
        while places.has_free_place(OTHER):
            places.take(OTHER)
        assert places.of(OTHER) == places.most(OTHER)
        if total >= 8 * SPARE:
            assert places.most(OTHER) == math.ceil(share * (total - SPARE * len({ROOT, own})))
        assert places.has_free_place(ANOTHER)


def test_some_users_together_leave_room_for_others() -> None:
    """Each takes no more than a fraction of what the others leave, whenever it takes some."""
    places = Places(400, 3 / 4, apart=())
    had = []
    for user in range(OTHER, OTHER + 4):
        while places.has_free_place(user):
            places.take(user)
        had.append(places.of(user))
        assert not any(map(places.has_free_place, range(OTHER, user + 1)))
    assert had == [300, 75, 19, 5]
    assert places.has_free_place(STRANGER + 5)


def test_the_operator_may_have_all_that_is_not_set_aside_for_another() -> None:
    for user in (ROOT, OWN):
        places = Places(40, 3 / 4, apart=(ROOT, OWN))
        while places.has_free_place(user):
            places.take(user)
        assert places.of(user) == places.most(user) == 40 - SPARE
        assert not places.has_free_place(OTHER)


def test_places_within_others() -> None:
    """Each takes one of the others, too, and there is none where these are taken."""
    outer = Places(10, apart=())
    inner = Places(8, apart=(), within=outer)
    inner.take(OTHER, 3)
    outer.take(OTHER, 6)
    assert (inner.of(OTHER), outer.of(OTHER)) == (3, 9)
    assert inner.has_free_place(ANOTHER, 1)
    assert not inner.has_free_place(ANOTHER, 2)
    inner.give_back(OTHER)
    inner.give_back_soon(OTHER)
    assert (inner.taken, outer.taken) == (1, 7)


def test_descriptors_of_what_is_kept() -> None:
    """They count until it is no more; the daemon's own count, and are never refused."""
    account = Account()
    account.descriptors = Places(10, each=6, apart=())
    first = account.charge_bytes(0, OTHER, 6)
    with pytest.raises(QMPError, match=f"^Too many open files: 6 .* for user {OTHER}, 6 for all"):
        account.charge_bytes(0, OTHER, 1)
    account.charge_bytes(0, OTHER)
    own = account.charge_bytes(0, None, 4)
    with pytest.raises(QMPError, match=r"^Too many open files: 0 descriptors .*, 10 for all"):
        account.charge_bytes(0, ANOTHER, 1)
    for share in (first, own):
        share.end()
        share.end()
    assert account.descriptors.taken == 0


def test_the_only_user_has_all_of_a_few() -> None:
    assert [Places(total, 3 / 4).most(OTHER) for total in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_no_more_of_one_user_than_there_are() -> None:
    assert Places(40, each=100, apart=(ROOT,)).most(OTHER) == 40 - SPARE
    assert Places(0, each=100, apart=(ROOT,)).most(ROOT) == 100
    assert Places(40, each=0, apart=(ROOT,)).most(ROOT) == 40


def test_any_number() -> None:
    places = Places(0, 1 / 2)
    assert places.most(OTHER) == 0
    places.take(OTHER, 10**6)
    assert places.has_free_place(OTHER, 10**6)


@given(
    st.integers(0, 40),
    st.integers(0, 12),
    st.lists(st.tuples(st.booleans(), st.sampled_from([ROOT, OWN, OTHER, ANOTHER]))),
)
def test_no_more_than_there_are(total: int, each: int, steps: list[tuple[bool, int]]) -> None:
    """Whatever comes and goes, and what comes back is there for others."""
    places = Places(total, each=each, apart=(ROOT, OWN))
    for comes, user in steps:
        if not comes and places.of(user):
            places.give_back(user)
        elif comes and places.has_free_place(user):
            places.take(user)
        if total:
            assert places.taken <= total
        if each:
            assert places.of(OTHER) <= each
    for user in (ROOT, OWN, OTHER, ANOTHER):
        places.give_back(user, places.of(user))
    assert places.taken == 0
    assert places.has_free_place(OTHER) == (total == 0 or total > 2 * min(SPARE, total // 8))


def test_bytes_are_kept_for_each_user_and_all() -> None:
    account = Account()
    full = account.charge_bytes(KEPT_PER_USER, OTHER)
    with pytest.raises(
        QMPError, match=rf"10 bytes more: 67108864 bytes are kept for user {OTHER}, 67"
    ):
        account.charge_bytes(10, OTHER)
    # Another one has room, and what is the daemon's own counts for nobody.
    other = account.charge_bytes(1000, ANOTHER)
    account.charge_bytes(KEPT * 2, None)
    allowed = account.places.allowed(ANOTHER)
    assert allowed < KEPT_PER_USER
    with pytest.raises(
        QMPError, match=rf": 1000 bytes .* user {ANOTHER}, {allowed} may be beside the 67108864 of"
    ):
        other.resize(KEPT_PER_USER)
    other.resize(allowed)
    with pytest.raises(QMPError, match="may be beside"):
        other.resize(allowed + 1)
    # So has the operator, still.
    account.charge_bytes(KEPT // 8, ROOT).end()
    full.resize(0)
    other.resize(KEPT_PER_USER)
    for each in (full, other, full):
        each.end()
    assert account.places.taken == 0


def test_who_has_nothing_is_not_known() -> None:
    """A user may have any number of user ids."""
    account = Account()
    for user in range(1000):
        account.charge_bytes(5, user).end()
        account.charge_bytes(0, user).end()
    assert len(account.places._taken) == 0
