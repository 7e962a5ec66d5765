from __future__ import annotations

from typing import Any

import pytest

from memd.cli.device import parse_device
from memd.cli.reading import Given
from memd.cli.report import Answered
from memd.config import Config, DeviceOption, Report
from memd.devices import register
from memd.devices.arguments import Text, arguments
from memd.errors import QMPError
from memd.qom import ObjectType, Tree


def parse(text: str, ids: set[str] | None = None) -> DeviceOption:
    taken: set[str] = set() if ids is None else ids
    return parse_device(Given("device", text, f"-device {text}"), Config(Report("memd")), taken)


def type_of(name: str) -> ObjectType:
    tree = Tree()
    register(tree)
    found = tree.type_by_name(name)
    assert found is not None
    return found


def typed(made: DeviceOption) -> dict[str, Any]:
    """The values of a device's properties, as they are set."""
    kind = type_of(made.options["driver"])
    return {
        name: value.of(kind, name) if isinstance(value, Text) else value
        for name, value in arguments(made.options).items()
    }


def test_two_spellings() -> None:
    ids: set[str] = set()
    made = parse("pc-dimm,id=d0,memdev=m0,slot=0x1", ids)
    assert made.options == {"driver": "pc-dimm", "id": "d0", "memdev": "m0", "slot": "0x1"}
    assert not made.is_json
    assert ids == {"d0"}
    with pytest.raises(QMPError, match=r"^Duplicate ID 'd0' for device$"):
        parse("pc-dimm,id=d0", ids)
    made = parse('{"driver": "pc-dimm", "id": "d0", "slot": 1}', ids)
    assert made.is_json
    assert made.options == {"driver": "pc-dimm", "id": "d0", "slot": 1}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("pc-dimm,id=d,memdev=m0,slot=0x1", {"id": "d", "memdev": "m0", "slot": 1}),
        ("pc-dimm,addr=0x100000000,node=3", {"addr": 1 << 32, "node": 3}),
        ("nvdimm,unarmed=on,label-size=128K", {"unarmed": True, "label-size": 1 << 17}),
        ("virtio-mem-pci,requested-size=1G,addr=3", {"requested-size": 1 << 30, "addr": "3"}),
        ("virtio-mem-pci,bus=pci.1,prealloc=off", {"bus": "pci.1", "prealloc": False}),
    ],
)
def test_values_get_their_types(text: str, options: dict[str, Any]) -> None:
    made = parse(text)
    assert typed(made) == {"driver": made.options["driver"], **options}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pc-dimm,slot=x", "Parameter 'slot' expects integer"),
        ("pc-dimm,slot=99999999999", "Parameter 'slot' expects int32_t"),
        ("virtio-mem-pci,node=5000000000", "Parameter 'node' expects uint32_t"),
        ("nvdimm,unarmed=x", "Parameter 'unarmed' expects 'on' or 'off'"),
        ("virtio-mem-pci,block-size=x", "Parameter 'block-size' expects size"),
    ],
)
def test_values_that_can_not_be(text: str, message: str) -> None:
    made = parse(text)
    with pytest.raises(QMPError) as caught:
        typed(made)
    assert caught.value.desc == message


@pytest.mark.parametrize("text", ["", "foo=1", '{"id":"d"}', '{"driver":1}'])
def test_a_driver_is_needed(text: str) -> None:
    with pytest.raises(QMPError, match=r"^Parameter 'driver' is missing$"):
        parse(text)


def test_questions() -> None:
    for text in ("help", "?", "pc-dimm,help"):
        with pytest.raises(Answered) as caught:
            parse(text)
        assert caught.value.text.startswith("pc-dimm options:\n") == ("dimm" in text)
