"""Attacks by hand: for as long as it is told, with a seed that it prints."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.attack.model import Attack


def main() -> None:
    """Attack, and say what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="memd-attack-") as directory:
        attack = Attack(seed, Path(directory))
        try:
            attack.run(options.minutes * 60)
        finally:
            print(attack.figures(), flush=True)
            print(dict(attack.done), flush=True)
            attack.close()


if __name__ == "__main__":
    main()
