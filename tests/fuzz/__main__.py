"""Fuzzes one door with coverage's guidance: `python -m tests.fuzz TARGET [libFuzzer's options]`.

Needs atheris. What it finds worth keeping goes into a folder of its own, at
first a copy of the corpus in the tree; an input that breaks a promise is
written to a file and ends the run. `--minimize` puts the smallest set of inputs
that reaches as much into the tree's corpus.
"""

from __future__ import annotations

import pkgutil
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
ROOMS = ("memd.wire", "memd.qapi", "memd.cli")
"""Whose code is to be reached."""


def main() -> None:
    """Run."""
    arguments = sys.argv[1:]
    minimize = "--minimize" in arguments
    name, *options = [each for each in arguments if each != "--minimize"]
    with atheris.instrument_imports(include=["memd"]):
        for room in ROOMS:
            # What is only imported when it is needed counts as well.
            for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
                if not module.name.endswith("__main__"):
                    import_module(module.name)
        from tests.fuzz.targets import TARGETS
    found = Path(tempfile.gettempdir()) / f"memd-fuzz-{name}"
    kept = CORPUS / name
    if minimize:
        merged = Path(tempfile.mkdtemp(prefix="memd-fuzz-merged-"))
        folders = ["-merge=1", str(merged), str(kept), str(found)]
    else:
        found.mkdir(exist_ok=True)
        for each in kept.iterdir():
            shutil.copy(each, found)
        folders = [str(found)]
    atheris.Setup([sys.argv[0], *options, *folders], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
