from __future__ import annotations

import pytest

from memd.cli.pools import parse_pool
from memd.cli.report import Answered
from memd.compat import Compat
from memd.errors import QMPError

RAM = {"qom-type": "memory-backend-ram", "size": 1 << 20, "prealloc": True}


@pytest.mark.parametrize(
    ("text", "count", "more"),
    [
        ("memory-backend-ram,size=1M", 1, {}),
        ("memory-backend-ram,count=3,size=1M", 3, {}),
        ("memory-backend-ram,size=1M,count=2,share=on,count=4", 4, {"share": True}),
        ("memory-backend-ram,size=1M,prealloc=off", 1, {}),
        ("memory-backend-ram,size=1M,host-nodes.0=0,host-nodes.1=1", 1, {"host-nodes": [0, 1]}),
        ('{"qom-type": "memory-backend-ram", "size": 1048576, "count": 2}', 2, {}),
    ],
)
def test_spellings(text: str, count: int, more: dict[str, object]) -> None:
    assert parse_pool(text, Compat.V10_0) == ({**RAM, **more}, count)


@pytest.mark.parametrize(
    ("text", "desc"),
    [
        ("memory-backend-ram", "Parameter 'size' is missing"),
        ("memory-backend-ram,size=1M,id=m0", "Parameter 'id' is unexpected"),
        ('{"qom-type":"memory-backend-ram","size":1,"id":"m"}', "Parameter 'id' is unexpected"),
        ("memory-backend-ram,size=1M,colour=red", "Invalid parameter 'colour'"),
        *(
            (f"memory-backend-ram,size=1M,count={count}", "Parameter 'count' expects a number")
            for count in ("0", "-1", "65536", "1.5", "x", "", "9" * 5000, "٣")
        ),
        ('{"qom-type":"memory-backend-ram","size":1,"count":[]}', "Parameter 'count' expects"),
        ("memory-backend-file,size=1M,mem-path=/x", "Parameter 'qom-type' expects"),
        ("secret,data=x", "Parameter 'qom-type' expects memory-backend-memfd, "),
    ],
)
def test_what_is_refused(text: str, desc: str) -> None:
    with pytest.raises(QMPError) as caught:
        parse_pool(text, Compat.V10_0)
    assert caught.value.desc.startswith(desc)


def test_help() -> None:
    with pytest.raises(Answered, match="memory-backend-memfd options"):
        parse_pool("memory-backend-memfd,help", Compat.V10_0)
