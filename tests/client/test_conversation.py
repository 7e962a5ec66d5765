from __future__ import annotations

import json
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.client.conversation import (
    Answer,
    Conversation,
    Export,
    export_arguments,
)
from memd.client.sockets import LOST
from memd.errors import QMPError

EXPORT = {"size": 5, "offset": 1, "page-size": 4096, "writable": True, "path": "/p"}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def descriptor() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_requests_are_numbered() -> None:
    conversation = Conversation()
    assert conversation.request("a") == (1, b'{"execute": "a", "id": 1}\n')
    number, data = conversation.request("b", {"c": 1})
    assert (number, json.loads(data)) == (2, {"execute": "b", "id": 2, "arguments": {"c": 1}})


@given(st.integers(1, 12))
def test_messages_in_pieces(size: int) -> None:
    event = {"event": "STOP"}
    data = line({"QMP": {}}) + line({"return": 5, "id": 1}) + line(event) + line({"return": {}})
    conversation = Conversation()
    found: list[object] = []
    for at in range(0, len(data), size):
        found += conversation.receive(data[at : at + size], [])
    first, second, third = found
    assert conversation.greeting == {"QMP": {}}
    assert isinstance(first, Answer)
    assert (first.id, first.value, first.error, first.fd) == (1, 5, None, -1)
    assert second == event
    assert isinstance(third, Answer)
    assert third.id is None


def test_what_is_refused() -> None:
    message = {"error": {"class": "DeviceNotFound", "desc": "no"}, "id": 1}
    (answer,) = Conversation().receive(line(message), [])
    assert isinstance(answer, Answer)
    assert isinstance(answer.error, QMPError)
    assert (answer.error.error_class, answer.error.desc) == ("DeviceNotFound", "no")


def test_descriptors_find_their_answers() -> None:
    """They may come with earlier answers' bytes; a refused command has none."""
    conversation = Conversation()
    for with_fd in (False, True, True, True):
        conversation.request("x", fd=with_fd)
    fds = [descriptor(), descriptor()]
    data = line({"return": {}, "id": 1}) + line({"return": EXPORT, "id": 2})
    first, second = conversation.receive(data, fds[:1])
    refusal = line({"error": {"class": "GenericError", "desc": "no"}, "id": 3})
    (third,) = conversation.receive(refusal, fds[1:])
    (fourth,) = conversation.receive(line({"return": EXPORT, "id": 4}), [])
    found = [each.fd for each in (first, second, third, fourth) if isinstance(each, Answer)]
    assert found == [-1, fds[0], -1, fds[1]]
    assert isinstance(second, Answer)
    assert isinstance(fourth, Answer)
    with Export(second) as memory:
        assert (memory.fileno(), memory.size, memory.offset) == (fds[0], 5, 1)
        assert (memory.page_size, memory.writable, memory.path) == (4096, True, "/p")
    fourth.close()
    fourth.close()
    assert not any(map(is_open, fds))


def test_descriptors_that_nobody_claims_are_closed() -> None:
    conversation = Conversation()
    fd = descriptor()
    conversation.receive(b"", [fd])
    conversation.close()
    assert not is_open(fd)


@pytest.mark.parametrize("data", [b"[]\n", b"5\n", b"\xff\n"])
def test_what_is_not_qmp(data: bytes) -> None:
    with pytest.raises(ValueError):
        Conversation().receive(data, [])


def test_arguments() -> None:
    assert export_arguments("m", None) == {"id": "m"}
    assert export_arguments("m", False) == {"id": "m", "writable": False}


def error(id: int | None = None) -> bytes:
    refusal = {"error": {"class": "GenericError", "desc": "no"}}
    return line(refusal if id is None else {**refusal, "id": id})


def test_an_error_without_an_id_ends_what_is_pending() -> None:
    """However many are said of one request: those after it are not blamed."""
    conversation = Conversation()
    for name in ("a", "b", "c"):
        conversation.request(name)
    answered = line({"return": 1, "id": 1})
    (first,) = conversation.receive(answered + error() * 3, [])
    assert isinstance(first, Answer)
    assert (first.id, first.value) == (1, 1)
    marker = conversation.unsent
    assert marker.startswith(b"\xff")
    assert json.loads(marker[1:])["id"] == 4
    conversation.request("d")
    found = conversation.receive(line({"return": 3, "id": 3}) + error() + error(4), [])
    assert [(each.id, each.error is None) for each in found if isinstance(each, Answer)] == [
        (3, True),
        (2, False),
    ]
    assert conversation.error is None
    (last,) = conversation.receive(line({"return": 5, "id": 5}), [])
    assert isinstance(last, Answer)
    assert last.value == 5


def test_an_error_without_an_id_while_nothing_is_asked() -> None:
    conversation = Conversation()
    assert conversation.receive(error(), []) == []
    assert not conversation.unsent


def test_a_lost_descriptor_is_an_error_of_its_answer() -> None:
    conversation = Conversation()
    for _ in range(3):
        conversation.request("x", fd=True)
    fd = descriptor()
    data = b"".join(line({"return": EXPORT, "id": id}) for id in (1, 2, 3))
    found = [each for each in conversation.receive(data, [LOST, fd]) if isinstance(each, Answer)]
    assert [isinstance(each.error, OSError) for each in found] == [True, False, True]
    assert [each.fd for each in found] == [-1, fd, -1]
    found[1].close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_has_not(value: object) -> None:
    conversation = Conversation()
    with pytest.raises((ValueError, TypeError)):
        conversation.request("x", {"a": value})
    assert conversation.request("x")[0] == 1


def test_a_closed_export_has_no_descriptor() -> None:
    """-1 is not an error to mmap(2): it takes it for memory without a file."""
    answer = Answer(1, EXPORT)
    answer.fd = descriptor()
    export = Export(answer)
    export.close()
    with pytest.raises(ValueError, match="closed"):
        _ = export.fd
    with pytest.raises(ValueError):
        mmap.mmap(export.fileno(), 4096)
    export.close()
