"""Terminals for tests."""

from __future__ import annotations

import os

import pytest

from tests.conftest import NOT_HERE


def open_terminal() -> tuple[int, int]:
    """Both ends of a new terminal, ours first; skips where there can be none."""
    try:
        return os.openpty()
    except OSError as error:
        pytest.skip(f"{NOT_HERE}pseudo-terminals: {error.strerror or error}")
