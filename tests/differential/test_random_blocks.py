"""Random commands about block nodes to memd and a QEMU: answers, events, who uses which node.

The sequences are those of the numbers below; `MEMD_SEED` names another one. Where memd
has no answer (`memd copies no data …`), or a QEMU has ended, a sequence is over.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from memd.standin.block.qcow2 import empty_image
from tests.differential.block_words import DEVICES, IMAGES, RAW, SIZE, Words
from tests.differential.harness import Pair, Side, exact
from tests.differential.server import Died
from tests.differential.standin import standin_pair
from tests.differential.test_block_jobs import answer
from tests.differential.test_job_nodes import NBD, run, same_events, same_nodes, unnamed

SEEDS = os.environ.get("MEMD_SEED", "1 2 5 6 7 10 12 14").split()
COMMANDS = 40


def prepare(at: Path) -> None:
    for name in RAW:
        with (at / name).open("wb") as made:
            made.truncate(SIZE)
    for name in IMAGES:
        with (at / name).open("wb") as made:
            for offset, data in empty_image({"size": SIZE}).items():
                made.seek(offset)
                made.write(data)


def look(memd: Side, words: Words) -> None:
    """Have the words name what there is."""
    nodes: list[Any] = memd.ask("query-named-block-nodes", {"flat": True})["return"]
    words.nodes = [each["node-name"] for each in nodes if each["node-name"][0] != "#"]
    words.bitmaps = [
        (each["node-name"], bitmap["name"])
        for each in nodes
        for bitmap in each.get("dirty-bitmaps", ())
        if "name" in bitmap
    ]
    drives: list[Any] = memd.ask("query-block")["return"]
    words.devices = [name for name in DEVICES if any(name == each.get("qdev") for each in drives)]
    jobs: list[Any] = memd.ask("query-jobs")["return"]
    words.jobs = [each["id"] for each in jobs]
    exports: list[Any] = memd.ask("query-block-exports")["return"]
    words.exports = [each["id"] for each in exports]


def same(pair: Pair, command: str, arguments: Any) -> bool:
    """Execute a command on both, which have to agree; whether the sequence goes on."""
    theirs, ours = pair.each(lambda side: side.ask(command, arguments))
    if "memd " in str(ours.get("error")):
        return False
    said = [unnamed(exact(answer(each))) for each in (theirs, ours)]
    assert said[0] == said[1], f"{pair.note}: {command} {exact(arguments)}"
    same_events(pair, f"{pair.note}: {command} {exact(arguments)}")
    same_nodes(pair, f"{pair.note}: {command} {exact(arguments)}")
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_random_commands(directory: Path, seed: str) -> None:
    words = Words(random.Random(seed))
    print(f"MEMD_SEED={seed}")
    options = ("-machine", "pc", "-device", "virtio-scsi-pci")
    with standin_pair(directory, *options, prepare=prepare) as pair:
        run(pair, [NBD, ("object-add", {"qom-type": "throttle-group", "id": "g"})])
        for number in range(COMMANDS):
            pair.note = f"MEMD_SEED={seed}, command {number}"
            try:
                if not same(pair, *words.command()):
                    return
            except Died:
                if pair.subject.server.alive():
                    # Some commands end a QEMU.
                    return
                raise
            look(pair.subject, words)
