from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.memctl.conftest import Memctl
from tests.memctl.fakes import Talk, knows_nothing

MIB = 1 << 20


def explained(memctl: Memctl, *words: str) -> tuple[int, str]:
    """The exit status, and what is printed; nothing is said on standard error."""
    status, out, err = memctl("explain", *words)
    assert err == ""
    return status, out


def data(memctl: Memctl, *words: str) -> dict[str, Any]:
    """The explanation as data."""
    found = json.loads(explained(memctl, "--json", *words)[1])
    assert isinstance(found, dict)
    return found


def test_what_works(memctl: Memctl, memd: Side) -> None:
    status, out = explained(memctl, "memory-backend-ram,id=m0,size=1M")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "It would work: memory-backend-ram, 1 MiB."
    assert len(lines) > 5
    assert memd.regions() == []


def test_what_fails(memctl: Memctl) -> None:
    status, out = explained(memctl, "memory-backend-ram,id=m0,size=0")
    assert status == 1
    assert out == "It would fail: property 'size' of memory-backend-ram doesn't take value '0'\n"


def test_what_can_not_be_told(memctl: Memctl) -> None:
    status, out = explained(
        memctl, "memory-backend-file,size=4k,mem-path=/proc/version,readonly=on"
    )
    assert status == 1
    assert out.startswith("It may work")


@pytest.mark.parametrize(
    ("text", "desc"),
    [
        ("memory-backend-ram,id=m0,size=x", "Parameter 'size' expects a size value"),
        ("memory-backend-ram,id=m0", "Parameter 'size' is missing"),
        ("memory-backend-ram", "Parameter 'size' is missing"),
        ("foo,id=m0", "Parameter 'qom-type' does not accept value 'foo'"),
        ('{"qom-type": "memory-backend-ram"}', "Parameter 'size' is missing"),
        ('{"id": "m0"}', "Parameter 'qom-type' is missing"),
    ],
)
def test_arguments_that_are_wrong(memctl: Memctl, text: str, desc: str) -> None:
    status, out = explained(memctl, text)
    assert (status, out) == (1, f"It would fail: {desc}\n")
    assert data(memctl, text)["error"] == {"class": "GenericError", "desc": desc}


def test_json(memctl: Memctl) -> None:
    text = '{"qom-type": "memory-backend-memfd", "id": "m0", "size": 1048576, "share": false}'
    found = data(memctl, text)
    assert found["verdict"] == "works"
    assert found["mapping"]["length"] == MIB
    assert found["suggestion"]["options"]["id"] == "m0"
    again = data(memctl, "memory-backend-memfd,id=m0,size=1M,share=off")
    # How much memory is free may change meanwhile.
    for each in (found, again):
        assert each.pop("text")[0] == "It would work: memory-backend-memfd, 1 MiB."
        each["file"].pop("free", None)
    assert again == found


def test_an_id_may_be_left_out(memctl: Memctl) -> None:
    for text in (
        "memory-backend-memfd,size=1M,share=off",
        '{"qom-type": "memory-backend-memfd", "size": 1048576, "share": false}',
    ):
        found = data(memctl, text)
        assert found["suggestion"]["options"] == {
            "qom-type": "memory-backend-ram",
            "size": MIB,
            "share": False,
        }
        assert not any("id=" in line for line in found["text"])


def test_help(memctl: Memctl) -> None:
    status, out = explained(memctl, "memory-backend-file,help")
    assert status == 0
    assert out.startswith("memory-backend-file options:\n")


def test_a_short_name(memctl: Memctl) -> None:
    for name in ("memfd", "memory-backend-memfd"):
        status, out = explained(memctl, f"{name},size=1M")
        assert (status, out.splitlines()[0]) == (0, "It would work: memory-backend-memfd, 1 MiB.")


def test_a_server_that_can_not_explain(fake: Callable[[Talk], Memctl]) -> None:
    """Others serve QMP as well, and not this."""
    status, out, err = fake(knows_nothing)("explain", "memory-backend-ram,size=1M")
    assert (status, out) == (1, "")
    assert err == (
        "memctl: The command x-memdev-explain has not been found\n"
        "The daemon is of another version than this memctl, or it is not memd.\n"
    )
