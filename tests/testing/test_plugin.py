"""The pytest plugin, in runs of its own."""

from __future__ import annotations

from pathlib import Path

from tests.testing.runs import outcomes, run_pytest

PASSING = """
import os
import pytest

seen = set()

def test_a_server(memd_server):
    assert os.path.exists(memd_server.socket)
    seen.add(memd_server.socket)

def test_a_client(memd_qmp, memd_server):
    assert memd_qmp.execute("query-status")["running"]
    memd_server.expect("qmp_capabilities", "query-status")
    memd_server.check_schema()
    assert memd_server.socket not in seen

@pytest.mark.memd(options=["--name", "vm1"], compat="11.1",
                  faults=[{"command": "query-uuid", "error": {"desc": "no"}}])
class TestMarked:
    def test_its_options(self, memd_qmp):
        assert memd_qmp.execute("query-name") == {"name": "vm1"}
        assert memd_qmp.greeting["QMP"]["version"]["qemu"]["major"] == 11

    @pytest.mark.memd(options=["--name", "vm2"])
    def test_the_closer_one_counts(self, memd_qmp):
        assert memd_qmp.execute("query-name") == {"name": "vm2"}
        with pytest.raises(Exception, match="no"):
            memd_qmp.execute("query-uuid")

@pytest.mark.memd(scope="session", faults=[{"command": "stop", "delay": 1}])
@pytest.mark.parametrize("turn", [1, 2])
def test_the_session_has_one(memd_server, memd_session_server, memd_qmp, turn):
    assert memd_server is memd_session_server
    memory = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}
    memd_qmp.execute("object-add", memory)
    memd_server.expect("qmp_capabilities", "object-add")
    assert len(memd_server.faults) == 1

@pytest.mark.asyncio
async def test_asyncio(memd_aqmp, memd_connect):
    assert await memd_aqmp.execute("query-name") == {}
    other = await memd_connect()
    assert await other.execute("query-status")
"""

FAILING = """
import pytest
from memd.testing import MemdTestCase

@pytest.mark.memd(options=["--allow-nothing"])
def test_no_start(memd_server):
    pass

@pytest.mark.memd(scope="session", options=["--name", "x"])
def test_no_options(memd_server):
    pass

def test_it_fails(memd_server, memd_qmp):
    memd_server._log_file.write(b"a word in the log")
    memd_server._log_file.flush()
    memd_qmp.execute("query-status")
    assert False

def test_it_died(memd_server):
    import os
    os.kill(memd_server.pid, 9)
    memd_server.wait()

class TestCase(MemdTestCase):
    def test_it(self):
        self.memd._log_file.write(b"what unittest saw")
        self.memd._log_file.flush()
        self.fail()
"""

MANY = """
import os
import pytest

@pytest.mark.parametrize("number", range(10))
def test_undisturbed(memd_server, memd_qmp, number):
    memory = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096 * (number + 1)}
    memd_qmp.execute("object-add", memory)
    assert [each["size"] for each in memd_qmp.execute("query-memdev")] == [4096 * (number + 1)]
    memd_server.expect("qmp_capabilities", "object-add", "query-memdev")
"""


def test_fixtures_and_marker(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, PASSING, "-o", "asyncio_mode=strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(outcomes(done)) == 7
    assert set(outcomes(done).values()) == {"PASSED"}


def test_reports_of_failures(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FAILING)
    assert outcomes(done) == {
        "test_no_start": "ERROR",
        "test_no_options": "ERROR",
        "test_it_fails": "FAILED",
        "test_it_died": "ERROR",
        "TestCase::test_it": "FAILED",
    }, done.stdout
    for text in (
        "ServerDied: memd did not start",
        "invalid option",
        "a server of the session can't be given options",
        "- memd log -",
        "a word in the log",
        "- memd transcript, its last 50 messages -",
        '"execute": "query-status"',
        "memd ended with status -9",
        "what unittest saw",
    ):
        assert text in done.stdout, text


def test_workers_do_not_disturb_each_other(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, MANY, "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(outcomes(done)) == 10


def test_without_asyncio(tmp_path: Path) -> None:
    """Only what needs it is missing."""
    text = "def test_it(memd_qmp):\n    assert memd_qmp.execute('query-name') == {}\n"
    done = run_pytest(tmp_path, text, "-p", "no:asyncio")
    assert outcomes(done) == {"test_it": "PASSED"}, done.stdout
