"""Runs `qemu-system-memd`, and looks at it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import prefork
from tests.differential.server import PATIENCE, TREE, Server, qemu_system_memd

Start = Callable[..., Server]
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(TREE))


def run(*options: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a `qemu-system-memd` that is to end by itself."""
    argv = [*(prefix or []), *qemu_system_memd(), "-machine", "none", *options]
    return prefork.run(argv)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(str(path))
        sock.listen(4)
        yield sock


def status(server: Server) -> str:
    return str(server.monitor().execute("query-status")["return"]["status"])


def filenames(server: Server) -> dict[str, str]:
    answer = server.monitor().execute("query-chardev")["return"]
    return {each["label"]: each["filename"] for each in answer}
