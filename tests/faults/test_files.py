"""Files that change under a mapping: truncated, unlinked, replaced."""

from __future__ import annotations

import base64
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.faults.conftest import MIB, arguments, error


def read(memd: Side, offset: int = 0, length: int = 4) -> dict[str, Any]:
    return memd.ask("x-memdev-read", {"id": "m", "offset": offset, "length": length})


def test_truncated(memd: Side) -> None:
    """Every command on what is gone is an error, or leaves it out; none ends the daemon."""
    path = Path(memd.scratch / "file")
    path.write_bytes(b"data" * (MIB // 4))
    request = arguments("file", mem_path="@DIR@/file", share=True)
    assert memd.ask("object-add", request) == {"return": {}}
    os.truncate(path, 8192)
    gone = "its file was truncated to 8192 bytes"
    assert read(memd) == {"return": {"data": "ZGF0YQ=="}}
    assert error(read(memd, 8192)) == f"cannot read 'm' at offset 8192: {gone}"
    assert error(read(memd, 0, MIB)) == f"cannot read 'm' at offset 8192: {gone}"
    write = {"id": "m", "offset": 8192, "data": "AAAA"}
    assert error(memd.ask("x-memdev-write", write)) == f"cannot write 'm' at offset 8192: {gone}"
    across = {"id": "m", "offset": 0, "data": base64.b64encode(bytes(MIB)).decode()}
    assert error(memd.ask("x-memdev-write", across)) == f"cannot write 'm' at offset 0: {gone}"
    assert path.read_bytes()[:4] == b"data"
    populate = {"path": "m", "property": "prealloc", "value": True}
    assert error(memd.ask("qom-set", populate)) == (
        "qemu_prealloc_mem: preallocating memory failed: Bad address"
    )
    save = {"id": "m", "filename": "@DIR@/saved"}
    assert error(memd.ask("x-memdev-save", save)) == f"cannot save 'm' to '@DIR@/saved': {gone}"
    # A large folio may stay in memory as a whole, and is counted.
    (stat,) = memd.ask("x-memdev-stat", {"id": "m"})["return"]
    assert stat["resident"] <= MIB
    assert "return" in memd.ask("x-memdev-map", {"id": "m"})
    discard = {"id": "m", "offset": 0, "length": MIB}
    assert memd.ask("x-memdev-discard", discard) == {"return": {}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}
    assert sorted(os.listdir(memd.scratch)) == ["file"]


def test_truncated_and_exported(memd: Side) -> None:
    path = Path(memd.scratch / "file")
    path.write_bytes(bytes(MIB))
    memd.ask("object-add", arguments("file", mem_path="@DIR@/file", share=True))
    os.truncate(path, 0)
    memd.monitor.send(b'{"execute": "x-memdev-export", "arguments": {"id": "m"}}')
    data, fds, _flags, _address = socket.recv_fds(memd.monitor.socket, 65536, 4)
    assert b'"return"' in data
    assert os.fstat(fds[0]).st_size == 0
    os.close(fds[0])


@pytest.mark.parametrize("how", ["unlinked", "replaced"])
@pytest.mark.parametrize("share", [True, False])
def test_the_mapping_is_of_the_file_that_was_there(memd: Side, how: str, share: bool) -> None:
    path = Path(memd.scratch / "file")
    path.write_bytes(b"data" * (MIB // 4))
    memd.ask("object-add", arguments("file", mem_path="@DIR@/file", share=share))
    if how == "unlinked":
        path.unlink()
    else:
        other = memd.scratch / "other"
        other.write_bytes(b"other")
        other.rename(path)
    assert read(memd) == {"return": {"data": "ZGF0YQ=="}}
    assert memd.ask("x-memdev-write", {"id": "m", "offset": 0, "data": "TUVNRA=="}) == {
        "return": {}
    }
    assert memd.ask("qom-set", {"path": "m", "property": "prealloc", "value": True}) == {
        "return": {}
    }
    assert memd.ask("x-memdev-save", {"id": "m", "filename": "@DIR@/saved"}) == {"return": {}}
    saved = (memd.scratch / "saved").read_bytes()
    assert (saved[:8], len(saved)) == (b"MEMDdata", MIB)
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}
    if how == "replaced":
        assert path.read_bytes() == b"other"
