from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from memd.server import journal as module
from memd.server.journal import FORMAT, Journal, Unreadable, line_of


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create()
    yield journal
    journal.close()


def again(journal: Journal) -> list[dict[str, object]]:
    """What another daemon reads; it has a copy, as reading tidies up."""
    other = Journal(os.memfd_create("copy"))
    os.sendfile(other.fd, journal.fd, 0, os.fstat(journal.fd).st_size)
    try:
        return other.read()
    finally:
        other.close()


def entry(number: int) -> dict[str, object]:
    return {"is": number, "text": "\u00fc\udc80\x00" * number}


def test_nothing(journal: Journal) -> None:
    assert again(journal) == []


def test_entries(journal: Journal) -> None:
    entries = [entry(number) for number in range(10)]
    for each in entries:
        journal.append(line_of(each))
    assert again(journal) == entries


def test_another_goes_on_where_one_stopped(journal: Journal) -> None:
    journal.append(line_of(entry(1)))
    other = Journal(os.dup(journal.fd))
    other.read()
    other.append(line_of(entry(2)))
    other.shorten([line_of(entry(2))])
    other.append(line_of(entry(3)))
    assert again(other) == [entry(2), entry(3)]
    other.close()


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_what_was_being_written_is_not_there(journal: Journal, pages: int) -> None:
    """A write that was cut short at every byte; the next entry takes its place."""
    journal.append(line_of(entry(1)))
    end = os.fstat(journal.fd).st_size
    line = line_of({"is": 2, "text": "x" * (pages * 4096)})
    for length in {*range(min(30, len(line))), len(line) - 2, len(line) - 1}:
        os.ftruncate(journal.fd, end)
        os.pwrite(journal.fd, line[:length], end)
        assert again(journal) == [entry(1)]
        other = Journal(os.dup(journal.fd))
        other.read()
        other.append(line_of(entry(3)))
        assert again(other) == [entry(1), entry(3)]
        other.close()


class Killed(Exception):
    pass


@pytest.mark.parametrize("size", [0, 4095, 4096, 9000])
def test_shortening_is_cut_short(journal: Journal, size: int) -> None:
    """Before the second header it is as before, from then on as it is to be."""
    before: list[dict[str, object]] = [{"is": 1, "text": "x" * size}, {"is": 2}]
    for each in before:
        journal.append(line_of(each))
    for steps, expected in ((1, before), (2, [{"is": 2}])):
        left = steps

        def kill() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        with pytest.raises(Killed):
            journal.shorten([line_of({"is": 2})], kill)
        assert again(journal) == expected


def test_what_was_to_be_the_list_is_not_read_later(journal: Journal) -> None:
    """Shortening was cut short; another daemon goes on over what that has left."""
    entries: list[dict[str, object]] = [{"is": number} for number in range(200)]
    for each in entries:
        journal.append(line_of(each))

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        journal.shorten(map(line_of, entries), kill)
    other = Journal(os.dup(journal.fd))
    other.read()
    for number in range(400):
        entries.append({"is": number})
        other.append(line_of(entries[-1]))
        assert again(other) == entries
    other.close()


@pytest.mark.parametrize("writes", [1, 2])
def test_what_could_not_be_the_list_is_not_read_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The same where there was no memory for all of it."""
    entries: list[dict[str, object]] = [{"is": number} for number in range(200)]
    for each in entries:
        journal.append(line_of(each))
    real, left = os.pwrite, writes

    def write(fd: int, data: bytes, at: int) -> int:
        nonlocal left
        left -= 1
        # Of the header not as much as would do.
        return real(fd, data if left else data[: len(data) // 2 if at else 20], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        with pytest.raises(OSError, match="No space left"):
            journal.shorten(map(line_of, entries))
    for number in range(400):
        entries.append({"is": number})
        journal.append(line_of(entries[-1]))
        assert again(journal) == entries


def test_what_it_takes_does_not_grow(journal: Journal) -> None:
    """What is gone takes no memory, however long it goes on."""
    line = line_of(entry(20))
    shortened = 0
    for _ in range(5000):
        journal.append(line)
        if journal.long:
            journal.shorten([line])
            shortened += 1
    assert shortened > 5
    assert os.fstat(journal.fd).st_blocks * 512 < 3 * module._SHORTEN
    assert again(journal)[0] == entry(20)


def test_a_long_list_is_not_written_anew_all_the_time(journal: Journal) -> None:
    lines = [line_of(entry(30))] * 1000
    journal.shorten(lines)
    assert not journal.long
    for line in lines:
        journal.append(line)
    assert not journal.long


def header(journal: Journal) -> int:
    """Where the header in force stands."""
    return module._SLOT


def test_a_newer_format(journal: Journal) -> None:
    line = line_of({"format": FORMAT + 1, "by": "9.9", "generation": 7, "begin": 8192})
    os.pwrite(journal.fd, line, 0)
    with pytest.raises(Unreadable) as caught:
        again(journal)
    assert str(caught.value) == (
        f"it is of format {FORMAT + 1}, written by a newer memd (9.9): this one reads format 1"
    )


def test_damage(journal: Journal) -> None:
    for number in range(3):
        journal.append(line_of(entry(number)))
    begin = 8192
    os.pwrite(journal.fd, b"!", begin + len(line_of(entry(0))) + 12)
    with pytest.raises(Unreadable, match="entry 2 of 3 is damaged"):
        again(journal)
    os.pwrite(journal.fd, b"!", header(journal))
    with pytest.raises(Unreadable, match="does not begin as a list of memd's does"):
        again(journal)


def test_one_damaged_header(journal: Journal) -> None:
    """The other one is in force: it is what a kill leaves while one is written."""
    journal.append(line_of(entry(1)))
    os.pwrite(journal.fd, b"0", 0)
    assert again(journal) == [entry(1)]


@pytest.mark.parametrize("what", ["file", "pipe", "empty"])
def test_no_list(what: str, tmp_path: object) -> None:
    if what == "file":
        fd = os.open(f"{tmp_path}/x", os.O_RDWR | os.O_CREAT)
    elif what == "pipe":
        fd, other = os.pipe()
        os.close(other)
    else:
        fd = os.memfd_create("x")
    journal = Journal(fd)
    with pytest.raises(Unreadable):
        journal.read()
    journal.close()


def test_there_is_no_memory_for_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is not there; the next entry is."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:5], at))
    with pytest.raises(OSError, match="No space left"):
        journal.append(line_of(entry(1)))
    with pytest.raises(OSError, match="No space left"):
        journal.shorten([line_of(entry(1))])
    monkeypatch.undo()
    assert again(journal) == []
    journal.append(line_of(entry(2)))
    assert again(journal) == [entry(2)]
