from __future__ import annotations

import pytest

from memd.cli.machine import Machine
from memd.cli.reading import Given
from memd.cli.report import Answered, CommandLineError, Reporter
from memd.compat import Compat


def given(value: str) -> Given:
    return Given("", value, f"-x {value}")


def machine(*options: str, accels: tuple[str, ...] = ()) -> Machine:
    made = Machine()
    for text in options:
        made.take(given(text), Compat.V10_0)
    for text in accels:
        made.take_accel(given(text))
    return made


def choose(made: Machine, compat: Compat = Compat.V10_0) -> list[str]:
    return made.choose_accelerators(Reporter("memd"), compat)


def test_none_is_the_machine() -> None:
    for options in ((), ("none",), ("type=none",), ("",), ("usb=off",), ("q35", "none")):
        machine(*options).check_type()
    with pytest.raises(CommandLineError) as caught:
        machine("none", "q35").check_type()
    assert caught.value.texts == ('unsupported machine type: "q35"',)


def test_accelerators_in_their_order() -> None:
    assert choose(machine()) == []
    assert choose(machine("none,accel=kvm:tcg")) == ["kvm", "tcg"]
    assert choose(machine("none,accel=kvm", "accel=tcg")) == ["tcg"]
    assert choose(machine(accels=("tcg,thread=single", "kvm"))) == ["tcg", "kvm"]


@pytest.mark.parametrize(("compat", "said"), [(Compat.V10_0, True), (Compat.V11_1, False)])
def test_a_later_release_knows_more(
    compat: Compat, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = choose(machine("none,accel=kvm:mshv:tcg"), compat)
    assert ("mshv" in found) != said
    text = "memd: invalid accelerator mshv\nmemd: falling back to KVM\n"
    assert capsys.readouterr().err == (text if said else "")


def test_none_of_those(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandLineError) as caught:
        choose(machine(accels=("a", "b")))
    assert caught.value.texts == ()
    said = "memd: -x a: invalid accelerator a\nmemd: -x b: invalid accelerator b\n"
    assert capsys.readouterr().err == said


def test_properties() -> None:
    machine("none,usb=off,memory-backend=m0,graphics=y").check_properties(["m0"])
    for text, message in (
        ("foo=1", "Property 'none-machine.foo' not found"),
        ("usb=1", "Parameter 'usb' expects 'on' or 'off'"),
        ("memory-backend=m1", "Memory backend 'm1' not found"),
    ):
        with pytest.raises(CommandLineError) as caught:
            machine(text).check_properties(["m0"])
        assert caught.value.texts == (message,)


def test_questions() -> None:
    with pytest.raises(Answered) as caught:
        machine("help")
    assert "none  " in caught.value.text
    with pytest.raises(Answered) as caught:
        machine("none", "help")
    assert "  usb=<bool>" in caught.value.text
    with pytest.raises(Answered) as caught:
        machine(accels=("help",))
    assert caught.value.text.endswith("\ntcg\nkvm\n")
