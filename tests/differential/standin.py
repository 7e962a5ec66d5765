"""A stand-in and a paused QEMU that get the same commands."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import prefork
from tests.differential.harness import Pair, Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running


@contextlib.contextmanager
def standin_pair(
    directory: Path,
    *options: str,
    own: Sequence[str] = (),
    bare: bool = True,
    prepare: Callable[[Path], None] = lambda directory: None,
) -> Iterator[Pair]:
    """Both, started with the same options.

    Args:
        directory: where they work.
        options: of both; `@DIR@` in them is each one's own directory.
        own: memd's own, besides.
        bare: whether the machine has nothing that it is not told to have.
        prepare: makes what is in the directory of each one.
    """
    common = ["-S", "-display", "none", *["-nodefaults"] * bare, *options]
    with contextlib.ExitStack() as stack:
        sides = []
        for name, argv in (
            ("QEMU", qemu_binary()),
            ("memd", [*qemu_system_memd(qemu_compat()), *own]),
        ):
            place, scratch = directory / name[:4], directory / f"{name[:4]}-s"
            place.mkdir()
            scratch.mkdir()
            prepare(scratch)
            line = [*argv, *(each.replace("@DIR@", str(scratch)) for each in common)]
            sides.append(Side(stack.enter_context(running(name, line, place, scratch)), scratch))
        yield Pair(*sides)


def same_messages(*options: str, text: str = '{"execute": "qmp_capabilities"}') -> None:
    """Start both, end both at once by `quit`, and compare what they write to standard error.

    Args:
        options: of both.
        text: what is said to them before.
    """
    common = ["-S", "-display", "none", "-nodefaults", "-qmp", "stdio", *options]
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        done = prefork.run([*argv, *common], text=text + '{"execute": "quit"}')
        rows = done.stderr.replace("qemu-system-x86_64", "qemu-system-memd").splitlines()
        said.append((done.returncode, rows))
    assert said[0] == said[1]


def tell(pair: Pair, steps: Sequence[tuple[str, Any]]) -> None:
    """Execute commands on both, whose answers and events have to agree."""
    for command, arguments in steps:
        pair.ask(command, arguments)
        what = f"events of {command} {json.dumps(arguments)}"
        pair.same(what, lambda side: side.take_events())
