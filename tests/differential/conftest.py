"""A real QEMU beside memd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memd.compat import Compat
from tests.differential.harness import Pair, Side, Storage, settle
from tests.differential.kernel import mapped
from tests.differential.server import memd_argv, qemu_argv, qemu_compat


def reference() -> Storage:
    """A reference to be started; skips where there is none."""
    argv = qemu_argv()
    return Storage("QEMU", lambda: argv)


@pytest.fixture(scope="session")
def kept_qemu() -> Iterator[Storage]:
    """The reference, one process for all tests of a worker."""
    kept = reference()
    yield kept
    kept.stop()


@pytest.fixture(scope="session")
def compat() -> Compat:
    """The release that the reference is of."""
    return qemu_compat()


@pytest.fixture(scope="session")
def kept_memd(compat: Compat) -> Iterator[Storage]:
    """memd, speaking as the reference's version does."""
    kept = Storage("memd", lambda: memd_argv(compat))
    yield kept
    kept.stop()


@pytest.fixture
def qemu(kept_qemu: Storage) -> Iterator[Side]:
    """The reference with a connection of this test's own."""
    with kept_qemu.side() as side:
        yield side
    assert settle(lambda: mapped(side.server.pid), lambda now: not now) == set()


@pytest.fixture
def pair(qemu: Side, memd: Side) -> Pair:
    """Both, to be given the same commands."""
    return Pair(qemu, memd)


@pytest.fixture
def new_pair(compat: Compat) -> Iterator[Pair]:
    """Both newly started, for what has to go the same way each time it is repeated."""
    kept_qemu = reference()
    kept_memd = Storage("memd", lambda: memd_argv(compat))
    try:
        with kept_qemu.side() as qemu, kept_memd.side() as memd:
            yield Pair(qemu, memd)
    finally:
        kept_qemu.stop()
        kept_memd.stop()
