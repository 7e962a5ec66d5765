"""Limits on what clients make: refused clearly, and counted right whatever happens."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memd.errors import QMPError
from memd.places import ANYBODY
from memd.qom import Quota
from memd.work import value_of
from tests.commands.fakes import Console
from tests.differential.kernel import regions
from tests.differential.server import PATIENCE, TREE, Server, memd_argv
from tests.faults.conftest import MIB, arguments, error
from tests.stepping import Running, as_user
from tests.users import NOBODY, need_root, run_as

PAGE = 4096


def test_limits_of_a_daemon(start_memd: Callable[..., Server]) -> None:
    server = start_memd(
        *("--max-objects", "4", "--max-memory", "8M", "--max-memory-per-user", "6M"),
        *("--object", "memory-backend-ram,id=own,size=1M"),
    )
    monitor = server.monitor()
    assert monitor.execute("object-add", arguments(size=4 * MIB)) == {"return": {}}
    uid = os.geteuid()
    too_much = arguments("memfd", id="n", size=3 * MIB)
    text = (
        f"cannot make object 'n' of 3145728 bytes: 4194304 bytes are in use by user {uid},"
        " --max-memory-per-user allows 6291456"
    )
    assert error(monitor.execute("object-add", too_much)) == text
    by_hand = {"command-line": "object_add memory-backend-memfd,id=n,size=3M"}
    assert monitor.execute("human-monitor-command", by_hand)["return"] == f"Error: {text}\r\n"
    explained = monitor.execute("x-memdev-explain", too_much)["return"]
    assert explained["error"]["desc"] == text
    text = (
        "cannot make object 'n' of 4194304 bytes: 5242880 bytes are in use,"
        " --max-memory allows 8388608"
    )
    assert error(monitor.execute("object-add", {**too_much, "size": 4 * MIB})) == text
    # QEMU's own complaints come first.
    taken = monitor.execute("object-add", arguments(size=1 << 40))
    assert "attempt to add duplicate property 'm'" in error(taken)
    for number in range(2):
        request = {"qom-type": "thread-context", "id": f"t{number}"}
        assert monitor.execute("object-add", request) == {"return": {}}
    text = "cannot make object 'n': there are 4 objects, --max-objects allows 4"
    assert error(monitor.execute("object-add", arguments(id="n"))) == text
    assert monitor.execute("object-del", {"id": "m"}) == {"return": {}}
    assert monitor.execute("object-add", {**too_much, "size": 6 * MIB}) == {"return": {}}
    assert [each["id"] for each in monitor.execute("query-memdev")["return"]] == ["own", "n"]


ADD = """
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
lines = client.makefile("rwb", 0)
lines.readline()
for size in (0, *map(int, sys.argv[2:])):
    command = {"execute": "qmp_capabilities"}
    if size:
        arguments = {"qom-type": "memory-backend-memfd", "id": f"u{size}", "size": size}
        command = {"execute": "object-add", "arguments": arguments}
    lines.write(json.dumps(command).encode())
    answer = json.loads(lines.readline())
    print(answer["error"]["desc"] if "error" in answer else "made")
