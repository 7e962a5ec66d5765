"""The fixtures of tests/faulty, too."""

from __future__ import annotations

from tests.faulty.conftest import connect, kept_server, server

__all__ = ["connect", "kept_server", "server"]
