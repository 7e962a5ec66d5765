from __future__ import annotations

import fcntl
import io
import json
import os
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.client import Client
from memd.memctl.write import length_of
from tests.differential.harness import settle
from tests.memctl.conftest import Memctl, in_terminal, refusal

MIB = 1 << 20


@pytest.fixture
def m(memctl: Memctl) -> Iterator[str]:
    """A backend of 9 MiB."""
    memctl.out("add", "memfd,id=m,size=9M")
    yield "m"
    memctl.out("del", "m")


def content(memctl: Memctl, offset: int = 0, length: int = 9 * MIB) -> bytes:
    with Client(memctl.path) as client:
        return client.read("m", offset, length)


def test_a_file(memctl: Memctl, m: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(5 * MIB))
    assert memctl.out("write", m, "1M", str(path)) == ""
    assert content(memctl, MIB, 5 * MIB) == path.read_bytes()
    assert content(memctl, 0, MIB) == bytes(MIB)
    path.write_bytes(b"hello")
    assert memctl.data("write", m, "7", str(path)) == {"id": "m", "offset": 7, "length": 5}


def test_standard_input(memctl: Memctl, m: str) -> None:
    data = os.urandom(9 * MIB)
    status, out, err = memctl.fed(data, "--json", "write", m, "0")
    assert (status, err) == (0, "")
    assert json.loads(out)["length"] == len(data)
    assert content(memctl) == data
    assert memctl.fed(b"hello", "write", m, "1", "-") == (0, "", "")
    assert content(memctl, 0, 8) == data[:1] + b"hello" + data[6:8]


def test_a_pipe_that_trickles(memctl: Memctl, m: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def trickle() -> None:
        with pipe.open("wb", buffering=0) as writing:
            for word in (b"one ", b"two ", b"three"):
                writing.write(word)
                settle(
                    lambda: fcntl.ioctl(writing, termios.FIONREAD, bytes(4)), lambda n: not any(n)
                )

    thread = threading.Thread(target=trickle)
    thread.start()
    memctl.out("write", m, "0", str(pipe))
    thread.join()
    assert content(memctl, 0, 14) == b"one two three\0"


def test_what_does_not_fit(memctl: Memctl, m: str, tmp_path: Path) -> None:
    """A file is refused before anything is written."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * 9 * MIB)
    text = memctl.error("write", m, "4k", str(path))
    assert text == f"{path} has 9437184 bytes, and from offset 4096 'm' has 9433088"
    assert content(memctl) == bytes(9 * MIB)
    assert "'m' has 0" in memctl.error("write", m, "10M", str(path))


def test_more_than_fits_from_a_pipe(memctl: Memctl, m: str) -> None:
    text = refusal(memctl.fed(b"x" * 100, "write", m, "9437180"))
    assert text == "100 bytes at offset 9437180 are not within the 9437184 bytes of 'm'"


def test_nothing(memctl: Memctl, m: str, tmp_path: Path) -> None:
    """Writing nothing is fine, but not to what can't be written."""
    assert memctl.data("write", m, "0", os.devnull)["length"] == 0
    path = tmp_path / "rom"
    path.write_bytes(bytes(4096))
    memctl.out("add", f"file,id=rom,size=4k,mem-path={path},readonly=on")
    text = memctl.error("write", "rom", "0", os.devnull)
    assert text == "cannot write 'rom' at offset 0: it is read-only memory (ROM)"
    memctl.out("del", "rom")


def test_what_can_not_be_read(memctl: Memctl, m: str) -> None:
    assert memctl.error("write", "m", "0", "/nope") == (
        "cannot read /nope: No such file or directory"
    )
    assert memctl.error("write", "m", "0", "/") == "cannot read /: Is a directory"
    assert refusal(memctl.fed(None, "write", m, "0")) == "standard input is closed"


def test_lengths(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"hello")
    with path.open("rb") as file:
        assert length_of(file) == 5
        file.read(2)
        assert length_of(file) == 3
    assert length_of(io.BufferedReader(io.BytesIO(b"x"))) is None
    # Its length is 0, and it has something all the same.
    with open("/proc/version", "rb") as file:
        assert length_of(file) is None


def test_a_progress_bar(memctl: Memctl, m: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(9 * MIB))
    status, shown = in_terminal(memctl.path, "write", m, "0", str(path))
    assert status == 0
    assert "writing m" in shown
