"""Images that name another backing file, by a command of its own and by jobs, beside a QEMU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import NODES, SIZE, Step, image, node, run
from tests.differential.test_image_locks import holding

RO: dict[str, Any] = {"read-only": True}
GROUP: Step = ("object-add", {"qom-type": "throttle-group", "id": "g"})


def test_change_backing_file(directory: Path) -> None:
    def change(to: str, image: str = "c", device: str = "c") -> Step:
        told = {"device": device, "image-node-name": image, "backing-file": to}
        return "change-backing-file", told

    steps: list[Step] = [
        *(*image("a"), *image("b", "a"), *image("c", "b"), *image("other")),
        node("null-co", "n", size=SIZE),
        *(change("x", device="nope"), change("x", "nope"), change("x", "a"), change("x", "n")),
        *(change("x", device="b"), change("x", "other"), change("x", "b", "other")),
        *(change("x", "b"), NODES, change("x"), NODES, change("@DIR@/b"), NODES),
        *(change("y" * count) for count in (1023, 1024)),
        NODES,
        *(change(""), NODES, change("@DIR@/b"), NODES),
        *(node("throttle", "t", file="b", **{"throttle-group": "g"}), change("x", "t", "t")),
        # What may not be written to stays as it is.
        ("blockdev-del", {"node-name": "t"}),
        ("blockdev-del", {"node-name": "c"}),
        node("qcow2", "c", file="pc", backing="b", **RO),
        *(change("z"), ("blockdev-del", {"node-name": "c"})),
        ("blockdev-del", {"node-name": "pc"}),
        node("file", "pc", filename="@DIR@/c", **RO),
        node("qcow2", "c", file="pc", backing="b", **RO),
        *(change("w"), NODES),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, [GROUP])
        run(pair, steps)
        run(pair, [("blockdev-del", {"node-name": name}) for name in ("c", "pc")])
        run(pair, [node("file", "pc", filename="@DIR@/c", **{"auto-read-only": True})])
        run(pair, [node("qcow2", "c", file="pc", backing="b", **RO)])
        with holding((side.scratch / "c" for side in (pair.reference, pair.subject)), 201, 203):
            run(pair, [change("v"), NODES])


def test_jobs_name_a_backing_file(directory: Path) -> None:
    def job(kind: str, **options: Any) -> Step:
        told = {name.replace("_", "-"): value for name, value in options.items()}
        return f"block-{kind}", {"job-id": "j", "device": "e", **told}

    steps: list[Step] = [
        *(*image("a"), *image("b", "a"), *image("c", "b"), *image("d", "c"), *image("e", "d")),
        GROUP,
        node("null-co", "n", size=SIZE),
        node("throttle", "t", file="n", **{"throttle-group": "g"}),
        job("commit", backing_file="x"),
        job("commit", top_node="e", backing_file="x"),
        job("stream", backing_file="x"),
        job("stream", base_node="a", bottom="b"),
        *(job("stream", bottom="nope"), job("stream", bottom="n"), job("stream", bottom="t")),
        job("stream", device="t", bottom="t"),
        *(job("stream", base=f"@DIR@/{name}", bottom="b") for name in "ax"),
        *(job("stream", bottom="e"), NODES, job("stream", bottom="d"), NODES),
        *(job("commit", top_node="d", base_node="c", backing_file="x"), NODES),
        *(job("stream", base_node="b", backing_file="y"), NODES),
        *(job("stream", base_node="a", backing_file=""), NODES),
        *(job("stream", base_node="a", backing_file="z" * 1024), NODES),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        run(pair, steps)
