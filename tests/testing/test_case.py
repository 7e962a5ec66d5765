"""unittest."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

import pytest

from memd.errors import QMPError
from memd.testing import MemdTestCase


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    """Run the tests of a class."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_each_test_has_a_server() -> None:
    sockets = []

    class Tests(MemdTestCase):
        memd_options = ("--name", "vm1")
        memd_faults = ({"command": "stop", "error": {"desc": "no"}},)
        memd_compat = "11.1"

        def test_one(self) -> None:
            sockets.append(self.memd.socket)
            assert self.connect().execute("query-name") == {"name": "vm1"}

        def test_two(self) -> None:
            sockets.append(self.memd.socket)
            with pytest.raises(QMPError):
                self.connect().execute("stop")

    result = run(Tests)
    assert result.wasSuccessful(), result.failures + result.errors
    assert (result.testsRun, len(set(sockets))) == (2, 2)


def test_the_log_of_one_that_fails() -> None:
    class Tests(MemdTestCase):
        def test_it(self) -> None:
            assert self.memd._log_file is not None
            self.memd._log_file.write(b"a word in the log\n")
            self.memd._log_file.flush()
            self.fail("on purpose")

    ((_test, text),) = run(Tests).failures
    assert "on purpose" in text
    assert text.endswith("memd's log:\na word in the log\n")


def test_with_asyncio() -> None:
    class Tests(MemdTestCase, unittest.IsolatedAsyncioTestCase):
        async def test_it(self) -> None:
            client = await self.memd.connect_async()
            assert await client.execute("query-name") == {}

        async def asyncTearDown(self) -> None:
            await asyncio.sleep(0)

    result = run(Tests)
    assert result.wasSuccessful(), result.failures + result.errors


def test_a_runner_of_another_kind() -> None:
    class Result(unittest.TestResult):
        failures: Any = ()
        errors: Any = ()

        def __init__(self) -> None:
            super().__init__()
            del self.failures, self.errors

        def addFailure(self, test: Any, err: Any) -> None:
            self.seen = True

    class Tests(MemdTestCase):
        def test_it(self) -> None:
            self.fail("on purpose")

    result = Result()
    Tests("test_it").run(result)
    assert result.seen
