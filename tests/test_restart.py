"""kill -9 at random moments of a running command mix: nothing is lost, nothing half there.

MEMD_KILLS says how often (20), MEMD_SEED which moments and which mix.
"""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_shm
from tests.differential.server import Died, Monitor
from tests.manager import ServiceManager
from tests.seeds import seed_of_run

KILLS = int(os.environ.get("MEMD_KILLS", "20"))
SEED = seed_of_run()

MIB = 1 << 20
LONGEST = 0.03
"""Seconds of the mix before a kill, at most."""

PRIVATE = "memory-backend-ram"

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("memory-backend-memfd", {}),
    ("memory-backend-memfd", {"prealloc": True}),
    ("memory-backend-shm", {}),
    (PRIVATE, {"share": True}),
    (PRIVATE, {}),
    ("memory-backend-file", {"share": True}),
    ("memory-backend-file", {"share": True, "prealloc": True}),
    ("memory-backend-file", {"share": True, "discard-data": True}),
    ("thread-context", {"cpu-affinity": [0]}),
]

CHANGES: list[tuple[str, Any]] = [
    ("dump", False),
    ("dump", True),
    ("merge", False),
    ("prealloc-threads", 3),
]


class Object:
    """What an object is known to be."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self.options = options
        self.written: dict[int, bytes] = {}
        self.properties: dict[str, Any] = {}

    @property
    def kept(self) -> bool:
        """Whether it outlives its daemon."""
        return self.kind != PRIVATE or bool(self.options.get("share"))

    @property
    def stored(self) -> bool:
        """Whether it has a descriptor."""
        return self.kept and self.kind != "thread-context"


Objects = dict[str, Object]


class Step:
    """A command under way: what it is about, and what there is once it is done."""

    def __init__(self, id: str, after: Object | None, new_file: str = "") -> None:
        self.id = id
        self.after = after
        self.new_file = new_file


class Mix:
    """Random commands, and what has to be there after those that were answered.

    Args:
        chance: decides.
        directory: for the files.
    """

    def __init__(self, chance: random.Random, directory: Path) -> None:
        self.chance = chance
        self.directory = directory
        self.objects: Objects = {}
        self.under_way: list[Step] = []
        self.files: set[str] = set()
        self.discarded: set[str] = set()
        self.answered = 0
        self._number = 0

    def next(self) -> tuple[str, dict[str, Any]]:
        """A command, which is under way from now on."""
        busy = {step.id for step in self.under_way}
        there = [id for id in self.objects if id not in busy]
        what = self.chance.random()
        if not there or (what < 0.35 and len(there) < 12):
            return self._add()
        id = self.chance.choice(there)
        obj = deepcopy(self.objects[id])
        if what < 0.6:
            self.under_way.append(Step(id, None))
            return "object-del", {"id": id}
        self.under_way.append(Step(id, obj))
        if obj.kind == "thread-context" or what < 0.8:
            return self._set(id, obj)
        offset = self.chance.randrange(0, obj.options["size"] - 8, 8)
        obj.written[offset] = self.chance.randbytes(8)
        data = base64.b64encode(obj.written[offset]).decode()
        return "x-memdev-write", {"id": id, "offset": offset, "data": data}

    def _add(self) -> tuple[str, dict[str, Any]]:
        self._number += 1
        id = f"m{self._number}"
        kind, fixed = self.chance.choice(KINDS)
        options = dict(fixed)
        new_file = ""
        if kind != "thread-context":
            options["size"] = self.chance.choice([4096, 64 << 10, 4 * MIB])
        if kind == "memory-backend-file":
            new_file = f"file{self._number}"
            options["mem-path"] = str(self.directory / new_file)
        self.under_way.append(Step(id, Object(kind, options), new_file))
        return "object-add", {"qom-type": kind, "id": id, **options}

    def _set(self, id: str, obj: Object) -> tuple[str, dict[str, Any]]:
        name, value = self.chance.choice(CHANGES)
        if obj.kind == "thread-context":
            name, value = "cpu-affinity", [0]
        obj.properties[name] = value
        return "qom-set", {"path": f"/objects/{id}", "property": name, "value": value}

    def done(self, step: Step) -> None:
        """A command was answered."""
        self.under_way.remove(step)
        self.answered += 1
        self._take(step)

    def _take(self, step: Step) -> None:
        if step.after is not None:
            self.objects[step.id] = step.after
            if step.new_file:
                self.files.add(step.new_file)
        else:
            gone = self.objects.pop(step.id)
            if gone.options.get("discard-data"):
                self.discarded.add(Path(gone.options["mem-path"]).name)

    def settle(self, look: Look) -> set[str]:
        """After a kill: what was under way has happened, or not; the ids that may be lost."""
        may_be_lost = set()
        for step in self.under_way:
            before, after = self.objects.get(step.id), step.after
            if after is not None and not after.kept:
                may_be_lost.add(step.id)
            elif look.is_as(step.id, after):
                self._take(step)
            else:
                assert look.is_as(step.id, before), f"'{step.id}' is neither as before nor as after"
        self.under_way.clear()
        return may_be_lost


class Look:
    """What is there after a restart."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        listed = self.ask("qom-list", path="/objects")
        self.ids = {each["name"] for each in listed if each["type"].startswith("child<")}
        self.lost = {each["id"]: each["reason"] for each in self.ask("x-memdev-lost")}

    def ask(self, command: str, **arguments: Any) -> Any:
        answer = self._monitor.execute(command, arguments)
        assert "return" in answer, (command, arguments, answer)
        return answer["return"]

    def is_as(self, id: str, expected: Object | None) -> bool:
        """Whether an object is there, and exactly so."""
        if expected is None or id not in self.ids:
            return (expected is None) == (id not in self.ids)
        for name, value in {**expected.options, **expected.properties}.items():
            if self.ask("qom-get", path=f"/objects/{id}", property=name) != value:
                return False
        for offset, data in expected.written.items():
            read = self.ask("x-memdev-read", id=id, offset=offset, length=len(data))
            if base64.b64decode(read["data"]) != data:
                return False
        return True


