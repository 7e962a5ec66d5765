"""A few seconds of the attack; `python -m tests.attack` goes on for longer."""

from __future__ import annotations

import os
from pathlib import Path

from tests.attack.model import Attack
from tests.conftest import need_shm


@need_shm
def test_nothing_goes_wrong(directory: Path) -> None:
    seed = int(os.environ.get("MEMD_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
    print(f"MEMD_SEED={seed}")
    attack = Attack(seed, directory)
    try:
        attack.run(8)
        print(attack.figures())
    finally:
        attack.close()
