from __future__ import annotations

import pytest

from memd import backends
from memd.cli.report import Answered
from memd.client import Client
from memd.compat import Compat
from memd.errors import QMPError
from memd.memctl.backends import PREFIX
from memd.memctl.objects import compat_of, in_full, parse, short_names
from tests.differential.harness import Side


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("ram,id=m", "memory-backend-ram,id=m"),
        ("guest-memfd", "memory-backend-guest-memfd"),
        ("memory-backend-ram,id=m", "memory-backend-ram,id=m"),
        ("thread-context,id=t", "thread-context,id=t"),
        ("ramdisk,id=m", "ramdisk,id=m"),
        ("qom-type=ram,id=m", "qom-type=ram,id=m"),
        ('{"qom-type": "ram"}', '{"qom-type": "ram"}'),
        ("", ""),
    ],
)
def test_short_names(text: str, full: str) -> None:
    assert in_full(text) == full


def test_every_backend_has_a_short_name() -> None:
    names = {type.name for type in backends.TYPES if type.factory is not None}
    # Of the schema and refused: there is no SGX here.
    names.add(f"{PREFIX}epc")
    assert {f"{PREFIX}{name}" for name in short_names()} == {
        n for n in names if n.startswith(PREFIX)
    }


def test_what_is_parsed() -> None:
    wanted = {"qom-type": "memory-backend-ram", "id": "m", "size": 1 << 20, "prealloc": True}
    for text in (
        "ram,id=m,size=1M,prealloc=on",
        "qom-type=memory-backend-ram,id=m,size=1M,prealloc=on",
        '{"qom-type": "memory-backend-ram", "id": "m", "size": 1048576, "prealloc": true}',
    ):
        assert parse(text, Compat.V10_0) == wanted
    with pytest.raises(QMPError):
        parse("ram,size=1M", Compat.V10_0)
    with pytest.raises(Answered):
        parse("file,help", Compat.V10_0)


def test_whose_behaviour(memd: Side) -> None:
    with Client(memd.server.path) as client:
        assert compat_of(client) is Compat.V10_0
        client.greeting["QMP"]["version"]["qemu"]["major"] = 11
        assert compat_of(client) is Compat.V11_1
        client.greeting["QMP"]["version"] = 5
        assert compat_of(client) is Compat.V10_0
