"""A template made of a machine that stands: its stream is taken, its memory copied, both stored."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from memd.errors import QMPError, refusing
from memd.hostmem.sockets import close_socket, keep_urgent, receive_soon
from memd.json_types import JSON
from memd.pages.blobs import remove
from memd.pages.capture import RamFile, capture
from memd.pages.manifest import TemplateBlock
from memd.pages.progress import Progress
from memd.pages.recording import LARGEST, PAGE, Recording, block_name, parse
from memd.work import Completion, Emit, Event, Job

if TYPE_CHECKING:
    from memd.pages.manifest import Manifest
    from memd.pages.store import Store
    from memd.pages.writer import Writer
    from memd.places import Share

PATIENCE = 300.0
"""Seconds in which a machine has to begin to send, and then to go on."""

_READ = 1 << 20


class MachineSave:
    """A template that is being made of a machine.

    Args:
        store: where it will be.
        name: what it will be called.
        share: what it counts as until it is closed.
        base: a template that it is much like, or None.
        memories: the machine's, by the names of their blocks in its stream; "" for the only
            one there is. They are closed with `close`.
        qemu_version: of its QEMU, "" where that is not known.
    """

    _writer: Writer
    _socket: socket.socket
    _path: str
    _copy: int

    def __init__(
        self,
        store: Store,
        name: str,
        share: Share,
        base: str | None,
        memories: Mapping[str, RamFile],
        qemu_version: str = "",
    ) -> None:
        self._store = store
        self._name = name
        self._base = base
        self._memories = memories
        self._size = sum(memory.size for memory in memories.values())
        self._qemu_version = qemu_version
        self._progress = Progress(name)
        # What is done by `close`.
        self._undo = ExitStack()
        self._undo.callback(share.end)
        for memory in memories.values():
            self._undo.callback(memory.close)

    def begin(self) -> None:
        """See that it can be made; in a thread.

        Raises:
            QMPError: it can't.
        """
        self._writer = self._store.begin(self._name, self._base)
        self._undo.callback(self._writer.close)

    def listen(self) -> str:
        """Listen for the machine's stream; gives the address to `migrate` to. In a thread.

        Raises:
            QMPError: the socket can't be made.
        """
        directory = os.path.join(self._store.directory, "incoming")
        self._path = os.path.join(directory, self._name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._undo.enter_context(self._socket)
        self._undo.callback(self._unlink)
        with refusing(f"cannot listen on {self._path}"):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # What a daemon that was killed has left; nobody else makes this template.
            remove(self._path)
            self._socket.bind(self._path)
            self._socket.listen(1)
        self._socket.setblocking(False)
        return f"unix:{self._path}"

    async def run(self, emit: Emit, data: bytes | None = None) -> None:
        """Make the template of a machine that stands; clients are told the outcome.

        Args:
            data: the machine's stream; None where it is yet to come.

        Raises:
            QMPError: nothing came of it. Clients are told that, too, where they wait for it.
        """
        told: dict[str, JSON] = {"name": self._name}
        failure: QMPError | None = None
        try:
            told |= await self._make(await self._receive() if data is None else data, emit)
        except QMPError as error:
            failure = error
            told["error"] = error.desc
        finally:
            # The name is free again when they are told.
            await Job(self.close)
        if failure is None or data is None:
            emit((Event("X_TEMPLATE_SAVED", told),))
        if failure is not None:
            raise failure

    async def _make(self, data: bytes, emit: Emit) -> dict[str, JSON]:
        recording = await Job(lambda: parse(data, self._size))
        memories = self._in_order(recording)
        began = time.monotonic()
        shared = await Job(lambda: self._capture(memories), progress=self._progress.event)
        taken = {"name": self._name, "shared": shared, "seconds": time.monotonic() - began}
        emit((Event("X_TEMPLATE_COPIED", taken),))
        self._see(0)
        manifest = await Job(
            lambda: self._store_copy(data, recording, memories), progress=self._progress.event
        )
        usage = await Job(lambda: self._store.usage(self._name))
        return {"digest": manifest.digest, "size": manifest.size, "stored": usage.stored}

    def close(self) -> None:
        """Give up what is not done, and listen no more; in a thread."""
        self._undo.close()

    def _unlink(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)

    async def _receive(self) -> bytes:
        """The stream, which is awaited on the event loop: a thread would be held for minutes.

        Raises:
            QMPError: it does not come.
        """
        came = Completion()
        reading = asyncio.ensure_future(self._read())
        reading.add_done_callback(lambda _done: came.set())
        await came
        return reading.result()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            source, _address = await asyncio.wait_for(loop.sock_accept(self._socket), PATIENCE)
        except TimeoutError:
            raise QMPError(f"no migration came to {self._path} within {PATIENCE:.0f} s") from None
        stream = bytearray()
        keep_urgent(source)
        try:
            try:
                while len(stream) <= LARGEST:
                    data = await asyncio.wait_for(receive_soon(source, _READ), PATIENCE)
                    if not data:
                        break
                    stream += data
            except OSError as failed:
                raise QMPError(f"the migration was cut off: {failed}") from None
        finally:
            close_socket(source)
        return bytes(stream)

    def _in_order(self, recording: Recording) -> list[RamFile]:
        """The memories as the stream's blocks follow each other.

        Raises:
            QMPError: the stream has others.
        """
        there = [block_name(block.name) for block in recording.memory]
        if len(there) == len(self._memories) == 1:
            return list(self._memories.values())
        # A block may have its backend's path for a name.
        found = [self._memories.get(name.rpartition("/")[2]) for name in there]
        memories = [memory for memory in found if memory is not None]
        if len(memories) < len(there) or len(there) < len(self._memories):
            given = ", ".join(filter(None, self._memories)) or "one without a name"
            raise QMPError(
                f"the machine's memory has the blocks {', '.join(there)}; given is {given}"
            )
        for block, memory in zip(recording.memory, memories, strict=True):
            if block.length != memory.size:
                raise QMPError(
                    f"the block {block_name(block.name)} has {block.length} bytes, and what is"
                    f" given for it {memory.size}"
                )
        return memories

    def _capture(self, memories: Sequence[RamFile]) -> bool:
        self._copy, shared = capture(memories, self._store.directory, self._see)
        self._undo.callback(os.close, self._copy)
        return shared

    def _store_copy(
        self, data: bytes, recording: Recording, memories: Sequence[RamFile]
    ) -> Manifest:
        left, at, blocks = iter(memories), 0, []
        for block in recording.blocks:
            page_size, offset = PAGE, None
            if block in recording.memory:
                page_size, offset = next(left).page_size, at
                at += block.length
            blocks.append(TemplateBlock(block_name(block.name), block.length, page_size, offset))
        return self._writer.store(
            self._copy,
            self._size,
            self._see,
            devices=data,
            page_size=memories[0].page_size,
            machine=recording.machine,
            qemu_version=self._qemu_version,
            blocks=tuple(blocks),
        )

    def _see(self, done: int) -> None:
        self._progress.at(done, self._size)
