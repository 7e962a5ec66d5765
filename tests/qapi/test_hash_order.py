"""The expected names were answered by QEMU 10.0.2; tests/differential has more."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.qapi.hash_order import first_unexpected, object_order

names = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), unique=True, max_size=60)

OBSERVED = [
    ("x", "x"),
    ("policy €", "policy"),
    ("align opaque", "opaque"),
    ("é € y", "é"),
    ("readonly foo pmem fdset-id dump", "fdset-id"),
    ("y bar share size align rom dump offset", "bar"),
    ("seal size hugetlb dump foo merge mem-path policy share", "merge"),
    ("fdset-id offset share baz id x y pmem z seal foo mem-path rom", "rom"),
    # Names whose hashes are what marks a place in the table as free or left.
    ("mgenanad gh vq vm yl pw cb", "vm"),
    ("mgenanae pl nm ku", "ku"),
    (
        "merge fdset-id opaque share é prealloc reserve € seal hugetlb z align size "
        "readonly id foo rom offset baz bar",
        "size",
    ),
    (
        "policy baz reserve prealloc x hugetlb foo € fdset-id é align mem-path id dump rom "
        "share seal offset opaque y bar z readonly pmem merge",
        "hugetlb",
    ),
]


FILE_MEMBERS = [
    *["qom-type", "id", "dump", "host-nodes", "merge", "policy", "prealloc", "prealloc-threads"],
    *["prealloc-context", "share", "reserve", "size", "x-use-canonical-path-for-ramblock-id"],
    *["align", "offset", "discard-data", "mem-path", "pmem", "readonly", "rom"],
]


@pytest.mark.parametrize(
    ("unexpected", "named"), [("hs re lt", "lt"), ("pu sc ta", "ta"), ("ys bj ya", "bj")]
)
def test_the_table_shrinks_as_names_are_taken(unexpected: str, named: str) -> None:
    sent = [*FILE_MEMBERS, *unexpected.split()]
    assert first_unexpected(object_order(sent), FILE_MEMBERS) == named


@pytest.mark.parametrize(("sent", "named"), OBSERVED)
def test_names_what_qemu_names(sent: str, named: str) -> None:
    assert first_unexpected(object_order(sent.split()), []) == named


def test_object_order() -> None:
    sent = (
        "foo bar baz size id share merge dump policy prealloc reserve align offset mem-path "
        "pmem rom readonly seal hugetlb x y z é € fdset-id opaque"
    )
    walked = (
        "share reserve é prealloc x offset readonly rom y baz bar size z hugetlb merge dump "
        "pmem policy seal € fdset-id mem-path id opaque foo align"
    )
    assert object_order(sent.split()) == walked.split()


def test_youngest_of_a_bucket_comes_first() -> None:
    # "minor" and "micro" are in one bucket.
    assert object_order(["major", "minor", "micro"]) == ["micro", "minor", "major"]
    assert object_order(["micro", "minor", "major"]) == ["minor", "micro", "major"]


def test_a_nul_is_two_bytes() -> None:
    sent = object_order(["id ", "bar", "qom-type", "id", "nul\0l"])
    assert first_unexpected(sent, ["qom-type", "id"]) == "id "


def test_taken_names_leave_their_mark() -> None:
    sent = [f"n{number}" for number in range(40)]
    assert first_unexpected(sent, sent) is None
    assert first_unexpected(sent, sent[:-1]) == sent[-1]
    assert first_unexpected([], ["x"]) is None
    assert first_unexpected(["x", "x"], ["x"]) is None


@given(names)
def test_is_what_is_left(sent: list[str]) -> None:
    half = len(sent) // 2
    left = first_unexpected(object_order(sent), sent[:half])
    assert left in sent[half:] if sent else left is None
    assert sorted(object_order(sent)) == sorted(sent)


@pytest.mark.parametrize(
    "names",
    [
        # They meet in the table of names.
        ["".join(parts) for parts in itertools.product(("bA", "ab"), repeat=12)],
        [f"a{number}" for number in range(257)],
        ["x" * 2_000_000],
    ],
)
def test_too_many_names_stay_in_their_order(names: list[str]) -> None:
    begin = time.process_time()
    assert object_order(names) == names
    assert first_unexpected(names, names[:1]) == (names[1] if len(names) > 1 else None)
    assert time.process_time() - begin < 0.2
