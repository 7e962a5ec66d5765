"""Fixtures that every part of the test suite may use, and the rule on skips."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import KEPT, prefork
from tests.differential.harness import Side, Storage, settle
from tests.differential.kernel import mapped
from tests.differential.server import PATIENCE, TREE, Server, memd_argv, starter
from tests.manager import ServiceManager
from tests.tls import Certificates

# How long something takes is not a test's concern: the machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

GO_CACHE = str(KEPT / "go")
"""For $GOCACHE: Go compiles its library first, which takes half a minute of a slow core."""

NOT_HERE = "not here: "
"""Begins the reason of a skip that no package could have prevented: another
machine, kernel or user is needed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With MEMD_NO_SKIP set (CI), a skip for what could have been installed fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("MEMD_NO_SKIP"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if NOT_HERE not in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: skipped where nothing may be: {reason}"
    return report


_TOGETHER = re.compile(r"tests/(guests|systemd)/|/test_(libvirt|tls)|huge_pages")
"""In the names of tests that share what takes long to make, or what the machine has once."""


_QUICK = re.compile(
    r"tests/(backends|cli|commands|devices|hostmem|man|memctl|qapi|qom|server|session|wire)/"
)
"""In the names of tests of which most take milliseconds."""

_HANDFUL = 10
"""Quick tests that a worker is given at once: it would wait for each otherwise."""


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all such tests to one worker, and of the others to each the next ones."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._scopes: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if nodeid not in self._scopes:
            shared = _TOGETHER.search(nodeid)
            handful = f"quick {len(self._scopes) // _HANDFUL}"
            self._scopes[nodeid] = (
                shared[0] if shared else handful if _QUICK.match(nodeid) else nodeid
            )
        return self._scopes[nodeid]

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        # All that a worker has done is gone through otherwise, for each test.
        done = self._split_scope(self.registered_collections[node][item_index])
        if all(self.assigned_work[node][done].values()):
            del self.assigned_work[node][done]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Not by marks: since pytest 9.2 xdist does not see which group a test is in."""
    # In the order of `pytest_collection_modifyitems`, not the largest groups first.
    config.option.loadscopereorder = False
    return _Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What is there now stays to the end; it is not gone through for garbage again and again."""
    gc.collect()
    gc.freeze()


_SHM = "/dev/shm"

need_shm = pytest.mark.skipif(not os.path.isdir(_SHM), reason=f"{NOT_HERE}{_SHM}")
"""For tests that use POSIX shared memory, which some containers are without."""

need_sys = pytest.mark.skipif(
    not os.path.isdir("/sys/devices/system/cpu"), reason=f"{NOT_HERE}/sys"
)
"""For tests that ask the kernel for its nodes, processors or huge pages."""


_LONG = re.compile("test_mypy|test_docs_commands|test_kill_at_random_moments")
"""In the names of tests that take many seconds each."""


def _how_soon(item: pytest.Item) -> int:
    """The long tests come first and the quick ones last: no worker is left alone at the end."""
    if _TOGETHER.search(item.nodeid):
        return 0
    return 1 if _LONG.search(item.nodeid) else 3 if _QUICK.match(item.nodeid) else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that names shm, or has it as a parameter, needs it."""
    items.sort(key=_how_soon)
    for item in items:
        if "shm" in item.name or "shared_memory_object" in item.name:
            item.add_marker(need_shm)


@pytest.fixture(scope="session", autouse=True)
def forking() -> Iterator[None]:
    """What daemons are forked from is there, before a test counts its descriptors."""
    with prefork.forked():
        yield


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> None:
    """What other tests have left in cycles is closed now, and not while descriptors are counted."""
    gc.collect()


@pytest.fixture(scope="session")
def kept_memd() -> Iterator[Storage]:
    """memd, one process for all tests of a worker."""
    kept = Storage("memd", memd_argv)
    yield kept
    kept.stop()


@pytest.fixture
def memd(kept_memd: Storage) -> Iterator[Side]:
    """A memd with a connection of this test's own, which ends alive and empty."""
    with kept_memd.side() as side:
        pid = side.server.pid
        before = mapped(pid)
        yield side
        assert side.server.alive(), f"memd died: {side.server.stderr()}"
    after = settle(lambda: mapped(pid), lambda now: now == before)
    assert after == before == set(), "memd still maps what was deleted"


@pytest.fixture
def start_memd(directory: Path) -> Iterator[Callable[..., Server]]:
    """Starts further daemons, for tests that end one or give it options."""
    with starter("memd", memd_argv(), directory) as start:
        yield start


@pytest.fixture
def manage(directory: Path) -> Iterator[Callable[..., ServiceManager]]:
    """Makes service managers, each with a memd that is yet to be started.

    manage(*options, **how): how as for `ServiceManager`; it serves `qmp.sock` in
    the manager's directory.
    """
    managers: list[ServiceManager] = []

    def make(*options: str, **how: Any) -> ServiceManager:
        place = directory / f"manager{len(managers)}"
        place.mkdir()
        argv = [*memd_argv(), "--qmp", f"unix:{place}/qmp.sock,server=on,wait=off", *options]
        environment = {"PYTHONPATH": str(TREE), **how.pop("environment", {})}
        managers.append(ServiceManager(argv, place, environment=environment, **how))
        return managers[-1]

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="memd-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, good and bad, for TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl(1): it is not on PATH")
    return Certificates(tmp_path_factory.mktemp("certificates"))


