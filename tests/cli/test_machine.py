from __future__ import annotations

import pytest

from memd.cli.machine import MachineOptions
from memd.cli.reading import Given
from memd.cli.report import Answered, CommandLineError
from memd.compat import Compat
from memd.config import Config, Report
from memd.errors import QMPError


def given(value: str) -> Given:
    return Given("", value, f"-x {value}")


def machine(*options: str, accels: tuple[str, ...] = ()) -> MachineOptions:
    made = MachineOptions()
    for text in options:
        made.take(given(text), Compat.V10_0)
    for text in accels:
        made.take_accel(given(text))
    return made


def choose(made: MachineOptions, compat: Compat = Compat.V10_0) -> list[str]:
    return made.choose_accelerators(Report("memd"), compat)


def test_none_is_the_machine() -> None:
    for options in ((), ("none",), ("type=none",), ("",), ("usb=off",), ("q35", "none")):
        made = machine(*options)
        made.check_type(Compat.V10_0)
        assert made.kind.kind == "none"
    with pytest.raises(CommandLineError) as caught:
        machine("none", "bogus").check_type(Compat.V10_0)
    assert caught.value.texts == ('unsupported machine type: "bogus"',)


@pytest.mark.parametrize(
    ("name", "kind", "type_name"),
    [
        ("q35", "q35", "pc-q35-10.0-machine"),
        ("pc-q35-10.0", "q35", "pc-q35-10.0-machine"),
        ("pc", "pc", "pc-i440fx-10.0-machine"),
        ("virt", "virt", "virt-10.0-machine"),
    ],
)
def test_machines_go_by_two_names(name: str, kind: str, type_name: str) -> None:
    made = machine(name)
    made.check_type(Compat.V10_0)
    assert (made.kind.kind, made.kind.type_name) == (kind, type_name)


@pytest.mark.parametrize(("kind", "compat"), [("qtest", Compat.V10_0), ("mshv", Compat.V11_1)])
def test_accelerators_whose_properties_are_unknown(kind: str, compat: Compat) -> None:
    with pytest.raises(CommandLineError, match=f"Property '{kind}-accel.x' not found"):
        choose(machine(accels=(f"{kind},x=1",)), compat)


def test_accelerators_in_their_order() -> None:
    assert choose(machine()) == []
    assert choose(machine("none,accel=kvm:tcg")) == ["kvm", "tcg"]
    assert choose(machine("none,accel=kvm", "accel=tcg")) == ["tcg"]
    assert choose(machine(accels=("kvm", "tcg,thread=single"))) == ["kvm", "tcg"]
    assert choose(machine(accels=("tcg", "kvm,x=1"))) == ["tcg"]


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


def resolve(text: str, backends: tuple[str, ...] = ("m0",)) -> dict[str, object]:
    made = machine(text)
    made.check_type(Compat.V10_0)
    return made.resolve(backends, {}, (), Config(Report("memd")))


def test_properties() -> None:
    assert resolve("none,usb=off,memory-backend=m0,graphics=y") == {
        "usb": False,
        "memory-backend": "m0",
        "graphics": True,
    }
    assert resolve("q35,nvdimm=on,kernel_irqchip=split,vmport=auto,max-fw-size=1M") == {
        "nvdimm": True,
        "vmport": "auto",
        "max-fw-size": 1 << 20,
    }
    assert resolve("pc,memory-backend=/objects/m0")["memory-backend"] == "/objects/m0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none,foo=1", "Property 'none-machine.foo' not found"),
        ("none,nvdimm=on", "Property 'none-machine.nvdimm' not found"),
        ("q35,foo=1", "Property 'pc-q35-10.0-machine.foo' not found"),
        ("none,usb=1", "Parameter 'usb' expects 'on' or 'off'"),
        ("q35,nvdimm=x", "Parameter 'nvdimm' expects 'on' or 'off'"),
        ("q35,acpi=3", "Parameter 'acpi' does not accept value '3'"),
        ("q35,max-fw-size=x", "Parameter 'max-fw-size' expects size"),
        ("q35,bus-lock-ratelimit=x", "Parameter 'bus-lock-ratelimit' expects integer"),
        ("q35,sgx-epc=x", "Invalid parameter type for 'sgx-epc', expected: array"),
        ("q35,nvdimm-persistence=x", "-machine nvdimm-persistence=x: unsupported option"),
        ("none,memory-backend=m1", "Memory backend 'm1' not found"),
        ("q35,memory=1G", "Parameter 'memory' used inconsistently"),
    ],
)
def test_properties_that_can_not_be(text: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        resolve(text)
    assert caught.value.desc == message


def test_questions() -> None:
    with pytest.raises(Answered) as caught:
        machine("help")
    assert "none  " in caught.value.text
    assert "(alias of pc-q35-10.0)\n" in caught.value.text
    with pytest.raises(Answered) as caught:
        machine("none", "help")
    assert "  usb=<bool>" in caught.value.text
    with pytest.raises(Answered) as caught:
        machine("q35", "help")
    assert caught.value.text.startswith("pc-q35-10.0-machine options:\n")
    assert "  max-fw-size=<size>" in caught.value.text
    with pytest.raises(Answered) as caught:
        machine(accels=("help",))
    assert caught.value.text.endswith("\ntcg\nkvm\n")
