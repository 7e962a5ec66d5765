"""The objects that clients make: memory backends and what goes with them."""

from __future__ import annotations

from memd.backends.base import MEMORY_BACKEND
from memd.backends.file import MEMORY_BACKEND_FILE
from memd.backends.guest_memfd import MEMORY_BACKEND_GUEST_MEMFD
from memd.backends.memfd import MEMORY_BACKEND_MEMFD
from memd.backends.ram import MEMORY_BACKEND_RAM
from memd.backends.secret import SECRET, SECRET_COMMON
from memd.backends.shm import MEMORY_BACKEND_SHM
from memd.backends.thread_context import THREAD_CONTEXT
from memd.backends.tls_creds import TLS_CREDS, TLS_CREDS_X509
from memd.qom import Tree
from memd.work import Job, Start

TYPES = (
    MEMORY_BACKEND,
    MEMORY_BACKEND_RAM,
    MEMORY_BACKEND_FILE,
    MEMORY_BACKEND_MEMFD,
    MEMORY_BACKEND_SHM,
    THREAD_CONTEXT,
    MEMORY_BACKEND_GUEST_MEMFD,
    TLS_CREDS,
    TLS_CREDS_X509,
    SECRET_COMMON,
    SECRET,
)


def register(tree: Tree) -> None:
    """Make the types known to a tree."""
    for each in TYPES:
        tree.add_type(each)


def give_up() -> None:
    """End what populates; its caller undoes what it was for."""
    from memd.hostmem import populate

    populate.cancel_all()


async def close_all(tree: Tree, start: Start) -> None:
    """Delete everything, as at the daemon's end.

    What is still being made is given up, and the files made for it go.

    Args:
        start: has what the objects wait for end.
    """
    from memd.backends.allocation import PATIENCE
    from memd.hostmem import files

    give_up()
    gone = tree.objects.delete_all(start)
    await Job(files.remove_unfinished, patience=PATIENCE)
    await gone
