from __future__ import annotations

import os

from memd.qom import Tree
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.conftest import need_shm


@need_shm
def test_shared_memory(tree: Tree) -> None:
    before = os.listdir("/dev/shm")
    add(tree, "shm", size=MIB)
    assert get(tree, "share") is True
    region = region_of(tree)
    assert region.shared
    assert os.readlink(f"/proc/self/fd/{region.fd}").startswith(f"/dev/shm/qemu-{os.getpid()}-shm-")
    # Several at once have names of their own.
    add(tree, "shm", "m1", size=MIB, share=True)
    assert os.listdir("/dev/shm") == before
    delete(tree, "m1")


@need_shm
def test_refusals(tree: Tree) -> None:
    assert refusal(lambda: add(tree, "shm", size=MIB, share=False)) == (
        "can't create shm backend with `share=off`"
    )
    assert refusal(lambda: add(tree, "shm", size=MIB + 1)) == (
        "m0 backing store size 0x100001 is too small for 'size' option 0x101000 plus"
        " 'offset' option 0x0"
    )
    assert refusal(lambda: add(tree, "shm", size=1 << 63)) == (
        "failed to resize POSIX shared memory to 9223372036854775808: Invalid argument"
    )
    add(tree, "shm", size=MIB)
    for value in (True, False):
        assert refusal(lambda value=value: change(tree, "share", value)) == (  # type: ignore[misc]
            "cannot change property value"
        )
