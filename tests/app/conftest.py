"""Starts daemons that serve a socket of their own besides what a test asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.starting import Start
from tests.differential.server import qemu_system_memd, starter


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a `qemu-system-memd` that serves a socket of its own besides."""
    argv = [*qemu_system_memd(), "-machine", "none", "-clients", "many"]
    with starter("qemu-system-memd", argv, directory) as start:
        yield start
