"""Several devices on one block node: which may be, and who is named where they may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.standin import standin_pair
from tests.differential.test_drives import Step, same

LINE = (
    "-machine q35 -device virtio-scsi-pci -device pcie-root-port,id=p1,chassis=1"
    " -device pcie-root-port,id=p2,chassis=2 -device pcie-root-port,id=p3,chassis=3"
    " -blockdev null-co,node-name=n -blockdev null-co,node-name=r,read-only=on"
    " -drive if=none,id=dr,driver=null-co,node-name=nd -blockdev null-co,node-name=o"
)


def scsi(id: str, kind: str = "hd", drive: str = "n", **properties: Any) -> Step:
    return ("device_add", {"driver": f"scsi-{kind}", "id": id, "drive": drive, **properties})


def virtio(id: str, port: str, drive: str = "n", **properties: Any) -> Step:
    place = {"driver": "virtio-blk-pci", "id": id, "drive": drive, "bus": port}
    return ("device_add", {**place, **properties})


def of(id: str) -> Step:
    return ("qom-get", {"path": f"/machine/peripheral/{id}", "property": "drive"})


def replace(id: str, node: str) -> Step:
    return (
        "qom-set",
        {"path": f"/machine/peripheral/{id}", "property": "drive", "value": node},
    )


SHARED: dict[str, Any] = {"share-rw": True}
TOLD: list[Step] = [("query-block", {}), ("query-blockstats", {})]
EXPORT: list[Step] = [
    ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
    ("block-export-add", {"type": "nbd", "id": "e", "node-name": "n", "writable": True}),
]
DELETE: Step = ("blockdev-del", {"node-name": "n"})

CASES: dict[str, list[Step]] = {
    "neither shares": [scsi("a"), scsi("b"), *TOLD],
    "the first shares": [scsi("a", **SHARED), scsi("b")],
    "the second shares": [scsi("a"), scsi("b", **SHARED)],
    "both share": [
        *(scsi("a", **SHARED), scsi("b", **SHARED), *TOLD, of("a"), of("b"), DELETE),
        *(("device_del", {"id": "a"}), *TOLD, scsi("c"), DELETE),
        *(("device_del", {"id": "b"}), *TOLD, DELETE),
    ],
    "a third does not": [scsi("a", **SHARED), scsi("b", **SHARED), scsi("c"), scsi("d", "cd")],
    "nobody writes": [
        *(scsi("a", drive="r"), scsi("b", drive="r"), scsi("c", "cd", "r"), *TOLD),
        ("blockdev-del", {"node-name": "r"}),
    ],
    "CDs": [scsi("a", "cd"), scsi("b", "cd"), scsi("c"), virtio("v", "p1", **SHARED)],
    "a CD of what others share": [scsi("a", **SHARED), scsi("b", "cd")],
    "on ports": [
        *(virtio("a", "p1", **SHARED), virtio("b", "p2", **SHARED), virtio("c", "p3")),
        *(of("a"), of("b"), *TOLD),
    ],
    "the node of a drive": [scsi("a", drive="nd"), scsi("b", drive="nd"), scsi("c", drive="dr")],
    "what a drive shares": [
        *(scsi("a", drive="nd", **SHARED), scsi("c", drive="dr", **SHARED), *TOLD),
        ("human-monitor-command", {"command-line": "drive_del dr"}),
        *TOLD,
    ],
    "trays": [
        *(scsi("a", drive="r"), ("device_add", {"driver": "scsi-cd", "id": "e"})),
        ("blockdev-open-tray", {"id": "e"}),
        ("blockdev-insert-medium", {"id": "e", "node-name": "r"}),
    ],
    "another node": [
        *(scsi("a", **SHARED), scsi("b", drive="o"), replace("b", "n"), replace("a", "o")),
        *(scsi("c", drive="r"), replace("a", "r"), *TOLD),
        *(virtio("v", "p1", "r"), replace("v", "n"), replace("c", "n")),
    ],
    "an export": [scsi("a", **SHARED), scsi("b", **SHARED), *EXPORT],
    "no export": [scsi("a", "cd"), scsi("b", "cd"), *EXPORT],
    "a size": [
        *(scsi("a", "cd", "r"), scsi("b", "cd", "r"), scsi("c", drive="n", **SHARED)),
        ("block_resize", {"node-name": "r", "size": 1 << 21}),
        ("block_resize", {"node-name": "n", "size": 1 << 21}),
    ],
    "an overlay": [
        *(scsi("a", **SHARED), scsi("b", **SHARED)),
        (
            "blockdev-snapshot-sync",
            {"node-name": "n", "snapshot-file": "@DIR@/s", "snapshot-node-name": "s"},
        ),
        *(of("a"), of("b"), DELETE),
    ],
}


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_devices_share_a_node(directory: Path, steps: list[Step]) -> None:
    with standin_pair(directory, *LINE.split()) as pair:
        same(pair, steps)
