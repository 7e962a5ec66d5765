"""`dump-guest-memory`: a machine's memory as an ELF core file.

The content is the backends' own, at the addresses that it has in the machine. There is
no state of CPUs: each has a note without content. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.backends.base import MemoryBackend
from memd.devices.area import ram_ranges
from memd.devices.machine import Machine
from memd.devices.machine_object import cpus
from memd.errors import QMPError, missing, reset_meanwhile
from memd.hostmem import cgroup, content
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.work import Event, Events, Job

if TYPE_CHECKING:
    from memd.hostmem.region import Region
    from memd.standin.channels import Channel, Opener

_HEADER = struct.Struct("<4sBBBBQHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III8s")
_PRSTATUS = 144
"""Bytes of a `prstatus` as QEMU writes it."""

_SLICE = 8 << 20
"""Bytes that a thread writes at once."""


class _Part(NamedTuple):
    """A range of a machine's addresses and the memory that is there."""

    address: int
    region: Region
    offset: int
    length: int

    def cut(self, begin: int, end: int) -> _Part | None:
        """The part of it between two addresses, or None."""
        low, high = max(begin, self.address), min(end, self.address + self.length)
        if low >= high:
            return None
        return _Part(low, self.region, self.offset + low - self.address, high - low)


class Dump:
    """The dump of a machine's memory that there is or was.

    Args:
        machine: whose memory.
    """

    _status = "none"
    _total = _done = 0
    _channel: Channel | None = None
    _given_up = False

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def close(self) -> None:
        """End the dump: the machine is no more. What waits for a file system is not waited for."""
        self._given_up = True
        if self._channel is not None:
            self._channel.interrupt()

    def query(self, args: object = None) -> JSON:
        """The value of `query-dump`."""
        return {"status": self._status, "completed": self._done, "total": self._total}

    async def start(self, args: JSONObject, opener: Opener) -> Events:
        """`dump-guest-memory`; gives the events where it is not detached.

        Raises:
            QMPError: there can't be one, or it could not be written.
        """
        kind = args.get("format", "elf")
        filtered = "begin" in args or "length" in args
        if kind != "elf" and (args["paging"] or filtered):
            raise QMPError("kdump-compressed format doesn't support paging or filter")
        if "begin" in args and "length" not in args:
            raise missing("length")
        if "length" in args and "begin" not in args:
            raise missing("begin")
        if self._status == "active":
            raise QMPError("There is a dump in process, please wait.")
        if kind != "elf":
            raise QMPError(f"memd dumps memory in the format 'elf', not '{kind}'")
        protocol, _, name = args["protocol"].partition(":")
        if protocol not in ("file", "fd") or not _:
            raise QMPError("parameter 'protocol' must start with 'file:' or 'fd:'")
        where: JSONObject = {"transport": "file", "filename": name}
        if protocol == "fd":
            where = {"transport": "socket", "type": "fd", "str": name}
        if filtered and args["length"] == 0:
            self._status = "failed"
            raise QMPError("parameter 'length' expects a non-zero size")
        before, self._status = self._status, "active"
        try:
            channel = await opener.open(where, write=True)
        except BaseException:
            self._status = before
            raise
        self._done = self._total = 0
        parts = self._parts(args.get("begin", 0), args.get("length"))
        if not parts:
            self._status = "failed"
            await Job(channel.close)
            raise QMPError("dump: no guest memory to dump")
        self._total = sum(part.length for part in parts)
        for part in parts:
            part.region.pin()
        if args.get("detach"):
            self._machine.spawn(self._run_detached(parts, channel), "a dump")
            return ()
        error = await self._run(parts, channel)
        events = self._events(error)
        if error is not None:
            self._machine.emit(events)
            raise QMPError(error)
        return events

    async def _run_detached(self, parts: list[_Part], channel: Channel) -> None:
        error = await self._run(parts, channel)
        self._machine.emit(self._events(error))

    def _events(self, error: str | None) -> Events:
        said: JSONObject = {} if error is None else {"error": error}
        return (Event("DUMP_COMPLETED", {"result": self.query(), **said}),)

    async def _run(self, parts: list[_Part], channel: Channel) -> str | None:
        """Write it; gives why it can't be."""
        error: str | None = None
        writer = _Writer(parts, len(cpus(self._machine.tree)), channel)
        try:
            while not await Job(writer.push, heavy=True):
                self._done = writer.done
                if writer.full and not self._given_up:
                    self._channel = channel
                    await channel.ready(write=True)
                if self._given_up:
                    raise reset_meanwhile()
            self._done = self._total
        except OSError as failed:
            error = f"dump: failed to save memory: {failed.strerror or failed}"
        except QMPError as given_up:
            error = given_up.desc
        finally:
            self._channel = None
            for part in parts:
                part.region.unpin()
            await Job(channel.close)
        self._status = "completed" if error is None else "failed"
        return error

    def _parts(self, begin: int, length: int | None) -> list[_Part]:
        found = []
        config, tree = self._machine.config, self._machine.tree
        names = [node.memdev for node in config.numa_nodes] or [config.memory_backend]
        ranges = ram_ranges(config)
        for name in names:
            backend = None if name is None else tree.objects.get(name.rpartition("/")[2])
            if not isinstance(backend, MemoryBackend) or backend.region is None:
                continue
            at = 0
            while at < backend.region.length and ranges:
                address, room = ranges[0]
                take = min(room, backend.region.length - at)
                found.append(_Part(address, backend.region, at, take))
                at += take
                ranges[0] = (address + take, room - take)
                if take == room:
                    del ranges[0]
        for device in self._machine.plugged:
            memory = device.memdev
            # What lasts longer than a machine is not a part of its memory.
            if memory is not None and memory.region and device.qom_type.name != "nvdimm":
                size = min(device.memory_size, memory.region.length)
                found.append(_Part(device.address, memory.region, 0, size))
        end = 1 << 64 if length is None else begin + length
        cut = [part.cut(begin, end) for part in sorted(found, key=lambda part: part.address)]
        return [part for part in cut if part is not None]


