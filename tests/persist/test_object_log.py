from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from memd.errors import QMPError
from memd.hostmem import libc
from memd.persist import object_log as module
from memd.persist.object_log import FORMAT, LogFile, ObjectLog, ObjectLogState, Unreadable, line_of


@pytest.fixture
def file() -> Iterator[LogFile]:
    file = LogFile.create()
    yield file
    file.close()


def again(file: LogFile) -> list[dict[str, object]]:
    """What another daemon reads; it has a copy, as reading tidies up."""
    other = LogFile(os.memfd_create("copy"))
    os.sendfile(other.fd, file.fd, 0, os.fstat(file.fd).st_size)
    try:
        return other.read()
    finally:
        other.close()


def entry(number: int) -> dict[str, object]:
    return {"is": number, "text": "\u00fc\udc80\x00" * number}


def test_nothing(file: LogFile) -> None:
    assert again(file) == []


def test_entries(file: LogFile) -> None:
    entries = [entry(number) for number in range(10)]
    for each in entries:
        file.append(line_of(each))
    assert again(file) == entries


def test_another_goes_on_where_one_stopped(file: LogFile) -> None:
    file.append(line_of(entry(1)))
    other = LogFile(os.dup(file.fd))
    other.read()
    other.append(line_of(entry(2)))
    other.shorten([line_of(entry(2))])
    other.append(line_of(entry(3)))
    assert again(other) == [entry(2), entry(3)]
    other.close()


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_what_was_being_written_is_not_there(file: LogFile, pages: int) -> None:
    """A write that was cut short at every byte; the next entry takes its place."""
    file.append(line_of(entry(1)))
    end = os.fstat(file.fd).st_size
    line = line_of({"is": 2, "text": "x" * (pages * 4096)})
    for length in {*range(min(30, len(line))), len(line) - 2, len(line) - 1}:
        os.ftruncate(file.fd, end)
        os.pwrite(file.fd, line[:length], end)
        assert again(file) == [entry(1)]
        other = LogFile(os.dup(file.fd))
        other.read()
        other.append(line_of(entry(3)))
        assert again(other) == [entry(1), entry(3)]
        other.close()


class Killed(Exception):
    pass


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, call: str) -> Iterator[None]:
    """The daemon is killed while a list is written anew: before its header, or right after it."""

    def kill(*_args: object) -> NoReturn:
        raise Killed

    def write(file: LogFile, data: bytes, offset: int) -> None:
        if offset < 4096:
            raise Killed
        os.pwrite(file.fd, data, offset)

    with monkeypatch.context() as patch:
        if call == "_write":
            patch.setattr(LogFile, call, write)
        else:
            patch.setattr(libc, call, kill)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("size", [0, 4095, 4096, 9000])
