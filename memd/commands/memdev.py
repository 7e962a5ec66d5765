"""Commands about the memory of backends: what only memd has (`schemas/memd.json`)."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

from memd.backends.base import MemoryBackend
from memd.backends.file import FileBackend
from memd.errors import QMPError, device_not_found
from memd.outcome import JSON, Blocking, Constant, Event, Outcome

if TYPE_CHECKING:
    # What touches the kernel is imported by the first command that needs it.
    from collections.abc import Callable

    from memd.commands.daemon import Daemon
    from memd.hostmem.region import Region

Arguments = dict[str, Any]

_LARGE = 64 << 20
"""Bytes of memory up to which counting or dropping pages is done in the event
loop: it goes through 10 GiB a second (measured)."""

_PRIVATE_DISCARD = (
    "discarding memory of '%s', a private mapping of a file, changes the file for everybody else"
)


def x_memdev_read(daemon: Daemon, args: Arguments) -> JSON | Blocking:
    """`x-memdev-read`: bytes of a backend's memory."""
    from memd.hostmem import access

    id, offset, length = args["id"], args["offset"], args["length"]
    backend, region = _find(daemon, id)
    access.check_length(length, "length")
    access.check_range(id, backend.size, offset, length)

    def read() -> bytes:
        return binascii.b2a_base64(access.read(region, id, offset, length), newline=False)

    def read_encoded() -> Constant:
        data = read()
        # Made here, since going through megabytes would keep the event loop.
        value = Constant({"data": data.decode("ascii")})
        value.encoded = b'{"data": "%s"}' % data
        return value

    if access.may_wait(region, offset, length, write=False):
        return _beside([region], read_encoded)
    return {"data": read().decode("ascii")}


def x_memdev_write(daemon: Daemon, args: Arguments) -> JSON | Blocking:
    """`x-memdev-write`: write to a backend's memory."""
    from memd.hostmem import access

    id, offset, text = args["id"], args["offset"], args["data"]
    backend, region = _find(daemon, id)
    length = decoded_length(text)
    access.check_length(length, "data")
    access.check_range(id, backend.size, offset, length)

    def write() -> JSON:
        access.write(region, id, offset, decode(text))
        return {}

    if access.may_wait(region, offset, length, write=True):
        return _beside([region], write)
    return write()


def x_memdev_discard(daemon: Daemon, args: Arguments) -> JSON | Blocking:
    """`x-memdev-discard`: throw a range of a backend's memory away."""
    from memd.hostmem import discard

    id, offset, length = args["id"], args["offset"], args["length"]
    backend, region = _find(daemon, id)
    discard.check(region, id, offset, length)
    if isinstance(backend, FileBackend) and not region.shared:
        if daemon.deny_private_discard:
            raise QMPError(
                f"cannot discard memory of '{id}': it is a private mapping of a file,"
                " and --deny-private-discard is given"
            )
        if not daemon.private_discard_seen:
            daemon.private_discard_seen = True
            from memd.backends.making import log

            log(_PRIVATE_DISCARD % id)

    def work() -> JSON:
        discard.discard(region, id, offset, length)
        return {}

    if length > _LARGE or isinstance(backend, FileBackend):
        return _beside([region], work)
    return work()


def x_memdev_stat(daemon: Daemon, args: Arguments) -> JSON | Blocking:
    """`x-memdev-stat`: what backends take."""
    if "id" in args:
        found = [_find(daemon, args["id"])]
    else:
        found = [
            (backend, backend.region)
            for backend in (daemon.tree.objects.children or {}).values()
            if isinstance(backend, MemoryBackend) and backend.region is not None
        ]
    regions = [region for _backend, region in found]

    def stat() -> JSON:
        from memd.hostmem.usage import usage

        try:
            taken = usage(regions)
        except OSError as failed:
            raise QMPError(f"cannot tell what memory is used: {failed.strerror}") from None
        return [
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
            }
            for (backend, region), use in zip(found, taken, strict=True)
        ]

    if sum(region.length for region in regions) > _LARGE:
        return _beside(regions, stat)
    return stat()


def x_memdev_export(daemon: Daemon, args: Arguments) -> JSON:
    """`x-memdev-export`: hand a backend's descriptor out."""
    from memd.hostmem import export

    id = args["id"]
    backend, region = _find(daemon, id)
    writable = args.get("writable", region.writable)
    path = export.path_of(region) if region.fd >= 0 else ""
    fd = export.export(region, id, writable)
    value = {
        "size": backend.size,
        "offset": region.offset,
        "page-size": region.page_size,
        "writable": writable,
        "path": path,
    }
    return Outcome(value, fds=(fd,))


def x_memdev_save(daemon: Daemon, args: Arguments) -> Blocking:
    """`x-memdev-save`: a backend's present content as a file."""
    from memd.hostmem.save import Saving, save

    id, filename = args["id"], args["filename"]
    _backend, region = _find(daemon, id)
    saving = Saving()

    def work() -> JSON:
        save(region, id, filename, saving)
        return {}

    def progress() -> Event:
        path = f"/objects/{id}"
        data = {"id": id, "qom-path": path, "done": saving.done, "total": region.length}
        return Event("X_MEMDEV_PROGRESS", data)

    blocking = _beside([region], work)
    blocking.progress = progress
    return blocking


def decoded_length(text: str) -> int:
    """How many bytes a text in base64 holds, if it is base64."""
    return max(0, len(text) // 4 * 3 - text.endswith("=") - text.endswith("=="))


def decode(text: str) -> bytes:
    """Bytes of their one spelling in base64 (RFC 4648): padded, nothing else in between.

    Raises:
        QMPError: it is not base64.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
        # The bits left over at the end have to be 0.
        last = binascii.b2a_base64(data[(len(text) - 4) // 4 * 3 :], newline=False)
        exact = last == text[-4:].encode("ascii")
    except ValueError:
        exact = False
    if not exact:
        raise QMPError("Parameter 'data' expects base64")
    return data


def _find(daemon: Daemon, id: str) -> tuple[MemoryBackend, Region]:
    """A memory backend and its memory."""
    backend = daemon.tree.user_object(id)
    if backend is None:
        raise device_not_found(f"Device '{id}' not found")
    if not isinstance(backend, MemoryBackend) or backend.region is None:
        raise QMPError(f"object '{id}' is not a memory backend")
    return backend, backend.region


def _beside(regions: list[Region], work: Callable[[], JSON]) -> Blocking:
    """Do it beside the event loop; the memory stays mapped meanwhile."""
    for region in regions:
        region.pin()

    def pinned() -> JSON:
        try:
            return work()
        finally:
            for region in regions:
                region.unpin()

    return Blocking(pinned, lambda value: value)