def run_until_killed(mix: Mix, manager: ServiceManager, after: float) -> None:
    """Two clients, a command of each under way at a time, until the daemon is killed."""
    path = manager.directory / "qmp.sock"
    clients = [Monitor(path), Monitor(path)]
    timer = threading.Timer(after, os.kill, (manager.pid, signal.SIGKILL))
    timer.start()
    waiting: list[tuple[Monitor, Step]] = []
    try:
        while True:
            for client in clients:
                command, arguments = mix.next()
                waiting.append((client, mix.under_way[-1]))
                client.send(_request(command, arguments))
            while waiting:
                client, step = waiting[0]
                answer = client.read_answer()
                assert "return" in answer, (step.id, answer, manager.output())
                mix.done(step)
                del waiting[0]
    except Died:
        pass
    finally:
        timer.join()
        for client in clients:
            client.close()
    manager.wait()


def _request(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode()


def check(mix: Mix, manager: ServiceManager, path: Path) -> None:
    """Check that the objects are the expected ones."""
    with closing(Monitor(path)) as monitor:
        compare(mix, manager, Look(monitor))


def compare(mix: Mix, manager: ServiceManager, look: Look) -> None:
    may_be_lost = mix.settle(look)
    lost = {id for id, obj in mix.objects.items() if not obj.kept}
    for id in lost:
        del mix.objects[id]
    assert look.ids == set(mix.objects)
    assert lost <= set(look.lost) | may_be_lost
    assert set(look.lost.values()) <= {"anonymous"}
    for id, obj in mix.objects.items():
        assert look.is_as(id, obj), id
    stored = [obj for obj in mix.objects.values() if obj.stored]
    assert len(manager.names()) == 1 + len(stored)
    assert {each.name for each in mix.directory.iterdir()} == mix.files
    for name in mix.discarded:
        content = (mix.directory / name).read_bytes()
        assert not any(content), f"{name} is not discarded"


@pytest.fixture
def place(directory: Path) -> Path:
    (directory / "files").mkdir()
    return directory


@pytest.mark.timeout(60 + 5 * KILLS)
@need_shm
def test_kill_at_random_moments(place: Path, manage: Callable[..., ServiceManager]) -> None:
    chance = random.Random(SEED)
    print(f"MEMD_SEED={SEED} MEMD_KILLS={KILLS}")
    mix = Mix(chance, place / "files")
    manager = manage()
    path = manager.directory / "qmp.sock"
    manager.start_and_wait()
    kills = 0
    # On a busy machine few commands are answered before the end.
    while kills < KILLS or mix.answered <= 2 * KILLS:
        kills += 1
        run_until_killed(mix, manager, chance.uniform(0, LONGEST))
        if chance.random() < 0.2:
            # And once more while it comes back.
            manager.start()
            time.sleep(chance.uniform(0, 0.2))
            manager.kill()
        manager.start_and_wait()
        check(mix, manager, path)
    print(f"{mix.answered} commands were answered, {len(mix.objects)} objects are there")