def test_shortening_is_cut_short(file: LogFile, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Before the second header it is as before, from then on as it is to be."""
    before: list[dict[str, object]] = [{"is": 1, "text": "x" * size}, {"is": 2}]
    for each in before:
        file.append(line_of(each))
    for call, expected in (("_write", before), ("punch_hole", [{"is": 2}])):
        with killed(monkeypatch, call):
            file.shorten([line_of({"is": 2})])
        assert again(file) == expected


def test_what_was_to_be_the_list_is_not_read_later(
    file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shortening was cut short; another daemon goes on over what that has left."""
    entries: list[dict[str, object]] = [{"is": number} for number in range(200)]
    for each in entries:
        file.append(line_of(each))
    with killed(monkeypatch, "_write"):
        file.shorten(map(line_of, entries))
    other = LogFile(os.dup(file.fd))
    other.read()
    for number in range(400):
        entries.append({"is": number})
        other.append(line_of(entries[-1]))
        assert again(other) == entries
    other.close()


@pytest.mark.parametrize("writes", [1, 2])
def test_what_could_not_be_the_list_is_not_read_later(
    file: LogFile, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The same where there was no memory for all of it."""
    entries: list[dict[str, object]] = [{"is": number} for number in range(200)]
    for each in entries:
        file.append(line_of(each))
    real, left = os.pwrite, writes

    def write(fd: int, data: bytes, at: int) -> int:
        nonlocal left
        left -= 1
        # Of the header not as much as would do.
        return real(fd, data if left else data[: len(data) // 2 if at else 20], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        with pytest.raises(OSError, match="No space left"):
            file.shorten(map(line_of, entries))
    for number in range(400):
        entries.append({"is": number})
        file.append(line_of(entries[-1]))
        assert again(file) == entries


def test_what_it_takes_does_not_grow(file: LogFile) -> None:
    """What is gone takes no memory, however long it goes on."""
    line = line_of(entry(20))
    shortened = 0
    for _ in range(5000):
        file.append(line)
        if file.long:
            file.shorten([line])
            shortened += 1
    assert shortened > 5
    assert os.fstat(file.fd).st_blocks * 512 < 3 * module._SHORTEN
    assert again(file)[0] == entry(20)


def test_a_long_list_is_not_written_anew_all_the_time(file: LogFile) -> None:
    lines = [line_of(entry(30))] * 1000
    file.shorten(lines)
    assert not file.long
    for line in lines:
        file.append(line)
    assert not file.long


def header(file: LogFile) -> int:
    """Where the header in force stands."""
    return module._SLOT


def test_a_newer_format(file: LogFile) -> None:
    line = line_of({"format": FORMAT + 1, "by": "9.9", "generation": 7, "begin": 8192})
    os.pwrite(file.fd, line, 0)
    with pytest.raises(Unreadable) as caught:
        again(file)
    assert str(caught.value) == (
        f"it is of format {FORMAT + 1}, written by a newer memd (9.9):"
        f" this one reads format {FORMAT}"
    )


def test_damage(file: LogFile) -> None:
    for number in range(3):
        file.append(line_of(entry(number)))
    begin = 8192
    os.pwrite(file.fd, b"!", begin + len(line_of(entry(0))) + 12)
    with pytest.raises(Unreadable, match="entry 2 of 3 is damaged"):
        again(file)
    os.pwrite(file.fd, b"!", header(file))
    with pytest.raises(Unreadable, match="does not begin as a list of memd's does"):
        again(file)


def test_one_damaged_header(file: LogFile) -> None:
    """The other one is in force: it is what a kill leaves while one is written."""
    file.append(line_of(entry(1)))
    os.pwrite(file.fd, b"0", 0)
    assert again(file) == [entry(1)]


@pytest.mark.parametrize("what", ["file", "pipe", "empty"])
def test_no_list(what: str, tmp_path: object) -> None:
    if what == "file":
        fd = os.open(f"{tmp_path}/x", os.O_RDWR | os.O_CREAT)
    elif what == "pipe":
        fd, other = os.pipe()
        os.close(other)
    else:
        fd = os.memfd_create("x")
    file = LogFile(fd)
    with pytest.raises(Unreadable):
        file.read()
    file.close()


def test_there_is_no_memory_for_it(file: LogFile) -> None:
    """What could not be written is not there; the next entry is."""
    # The entries begin at 8,192, those of a list that is written anew a page later.
    with no_larger_file(8192 + 5), pytest.raises(OSError, match="No space left"):
        file.append(line_of(entry(1)))
    with no_larger_file(12288 + 5), pytest.raises(OSError, match="No space left"):
        file.shorten([line_of(entry(1))])
    assert again(file) == []
    file.append(line_of(entry(2)))
    assert again(file) == [entry(2)]


def state_of(*entries: dict[str, Any]) -> ObjectLogState:
    state = ObjectLogState()
    for entry in entries:
        state.apply(entry, line_of(entry))
    return state


def test_what_entries_come_to() -> None:
    state = state_of(
        {"is": 1, "id": "a"},
        {"is": 2, "id": "b"},
        {"is": 1, "id": "a", "more": True},
        {"is": 3, "id": "c"},
        {"gone": 2},
        {"gone": 3, "discard": [0, 4096]},
        {"is": 4, "id": "d"},
        {"lost": {"id": "d"}, "was": 4},
        {"lost": {"id": "e"}, "was": 0},
        {"found": "e"},
        {"clean": 1},
        {"making": 5, "path": "/x", "time": 1.5},
        {"making": 6, "path": "/y", "time": 1.5},
        {"made": 6, "dev": 1, "ino": 2},
        {"making": 7, "path": "/z", "time": 1.5},
        {"settled": 7},
        {"made": 7, "dev": 1, "ino": 2},
        {"gone": 9, "discard": [0, 1]},
        {"discarded": 9},
    )
    for _ in range(2):
        assert state.objects == {1: line_of({"is": 1, "id": "a", "more": True})}
        assert state.discards == {3: [0, 4096]}
        assert state.lost == {"d": {"id": "d"}}
        assert state.clean == {1}
        assert sorted(state.creations) == [5, 6]
        assert state.creations[6]["ino"] == 2
        assert state.next == 8
        # What it comes to in short comes to the same.
        short = [json.loads(line[9:]) for line in state.lines()]
        state = state_of(*short)


def test_an_unknown_entry() -> None:
    with pytest.raises(Unreadable, match="an entry is of the unknown kind 'x'"):
        state_of({"x": 1})


def test_entries_that_are_odd() -> None:
    """They are refused by what is wrong with them, and end in nothing else."""
    odd: list[object] = [None, True, "x", -1, 1.5, [], {}, [1], {"id": 1}]
    for kind in ("is", "gone", "discarded", "clean", "making", "made", "settled", "lost", "next"):
        for value in odd:
            for more in ({}, {"was": 1, "discard": value, "path": value, "time": 1, "dev": value}):
                try:
                    state_of({kind: value, **more})
                except Unreadable:
                    pass
    for entry in ({}, {"x": 1}, {"lost": {}, "was": 1}, {"found": 1}, {"gone": 1, "discard": [1]}):
        with pytest.raises(Unreadable):
            state_of(entry)


@pytest.mark.parametrize("shortened", [0, 1, 2, 3])
def test_one_damaged_bit(file: LogFile, shortened: int) -> None:
    """Nothing that was written is missing in silence, wherever it is."""
    entries = [entry(number) for number in range(12)]
    for _ in range(shortened):
        file.shorten([line_of({"next": 1}), *map(line_of, entries[:10])])
    for each in entries[10:] if shortened else entries:
        file.append(line_of(each))
    whole = again(file)
    size = os.fstat(file.fd).st_size
    places = [at for at in range(size) if os.pread(file.fd, 1, at) != b"\0"]
    random.seed(seed := random.randrange(1 << 32))
    for place in {*random.sample(places, 150), *places[:130], *places[-3:]}:
        [byte] = os.pread(file.fd, 1, place)
        for bit in range(8):
            os.pwrite(file.fd, bytes([byte ^ 1 << bit]), place)
            try:
                assert again(file) == whole, f"byte {place}, bit {bit}, seed {seed}"
            except Unreadable:
                pass
        os.pwrite(file.fd, bytes([byte]), place)


@pytest.fixture
def log() -> Iterator[ObjectLog]:
    log = ObjectLog()
    yield log
    log.close()


def test_it_is_read_again(log: ObjectLog) -> None:
    assert (log.number(), log.number()) == (1, 2)
    log.write({"is": 2, "id": "x"})
    other = ObjectLog(os.dup(log.fd))
    assert other.state.objects == {2: line_of({"is": 2, "id": "x"})}
    assert other.state.described(2) == {"is": 2, "id": "x"}
    assert other.number() == 3
    other.close()


def test_it_stays_short(log: ObjectLog) -> None:
    for number in range(3000):
        log.write({"is": number, "text": "x" * 100})
        log.write({"gone": number})
    assert os.fstat(log.fd).st_blocks * 512 < 256 << 10


def test_it_cannot_be_shortened(log: ObjectLog, caplog: pytest.LogCaptureFixture) -> None:
    """Then it goes on, longer than it need be."""
    # There is room for the entries, and not for most of them twice.
    with no_larger_file(120 << 10):
        for number in range(700):
            log.write({"is": number, "text": "x" * 100})
    assert "the list of objects can't be shortened: No space left on device" in caplog.text
    assert len(log.state.objects) == 700


def test_room_that_is_set_aside(log: ObjectLog) -> None:
    """Within it an entry is written though there is no more memory, and others are not."""
    with no_larger_file(os.fstat(log.fd).st_size):
        with pytest.raises(OSError, match="File too large"):
            log.write({"is": 1})
        with pytest.raises(QMPError, match="cannot note it for a restart"), log.reserve(100):
            pass
    with log.reserve(100) as write, no_larger_file(os.fstat(log.fd).st_size):
        with pytest.raises(OSError, match="File too large"):
            log.write({"is": 1, "text": "x" * 200})
        write({"is": 2})
    with log.reserve(100):
        pass
    for number in range(3000):
        log.write({"is": 3, "text": number})
    other = ObjectLog(os.dup(log.fd))
    assert (
        other.state.objects
        == log.state.objects
        == {
            2: line_of({"is": 2}),
            3: line_of({"is": 3, "text": 2999}),
        }
    )
    other.close()


def test_files_that_are_made(log: ObjectLog) -> None:
    number = log.making(b"relative/\xff")
    assert log.state.creations[number]["path"] == f"{os.getcwd()}/relative/\udcff"
    log.made(number, log.fd)
    assert log.state.creations[number]["ino"] == os.fstat(log.fd).st_ino
    log.settled(number)
    assert log.state.creations == {}


@contextmanager
def no_larger_file(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
