"""Work that takes long, or never ends by itself, when it is given up and when the daemon ends."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import Monitor, Server, memd_argv, qemu_system_memd
from tests.faults.conftest import Broken
from tests.faults.test_stalls import ends

MEMORY = 8 << 20


def send(monitor: Monitor, command: str, **arguments: Any) -> None:
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    monitor.send(json.dumps({"execute": command, "arguments": named}).encode())


class Work:
    """A machine that works for somebody who never takes or gives anything."""

    def __init__(
        self, directory: Path, stack: ExitStack, *, templates: bool, on: Path | None = None
    ) -> None:
        self.directory, self._stack, self._on = directory, stack, on
        (directory / "server").mkdir()
        self.control = directory / "resetting"
        argv = [*qemu_system_memd(), "-machine", "q35,memory-backend=m", "-m", "8M"]
        argv += ["-nodefaults", "-display", "none", "-clients", "many"]
        if templates:
            argv = [*memd_argv(), "--templates", str(directory / "store")]
        elif on is not None:
            argv += ["-object", f"memory-backend-file,id=f,mem-path={on},size=4096,share=on"]
        argv += ["-object", f"memory-backend-memfd,id=m,size={MEMORY}", "-test-faults"]
        argv += ["-test-control", f"unix:{self.control},server=on,wait=off"]
        self.server = Server("memd", argv, directory / "server")
        stack.callback(self.server.stop)
        # Zeroes are not sent.
        other = self.server.monitor()
        for offset in range(0, MEMORY, MEMORY // 4):
            data = {"id": "m", "offset": offset, "data": "eHh4" * (MEMORY // 16)}
            assert other.execute("x-memdev-write", data) == {"return": {}}
        other.close()
        self.monitor = self.server.monitor()

    def dump_to_a_fifo(self, *, detach: bool = False) -> None:
        path = str(self.directory / "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._stack.callback(os.close, reader)
        arguments = {"paging": False, "protocol": f"file:{path}", "detach": detach}
        send(self.monitor, "dump-guest-memory", **arguments)
        if detach:
            assert self.monitor.read_answer() == {"return": {}}
        self._until_open("fifo")

    def detached_dump_to_a_fifo(self) -> None:
        self.dump_to_a_fifo(detach=True)

    def migration(self) -> None:
        path = self.directory / "peer"
        listening = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen()
        assert self.monitor.execute("migrate", {"uri": f"unix:{path}"}) == {"return": {}}
        peer, _address = listening.accept()
        self._stack.enter_context(peer)

    def migration_to_come(self) -> None:
        assert self.monitor.execute("x-template-save", {"name": "t", "id": "m"})["return"]

    def preallocation(self) -> None:
        add = {"qom_type": "memory-backend-ram", "id": "p", "size": 256 << 20, "prealloc": True}
        send(self.monitor, "object-add", **add)

    def template(self) -> None:
        assert self._on is not None
        send(self.monitor, "x-template-save", name="t", filename=str(self._on), devices="/dev/null")

    def creation_of_an_image(self) -> None:
        options = {"driver": "file", "filename": str(self._on), "size": 1 << 20}
        send(self.monitor, "blockdev-create", job_id="j", options=options)

    def export(self) -> None:
        send(self.monitor, "x-memdev-export", id="f", writable=False)

    def _until_open(self, name: str) -> None:
        pid, path = self.server.pid, str(self.directory / name)
        assert settle(lambda: descriptors(pid)[path], bool)

    def others_go_on(self) -> None:
        other = self.server.monitor()
        assert "return" in other.execute("query-status")
        request = {"qom-type": "memory-backend-ram", "id": "other", "size": 4096}
        assert other.execute("object-add", request) == {"return": {}}
        assert other.execute("object-del", {"id": "other"}) == {"return": {}}
        other.close()


KINDS = {
    "dump": Work.dump_to_a_fifo,
    "detached dump": Work.detached_dump_to_a_fifo,
    "migration": Work.migration,
    "machine to come": Work.migration_to_come,
    "preallocation": Work.preallocation,
}
STALLED = {"template": Work.template, "image": Work.creation_of_an_image, "export": Work.export}
"""What waits for a file system."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def end(work: Work, how: str) -> None:
    """Have the daemon end; it does so at once."""
    # An answer that nobody has read may hold a file.
    work.monitor.close()
    if how == "quit":
        other = work.server.monitor()
        other.send(b'{"execute":"quit"}')
        assert settle(lambda: work.server.process.poll() is not None, bool)
    else:
        assert ends(work.server.process)


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_end(directory: Path, stack: ExitStack, kind: str, how: str) -> None:
    work = Work(directory, stack, templates=kind == "machine to come")
    KINDS[kind](work)
    work.others_go_on()
    end(work, how)


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
@pytest.mark.parametrize("kind", sorted(STALLED))
def test_the_end_while_a_file_system_stalls(
    directory: Path, stack: ExitStack, broken: Broken, kind: str, how: str
) -> None:
    path = broken.path / "file"
    path.write_bytes(bytes(4096))
    work = Work(directory, stack, templates=kind == "template", on=path)
    broken.stall("open")
    stack.callback(broken.mend)
    STALLED[kind](work)
    work.others_go_on()
    if how == "SIGTERM":
        assert ends(work.server.process)
    broken.mend()
    if how == "quit":
        end(work, how)


@pytest.mark.parametrize("kind", sorted(STALLED))
def test_a_reset_while_a_file_system_stalls(
    directory: Path, stack: ExitStack, broken: Broken, kind: str
) -> None:
    """What waits for it is given up, or goes on once it answers; others wait for neither."""
    path = broken.path / "file"
    path.write_bytes(bytes(4096))
    work = Work(directory, stack, templates=kind == "template", on=path)
    before = descriptors(work.server.pid)
    broken.stall("open")
    stack.callback(broken.mend)
    STALLED[kind](work)
    work.others_go_on()
    if kind == "export":
        assert not select.select([work.monitor.socket], [], [], 0)[0]
    control = stack.enter_context(closing(Monitor(work.control)))
    control.send(b'{"execute":"x-test-reset"}')
    work.others_go_on()
    broken.mend()
    assert control.read_answer() == {"return": {}}
    work.others_go_on()
    control.close()
    left = settle(
        lambda: sum((descriptors(work.server.pid) - before).values()), lambda count: count == 0
    )
    assert left == 0
    end(work, "SIGTERM")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_reset(directory: Path, stack: ExitStack, kind: str) -> None:
    """Of a machine's work nothing is left, and what is a client's own goes on."""
    work = Work(directory, stack, templates=kind == "machine to come")
    before = descriptors(work.server.pid)
    KINDS[kind](work)
    control = stack.enter_context(closing(Monitor(work.control)))
    assert control.execute("x-test-reset") == {"return": {}}
    work.others_go_on()
    if kind == "dump":
        assert "error" in work.monitor.read_answer()
    if "dump" in kind:
        assert control.execute("query-dump")["return"]["status"] == "none"
    if kind in ("dump", "detached dump", "migration"):
        control.close()
        left = settle(
            lambda: sum((descriptors(work.server.pid) - before).values()), lambda count: count == 0
        )
        assert left == 0
    end(work, "SIGTERM")


def test_a_migration_that_is_cancelled(directory: Path, stack: ExitStack) -> None:
    work = Work(directory, stack, templates=False)
    work.migration()
    assert work.monitor.execute("migrate_cancel") == {"return": {}}
    status = settle(
        lambda: work.monitor.execute("query-migrate")["return"]["status"],
        lambda now: now == "cancelled",
    )
    assert status == "cancelled"
