"""The seed of what tests draw."""

from __future__ import annotations

import os
import random


def seed_of_run() -> int:
    """What MEMD_SEED says; another one each time where it says nothing."""
    return int(os.environ.get("MEMD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
