"""A tree, and what a test of it may not leave behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from memd import backends
from memd.qom import Tree
from tests.differential.kernel import descriptors, mapped
from tests.stepping import close_all


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree with the backends' types; what a test leaves in it is deleted."""
    here = os.getpid()
    before = descriptors(here), mapped(here)
    threads = set(threading.enumerate())
    tree = Tree()
    backends.register(tree)
    yield tree
    close_all(tree)
    for thread in threading.enumerate():
        if thread.name.startswith("TC "):
            thread.join(60)
    assert (descriptors(here), mapped(here)) == before
    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= threads
    assert tree.objects.children == {}
