from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv, in_terminal

MIB = 1 << 20


@pytest.fixture
def memory(memctl: Memctl, tmp_path: Path) -> Iterator[bytes]:
    """A backend `m` of 9 MiB; what it holds."""
    data = (b"The template" + bytes(20)) * (9 * MIB // 32)
    path = tmp_path / "data"
    path.write_bytes(data)
    memctl.out("add", "memfd,id=m,size=9M")
    memctl.out("write", "m", "0", str(path))
    yield data
    memctl.out("del", "m")


def test_a_hexdump(memctl: Memctl, memory: bytes) -> None:
    assert memctl.out("read", "m", "4k", "16") == (
        "00001000  54 68 65 20 74 65 6d 70  6c 61 74 65 00 00 00 00  |The template....|\n00001010\n"
    )
    assert memctl.out("read", "m").splitlines()[-1] == "00000100"
    assert memctl.out("read", "m", "9437180").splitlines()[-1] == "00900000"
    assert memctl.out("read", "m", "9M") == "00900000\n"
    assert len(memctl.out("read", "m", "1M", "64k").splitlines()) == (64 << 10) // 16 + 1


def test_raw(memctl: Memctl, memory: bytes) -> None:
    assert memctl.out("read", "m", "--raw", "5", "7").encode() == memory[5:12]
    done = subprocess.run(
        argv(memctl.path, "read", "--raw", "m"), capture_output=True, check=True, cwd=TREE
    )
    assert done.stdout == memory
    done = subprocess.run(
        argv(memctl.path, "read", "-r", "m", "8M"), capture_output=True, check=True, cwd=TREE
    )
    assert done.stdout == memory[8 * MIB :]


def test_json(memctl: Memctl, memory: bytes) -> None:
    found = memctl.data("read", "m", "3", "5M")
    data = base64.b64decode(found.pop("data"))
    assert found == {"id": "m", "offset": 3, "length": 5 * MIB}
    assert data == memory[3 : 3 + 5 * MIB]


def test_what_is_not_there(memctl: Memctl, memory: bytes) -> None:
    """It is refused before anything is printed."""
    for words in (("m", "9M", "1"), ("m", "0", "10M"), ("m", "--raw", "1", "9M"), ("m", "10M")):
        assert memctl.error("read", *words).endswith(" are not within the 9437184 bytes of 'm'")
    assert memctl.error("read", "x") == "Device 'x' not found"


def test_a_terminal_is_spared(memctl: Memctl, memory: bytes) -> None:
    status, shown = in_terminal(memctl.path, "read", "m", "--raw", "0", "12")
    assert status == 2
    assert shown.startswith("memctl: raw bytes would confuse this terminal\n")
    assert in_terminal(memctl.path, "read", "m", "-r", "-f", "0", "12") == (0, "The template")
    status, shown = in_terminal(memctl.path, "read", "m", "0", "12")
    assert (status, shown.count("|The template|")) == (0, 1)


def test_what_excludes_each_other(memctl: Memctl) -> None:
    status, _out, err = memctl("read", "m", "--raw", "--json")
    assert (status, err) == (2, "memctl: --raw and --json exclude each other\n")
