"""The client that waits: one command after another."""

from __future__ import annotations

import io
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import TypeVar, cast

from memd.client.conversation import (
    Answer,
    Conversation,
    Export,
    Message,
    export_arguments,
)
from memd.client.sockets import Address, connect, receive
from memd.client.transfers import Data, Transfers
from memd.json_types import JSON

T = TypeVar("T")


class _Sent:
    """A command that was sent; to await its value is to wait for it in place."""

    def __init__(self, wait: Callable[[], Answer]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[None, None, JSON]:
        yield from ()
        return self._wait().value


class Client:
    """A connection that has negotiated; a context manager that closes it.

    Attributes:
        events: those that have come and were not waited for, the oldest first.
        on_event: called with each event as it comes, which is not kept then.
    """

    def __init__(self, address: Address, *, timeout: float | None = None) -> None:
        """Connect and negotiate.

        Args:
            address: the path of a UNIX socket, or a (host, port).
            timeout: seconds that the server may be silent; None for ever.

        Raises:
            OSError: no connection can be made.
            TimeoutError: the server says nothing.
        """
        self._conversation = Conversation()
        self.events: deque[Message] = deque()
        self.on_event: Callable[[Message], None] | None = None
        self.timeout = timeout
        # Whether a command was sent in part: what follows would be read as the rest of it.
        self._cut = False
        self._socket = connect(address, timeout)
        self._transfers = Transfers(self._socket, self._begin)
        try:
            while not self._conversation.greeting:
                self._receive()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    @property
    def greeting(self) -> Message:
        """The server's first message."""
        return self._conversation.greeting

    def execute(
        self, command: str, arguments: Message | None = None, *, fds: Sequence[int] = ()
    ) -> JSON:
        """Execute a command; its value.

        Args:
            command: its name.
            arguments: by QMP's names.
            fds: descriptors to send along, as getfd and add-fd want them.

        Raises:
            QMPError: the server refuses it.
            ValueError: JSON has no such arguments: NaN, or an infinity.
            ConnectionError: the connection is lost, or a command was sent in part, and
                nothing more can be.
            TimeoutError: the server says nothing; its answer will be passed over. Or it
                reads nothing.
        """
        return self._ask(command, arguments, fds=fds).value

    def export(self, id: str, *, writable: bool | None = None) -> Export:
        """Take a descriptor of a backend's memory (`x-memdev-export`).

        Args:
            id: the backend's.
            writable: whether it has to let one write; None for what the backend allows.

        Raises:
            QMPError: the server refuses it.
            OSError: this process can have no further descriptor, or as `execute` says.
        """
        return Export(self._ask("x-memdev-export", export_arguments(id, writable), fd=True))

    def read(self, id: str, offset: int, length: int) -> bytes:
        """Bytes of a backend's memory (`x-memdev-read`), however many."""
        data = io.BytesIO()
        self.read_each(id, offset, length, data.write)
        return data.getvalue()

    def read_each(self, id: str, offset: int, length: int, take: Callable[[Data], object]) -> None:
        """The same, piece by piece.

        Args:
            take: called with each, which is good until it returns.
        """
        self._transfer(self._transfers.read(id, offset, length, take))

    def write(self, id: str, offset: int, data: Data) -> None:
        """Write to a backend's memory (`x-memdev-write`), however much.

        Beyond 16 MiB it goes in pieces: an error may leave a part of it written.
        """
        self._transfer(self._transfers.write(id, offset, data))

    def write_each(self, id: str, offset: int, fill: Callable[[memoryview], int]) -> int:
        """The same, piece by piece; how many bytes were written.

        Args:
            fill: called with a buffer, gives how many bytes it has put at its beginning;
                none at the end.
        """
        return self._transfer(self._transfers.write_each(id, offset, fill))

    def wait_event(self, *names: str, timeout: float | None = None) -> Message:
        """The next event, or the next of one of these names; others are kept.

        Args:
            timeout: seconds to wait at most; None for ever.

        Raises:
            TimeoutError: it has not come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = 0
        while True:
            for event in list(self.events)[seen:]:
                seen += 1
                if not names or event["event"] in names:
                    self.events.remove(event)
                    return event
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the event has not come")
                self._socket.settimeout(left)
            else:
                self._socket.settimeout(None)
            try:
                self._sort(self._receive())
            finally:
                self._socket.settimeout(self.timeout)

    def set_timeout(self, timeout: float | None) -> None:
        """Wait so many seconds for the server from now on; None for ever."""
        self.timeout = timeout
        self._socket.settimeout(timeout)

    def close(self) -> None:
        """Leave."""
        self._socket.close()
        self._conversation.close()
        self._transfers.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _begin(self, command: str, arguments: Message, fds: Sequence[int]) -> _Sent:
        return _Sent(partial(self._answer_to, self._request(command, arguments, fds=fds)))

    def _transfer(self, transfer: Coroutine[None, None, T]) -> T:
        try:
            # It never suspends: `_Sent` waits in place.
            transfer.send(None)
        except StopIteration as end:
            return cast(T, end.value)
        except BaseException:
            # A command that was given up may go on, and write there.
            self._transfers.close()
            raise
        raise AssertionError("it has suspended")

    def _ask(
        self,
        command: str,
        arguments: Message | None,
        *,
        fds: Sequence[int] = (),
        fd: bool = False,
    ) -> Answer:
        return self._answer_to(self._request(command, arguments, fds=fds, fd=fd))

    def _request(
        self,
        command: str,
        arguments: Message | None,
        *,
        fds: Sequence[int] = (),
        fd: bool = False,
    ) -> int:
        """Send a command; its number."""
        number, data = self._conversation.request(command, arguments, fd=fd)
        try:
            self._send(data, fds)
        except BaseException:
            self._conversation.forget(number)
            raise
        return number

    def _answer_to(self, number: int) -> Answer:
        """Wait for the answer to the command of that number, the last that was sent."""
        while True:
            answer = self._sort(self._receive(), number)
            if answer is None:
                continue
            if answer.error is not None:
                raise answer.error
            return answer

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self._cut:
            raise ConnectionError("a command was sent in part: the connection is of no more use")
        left = memoryview(data)
        try:
            while left:
                if fds:
                    sent = socket.send_fds(self._socket, [left], list(fds))
                    fds = ()
                else:
                    sent = self._socket.send(left)
                left = left[sent:]
        except BaseException:
            self._cut = 0 < len(left) < len(data)
            raise

    def _receive(self) -> list[Answer | Message]:
        conversation = self._conversation
        try:
            found = conversation.receive(*receive(self._socket))
            if conversation.unsent:
                unsent, conversation.unsent = conversation.unsent, b""
                self._send(unsent)
        except ConnectionError as lost:
            # What the server said last is why.
            raise conversation.error or lost from None
        return found

    def _sort(self, found: list[Answer | Message], number: int = 0) -> Answer | None:
        """Keep the events; the answer of that number, others are late and closed."""
        wanted = None
        for each in found:
            if not isinstance(each, Answer):
                if self.on_event is not None:
                    self.on_event(each)
                else:
                    self.events.append(each)
            elif each.id == number:
                wanted = each
            else:
                each.close()
        return wanted
