"""A template made of a machine that stands: its stream is taken, its memory copied, both stored."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON
from memd.pages.capture import capture
from memd.pages.manifest import Block
from memd.pages.recording import PAGE, Recording, parse
from memd.work import Event, Job

if TYPE_CHECKING:
    from memd.pages.manifest import Manifest
    from memd.pages.store import Store
    from memd.pages.writer import Writer

Emit = Callable[[tuple[Event, ...]], None]

PATIENCE = 300.0
"""Seconds in which a machine has to begin to send, and then to go on."""

_LARGEST = 256 << 20
"""Bytes of a stream at most: 0.3 to 1 MB without video memory, and 16 to 64 MB of that.
More is the main memory, which should not be in it."""

_READ = 1 << 20


class Memory:
    """The memory that a template is made of.

    Args:
        fd: its file, which is owned by this.
        offset: where it begins there, in bytes.
        size: bytes of it.
        page_size: of its pages, in bytes.
    """

    def __init__(self, fd: int, offset: int, size: int, page_size: int) -> None:
        self.fd = fd
        self.offset = offset
        self.size = size
        self.page_size = page_size

    def close(self) -> None:
        """Close its file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class MachineSave:
    """A template that is being made of a machine.

    Args:
        store: where it will be.
        name: what it will be called.
        base: a template that it is much like, or None.
        memory: the machine's, which is closed with `close`.
    """

    def __init__(self, store: Store, name: str, base: str | None, memory: Memory) -> None:
        self._store = store
        self._name = name
        self._base = base
        self._memory = memory
        self._socket: socket.socket | None = None
        self._path = ""
        self._writer: Writer | None = None
        self._copy = -1
        self._done = 0

    def begin(self) -> None:
        """See that it can be made; in a thread.

        Raises:
            QMPError: it can't.
        """
        self._writer = self._store.begin(self._name, self._base)
        self._writer.set_page_size(self._memory.page_size)

    def listen(self) -> str:
        """Listen for the machine's stream; gives the address to `migrate` to. In a thread.

        Raises:
            QMPError: the socket can't be made.
        """
        directory = os.path.join(self._store.directory, "incoming")
        self._path = os.path.join(directory, self._name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # What a daemon that was killed has left; nobody else makes this template.
            if os.path.lexists(self._path):
                os.unlink(self._path)
            self._socket.bind(self._path)
            self._socket.listen(1)
        except OSError as failed:
            reason = failed.strerror or failed
            raise QMPError(f"cannot listen on {self._path}: {reason}") from None
        self._socket.settimeout(PATIENCE)
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
            told |= await self._make(await Job(self._receive) if data is None else data, emit)
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
        recording = await Job(lambda: parse(data, self._memory.size))
        began = time.monotonic()
        shared = await Job(self._capture, progress=self._progress)
        taken = {"name": self._name, "shared": shared, "seconds": time.monotonic() - began}
        emit((Event("X_TEMPLATE_COPIED", taken),))
        self._done = 0
        manifest = await Job(lambda: self._store_copy(data, recording), progress=self._progress)
        usage = await Job(lambda: self._store.usage(self._name))
        return {"digest": manifest.digest, "size": manifest.size, "stored": usage.stored}

    def close(self) -> None:
        """Give up what is not done, and listen no more; in a thread."""
        if self._writer is not None:
            self._writer.abort()
        if self._copy >= 0:
            os.close(self._copy)
            self._copy = -1
        self._memory.close()
        if self._socket is not None:
            self._socket.close()
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def _receive(self) -> bytes:
        assert self._socket is not None
        try:
            source, _address = self._socket.accept()
        except TimeoutError:
            raise QMPError(f"no migration came to {self._path} within {PATIENCE:.0f} s") from None
        parts: list[bytes] = []
        left = _LARGEST
        with source:
            source.settimeout(PATIENCE)
            try:
                while data := source.recv(_READ):
                    parts.append(data)
                    left -= len(data)
                    if left < 0:
                        raise QMPError(
                            f"the migration has more than {_LARGEST} bytes: the machine's memory is"
                            " in it"
                        )
            except OSError as failed:
                raise QMPError(f"the migration was cut off: {failed}") from None
        return b"".join(parts)

    def _capture(self) -> bool:
        memory = self._memory
        self._copy, shared = capture(
            memory.fd, memory.offset, memory.size, self._store.directory, self._see
        )
        return shared

    def _store_copy(self, data: bytes, recording: Recording) -> Manifest:
        assert self._writer is not None
        self._writer.add_file(self._copy, self._memory.size, self._see)
        page_size = self._memory.page_size
        self._writer.set_devices(
            data,
            machine=recording.machine,
            memory=_text(recording.memory.name),
            blocks=[
                Block(
                    _text(block.name),
                    block.length,
                    page_size if block is recording.memory else PAGE,
                )
                for block in recording.blocks
            ],
        )
        return self._writer.commit()

    def _see(self, done: int) -> None:
        self._done = done

    def _progress(self) -> Event:
        data = {"name": self._name, "done": self._done, "total": self._memory.size}
        return Event("X_TEMPLATE_PROGRESS", data)


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
