from __future__ import annotations

import pytest

from memd.cli.reading import Given, apply_options, compat_of, located, read_options
from memd.cli.report import CommandLineError
from memd.compat import Compat
from memd.errors import QMPError


def _take(target: list[str], given: Given) -> None:
    target.append(f"{given.name}={given.value}")


def _refuse(target: list[str], given: Given) -> None:
    raise QMPError("no", hint="hint")


OPTIONS = {"a": _take}
FLAGS = {"flag": _take, "bad": _refuse}


def take(*argv: str) -> list[str]:
    target: list[str] = []
    apply_options(read_options(argv, OPTIONS, FLAGS), OPTIONS | FLAGS, target)
    return target


def refusal(*argv: str) -> tuple[str, str]:
    with pytest.raises(CommandLineError) as caught:
        take(*argv)
    return caught.value.where, caught.value.texts[0]


def test_one_dash_or_two() -> None:
    assert take("-a", "1", "--a", "-flag", "--flag") == ["a=1", "a=-flag", "flag="]
    assert take() == []


@pytest.mark.parametrize("word", ["-b", "--b", "---a", "-", "--", "-a=1", "-flag=on"])
def test_there_is_no_such_option(word: str) -> None:
    assert refusal(word) == (word, "invalid option")


def test_an_argument_is_wanted() -> None:
    assert refusal("--a") == ("--a", "requires an argument")


def test_an_argument_of_nothing() -> None:
    assert refusal("x") == ("x", "Unexpected argument")
    assert refusal("") == ("", "Unexpected argument")


def test_the_whole_line_is_looked_over_first() -> None:
    assert refusal("-bad", "-b") == ("-b", "invalid option")
    assert refusal("x", "-bad", "-a") == ("-a", "requires an argument")


def test_refusals_know_their_place() -> None:
    with pytest.raises(CommandLineError) as caught:
        take("--bad")
    assert (caught.value.where, caught.value.texts, caught.value.hint) == (
        "--bad",
        ("no",),
        "hint",
    )
    with pytest.raises(CommandLineError) as caught, located():
        raise QMPError("no")
    assert (caught.value.where, caught.value.texts) == ("", ("no",))


def test_releases() -> None:
    assert compat_of("10.0") is Compat.V10_0
    assert compat_of("11.1") is Compat.V11_1
    assert compat_of("9.0") is None
