"""For unittest: a test case with a server of its own."""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from memd.client import Client
from memd.testing.server import Server


class MemdTestCase(unittest.TestCase):
    """Starts a server before each test, and ends it afterwards.

    When a test fails, the server's log is part of what is reported. It goes
    together with `unittest.IsolatedAsyncioTestCase`, which is then inherited
    from as well.

    Attributes:
        memd_options: see `Server`.
        memd_faults: see `Server`.
        memd_compat: see `Server`.
        memd: the server.
    """

    memd_options: ClassVar[Sequence[str]] = ()
    memd_faults: ClassVar[Sequence[Mapping[str, Any]]] = ()
    memd_compat: ClassVar[str | None] = None

    memd: Server

    def setUp(self) -> None:
        """Start the server; to be called by a `setUp` that replaces this one."""
        super().setUp()
        self.memd = Server(self.memd_options, self.memd_faults, compat=self.memd_compat)
        self.memd.start()
        self.addCleanup(self.memd.stop)

    def connect(self) -> Client:
        """A connected client, closed after the test."""
        return self.memd.connect()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; see `unittest.TestCase`."""
        before = _count(result)
        returned = super().run(result)
        server = getattr(self, "memd", None)
        if result is not None and server is not None and server.log and _count(result) > before:
            for found in (result.failures, result.errors):
                if found and found[-1][0] is self:
                    found[-1] = (self, f"{found[-1][1]}\nmemd's log:\n{server.log}")
        return returned


def _count(result: unittest.TestResult | None) -> int:
    """The number of tests that have failed so far."""
    # Other runners' results need not have these.
    return len(getattr(result, "failures", ())) + len(getattr(result, "errors", ()))