"""


@need_root
def test_each_user_has_a_share(start_memd: Callable[..., Server], directory: Path) -> None:
    server = start_memd("--max-memory-per-user", "4M", "--allow-user", str(NOBODY))
    for path in (directory, server.path.parent):
        path.chmod(0o755)
    monitor = server.monitor()
    assert monitor.execute("object-add", arguments(size=3 * MIB)) == {"return": {}}
    with run_as(NOBODY, ADD, str(server.path), str(3 * MIB), str(2 * MIB), str(MIB)) as process:
        told = process.communicate(timeout=PATIENCE)[0].decode().splitlines()
    assert told == [
        "made",
        "made",
        "cannot make object 'u2097152' of 2097152 bytes: 3145728 bytes are in use by user"
        f" {NOBODY}, --max-memory-per-user allows 4194304",
        "made",
    ]
    # It was his, though another one deletes it.
    assert monitor.execute("object-del", {"id": f"u{3 * MIB}"}) == {"return": {}}
    assert monitor.execute("object-add", arguments(size=MIB, id="n")) == {"return": {}}
    assert "in use by user 0" in error(monitor.execute("object-add", arguments(size=MIB, id="o")))


def test_the_command_line_is_bound_by_them_too(directory: Path) -> None:
    argv = [*memd_argv(), "--qmp", f"unix:{directory}/q,server=on,wait=off", "--max-memory", "4M"]
    done = subprocess.run(
        [*argv, "--object", "memory-backend-ram,id=a,size=8M"],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot make object 'a' of 8388608 bytes" in done.stderr


def test_memory_counts_until_it_is_unmapped() -> None:
    """A backend that is deleted while a thread works on it is no more, its memory is."""
    console = Console()
    quota = console.daemon.tree.objects.quota
    console("object-add", qom_type="memory-backend-memfd", id="m", size=MIB)
    saving = console.begin("x-memdev-save", id="m", filename="/nowhere/saved")
    console("object-del", id="m")
    assert (quota.objects, quota.memory) == (0, MIB)
    assert saving.wait is not None
    with contextlib.suppress(QMPError):
        saving.finish()
    assert (quota.objects, quota.memory) == (0, 0)


IDS = ("a", "b", "c")
KINDS: list[dict[str, Any]] = [
    {"qom-type": "memory-backend-ram"},
    {"qom-type": "memory-backend-memfd"},
    {"qom-type": "memory-backend-ram", "prealloc": True},
    {"qom-type": "memory-backend-memfd", "prealloc": True},
    # Refused before, while and after they are mapped.
    {"qom-type": "memory-backend-file", "mem-path": "/nowhere/file"},
    {"qom-type": "memory-backend-ram", "policy": "bind"},
    {"qom-type": "memory-backend-memfd", "host-nodes": [99], "policy": "bind", "prealloc": True},
    {"qom-type": "memory-backend-ram", "size": 1 << 62},
    {"qom-type": "memory-backend-memfd", "size": PAGE + 1},
]


class Lives(RuleBasedStateMachine):
    """Objects of several users that are made, given up, deleted, and used meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console()
        self.quota = self.console.daemon.tree.objects.quota = Quota(
            max_objects=2, max_memory=6 * PAGE, max_memory_per_user=4 * PAGE
        )
        self.owners: dict[str, int] = {}
        # What was begun and has not ended, and the id that it makes, if any.
        self.jobs: list[tuple[Running, str]] = []

    def run(self, name: str, id: str, arguments: dict[str, Any]) -> None:
        try:
            value = self.console.dispatch(self.console.client, name, arguments, False)  # type: ignore[arg-type]
            running = Running(value_of(value))
        except QMPError:
            return
        if running.wait is not None:
            self.jobs.append((running, id))

    @rule(
        id=st.sampled_from(IDS),
        kind=st.sampled_from(KINDS),
        pages=st.integers(1, 3),
        uid=st.sampled_from([None, 0, 1000]),
    )
    def add(self, id: str, kind: dict[str, Any], pages: int, uid: int | None) -> None:
        tree = self.console.daemon.tree
        there = set(tree.objects.children or ())
        free = id not in there and not any(name == id for _job, name in self.jobs)
        with as_user(ANYBODY if uid is None else uid):
            self.run("object-add", id, {"id": id, "size": pages * PAGE, **kind})
        if free:
            self.owners[id] = ANYBODY if uid is None else uid

    @rule(id=st.sampled_from(IDS))
    def delete(self, id: str) -> None:
        self.run("object-del", "", {"id": id})

    @rule(id=st.sampled_from(IDS))
    def use(self, id: str) -> None:
        self.run("x-memdev-save", "", {"id": id, "filename": "/nowhere/saved"})

    @precondition(lambda self: self.jobs)
    @rule()
    def end(self) -> None:
        # In their order: one that gives another up waits for its end.
        running, _id = self.jobs.pop(0)
        with contextlib.suppress(QMPError):
            running.finish()

    @invariant()
    def counts(self) -> None:
        tree = self.console.daemon.tree
        listed = dict(tree.objects.children)
        making = {id for _job, id in self.jobs if id and id not in listed}
        assert self.quota.objects == len(listed) + len(making)
        assert self.quota.memory == sum(self.quota.users.values())
        assert self.quota.objects <= 2
        assert self.quota.memory <= 6 * PAGE
        assert all(0 < size <= 4 * PAGE for size in self.quota.users.values())
        if not self.jobs:
            sizes: dict[int, int] = {}
            for name, each in listed.items():
                owner = self.owners[name]
                sizes[owner] = sizes.get(owner, 0) + each.size  # type: ignore[attr-defined]
            assert self.quota.users == sizes

    def teardown(self) -> None:
        while self.jobs:
            self.end()
        for id in IDS:
            self.delete(id)
        while self.jobs:
            self.end()
        assert (self.quota.objects, self.quota.memory, self.quota.users) == (0, 0, {})
        assert regions(os.getpid(), TREE) == []


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