class _Writer:
    """Writes a core file, as fast as it is taken; holes of a file stay holes."""

    def __init__(self, parts: list[_Part], processors: int, channel: Channel) -> None:
        self._fd, self._sparse = channel.fd, channel.regular
        self._left: memoryview = memoryview(_headers(parts, processors))
        self._pieces = _pieces(parts)
        self.done = 0
        self.full = False

    def push(self) -> bool:
        """Write some; in a thread.

        Returns:
            Whether that was all.

        Raises:
            OSError: it can't be written.
            content.Gone: the memory can't be read.
        """
        self.full = False
        end = self.done + _SLICE
        while self.done < end:
            while self._left:
                try:
                    with cgroup.writing(self._fd, len(self._left)):
                        self._left = self._left[os.write(self._fd, self._left) :]
                except BlockingIOError:
                    self.full = True
                    return False
            piece = next(self._pieces, None)
            if piece is None:
                if self._sparse:
                    os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR))
                return True
            self.done += len(piece)
            if self._sparse and not piece.strip(b"\0"):
                os.lseek(self._fd, len(piece), os.SEEK_CUR)
            else:
                self._left = memoryview(piece)
        return False


def _pieces(parts: list[_Part]) -> Iterator[bytearray]:
    for part in parts:
        for at in range(0, part.length, content.CHUNK):
            data = bytearray(min(content.CHUNK, part.length - at))
            done, number = content.read(part.region, part.offset + at, data)
            if done < len(data):
                raise content.Gone(os.strerror(number))
            yield data


def _headers(parts: list[_Part], processors: int) -> bytes:
    note = _NOTE.pack(5, _PRSTATUS, 1, b"CORE") + bytes(_PRSTATUS)
    notes = note * processors
    at = _HEADER.size + _SEGMENT.size * (len(parts) + 1)
    header = _HEADER.pack(
        *(b"\x7fELF", 2, 1, 1, 0, 0, 4, 62, 1, 0, _HEADER.size, 0, 0),
        *(_HEADER.size, _SEGMENT.size, len(parts) + 1, 0, 0, 0),
    )
    segments = [_SEGMENT.pack(4, 0, at, 0, 0, len(notes), len(notes), 0)]
    at += len(notes)
    for part in parts:
        place = part.address
        segments.append(_SEGMENT.pack(1, 0, at, place, place, part.length, part.length, 0))
        at += part.length
    return header + b"".join(segments) + notes
