"""Opening the files of block nodes, and what is found there: a format, a size, a header.

A descriptor of a set is taken on the event loop; all else runs in threads, since it may wait for
a file system. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from memd.errors import QMPError, refusing
from memd.hostmem.file_systems import number
from memd.hostmem.libc import direct_alignment, known
from memd.hostmem.paths import FDSETS, Roots, encode_path, open_path
from memd.hostmem.spec import round_up
from memd.standin.block.filenames import filename_of
from memd.standin.block.nodes import FILES, PROBED, SECTOR, Node
from memd.work import ELSEWHERE

if TYPE_CHECKING:
    from memd.standin.chardevs import Sets

_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def take_given(nodes: list[Node], sets: Sets) -> None:
    """Take the descriptors that nodes name instead of files; raises `QMPError`."""
    for node in nodes:
        path = node.options["filename"] if node.driver in FILES else ""
        if path.startswith(FDSETS):
            flags = _access(node.read_only) | (os.O_DIRECT if node.cache["direct"] else 0)
            if node.auto:
                # A QEMU opens it for reading, and anew once somebody writes.
                sets.open(path, flags & ~os.O_RDWR).close()
            node.given = sets.open(path, flags)
            node.fd = node.given.fd
            found = known(node.fd)
            node.on = ELSEWHERE if found is None else frozenset((number(*found[:3]),))


def open_nodes(nodes: list[Node], roots: Roots | None) -> None:
    """Open the files of nodes, the lowest first; in a thread. Raises `QMPError`."""
    for node in nodes:
        if node.driver in FILES:
            _open_file(node, roots)
        elif node.child is not None:
            if node.driver == PROBED:
                node.driver = _probe(node.file)
                node.probed = node.driver == "raw"
            node.size = node.child.size
            if node.driver == "qcow2":
                read_header(node)
            else:
                node.size = part_of(node.size, node.offset, node.length)
            node.align()
        node.filename = filename_of(node)


def _probe(file: Node | None) -> str:
    from memd.standin.block.qcow2 import MAGIC

    with refusing("Could not read image for determining its format"):
        is_qcow2 = file is not None and os.pread(file.fd, len(MAGIC), 0) == MAGIC
    return "qcow2" if is_qcow2 else "raw"


def open_image(path: str, read_only: bool, roots: Roots | None) -> int:
    """Open an image's file; in a thread. Raises `OSError`, or `QMPError` where it may not be."""
    return open_path(encode_path(path), _access(read_only) | _FLAGS, roots)


def _access(read_only: bool) -> int:
    return os.O_RDONLY if read_only else os.O_RDWR


def _open_file(node: Node, roots: Roots | None) -> None:
    path = node.options["filename"]
    if not path:
        raise QMPError(f"The '{node.driver}' block driver requires a file name")
    try:
        if node.given is None:
            node.fd = open_image(path, node.read_only, roots)
        found = os.fstat(node.fd)
        node.on = frozenset((number(found.st_mode, found.st_dev, found.st_rdev),))
    except OSError as error:
        if error.errno == errno.EISDIR and node.auto:
            raise _wrong_file(node) from None
        raise QMPError(f"Could not open '{path}': {error.strerror}") from None
    is_device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    if not (stat.S_ISREG(found.st_mode) if node.driver == "file" else is_device):
        raise _wrong_file(node)
    measure(node)
    node.alignments = direct_alignment(node.fd) if node.cache["direct"] else (1, 1)
    if node.driver != "host_cdrom":
        node.facts["format-specific"] = {"type": "file", "data": {}}


def _wrong_file(node: Node) -> QMPError:
    path = node.options["filename"]
    return QMPError(f"'{node.driver}' driver requires '{path}' to be {FILES[node.driver]}")


def measure(file: Node) -> None:
    """See how large the file of a node is; in a thread."""
    found = os.fstat(file.fd)
    size = found.st_size
    if file.driver != "file":
        with contextlib.suppress(OSError):
            size = os.lseek(file.fd, 0, os.SEEK_END)
    file.size = round_up(size, SECTOR)
    file.facts["actual-size"] = found.st_blocks * 512


def part_of(whole: int, offset: int, told: int | None) -> int:
    """The size of a raw node, which may be a part of what is below it; raises `QMPError`.

    Args:
        whole: the size of what is below.
        told: the size that it is told to have, None for all that there is.
    """
    if offset > whole:
        raise QMPError(
            f"Offset ({offset}) cannot be greater than size of the containing file ({whole})"
        )
    length = whole - offset if told is None else told
    if length > whole - offset:
        raise QMPError(
            f"The sum of offset ({offset}) and size ({length}) has to be smaller or equal to"
            f" the  actual size of the containing file ({whole})"
        )
    if told is not None and length % SECTOR:
        raise QMPError(f"Specified size is not multiple of {SECTOR}")
    return round_up(length, SECTOR)


def read_header(node: Node) -> None:
    """Take over what an image's header tells; in a thread. Raises `QMPError`."""
    file = node.file
    # What memd does not read holds zeroes, or another format.
    layers = [*node.layers()][1:]
    if file is None or any(each.header is not None or each.offset for each in layers):
        raise QMPError("Image is not in qcow2 format")
    header = node.take_header(file.fd)
    if header.is_corrupt and not node.read_only:
        raise QMPError("qcow2: Image is corrupt; cannot be opened read/write")
