"""Nodes that are reopened, and images that name another backing file, beside a paused QEMU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.differential.harness import Pair
from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import NODES, SIZE, Step, image, node, run
from tests.differential.test_image_locks import holding, locked

RO: dict[str, Any] = {"read-only": True}
QUERY: Step = ("query-block", None)


def reopen(*options: dict[str, Any]) -> Step:
    return "blockdev-reopen", {"options": [*options]}


def of(name: str, driver: str, **options: Any) -> dict[str, Any]:
    return {
        "node-name": name,
        "driver": driver,
        **{n.replace("_", "-"): v for n, v in options.items()},
    }


def images(directory: Path) -> None:
    for name in ("raw", "rom", "other"):
        (directory / name).write_bytes(bytes(SIZE))


def test_nodes_are_reopened(directory: Path) -> None:
    """What may change does, what may not has an error, and locks follow."""
    raw, qcow2, file = of("r", "raw", file="p"), of("b", "qcow2", file="pb"), of("p", "file")
    file["filename"] = "@DIR@/raw"
    inline = {"driver": "file", "filename": "@DIR@/other"}
    null = of("n", "null-co", size=SIZE)

    steps: list[Step] = [
        *(reopen({"driver": "raw", "file": "p"}), reopen(of("nope", "raw", file="p"))),
        *(reopen(of("r", "null-co")), reopen(of("n", "raw", file="p")), reopen(null)),
        *(reopen({**null, "size": 512}), reopen(of("n", "null-co")), reopen({**null, **RO})),
        NODES,
        reopen(null),
        # A device writes to the raw node.
        *(reopen(raw), reopen({**raw, **RO}), reopen({**file, **RO}), reopen(file)),
        reopen({**file, "filename": "@DIR@/other"}),
        reopen({**file, "locking": "off"}),
        reopen({**raw, "detect-zeroes": "unmap"}),
        reopen({**raw, "detect-zeroes": "unmap", "discard": "unmap"}),
        reopen({**raw, "cache": {"no-flush": True}}),
        *(NODES, QUERY, reopen(raw), NODES),
        reopen({**raw, "force-share": True}),
        *(reopen({**raw, "offset": 1 << 20}), NODES, reopen({**raw, "size": 1 << 20}), NODES),
        *(reopen({**raw, "size": SIZE * 2}), reopen({**raw, "offset": SIZE * 2}), reopen(raw)),
        *(reopen({**raw, "file": "nope"}), reopen({**raw, "file": "r"}), NODES),
        *(reopen({**raw, "file": inline}), reopen({**raw, "file": {**inline, **file}})),
        # The file of another one is its own.
        *(
            reopen(of("i", "raw", file=inline)),
            NODES,
            reopen({**of("i", "raw", file=inline), **RO}),
        ),
        NODES,
        *(reopen(of("i", "raw", file=inline, auto_read_only=True)), NODES),
        reopen(of("i", "raw", file={**inline, "filename": "@DIR@/raw"})),
        reopen(of("i", "raw", file={**inline, **RO})),
        NODES,
        # Images.
        *(reopen(qcow2), reopen({**qcow2, "backing": None}), NODES),
        *(reopen({**qcow2, "backing": "n"}), NODES, reopen({**qcow2, "backing": "a"}), NODES),
        *(reopen({**qcow2, "backing": name}) for name in ("nope", "b", "pb")),
        *(reopen({**qcow2, "backing": "a", **RO}), NODES),
        reopen({**qcow2, "backing": "a", **RO}, {**of("pb", "file", filename="@DIR@/b"), **RO}),
        *(NODES, reopen({**qcow2, "backing": "a"}), NODES),
        reopen({**qcow2, "backing": "a"}, of("pb", "file", filename="@DIR@/b")),
        reopen({**qcow2, "backing": "a"}, {**null, "size": 1}),
        *(NODES, reopen(of("a", "qcow2", file="pa")), NODES),
        reopen(of("a", "qcow2", file="pa", read_only=True)),
        *(reopen({**of("t", "throttle", file="n"), "throttle-group": each}) for each in "ghx"),
        *(reopen({**of("t", "throttle", file="i"), "throttle-group": "g"}), NODES),
        *(reopen({**of("t", "throttle", file="n"), "throttle-group": "g", **RO}), NODES),
    ]
    with standin_pair(directory, "-machine", "pc", prepare=images) as pair:
        run(pair, [("object-add", {"qom-type": "throttle-group", "id": each}) for each in "gh"])
        run(pair, [node("file", "p", filename="@DIR@/raw"), node("raw", "r", file="p")])
        run(pair, [("device_add", {"driver": "virtio-blk-pci", "id": "vb", "drive": "r"})])
        run(pair, [node("null-co", "n", size=SIZE), node("raw", "i", file=inline)])
        run(pair, [*image("a"), *image("b", "a")])
        run(pair, [node("throttle", "t", file="n", **{"throttle-group": "g"})])
        _compare(pair, steps, "raw", "other", "a", "b")


def _compare(pair: Pair, steps: Sequence[Step], *names: str) -> None:
    for step in steps:
        run(pair, [step])
        for name in names:
            if name == "b" and pair.subject.ask("query-block-jobs")["return"]:
                # A job of memd's locks no images.
                continue
            what = f"locks of {name} after {step}"
            pair.same(what, lambda side, name=name: locked(side.scratch / name))  # type: ignore[misc]


def test_what_is_in_use_is_reopened(directory: Path) -> None:
    """Exports that write, jobs, filters, files of nodes below others, and other processes."""
    export = {"type": "nbd", "id": "e", "node-name": "b", "writable": True}
    chain = of("b", "qcow2", file="pb", backing="a")
    upper = of("c", "qcow2", file="pc", backing="b")
    inline = {"driver": "file", "filename": "@DIR@/other"}
    rom = {**inline, "filename": "@DIR@/rom"}
    below: dict[str, Any] = {"driver": "raw", "node-name": "u", "file": inline}
    filtered = of("t", "throttle", file="i", throttle_group="g")
    cow = of("cor", "copy-on-read", file="n")
    steps: list[Step] = [
        ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}),
        ("block-export-add", export),
        *(reopen({**chain, **RO}), NODES, ("block-export-del", {"id": "e"})),
        *(reopen({**chain, **RO}), NODES, reopen(chain)),
        ("block-commit", {"job-id": "j", "device": "c", "top-node": "b", "auto-finalize": False}),
        *(reopen({**chain, "backing": None}), reopen({**chain, "backing": "n"})),
        *(reopen({**upper, "backing": None}), reopen({**upper, "backing": "a"})),
        *(("job-cancel", {"id": "j"}), reopen({**chain, "backing": None}), NODES),
        reopen({**chain, "backing": "a"}),
        # Below a raw node that is exported.
        ("block-export-add", {**export, "node-name": "i"}),
        *(reopen({**of("i", "raw", file=inline), **RO}), NODES),
        reopen(of("i", "raw", file={**inline, **RO})),
        ("block-export-del", {"id": "e"}),
        *(reopen(filtered), reopen({**filtered, "file": "u"}), NODES),
        reopen({**filtered, "file": "n"}),
        *(reopen({**filtered, "file": "t"}), reopen({**filtered, "file": None})),
        *(reopen({**cow, **RO}), reopen(cow), NODES),
        *(reopen(of("u", "raw", file={**inline, "locking": "off"})), reopen(below)),
        *(("blockdev-del", {"node-name": name}) for name in ("u", "t", "i", "n")),
        reopen(of("x", "nbd", server={"type": "unix", "path": "@DIR@/no"})),
        reopen({**of("sh", "raw", file=rom), **RO, "force-share": True}),
        reopen({**of("sh", "raw", file=rom), **RO}),
        *(reopen({**of("ns", "null-co"), **RO, "force-share": told}) for told in (True, False)),
        *(reopen({**of("cor", "null-co"), "force-share": told}) for told in (True, False)),
        *(reopen({**of("n3", "null-co"), "force-share": told}) for told in (True, False)),
        *(reopen(of("lo", "file", filename="@DIR@/raw", locking=how)) for how in ("off", "auto")),
        *(reopen(of("au", "file", filename="@DIR@/raw", locking=how)) for how in ("on", "auto")),
        reopen(of("lo", "file", filename="@DIR@/raw")),
        *(reopen(of("f", "file", filename="@DIR@/rom", locking=how)) for how in ("off", "auto")),
        *(reopen(of("f", "file", filename="@DIR@/rom")), NODES),
    ]
    with standin_pair(directory, "-machine", "none", prepare=images) as pair:
        run(pair, [("object-add", {"qom-type": "throttle-group", "id": "g"})])
        run(
            pair,
            [*image("a"), *image("b", "a"), *image("c", "b"), node("null-co", "n", size=SIZE // 2)],
        )
        run(pair, [node("raw", "i", file={**inline, "filename": "@DIR@/raw"})])
        run(pair, [node("raw", "u", file=inline), node("copy-on-read", "cor", file="n")])
        run(pair, [node("raw", "sh", file=rom, **RO, **{"force-share": True})])
        run(pair, [node("file", "f", filename="@DIR@/rom", **RO)])
        run(pair, [node("null-co", "ns", **RO, **{"force-share": True}), node("null-co", "n3")])
        run(pair, [node("file", "lo", filename="@DIR@/raw", locking="off")])
        run(pair, [node("file", "au", filename="@DIR@/raw", locking="auto")])
        run(pair, [node("throttle", "t", file="i", **{"throttle-group": "g"})])
        _compare(pair, steps, "raw", "other", "rom", "a", "b")


def test_what_others_have_locked_is_not_reopened(directory: Path) -> None:
    """Nothing has changed then, and what was free before is locked no more."""
    raw = of("r", "raw", file={"driver": "file", "filename": "@DIR@/raw"})
    chain = of("b", "qcow2", file={"driver": "file", "filename": "@DIR@/b"}, backing="a")
    gone = of("g", "raw", file={"driver": "file", "filename": "@DIR@/other"})
    with standin_pair(directory, "-machine", "none", prepare=images) as pair:
        run(pair, [*image("a"), *image("b", "a")])
        run(pair, [("blockdev-del", {"node-name": name}) for name in ("b", "pb")])
        run(pair, [("blockdev-add", {**each, **RO}) for each in (chain, raw, gone)])
        for side in (pair.reference, pair.subject):
            (side.scratch / "other").unlink()
        paths = [side.scratch / "b" for side in (pair.reference, pair.subject)]
        with holding(paths, 201):
            _compare(pair, [reopen(chain), reopen(raw, chain), NODES], "raw", "b")
        parts = [{**raw, "offset": -1}, {**raw, "size": -1}, {**raw, "size": 511}]
        steps = [reopen(raw, gone), NODES, *(reopen(part) for part in parts)]
        _compare(pair, [*steps, reopen(raw, chain), NODES], "raw", "b")
        _compare(pair, [reopen({**chain, **RO}), NODES], "raw", "b")
        pair.same("image", lambda side: (side.scratch / "b").stat().st_size > 0)
