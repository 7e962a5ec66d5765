"""The client for asyncio: any number of commands under way at once."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from memd.client.conversation import (
    Answer,
    Conversation,
    Export,
    Message,
    export_arguments,
)
from memd.client.sockets import READ_SIZE, Address, Candidate, candidates, receive
from memd.client.transfers import Data, Transfers
from memd.hostmem.sockets import close_socket, keep_urgent
from memd.hostmem.sockets import receive as receive_bytes
from memd.json_types import JSON


class AsyncClient:
    """A connection that has negotiated, made by `connect`; an asynchronous context manager.

    Attributes:
        events: those that have come, to be taken by `events.get()`.
    """

    def __init__(
        self,
        sock: socket.socket,
        last: int = 0,
        *,
        most: int = sys.maxsize,
        events: bool = True,
        takes_fds: bool = True,
    ) -> None:
        """Take over a connected socket, in the running event loop; see `connect`.

        Args:
            last: the number after which requests are counted: where another process has
                negotiated, its answers may still come.
            most: bytes of a message; the connection ends at a longer one.
            events: whether events are kept.
            takes_fds: whether descriptors may come; else the connection ends at any.
        """
        self._takes_fds = takes_fds
        self._keeps_events = events
        self.events: asyncio.Queue[Message] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._conversation = Conversation(last, most)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._sending = asyncio.Lock()
        # Done once the socket takes more, while somebody waits for that.
        self._writable: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._failure: Exception | None = None
        if not takes_fds:
            keep_urgent(sock)
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        oob: bool = False,
        most: int = sys.maxsize,
        events: bool = True,
        takes_fds: bool = True,
    ) -> AsyncClient:
        """Connect and negotiate.

        Args:
            address: the path of a UNIX socket, or a (host, port).
            oob: whether commands are to be run out of band.
            most: bytes of a message; the connection ends at a longer one.
            events: whether events are kept.
            takes_fds: whether descriptors may come; else the connection ends at any.

        Raises:
            OSError: no connection can be made.
        """
        sock = await _connected(address)
        client = cls(sock, most=most, events=events, takes_fds=takes_fds)
        try:
            await client._greeted
            await client.execute("qmp_capabilities", {"enable": ["oob"]} if oob else None)
        except BaseException:
            client.close()
            raise
        return client

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._socket.fileno()

    @property
    def greeting(self) -> Message:
        """The server's first message."""
        return self._conversation.greeting

    async def execute(
        self,
        command: str,
        arguments: Message | None = None,
        *,
        fds: Sequence[int] = (),
        oob: bool = False,
    ) -> JSON:
        """Execute a command; its value.

        Args:
            command: its name.
            arguments: by QMP's names.
            fds: descriptors to send along, as getfd and add-fd want them.
            oob: whether it is run out of band.

        Raises:
            QMPError: the server refuses it.
            ValueError: JSON has no such arguments: NaN, or an infinity.
            ConnectionError: the connection is lost, or a command was given up while it was
                being sent: nothing more can be sent then, and all commands end.
        """
        return (await self._ask(command, arguments, fds=fds, oob=oob)).value

    async def export(self, id: str, *, writable: bool | None = None) -> Export:
        """Take a descriptor of a backend's memory (`x-memdev-export`).

        Args:
            id: the backend's.
            writable: whether it has to let one write; None for what the backend allows.

        Raises:
            QMPError: the server refuses it.
            OSError: this process can have no further descriptor, or as `execute` says.
        """
        arguments = export_arguments(id, writable)
        return Export(await self._ask("x-memdev-export", arguments, fd=True))

    async def read(self, id: str, offset: int, length: int) -> bytes:
        """Bytes of a backend's memory (`x-memdev-read`), however many."""
        data = io.BytesIO()
        with closing(self._transfers()) as transfers:
            await transfers.read(id, offset, length, data.write)
        return data.getvalue()

    async def write(self, id: str, offset: int, data: Data) -> None:
        """Write to a backend's memory (`x-memdev-write`), however much.

        Beyond 16 MiB it goes in pieces: an error may leave a part of it written.
        """
        with closing(self._transfers()) as transfers:
            await transfers.write(id, offset, data)

    def close(self) -> None:
        """Leave; commands under way end with a `ConnectionError`."""
        self._end(ConnectionError("the connection is closed"))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()

    def _transfers(self) -> Transfers:
        # Others may be under way, each with a window of its own.
        return Transfers(self._socket, lambda name, args, fds: self.execute(name, args, fds=fds))

    async def _ask(
        self,
        command: str,
        arguments: Message | None,
        *,
        fds: Sequence[int] = (),
        fd: bool = False,
        oob: bool = False,
    ) -> Answer:
        if self._failure is not None:
            raise self._failure
        number, data = self._conversation.request(command, arguments, fd=fd, oob=oob)
        answered: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = answered
        try:
            try:
                async with self._sending:
                    await self._send(data, fds)
            except BaseException:
                self._conversation.forget(number)
                raise
            answer = await answered
        except asyncio.CancelledError:
            if answered.done() and answered.exception() is None:
                # It came in the same moment: nobody else would close it.
                answered.result().close()
            raise
        finally:
            self._waiting.pop(number, None)
        if answer.error is not None:
            raise answer.error
        return answer

    async def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        left = memoryview(data)
        try:
            while left:
                if self._failure is not None:
                    raise self._failure
                try:
                    if fds:
                        sent = socket.send_fds(self._socket, [left], list(fds))
                        fds = ()
                    else:
                        sent = self._socket.send(left)
                except (BlockingIOError, InterruptedError):
                    await self._until_writable()
                else:
                    left = left[sent:]
        except BaseException:
            if len(left) < len(data):
                # What follows would be read as the rest of it.
                self._end(ConnectionError("a command was sent in part"))
            raise

    async def _until_writable(self) -> None:
        writable = self._writable = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, _finish, writable)
        try:
            await writable
        finally:
            self._writable = None
            if self._failure is None:
                self._loop.remove_writer(fd)

    async def _send_unsent(self) -> None:
        try:
            async with self._sending:
                unsent, self._conversation.unsent = self._conversation.unsent, b""
                await self._send(unsent)
        except OSError as failed:
            self._end(failed)

    def _on_readable(self) -> None:
        try:
            found = self._conversation.receive(*self._receive())
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as failed:
            self._end(failed)
            return
        if self._conversation.unsent:
            task = self._loop.create_task(self._send_unsent())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._conversation.greeting and not self._greeted.done():
            self._greeted.set_result(None)
        for each in found:
            if not isinstance(each, Answer):
                if self._keeps_events:
                    self.events.put_nowait(each)
                continue
            waiting = self._waiting.get(each.id) if isinstance(each.id, int) else None
            if waiting is None or waiting.done():
                # The caller has given up.
                each.close()
            else:
                waiting.set_result(each)

    def _receive(self) -> tuple[bytes, list[int]]:
        if self._takes_fds:
            return receive(self._socket)
        data = receive_bytes(self._socket, READ_SIZE)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data, []

    def _end(self, failure: Exception) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        close_socket(self._socket)
        self._conversation.close()
        # What the server said last is why.
        reason = self._conversation.error or failure
        for waiting in [*self._waiting.values(), self._writable]:
            if waiting is not None and not waiting.done():
                waiting.set_exception(reason)
        if not self._greeted.done():
            self._greeted.set_exception(failure)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def connect_to(family: int, kind: int, number: int, where: Any) -> socket.socket:
    """A socket that is connected to one place; raises `OSError`.

    Args:
        family, kind, number, where: as `socket.getaddrinfo` has them.
    """
    sock = socket.socket(family, kind, number)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(address: Address) -> socket.socket:
    """A socket that is connected to an address; raises `OSError`."""
    if isinstance(address, tuple):
        # The resolver may take its time.
        loop = asyncio.get_running_loop()
        return await connect_to_first(await loop.run_in_executor(None, candidates, address))
    return await connect_to_first(candidates(address))


async def connect_to_first(found: Sequence[Candidate]) -> socket.socket:
    """A socket that is connected to the first of these that takes it.

    Raises:
        OSError: none does; the last one's reason.
    """
    refusal: OSError | None = None
    for family, kind, number, where in found:
        try:
            return await connect_to(family, kind, number, where)
        except OSError as failed:
            refusal = failed
    raise refusal or OSError("the host has no address")
