from __future__ import annotations

import pytest

from memd.cli.memory import MemoryOption, MemorySizes
from memd.cli.reading import Given
from memd.cli.report import Answered
from memd.config import Report
from memd.errors import QMPError

MIB = 1 << 20


def resolve(*texts: str) -> MemorySizes:
    option = MemoryOption()
    for text in texts:
        option.take(Given("m", text, f"-m {text}"), Report("memd"))
    return option.resolve(128 * MIB)


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        ((), (None, 0, None)),
        (("",), (None, 0, None)),
        (("0",), (None, 0, None)),
        (("256",), (256 * MIB, 0, None)),
        (("1.5G",), (1536 * MIB, 0, None)),
        (("12345B",), (16384, 0, None)),
        (("256M,slots=2,maxmem=1G",), (256 * MIB, 2, 1024 * MIB)),
        (("256M,maxmem=1G",), (256 * MIB, 0, 1024 * MIB)),
        (("256,slots=2,maxmem=1G", "512"), (512 * MIB, 2, 1024 * MIB)),
        (("slots=2,maxmem=1G",), (None, 2, 1024 * MIB)),
        (("256M,slots=-1,maxmem=1G",), (256 * MIB, 2**64 - 1, 1024 * MIB)),
    ],
)
def test_sizes(texts: tuple[str, ...], sizes: tuple[int | None, int, int | None]) -> None:
    made = resolve(*texts)
    assert (made.size, made.slots, made.maxmem) == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("256M,slots=2", "slots specified but no max-size"),
        ("0x100", "Parameter 'memory.size' expects size"),
        (
            "256M,slots=2,maxmem=128M",
            "invalid value of maxmem: maximum memory size (0x8000000) must be at least the"
            " initial memory size (0x10000000)",
        ),
    ],
)
def test_what_contradicts_itself(text: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        resolve(text)
    assert caught.value.desc == message


@pytest.mark.parametrize("text", ["x", "foo=1", "1.5", "256,slots=x", "256,id=m"])
def test_what_can_not_be_read(text: str) -> None:
    with pytest.raises(QMPError):
        resolve(text)


def test_a_question() -> None:
    with pytest.raises(Answered, match=r"^memory options:\n  maxmem=<size>\n"):
        resolve("1G,help")
