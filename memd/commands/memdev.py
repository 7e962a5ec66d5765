"""Commands about the memory of backends: what only memd has (`schemas/memd.json`)."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from memd.backends.base import MemoryBackend
from memd.commands.descriptors import take_descriptor
from memd.commands.qom import backends
from memd.errors import MOST_TEXT, QMPError, device_not_found, missing, refusing
from memd.json_types import JSON, JSONObject
from memd.wire import encode
from memd.work import MEMORY, SHARED_MEMORY, Encoded, Event, Job, Outcome, Pieces

if TYPE_CHECKING:
    # What touches the kernel is imported by the first command that needs it.

    from memd.commands.daemon import Daemon
    from memd.hostmem.region import Region
    from memd.session import Session

_LARGE = 64 << 20
"""Bytes of memory up to which counting or dropping pages is done in the event
loop: it goes through 10 GiB a second (measured)."""

_MANY = 32
"""Backends up to which counting is done there, too: half a millisecond."""

_CELLS = 256
"""Parts of which x-memdev-map tells, unless it is asked for another number."""

_MAX_CELLS = 4096
"""The most that it tells of: a few system calls each, and 300 KiB of JSON."""

_SHORT = 1 << 20
"""Bytes up to which a copy is soon made."""

_PIECE = 144 << 10
"""Bytes written as base64, or read from it, in one go: half a millisecond. A multiple of 3.
What is longer is read piece by piece, as its client takes it: one that does not read has
no more made for it."""


async def x_memdev_read(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`x-memdev-read`: bytes of a backend's memory."""
    from memd.hostmem import access

    id, offset, length = args["id"], args["offset"], args["length"]
    backend, region = find_backend(daemon, id)
    access.check_length(length, "length")
    access.check_range(id, backend.size, offset, length)
    if args.get("descriptor"):
        descriptor = take_descriptor(session)
        try:
            to = access.InMemfd(descriptor.fd, length, to_read=False)
            work = partial(access.read_to, region, id, offset, to)
            on = region.waits_on | SHARED_MEMORY
            await region.job(work, on=on, heavy=length > _SHORT)
        finally:
            descriptor.close()
        return {}

    def text(at: int) -> bytes:
        data = access.read(region, id, at, min(_PIECE, offset + length - at))
        return binascii.b2a_base64(data, newline=False)

    if length <= _PIECE:
        short = partial(text, offset)
        data = await region.job(short) if access.may_wait(region, length) else short()
        return Encoded(b'{"data": "%s"}' % data)

    def check() -> None:
        access.check_readable(region, id, offset, length)
        # Until the last piece is read.
        region.pin()

    def texts() -> Iterator[bytes | Job[bytes]]:
        for at in range(offset, offset + length, _PIECE):
            on = region.waits_on
            yield Job(partial(text, at), on=on) if on else text(at)

    await region.job(check, heavy=length > _SHORT)
    end = Job(region.unpin, on=region.waits_on, patience=0)
    return Pieces("data", texts(), end, lambda: region.closed)


