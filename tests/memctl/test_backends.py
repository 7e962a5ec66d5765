from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memd.client import Client, QMPError
from memd.memctl.backends import COLUMNS, access, row, size_of, stat
from tests.differential.harness import Side

STAT: dict[str, Any] = {
    "id": "m0",
    "qom-type": "memory-backend-file",
    "size": 8 << 20,
    "page-size": 4096,
    "rom": False,
    "share": False,
    "resident": 8192,
    "private-dirty": 4096,
    "swapped": 0,
    "exports": 3,
    "nodes": [],
}


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({}, "copy-on-write"),
        ({"share": True}, "RAM"),
        ({"rom": True}, "ROM"),
        ({"rom": True, "share": True}, "ROM"),
        ({"qom-type": "memory-backend-ram"}, "RAM"),
    ],
)
def test_access(changed: dict[str, Any], kind: str) -> None:
    assert access({**STAT, **changed}) == kind


def test_row() -> None:
    texts = [cell if isinstance(cell, str) else cell[0] for cell in row(STAT)]
    assert texts == ["m0", "file", "8 MiB", "copy-on-write", "off", "8 KiB", "4 KiB", "0", "3"]
    assert len(texts) == len(COLUMNS)


def test_of_a_daemon(memd: Side, tmp_path: Path) -> None:
    with Client(memd.server.path) as client:
        client.execute("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 5000})
        client.execute("object-add", {"qom-type": "thread-context", "id": "t"})
        try:
            assert stat(client, "m")["size"] == size_of(client, "m") == 5000
            for id, text in (
                ("x", "Device 'x' not found"),
                ("t", "object 't' is not a memory backend"),
            ):
                with pytest.raises(QMPError) as refused:
                    stat(client, id)
                assert refused.value.desc == text
                with pytest.raises(QMPError) as refused:
                    size_of(client, id)
                assert refused.value.desc == text
        finally:
            client.execute("object-del", {"id": "m"})
            client.execute("object-del", {"id": "t"})
