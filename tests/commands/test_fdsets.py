"""Descriptor sets by themselves; `test_misc.py` has their commands."""

from __future__ import annotations

import os
import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from memd.commands.descriptors import FdSets, inherited
from memd.errors import QMPError
from memd.hostmem.closing import close
from memd.places import Places
from memd.session.descriptor import Descriptor
from tests.descriptors import lingering, open_descriptors, wait_for_closing
from tests.stepping import as_user
from tests.users import STRANGER


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.none() | st.integers(-1, 4)),
            st.tuples(st.just("remove"), st.integers(-1, 4)),
            st.tuples(st.just("remove one"), st.integers(-1, 4)),
        ),
        max_size=12,
    )
)
def test_whatever_is_done_no_descriptor_is_lost(steps: list[tuple[str, int | None]]) -> None:
    before = open_descriptors()
    sets = FdSets()
    places = Places()
    model: dict[int, set[int]] = {}
    for step, number in steps:
        if step == "add":
            fd = os.open(os.devnull, os.O_RDONLY)
            places.take(0)
            try:
                info = sets.add(Descriptor(fd, places, 0), number, None)
            except QMPError:
                assert number == -1
                continue
            assert info["fd"] == fd
            if number is None:
                assert info["fdset-id"] == min(set(range(len(model) + 1)) - set(model))
            model.setdefault(info["fdset-id"], set()).add(fd)
            continue
        held = model.get(number or 0, set()) if number != -1 else set()
        chosen = min(held) if step == "remove one" and held else None
        try:
            sets.remove(number or 0, chosen)
        except QMPError:
            assert not held
            continue
        held -= {chosen} if chosen is not None else set(held)
        if not held:
            del model[number or 0]
    told = {each["fdset-id"]: {item["fd"] for item in each["fds"]} for each in sets.query()}
    assert told == model
    assert list(told) == sorted(told, reverse=True)
    wait_for_closing()
    assert places.of(0) == sum(map(len, model.values()))
    sets.close()
    wait_for_closing()
    assert places.taken == 0
    assert sets.query() == []
    assert open_descriptors() == before


def test_nobody_waits_for_the_close_of_an_inherited_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = lingering(listening).detach()
        peer, _address = listening.accept()
        os.set_inheritable(fd, True)
        held = inherited(str(fd))
        held.close()
        assert held.fd == -1
        # It waits for its peer, and only there.
        assert "memd-close" in {each.name for each in threading.enumerate()}
        peer.close()
    wait_for_closing()


def test_a_copy_that_is_closed_slowly_keeps_nobody_elses_descriptor_open() -> None:
    sets, closed = FdSets(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sets.add(Descriptor(lingering(listening).detach(), Places(), STRANGER), 7, None)
        peer, _address = listening.accept()
        with as_user(STRANGER):
            copy = sets.open("/dev/fdset/7", os.O_RDWR)
        sets.close()
        wait_for_closing()
        copy.close()
        ours, other = socket.socketpair()
        close(ours.detach(), closed.set)
        assert closed.wait(30)
        for each in (peer, other):
            each.close()
    wait_for_closing()
