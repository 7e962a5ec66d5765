"""One client's side of a QMP conversation, without sockets: values to bytes and back."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterator

from memd.client.sockets import LOST
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import MORE, NEED_DATA, Decoder, Large
from memd.wire.encoder import encode_request

Message = dict[str, JSON]


class Answer:
    """The answer to a command.

    Attributes:
        id: the request's.
        value: the answer's `return` member.
        error: why there is no value, or None: a `QMPError` where the server refuses, an
            `OSError` where the descriptor of the answer has not come.
        fd: the descriptor that came along, or -1; the receiver of the answer owns it.
    """

    def __init__(self, id: JSON, value: JSON = None, error: Exception | None = None) -> None:
        self.id = id
        self.value = value
        self.error = error
        self.fd = -1

    def close(self) -> None:
        """Close the descriptor, where nobody wants the answer."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Conversation:
    """Numbers requests, and tells answers, events and descriptors apart.

    An error without an id says that the server could not read a request, and several may
    be said of one. So once one has come, a further request is sent that the server can read
    in any case, the marker: when that is answered, all has been said of those before it, and
    those of them that had no answer end with the error.
    """

    def __init__(self, last: int = 0, most: int = sys.maxsize) -> None:
        """Begin a conversation.

        Args:
            last: the number after which requests are counted.
            most: bytes of a message that are taken, and no more.
        """
        self.greeting: Message = {}
        """The server's first message, once it has come."""
        self.error: QMPError | None = None
        """An error that the server has sent without an id, while requests are not answered yet."""
        self.unsent = b""
        """Bytes to be sent besides requests."""
        self._decoder = Decoder(max_message=most, max_tokens=sys.maxsize)
        self._last = last
        self._marker = 0
        # Requests without an answer; whether a descriptor comes with it.
        self._pending: dict[int, bool] = {}
        # What has come of messages since the last line feed.
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._most = most
        # Descriptors whose answer has not been read yet.
        self._fds: deque[int] = deque()

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

        Raises:
            ValueError: JSON has no such arguments: NaN, an infinity, too deep a nesting.
            TypeError: the same.
        """
        number = self._last + 1
        message: Message = {"exec-oob" if oob else "execute": command, "id": number}
        if arguments is not None:
            message["arguments"] = arguments
        data = encode_request(message)
        self._last = number
        self._pending[number] = fd
        return number, data

    def forget(self, number: int) -> None:
        """A request was not sent."""
        self._pending.pop(number, None)

    def receive(self, data: bytes, fds: list[int]) -> list[Answer | Message]:
        """Take what has come; the answers, and events as the messages that they are.

        Descriptors come with the first byte of their answer at the latest, in
        the answers' order.

        Raises:
            ValueError: this is not QMP.
        """
        self._fds.extend(fds)
        found: list[Answer | Message] = []
        # A server ends each message with a line feed: what is whole is read much faster.
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._most:
            raise ValueError(f"a message of more than {self._most} bytes")
        if not data.endswith(b"\n"):
            return found
        self._decoder.put(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0
        while (message := self._decoder.next()) is not NEED_DATA:
            if isinstance(message, Large):
                message = message.value
            if message is MORE:
                continue
            if not isinstance(message, dict):
                raise ValueError(f"not a message: {message!r}")
            if "QMP" in message:
                self.greeting = message
            elif "event" in message:
                found.append(message)
            elif "error" in message and "id" not in message:
                self._unread(_error_of(message))
            elif self._marker and message.get("id") == self._marker:
                found += self._settle()
            else:
                found.append(self._answer(message))
        return found

    def _unread(self, error: QMPError) -> None:
        """The server could not read something; once a marker is on its way this is no news."""
        if self._marker or not self._pending:
            return
        self.error = error
        self._marker, data = self.request("query-version")
        # 0xFF has any QMP server begin anew, whatever it takes the last message for.
        self.unsent += b"\xff" + data

    def _settle(self) -> Iterator[Answer]:
        """The marker is answered: what was sent before it and has no answer gets none."""
        for number in [each for each in self._pending if each < self._marker]:
            del self._pending[number]
            yield Answer(number, error=self.error)
        del self._pending[self._marker]
        self._marker = 0
        self.error = None

    def _answer(self, message: Message) -> Answer:
        number = message.get("id")
        with_fd = isinstance(number, int) and self._pending.pop(number, False)
        if "error" in message:
            return Answer(number, error=_error_of(message))
        answer = Answer(number, message.get("return"))
        if with_fd:
            if self._fds:
                answer.fd = self._fds.popleft()
                if answer.fd == LOST:
                    reason = os.strerror(errno.EMFILE)
                    answer.error = OSError(errno.EMFILE, reason, "a descriptor from the server")
            else:
                reason = "no descriptor came along"
                answer.error = OSError(errno.EBADF, reason, "the answer of the server")
        return answer

    def close(self) -> None:
        """Close the descriptors that no answer has claimed."""
        for fd in self._fds:
            if fd != LOST:
                os.close(fd)
        self._fds.clear()


def _error_of(message: Message) -> QMPError:
    error = message["error"]
    return QMPError(error["desc"], error["class"])


class Export:
    """A backend's memory, by its descriptor; a context manager that closes it.

    Attributes:
        fd: the descriptor.
        size: bytes to map.
        offset: where in the file they begin, in bytes.
        page_size: of its memory, in bytes; the address has to be a multiple of it.
        writable: whether the descriptor lets one write.
        path: by which another process of the same user opens the same file.
    """

    def __init__(self, answer: Answer) -> None:
        """Take over the answer to x-memdev-export, and its descriptor."""
        value = answer.value
        self._fd = answer.fd
        self.size: int = value["size"]
        self.offset: int = value["offset"]
        self.page_size: int = value["page-size"]
        self.writable: bool = value["writable"]
        self.path: str = value["path"]

    @property
    def fd(self) -> int:
        """The descriptor.

        Raises:
            ValueError: it is closed. (mmap(2) takes -1 for anonymous memory.)
        """
        if self._fd < 0:
            raise ValueError("the export is closed")
        return self._fd

    def fileno(self) -> int:
        """The descriptor, for what asks for one; raises `ValueError` once it is closed."""
        return self.fd

    def close(self) -> None:
        """Close the descriptor; mappings made of it stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def export_arguments(id: str, writable: bool | None) -> Message:
    """The arguments of x-memdev-export; None leaves it to the server."""
    return {"id": id} if writable is None else {"id": id, "writable": writable}
