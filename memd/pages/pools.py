"""Pools: backends' memory that is made before an `object-add` asks for it (`--pool`).

Nobody waits for it. A process of its own (`filler`) populates shared memory; after
that the event loop only maps its pages. It makes private memory by itself, since
nobody else can, in steps so short that a client does not notice: a thread in this
address space would make the loop's own system calls dearer, and one of idle priority
holds the address space while others need it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

from memd.backends.allocation import realize
from memd.backends.base import MemoryBackend
from memd.errors import QMPError, answer_to
from memd.hostmem import capacity, cgroup, libc
from memd.hostmem.populate import populate_range
from memd.hostmem.region import Region
from memd.json_types import JSON, JSONObject
from memd.pages import processes
from memd.pages.servers import InThread
from memd.qom import Tree, UserCreatable
from memd.sizes import size_text

RESERVE = 512 << 20
"""Bytes of the host's memory that refilling leaves free, unless it is told otherwise."""

SLICE = 64 << 20
"""Bytes after which it is looked whether there may be more."""

STEP = 0.00025
"""Seconds of a step on the event loop."""

PAUSE = 12
"""For how many times a step's length the loop is left alone after it."""

PIECE = 128 << 10
"""Bytes made by one system call of a step."""

LARGEST_PAGE = 32 << 20
"""Bytes of a page that the loop may make: a larger one takes the kernel too long."""

RESPITE = 0.01
"""Seconds between an answer and the refilling that it brings about, in which the client may
have the processor that the daemon has."""

RETRY = 1.0
"""Seconds until refilling that has stopped is tried again."""

_HOW = frozenset(("prealloc-threads", "prealloc-context"))
"""Properties that only say how pages are made."""

log = logging.getLogger("memd")


class Pool:
    """Memory of one kind.

    Attributes:
        options: the arguments of object-add, but for the id.
        properties: with which it is known: those that differ from the defaults.
        size: of one, in bytes.
        descriptors: that one keeps open.
        count: how many are to be ready.
        ready: those that are.
        filled: bytes of the next one that are there; None while none is being made.
        taken: how many objects took one.
        missed: how many would have, had one been ready.
        stopped: why it is not refilled, or None.
    """

    def __init__(self, options: JSONObject, backend: MemoryBackend) -> None:
        self.options = options
        self.properties = backend.describe()["properties"]
        self.size = backend.size
        self.descriptors = backend.descriptors
        self.count = 0
        self.ready: list[Region] = []
        self.filled: int | None = None
        self.taken = 0
        self.missed = 0
        self.stopped: str | None = None

    def describe(self) -> JSONObject:
        """QAPI's `MemdevPool`."""
        return {
            "qom-type": self.options["qom-type"],
            "properties": self.properties,
            **{name: getattr(self, name) for name in ("count", "taken", "missed")},
            "ready": len(self.ready),
            "filling": int(self.filled is not None),
            "bytes": len(self.ready) * self.size + (self.filled or 0),
            **({} if self.stopped is None else {"stopped": self.stopped}),
        }


