"""One client's side of a QMP conversation, without sockets: values to bytes and back."""

from __future__ import annotations

import json
import os
from collections import deque
from types import TracebackType

from memd.errors import QMPError
from memd.json_types import JSON

Message = dict[str, JSON]

CHUNK = 16 << 20
"""Bytes that x-memdev-read and x-memdev-write take at once."""


class Answer:
    """What a command came to.

    Attributes:
        id: the request's.
        value: the answer's `return` member.
        error: why it was refused, or None.
        fd: the descriptor that came along, or -1; whoever gets the answer owns it.
    """

    __slots__ = ("error", "fd", "id", "value")

    def __init__(self, message: Message) -> None:
        self.id = message.get("id")
        self.value: JSON = message.get("return")
        self.error: QMPError | None = None
        self.fd = -1
        if "error" in message:
            error = message["error"]
            self.error = QMPError(error["desc"], error["class"])

    def close(self) -> None:
        """Close the descriptor, where nobody wants the answer."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Conversation:
    """Numbers requests, and tells answers, events and descriptors apart."""

    __slots__ = ("_fds", "_last", "_parts", "_with_fd", "greeting")

    def __init__(self) -> None:
        self.greeting: Message = {}
        """The server's first message, once it has come."""
        self._last = 0
        # What came after the last line's end.
        self._parts: list[bytes] = []
        # Descriptors whose answer has not been read yet, and who waits for one.
        self._fds: deque[int] = deque()
        self._with_fd: set[int] = set()

    def request(
        self,
        command: str,
        arguments: Message | None = None,
        *,
        fd: bool = False,
        oob: bool = False,
    ) -> tuple[int, bytes]:
        """A request's number and bytes.

        Args:
            fd: whether a descriptor comes with the answer.
            oob: whether it is run out of band.
        """
        self._last += 1
        message: Message = {"exec-oob" if oob else "execute": command, "id": self._last}
        if arguments is not None:
            message["arguments"] = arguments
        if fd:
            self._with_fd.add(self._last)
        return self._last, json.dumps(message).encode() + b"\n"

    def receive(self, data: bytes, fds: list[int]) -> list[Answer | Message]:
        """Take what has come; the answers, and events as the messages that they are.

        Descriptors come with the first byte of their answer at the latest, in
        the answers' order.

        Raises:
            ValueError: this is not QMP.
        """
        self._fds.extend(fds)
        *lines, rest = data.split(b"\n")
        found: list[Answer | Message] = []
        for line in lines:
            self._parts.append(line)
            message = json.loads(b"".join(self._parts))
            self._parts.clear()
            if not isinstance(message, dict):
                raise ValueError(f"not a message: {message!r}")
            if "QMP" in message:
                self.greeting = message
            elif "event" in message:
                found.append(message)
            else:
                found.append(self._answer(message))
        if rest:
            self._parts.append(rest)
        return found

    def _answer(self, message: Message) -> Answer:
        answer = Answer(message)
        if answer.id in self._with_fd:
            self._with_fd.discard(answer.id)
            if answer.error is None and self._fds:
                answer.fd = self._fds.popleft()
        return answer

    def close(self) -> None:
        """Close the descriptors that no answer has claimed."""
        while self._fds:
            os.close(self._fds.popleft())


class Export:
    """A backend's memory, by its descriptor; a context manager that closes it.

    Attributes:
        fd: the descriptor; -1 once it is closed.
        size: bytes to map.
        offset: where in the file they begin, in bytes.
        page_size: of its memory, in bytes; the address has to be a multiple of it.
        writable: whether the descriptor lets one write.
        path: by which another process of the same user opens the same file.
    """

    __slots__ = ("fd", "offset", "page_size", "path", "size", "writable")

    def __init__(self, answer: Answer) -> None:
        """Take over the answer to x-memdev-export, and its descriptor."""
        value = answer.value
        self.fd = answer.fd
        self.size: int = value["size"]
        self.offset: int = value["offset"]
        self.page_size: int = value["page-size"]
        self.writable: bool = value["writable"]
        self.path: str = value["path"]

    def fileno(self) -> int:
        """The descriptor, for what asks for one."""
        return self.fd

    def close(self) -> None:
        """Close the descriptor; mappings made of it stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Export:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def export_arguments(id: str, writable: bool | None) -> Message:
    """The arguments of x-memdev-export; None leaves it to the server."""
    return {"id": id} if writable is None else {"id": id, "writable": writable}


def pieces(offset: int, length: int) -> list[tuple[int, int]]:
    """A range in pieces that can be read or written at once: offsets and lengths in bytes."""
    if not length:
        return [(offset, 0)]
    end = offset + length
    return [(at, min(CHUNK, end - at)) for at in range(offset, end, CHUNK)]
