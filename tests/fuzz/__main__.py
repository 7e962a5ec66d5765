"""Fuzzes one door with coverage's guidance: `python -m tests.fuzz TARGET [libFuzzer's options]`.

Needs atheris. What reaches further is gathered in a folder of its own, at first a
copy of the corpus in the tree; an input that breaks a promise is written to a
file and ends the run. `python -m tests.fuzz TARGET --keep` adds to the tree's
corpus, of all that was gathered, the shortest inputs that reach what the corpus
does not.
"""

from __future__ import annotations

import hashlib
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 300
"""Bytes of an input that is kept."""
ROOMS = ("memd.wire", "memd.qapi", "memd.cli")
"""Whose code is to be reached."""

Arc = tuple[object, int, int]
"""A function's code, and two of its lines, one run after the other."""


def main() -> None:
    """Run."""
    name, *options = sys.argv[1:]
    found = Path(tempfile.gettempdir()) / f"memd-fuzz-{name}"
    if options == ["--keep"]:
        keep(name, found)
    else:
        fuzz(name, found, options)


def fuzz(name: str, found: Path, options: list[str]) -> None:
    """Look for inputs, until told to stop."""
    import atheris

    with atheris.instrument_imports(include=["memd", "tests.qapi"]):
        for room in ROOMS:
            # What is only imported when it is needed counts as well.
            for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
                if not module.name.endswith("__main__"):
                    import_module(module.name)
        from tests.fuzz.targets import TARGETS
    found.mkdir(exist_ok=True)
    for each in (CORPUS / name).iterdir():
        shutil.copy(each, found)
    atheris.Setup([sys.argv[0], *options, str(found)], TARGETS[name])
    atheris.Fuzz()


def keep(name: str, found: Path) -> None:
    """Add to the corpus what reaches further than it does."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    reached: set[Arc] = set()
    for path in (CORPUS / name).iterdir():
        reached |= arcs(target, path.read_bytes())
    inputs = {path.read_bytes() for path in found.iterdir()}
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        if len(data) > LONGEST:
            break
        further = arcs(target, data) - reached
        if further:
            reached |= further
            path = CORPUS / name / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]
            path.write_bytes(data)
            print(f"{path.name}: {len(data)} bytes, {len(further)} arcs")


def arcs(target: Callable[[bytes], None], data: bytes) -> set[Arc]:
    """What a run of a target goes through in memd."""
    seen: set[Arc] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_globals.get("__name__", "").startswith(ROOMS):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            seen.add((frame.f_code, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return seen


if __name__ == "__main__":
    main()