class Pools:
    """All pools of a daemon.

    Args:
        tree: whose objects take from them.
        specs: the arguments of object-add without an id, and how many are to be ready.
        reserve: bytes of the host's memory that are left free.
        in_thread: runs what may wait.
        changed: told when there is something new to tell (`status`).

    Raises:
        QMPError: there can't be such a backend.
    """

    def __init__(
        self,
        tree: Tree,
        specs: Iterable[tuple[JSONObject, int]],
        reserve: int,
        in_thread: InThread,
        changed: Callable[[], None],
    ) -> None:
        self._tree = tree
        self._reserve = reserve
        self._in_thread = in_thread
        self._changed = changed
        self._pools: dict[str, Pool] = {}
        for options, count in specs:
            backend = self._prepare(options)
            backend.check()
            pool = self._pools.setdefault(_key(backend), Pool(options, backend))
            pool.count += count
        self._sock: socket.socket | None = None
        self._wake = asyncio.Event()
        self._task = asyncio.ensure_future(self._refill())

    def close(self) -> None:
        """Stop filling. Ready memory is freed with the daemon."""
        self._task.cancel()
        self._end_filler()

    # What objects ask

    def _find(self, obj: UserCreatable) -> Pool | None:
        wanted = isinstance(obj, MemoryBackend) and obj.prealloc
        return self._pools.get(_key(obj)) if wanted else None

    def has(self, obj: UserCreatable) -> bool | None:
        """Whether memory is ready for an object; None where no pool is for such."""
        pool = self._find(obj)
        return None if pool is None else bool(pool.ready)

    def take(self, obj: UserCreatable) -> Region | None:
        """Memory for an object, which owns it from now on; None where none is ready."""
        pool = self._find(obj)
        if pool is None:
            return None
        if not pool.ready:
            pool.missed += 1
            return None
        pool.taken += 1
        self._tree.objects.quota.set_aside(-pool.size, -pool.descriptors)
        self._wake.set()
        return pool.ready.pop()

    def describe(self) -> list[JSON]:
        """The answer of `x-pool-query`."""
        return [pool.describe() for pool in self._pools.values()]

    def status(self) -> str:
        """How they are, such as "pools: 3 of 4 ready"."""
        pools = self._pools.values()
        ready = sum(len(pool.ready) for pool in pools)
        text = f"pools: {ready} of {sum(pool.count for pool in pools)} ready"
        reasons = dict.fromkeys(pool.stopped for pool in pools if pool.stopped)
        return f"{text}, refilling has stopped: {'; '.join(reasons)}" if reasons else text

    # Refilling

    async def _refill(self) -> None:
        while True:
            self._wake.clear()
            lacking = [pool for pool in self._pools.values() if len(pool.ready) < pool.count]
            made = [await self._add(pool) for pool in lacking]
            if not lacking:
                await self._wake.wait()
                await asyncio.sleep(RESPITE)
            elif not any(made):
                await asyncio.sleep(RETRY)

    async def _add(self, pool: Pool) -> bool:
        """Make one more, or say why there can't be one; gives whether it is there."""
        try:
            pool.ready.append(await self._make(pool))
            reason = None
        except OSError as failed:
            reason = failed.strerror
        except Exception as failed:
            reason = answer_to(failed, "refilling a pool").desc
        finally:
            pool.filled = None
        self._changed()
        if reason != pool.stopped:
            pool.stopped = reason
            what = f"pool of {pool.options['qom-type']}, {size_text(pool.size)}"
            if reason is None:
                log.info("%s: refilling goes on", what)
            else:
                log.warning("%s: refilling has stopped: %s", what, reason)
        return reason is None

    async def _make(self, pool: Pool) -> Region:
        """Memory as an object's would be, populated."""
        backend, quota = self._prepare(pool.options), self._tree.objects.quota
        if 0 < quota.max_memory < quota.memory + pool.size:
            raise QMPError("--max-memory allows no more")
        # Its pages are made apart.
        backend.prealloc = False
        quota.set_aside(pool.size, pool.descriptors)
        region = None
        try:
            make = partial(realize, backend, self._tree.host)
            region = await self._in_thread(make) if backend.may_block() else make()
            self._check(region, region.length)
            if region.shared:
                await self._fill(pool, backend, region)
            await self._map(pool, region)
        except Exception:
            quota.set_aside(-pool.size, -pool.descriptors)
            if region is not None:
                # To unmap much takes long.
                await self._in_thread(region.close)
            raise
        return region

    def _check(self, region: Region, length: int) -> None:
        """Raise `QMPError` where so many bytes more are not to be taken."""
        if region.page_size > libc.PAGE_SIZE:
            if not region.shared and region.page_size > LARGEST_PAGE:
                size = size_text(region.page_size)
                raise QMPError(f"private memory in pages of {size} can't be made in short steps")
            return
        left = cgroup.memory_left(cgroup.groups())
        if left is not None and left < length + cgroup.MARGIN:
            raise QMPError("the control group allows no more memory")
        if capacity.meminfo().get("MemAvailable", 0) < length + self._reserve:
            raise QMPError("the host has no more memory than --pool-reserve leaves free")

    async def _map(self, pool: Pool, region: Region) -> None:
        """Make the pages of the mapping, on the loop, step by step."""
        piece, at, checked = max(PIECE, region.page_size), 0, SLICE
        while at < region.length:
            begin = monotonic()
            while at < region.length and monotonic() < begin + STEP:
                end = min(at + piece, region.length)
                if region.shared:
                    # The pages are there: to read maps many at once, for writing too.
                    region.host.advise(region.address + at, end - at, libc.MADV_POPULATE_READ)
                else:
                    populate_range(region, at, end)
                at = end
            if not region.shared:
                pool.filled = at
                if at >= checked:
                    self._check(region, min(SLICE, region.length - at))
                    checked += SLICE
            await asyncio.sleep(PAUSE * (monotonic() - begin))

    async def _fill(self, pool: Pool, backend: MemoryBackend, region: Region) -> None:
        """Have the pages of the file made."""
        size = max(SLICE, region.page_size)
        for at in range(0, region.length, size):
            length = min(size, region.length - at)
            self._check(region, length)
            spec = region.spec._replace(size=length, length=length, offset=at)
            await self._ask(region, [spec, backend.policy, backend.host_nodes])
            pool.filled = at + length

    async def _ask(self, region: Region, request: list[Any]) -> None:
        """Have the process populate a part of a file; raises `OSError` or `QMPError`."""
        sock = self._sock
        if sock is None:
            start = partial(processes.start, "filler", kind=socket.SOCK_SEQPACKET)
            sock, _process = await self._in_thread(start)
            sock.setblocking(False)
            self._sock = sock
        try:
            socket.send_fds(sock, [json.dumps(request).encode()], [region.fd])
            answer = await asyncio.get_running_loop().sock_recv(sock, 16)
        except BaseException:
            self._end_filler()
            raise
        if not answer:
            self._end_filler()
            raise QMPError("the process that populates memory has ended")
        if number := int(answer):
            raise libc.os_error(number)

    def _end_filler(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _prepare(self, options: JSONObject) -> MemoryBackend:
        backend = self._tree.objects.prepare({**options, "id": "pool"})
        assert isinstance(backend, MemoryBackend)
        return backend


def _key(backend: UserCreatable) -> str:
    """A text that is the same for backends whose memory is."""
    properties = backend.describe()["properties"].items()
    what = sorted((name, value) for name, value in properties if name not in _HOW)
    return json.dumps([backend.qom_type.name, what])