def _need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts a file system: mount(type, where, options); undone afterwards."""
    _need_root()
    mounted: list[Path] = []

    def mount_at(kind: str, where: Path, options: str = "") -> None:
        where.mkdir(exist_ok=True)
        command = ["mount", "-t", kind, "none", str(where)]
        if options:
            command[1:1] = ["-o", options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{NOT_HERE}{kind} can not be mounted: {done.stderr.strip()}")
        mounted.append(where)

    yield mount_at
    for where in reversed(mounted):
        subprocess.run(["umount", "-l", str(where)], check=True)


@contextmanager
def alone(what: str) -> Iterator[None]:
    """What the machine has once: its tests wait for each other."""
    name = f"memd-test-{what}-{os.geteuid()}.lock"
    with open(Path(tempfile.gettempdir()) / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def no_more_threads() -> Iterator[None]:
    """No thread can be started: there is no room for the stack that it is to have."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


@pytest.fixture
def patient_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is made anew however long that takes: a busy machine may not do it at once."""
    monkeypatch.setattr("memd.hostmem.datagrams.AT_ONCE", PATIENCE)


@pytest.fixture
def merging() -> Iterator[None]:
    """KSM runs, and merges pages of zeroes with the kernel's."""
    wanted = {"use_zero_pages": "1", "sleep_millisecs": "1", "pages_to_scan": "10000", "run": "1"}
    ksm = Path("/sys/kernel/mm/ksm")
    before: dict[str, str] = {}
    with alone("ksm"):
        try:
            for name, value in wanted.items():
                held = (ksm / name).read_text()
                (ksm / name).write_text(value)
                before[name] = held
        except OSError as lack:
            pytest.skip(f"{NOT_HERE}KSM: {lack}")
        else:
            yield
        finally:
            for name, value in reversed(before.items()):
                (ksm / name).write_text(value)


@pytest.fixture
def append_only() -> Iterator[Callable[[Path], None]]:
    """Has a file only grow, or a directory only get further entries; undone afterwards."""
    changed: list[Path] = []

    def change(path: Path) -> None:
        if shutil.which("chattr") is None:
            pytest.skip("needs chattr(1): it is not on PATH")
        done = subprocess.run(["chattr", "+a", str(path)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"{NOT_HERE}chattr +a: {done.stderr.decode().strip()}")
        changed.append(path)

    yield change
    for path in changed:
        subprocess.run(["chattr", "-a", str(path)], check=True)


@pytest.fixture
def hugepages() -> Iterator[Callable[[int], None]]:
    """Sees to free huge pages of the default size: hugepages(count).

    The pool is the machine's, so the tests that use it wait for each other,
    and leave it with the number of pages that it had.
    """
    _need_root()
    pool = Path("/proc/sys/vm/nr_hugepages")
    if not pool.exists() or not os.path.exists("/sys/kernel/mm/hugepages"):
        pytest.skip(f"{NOT_HERE}huge pages, or /sys")
    with alone("hugepages"):
        before = pool.read_text()

        def taken() -> int:
            state = hugepage_state()
            return state["Total"] - state["Free"] + state["Rsvd"]

        def provide(count: int) -> None:
            # The last test's may not be free yet, and would be more than were asked for. Those
            # of others stay in use, or promised.
            pool.write_text(str(settle(taken, lambda pages: pages == 0, 3) + count))
            state = hugepage_state()
            if state["Free"] - state["Rsvd"] < count:
                pytest.skip(f"{NOT_HERE}memory for {count} huge pages")

        try:
            yield provide
        finally:
            pool.write_text(before)


def hugepage_state() -> dict[str, int]:
    """The pool of huge pages of the default size: Total, Free, Rsvd, Surp (proc(5))."""
    rows = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    pages = [row.removeprefix("HugePages_") for row in rows if row.startswith("HugePages_")]
    return {name: int(value) for name, value in (row.split(":") for row in pages)}
