"""What an object comes to when its daemon ends, and how the next one has it again.

A description is JSON: the object's properties as they are, and of memory how it
is mapped and which file it is of. With the file's descriptor it makes the same
object over again, by the same mapping; no path is opened, no page is touched.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memd.backends.base import MemoryBackend
from memd.backends.file import FileBackend
from memd.backends.secret import Secret
from memd.backends.thread_context import ThreadContext
from memd.backends.tls_creds import TLSCredentials
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom.object import UserCreatable
from memd.qom.quota import NOBODY

if TYPE_CHECKING:
    from memd.hostmem.region import Region
    from memd.qom.tree import Tree

Description = dict[str, Any]

LINK = "prealloc-context"
"""The property that names another object: to be set once all are there."""

_APART = frozenset((LINK, "qom-type", "id"))

CREDENTIALS = (Secret, TLSCredentials)
"""What is read from files once, and is what they held then, whatever it is set to later."""

ANONYMOUS = "anonymous"
COPIED = "copied"
"""Why memory can't be kept: it is in no file; or it is a private mapping, whose
pages are the daemon's alone once they were written."""

_DEV_ZERO = os.makedev(1, 5)
_F_GET_SEALS = 1034


class Changed(Exception):
    """A descriptor is not what the description says; its text says how."""


def describe(obj: UserCreatable, before: Description | None = None) -> Description:
    """What an object comes to, as JSON.

    Args:
        before: what it came to when it was made; None if that is now.
    """
    # Of what was never given some can't be given either.
    usual = _defaults(obj)
    properties = {name: value for name, value in _values(obj) if value != usual[name]}
    if isinstance(obj, ThreadContext) and obj.affinity() == os.sched_getaffinity(0):
        # It runs where all do, and not on these CPUs for good.
        properties.pop("cpu-affinity", None)
    described: Description = {
        "id": obj.name,
        "qom-type": obj.qom_type.name,
        "properties": properties,
        "owner": None if obj.charge is None else obj.charge.owner,
    }
    if isinstance(obj, MemoryBackend) and (region := obj.region) is not None:
        described["map"] = region.spec._asdict()
        described["exports"] = region.exports
        described["bound"] = before["bound"] if before else [obj.policy, obj.host_nodes]
        if region.fd >= 0:
            described["file"] = identify(region.fd)
    return described


def _values(obj: UserCreatable) -> Iterator[tuple[str, JSON]]:
    """The properties that can be read and set, with their values."""
    for name, prop in obj.qom_type.all_properties.items():
        if prop.getter is not None and prop.setter is not None:
            yield name, prop.getter(obj)


_usual: dict[str, dict[str, JSON]] = {}
"""The properties that an object of a type has before any is set."""


def _defaults(obj: UserCreatable) -> dict[str, JSON]:
    qom_type = obj.qom_type
    found = _usual.get(qom_type.name)
    if found is None and qom_type.factory is not None:
        fresh = qom_type.factory(qom_type, obj.tree, obj.name)
        found = _usual[qom_type.name] = dict(_values(fresh))
    return found or {}


def identify(fd: int) -> dict[str, JSON]:
    """What tells a file from others, and its descriptor from others of the file."""
    there = os.fstat(fd)
    return {
        "dev": there.st_dev,
        "ino": there.st_ino,
        "type": stat.S_IFMT(there.st_mode),
        "access": fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE,
        "seals": _seals(fd),
    }


def _seals(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return None


def check(described: Description, fd: int) -> None:
    """See that a descriptor is the one that a description is about.

    Raises:
        Changed: it is another.
    """
    expected, found = described["file"], identify(fd)
    for name, text in (
        ("type", "of another type"),
        ("dev", "on another device"),
        ("ino", "another file"),
        ("access", "opened otherwise"),
        ("seals", "sealed otherwise"),
    ):
        if found[name] != expected[name]:
            raise Changed(f"its descriptor is {text}")


def why_lost(region: Region) -> str | None:
    """Why memory does not outlive its daemon: ANONYMOUS or COPIED; None if it does."""
    if region.fd < 0:
        return ANONYMOUS
    if not region.writable:
        return None
    there = os.fstat(region.fd)
    if stat.S_ISCHR(there.st_mode) and there.st_rdev == _DEV_ZERO:
        return ANONYMOUS
    return None if region.shared else COPIED


def unchanged(regions: list[Region]) -> list[bool]:
    """Of private mappings of files: whether each has no page of its own."""
    from memd.hostmem.usage import usage

    try:
        return [use.private_dirty + use.swapped == 0 for use in usage(regions)]
    except OSError:
        # Where the kernel does not tell, there may be some.
        return [False] * len(regions)


async def restore(tree: Tree, described: Description, fd: int) -> UserCreatable:
    """Make an object again; it is not in the tree yet.

    Args:
        described: by `describe`.
        fd: the memory's file, the object's once this returns; -1 where there is none.

    Returns:
        the object.

    Raises:
        QMPError: it can't be made.
    """
    try:
        return await _restore(tree, described, fd)
    except (KeyError, TypeError, ValueError) as wrong:
        raise QMPError(f"its description is not understood: {wrong}") from None


async def _restore(tree: Tree, described: Description, fd: int) -> UserCreatable:
    qom_type = tree.type_by_name(described["qom-type"])
    if qom_type is None or qom_type.factory is None:
        raise QMPError(f"invalid object type: {described['qom-type']}")
    obj = qom_type.factory(qom_type, tree, described["id"])
    properties = described["properties"]
    if isinstance(obj, CREDENTIALS):
        # Of what was changed since, most counts for nothing; see `link`.
        properties = described["options"]
    obj.set_properties({name: value for name, value in properties.items() if name not in _APART})
    # It is there, whatever the limits are now.
    obj.charge = tree.quota.charge(obj.memory_size, described["owner"])
    try:
        if isinstance(obj, MemoryBackend):
            _map(obj, described, fd)
        else:
            await obj.complete()
    except BaseException:
        obj.charge.end()
        raise
    return obj


def link(obj: UserCreatable, described: Description) -> None:
    """Set what an object can be told only once all are there; raises `QMPError`."""
    properties = described["properties"]
    if isinstance(obj, CREDENTIALS):
        # What the command line says of whom to trust, no client changes for good.
        if described["owner"] is not NOBODY:
            obj.set_properties(properties)
    elif LINK in properties:
        obj.set_property(LINK, properties[LINK])


def _map(backend: MemoryBackend, described: Description, fd: int) -> None:
    from memd.backends.making import map_again
    from memd.hostmem.spec import MapSpec

    # What the properties say of NUMA may have been changed since, the memory
    # stays where it was bound to.
    shown = backend.policy, backend.host_nodes
    backend.policy, backend.host_nodes = described["bound"]
    region = map_again(backend, MapSpec(**described["map"]), fd)
    backend.policy, backend.host_nodes = shown
    region.exports = described["exports"]
    backend.outlived = True
    backend.adopt(region)


def to_discard(obj: UserCreatable) -> list[int] | None:
    """The range of its file that goes with an object, offset and length in bytes; None for none."""
    if not isinstance(obj, FileBackend) or not obj.discard_data or obj.region is None:
        return None
    region = obj.region
    return [region.offset, region.length] if region.shared and region.writable else None


def keep_data(obj: UserCreatable) -> None:
    """Have an object's data left alone when it is let go: it is not deleted."""
    if isinstance(obj, FileBackend):
        obj.discard_data = False
