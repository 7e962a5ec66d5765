"""What one user of a node does and another one denies, as a paused QEMU's nodes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import NODES, SIZE, Step, image, node, run
from tests.differential.test_image_locks import locked

NBD: Step = (
    "nbd-server-start",
    {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}},
)


def resize(name: str, size: int = 512) -> Step:
    return "block_resize", {"node-name": name, "size": size}


def export(id: str, name: str, **more: Any) -> Step:
    return "block-export-add", {"type": "nbd", "id": id, "node-name": name, **more}


def disk(id: str, name: str) -> Step:
    return "device_add", {"driver": "scsi-hd", "id": id, "drive": name}


def images(directory: Path) -> None:
    for name in ("raw", "part", "snap"):
        (directory / name).write_bytes(b"x" * SIZE)


def test_nobody_does_what_another_one_denies(directory: Path) -> None:
    """Files of images are neither cut nor made anew, and read-only ones have no writers."""
    read_only = {"driver": "file", "filename": "@DIR@/snap", "read-only": True}
    create = {"driver": "qcow2", "file": "pq", "size": SIZE}
    json_named = {"backing-file": 'json:{"driver": "null-co", "size": 512}'}
    dismissed: Step = ("job-dismiss", {"id": "c"})
    steps: list[Step] = [
        *(resize("pq"), node("qcow2", "q2", file="pq"), disk("d", "pq")),
        *(("blockdev-create", {"job-id": "c", "options": create}), ("query-jobs", None), dismissed),
        # A part of a file keeps that as large as it is.
        *(node("raw", "part", file="ppart", size=1024), resize("ppart"), NODES),
        *(export("e", "r"), resize("r"), resize("p"), resize("p", SIZE * 2), disk("d", "r")),
        ("block-export-del", {"id": "e"}),
        # Who reads a backing file that may change lets it be written to.
        *(node("qcow2", "top", file="ptop", backing="r"), export("e", "top"), NODES),
        *(export("w", "r", writable=True), disk("d", "top")),
        *(("block-export-del", {"id": "w"}), disk("d", "top")),
        *(export("w", "r", writable=True), export("w", "p", writable=True), resize("r")),
        # A raw node that may be written to, on a file that may not.
        *(node("raw", "ro", file=read_only), disk("x", "ro"), export("x", "ro", writable=True)),
        resize("ro"),
        node("copy-on-read", "c", file="ro"),
        *(node("copy-on-read", "c", file="q"), NODES),
        ("blockdev-reopen", {"options": [{**node("qcow2", "q", file="pq")[1], "read-only": True}]}),
        # An export goes on with the overlay.
        *(*image("under"), *image("over"), export("s", "under", writable=True)),
        ("blockdev-snapshot", {"node": "over", "overlay": "over"}),
        ("blockdev-snapshot", {"node": "under", "overlay": "over"}),
        *(("query-block-exports", None), NODES, node("null-co", "more"), resize("under")),
        *(("block-export-del", {"id": "s"}), ("blockdev-del", {"node-name": "over"})),
        ("block_resize", {"device": "n", "size": 512}),
        # What is exported is no overlay.
        *(*image("used"), node("null-co", "low", size=SIZE), export("u", "used")),
        ("blockdev-snapshot", {"node": "low", "overlay": "used"}),
        # A file that is told to be writable stays so, and JSON names an image wherever it is.
        node("qcow2", "w", file={"driver": "file", "filename": "@DIR@/stays", "read-only": False}),
        ("blockdev-snapshot", {"node": "w", "overlay": "last"}),
        ("change-backing-file", {"device": "last", "image-node-name": "last", **json_named}),
        NODES,
        # What is exported may be copied.
        *(export("m", "n"), node("null-co", "m", size=SIZE)),
        ("blockdev-mirror", {"job-id": "m", "device": "n", "target": "m", "sync": "none"}),
        *(("job-cancel", {"id": "m"}), ("query-block-exports", None)),
        # The file of an image gives up blocks unless it is told not to.
        node("raw", "z", file={**read_only, "detect-zeroes": "unmap"}, **{"read-only": True}),
        NODES,
    ]
    with standin_pair(
        directory, "-machine", "pc", "-device", "virtio-scsi-pci", prepare=images
    ) as pair:
        run(pair, [*image("stays"), ("blockdev-del", {"node-name": "stays"}), *image("last")])
        run(pair, [("blockdev-del", {"node-name": "pstays"})])
        run(pair, [NBD, *image("q"), *image("top"), ("blockdev-del", {"node-name": "top"})])
        run(pair, [node("file", "p", filename="@DIR@/raw"), node("raw", "r", file="p")])
        run(pair, [node("file", "ppart", filename="@DIR@/part"), node("null-co", "n", size=SIZE)])
        for step in steps:
            run(pair, [step])
            for name in ("raw", "part", "snap", "q", "top"):
                what = f"locks of {name} after {step}"
                pair.same(what, lambda side, name=name: locked(side.scratch / name))  # type: ignore[misc]
        # A QEMU tells of jobs that it refuses, memd does not.
        job = {"job-id": "j", "device": "big", "target": "ro", "sync": "full"}
        run(pair, [node("null-co", "big", size=SIZE)])
        for command in ("blockdev-mirror", "blockdev-backup"):
            pair.ask(command, job)
        pair.same(
            "files",
            lambda side: [
                hashlib.sha256((side.scratch / name).read_bytes()).hexdigest()
                for name in ("raw", "part", "snap")
            ],
        )