async def x_memdev_write(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`x-memdev-write`: write to a backend's memory."""
    from memd.hostmem import access

    id, offset, text = args["id"], args["offset"], args.get("data", "")
    backend, region = find_backend(daemon, id)
    if "length" in args:
        if text:
            raise QMPError("Parameter 'length' is for what comes in a memfd, in place of 'data'")
        length = args["length"]
        access.check_length(length, "length")
        access.check_range(id, backend.size, offset, length)
        descriptor = take_descriptor(session)
        try:
            data = access.InMemfd(descriptor.fd, length, to_read=True)
            work = partial(access.write, region, id, offset, data)
            on = region.locks_on
            await region.job(work, on=on, heavy=length > _SHORT, copies=length)
        finally:
            descriptor.close()
        return {}
    if "data" not in args:
        raise missing("data")
    length = decoded_length(text)
    access.check_length(length, "data")
    access.check_range(id, backend.size, offset, length)

    def write() -> None:
        access.write(region, id, offset, decode(text))

    on = region.locks_on
    if access.may_wait(region, length) or on:
        await region.job(write, on=on, heavy=length > _SHORT, copies=2 * length)
    else:
        write()
    return {}


async def x_memdev_discard(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-memdev-discard`: throw a range of a backend's memory away."""
    from memd.hostmem import discard

    id, offset, length = args["id"], args["offset"], args["length"]
    backend, region = find_backend(daemon, id)
    discard.check(region, id, offset, length)
    daemon.machine.check_private_discard(backend)
    if discard.may_wait(region, length):
        work = partial(discard.discard, region, id, offset, length)
        await region.job(work, on=region.locks_on, heavy=length > _LARGE)
    else:
        discard.discard(region, id, offset, length)
    return {}


async def x_memdev_stat(daemon: Daemon, args: JSONObject) -> Encoded:
    """`x-memdev-stat`: what backends take."""
    if "id" in args:
        found = [find_backend(daemon, args["id"])]
    else:
        found = [(each, each.region) for each in backends(daemon) if each.region is not None]
    regions = [region for _backend, region in found]
    optional = [_optional(backend) for backend, _region in found]

    def stat() -> Encoded:
        from memd.hostmem.usage import usage

        with refusing("cannot tell what memory is used"):
            taken = usage(regions)
        rows: list[JSON] = [
            {
                "id": backend.name,
                "qom-type": backend.qom_type.name,
                "size": backend.size,
                "page-size": region.page_size,
                "rom": not region.writable,
                "share": region.shared,
                "resident": use.resident,
                "private-dirty": use.private_dirty,
                "swapped": use.swapped,
                "exports": region.exports,
                "nodes": [{"node": node, "bytes": size} for node, size in use.nodes],
                **more,
            }
            for (backend, region), use, more in zip(found, taken, optional, strict=True)
        ]
        return Encoded(encode(rows).rstrip())

    if len(regions) > _MANY or sum(region.length for region in regions) > _LARGE:
        from memd.hostmem.region import job_on

        # No file system is asked.
        return await job_on(regions, stat, on=MEMORY)
    return stat()


def _optional(backend: MemoryBackend) -> JSONObject:
    """The device or machine that has it, if any, and whether it is kept over a restart."""
    user = backend.mapped_by
    found: JSONObject = {} if user is None else {"mapped-by": backend.tree.path_of(user)}
    if backend.kept is not None:
        found["kept"] = backend.kept
    return found


async def x_memdev_map(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-memdev-map`: how a backend is mapped, and what each part of it takes."""
    from memd.hostmem import picture
    from memd.hostmem.access import check_range, check_whole_pages

    id, offset, count = args["id"], args.get("offset", 0), args.get("cells", _CELLS)
    _backend, region = find_backend(daemon, id)
    length = args.get("length", max(0, region.length - offset))
    check_range(id, region.length, offset, length)
    if not 0 < count <= _MAX_CELLS:
        raise QMPError(f"Parameter 'cells' expects a number from 1 to {_MAX_CELLS}")
    check_whole_pages(region, id, offset, length)

    def look() -> JSON:
        size = picture.cell_size(region, length, count)
        with refusing("cannot tell what memory is used"):
            found = picture.cells(region, offset, length, size)
            mapping = picture.mapping(region)
        return {
            "offset": offset,
            "length": length,
            "page-size": region.page_size,
            "cell-size": size,
            "cells": [
                {
                    "resident": each.resident,
                    "private-dirty": each.private_dirty,
                    "swapped": each.swapped,
                    "huge": each.huge,
                }
                for each in found
            ],
            "mapping": mapping,
        }

    return await region.job(look, heavy=length > _LARGE)


async def x_memdev_export(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`x-memdev-export`: hand a backend's descriptor out."""
    from memd.hostmem import export

    if session.peer is None:
        text = "this connection carries no descriptors: x-memdev-export needs a UNIX socket"
        raise QMPError(text)
    session.check_descriptor_to_send()
    id = args["id"]
    backend, region = find_backend(daemon, id)
    writable = args.get("writable", region.writable)

    def work() -> tuple[int, str]:
        return export.export(region, id, writable), export.path_of(region)

    opened = region.opened
    # What was opened by a name may have become another user's, too, or lead elsewhere by now.
    if opened is None or not (region.waits_on or opened.links):
        fd, path = work()
    else:
        fd, path = await region.job(work, on=region.locks_on)
    try:
        with daemon.tree.objects.recorded(backend):
            region.exports += 1
    except BaseException:
        from memd.hostmem.closing import close

        close(fd)
        raise
    value = {
        "size": backend.size,
        "offset": region.offset,
        "page-size": region.page_size,
        "writable": writable,
        "path": path,
    }
    return Outcome(value, fds=(fd,))


async def x_memdev_save(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-memdev-save`: a backend's present content as a file."""
    from memd.backends.allocation import progress_of
    from memd.hostmem.save import Saving, save

    id, filename, replace = args["id"], args["filename"], args.get("replace", True)
    _backend, region = find_backend(daemon, id)
    saving = Saving()

    def work() -> None:
        save(region, id, filename, saving, replace=replace)

    def progress() -> Event:
        return progress_of(id, saving.done, region.length)

    on = region.locks_on | daemon.tree.host.waits_on(filename)
    await region.job(work, on=on, heavy=region.length > _SHORT, progress=progress)
    return {}


async def x_hugepage_query(daemon: Daemon, args: JSONObject) -> list[JSONObject]:
    """`x-hugepage-query`: the huge pages, and what memory may claim of them."""
    return await Job(daemon.tree.ledger.rows)


def x_pool_query(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`x-pool-query`: how the pools are."""
    pools = daemon.tree.objects.pools
    return [] if pools is None else pools.describe()


def x_memdev_lost(daemon: Daemon, args: JSONObject) -> list[JSON]:
    """`x-memdev-lost`: what could not be kept over a restart."""
    return list(daemon.lost.values())


def decoded_length(text: str) -> int:
    """How many bytes a text in base64 holds, if it is base64."""
    return max(0, len(text) // 4 * 3 - text.endswith("=") - text.endswith("=="))


def decode(text: str) -> bytes:
    """Bytes of their one spelling in base64 (RFC 4648): padded, nothing else in between.

    Piece by piece: others have their turn in between.

    Raises:
        QMPError: it is not base64.
    """
    step = _PIECE // 3 * 4
    pieces = [_decode_piece(text[at : at + step]) for at in range(0, len(text), step)]
    # Padding ends it all.
    if any(len(piece) != _PIECE for piece in pieces[:-1]):
        raise _not_base64()
    return b"".join(pieces)


def _decode_piece(text: str) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
        # The bits left over at the end have to be 0.
        last = binascii.b2a_base64(data[(len(text) - 4) // 4 * 3 :], newline=False)
        exact = last == text[-4:].encode("ascii")
    except ValueError:
        exact = False
    if not exact:
        raise _not_base64()
    return data


def _not_base64() -> QMPError:
    return QMPError("Parameter 'data' expects base64")


def find_backend(daemon: Daemon, id: str) -> tuple[MemoryBackend, Region]:
    """A memory backend and its memory.

    Raises:
        QMPError: there is none of that id.
    """
    backend = daemon.tree.objects.get(id)
    if backend is None:
        # What carries memory may carry as long an id, and an error is cut.
        raise device_not_found(id[:MOST_TEXT])
    if not isinstance(backend, MemoryBackend) or backend.region is None:
        raise QMPError(f"object '{id}' is not a memory backend")
    return backend, backend.region
