"""Commands about what neither has: replay, COLO, children of nodes that take none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.standin import standin_pair, tell
from tests.differential.test_block_jobs import Step, node

STEPS: list[Step] = [
    *((f"replay-{verb}", {"icount": 5}) for verb in ("break", "seek")),
    ("replay-delete-break", None),
    ("set-vcpu-dirty-limit", {"dirty-rate": 5}),
    ("cancel-vcpu-dirty-limit", None),
    ("x-colo-lost-heartbeat", None),
    ("system_wakeup", None),
    *(
        ("human-monitor-command", {"command-line": f"info {word}"})
        for word in ("history", "opcount")
    ),
]


@pytest.mark.parametrize("machine", ["q35", "isapc", "microvm", "none"])
def test_what_a_paused_machine_answers(directory: Path, machine: str) -> None:
    with standin_pair(directory, "-machine", machine) as pair:
        tell(pair, STEPS)
        if machine != "none":
            # A QEMU without a machine ends.
            tell(pair, [("rtc-reset-reinjection", None)])


def test_children_that_nodes_do_not_take(directory: Path) -> None:
    def change(**arguments: Any) -> Step:
        return "x-blockdev-change", {"parent": "a", **arguments}

    null = {"driver": "null-co", "node-name": "below"}
    steps: list[Step] = [
        *(node("raw", "a", file=null), node("null-co", "n")),
        *(change(), change(parent="nope", node="n"), change(child="file", node="n")),
        *(change(child="x"), change(child="file"), change(child="children.0")),
        *(change(node="nope"), change(node="n"), change(node="a"), change(parent="n", node="a")),
    ]
    with standin_pair(directory, "-machine", "none") as pair:
        tell(pair, steps)
