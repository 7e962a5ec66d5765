"""Several users' clients make and delete things at once: what is counted goes with each."""

from __future__ import annotations

import os
import random
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import pytest

from memd import backends
from memd.commands.daemon import Daemon
from memd.commands.standin import StandInDispatcher
from memd.config import Config, MachineConfig, Report
from memd.errors import QMPError
from memd.places import USER
from memd.qom import Tree
from memd.standin.standin import StandIn
from memd.work import Completion, Job, run_here, value_of
from tests.commands.fakes import make_local_session
from tests.descriptors import open_descriptors, wait_for_closing
from tests.stepping import Running, as_user, here
from tests.users import STRANGER

USERS = (STRANGER, STRANGER + 1, 0, None)
Ask = tuple[str, dict[str, Any]]


class Many:
    """A stand-in's clients, whose commands go on in any order.

    Args:
        directory: for files.
        chance: says what is done next.
    """

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory = directory
        self.chance = chance
        config = Config(Report("memd"))
        config.unmodelled = "refuse"
        config.machine = MachineConfig("pc", maxmem=8 << 30, slots=8)
        self.tree = Tree()
        backends.register(self.tree)
        self.daemon = Daemon(self.tree, config)
        self.dispatch = StandInDispatcher(self.daemon)
        self.session = make_local_session()
        self.pending: list[tuple[Context, Running]] = []
        for name in ("there", "other"):
            (directory / name).write_bytes(bytes(1 << 20))
        self._start()

    def _start(self) -> None:
        standin = self.daemon.standin = StandIn(self.daemon)
        machine = self.daemon.machine
        machine.set_up()
        machine.add_other = lambda args: standin.add_device(machine, args)
        machine.started = True
        machine.set_running(True)

    def ask(self, asked: Ask, user: int | None) -> None:
        """A user's client sends a command, which goes on once it is stepped."""
        context = copy_context()
        context.run(USER.set, user)
        try:
            result = context.run(self.dispatch, self.session, *asked, False)
            running = context.run(Running, value_of(result))
        except QMPError:
            return
        if running.wait is not None:
            self.pending.append((context, running))

    def step(self, *, fails: bool = False) -> None:
        """One of the commands goes on."""
        able = [each for each in self.pending if is_able(each[1])]
        context, running = chosen = self.chance.choice(able)
        wait = running.wait
        try:
            if fails and isinstance(wait, Job) and not wait.release:
                context.run(running.fail, QMPError("it fails"))
            else:
                context.run(running.step)
        except QMPError:
            pass
        if running.wait is None:
            self.pending.remove(chosen)

    def finish(self) -> None:
        while self.pending:
            self.step()

    def reset(self) -> None:
        """All is made anew, whatever is under way."""
        assert self.daemon.standin is not None
        run_here(self.daemon.standin.close())
        self.daemon.reset()
        self._start()
        self.finish()
        self.tree.objects.delete_all(here)

    def delete_everything(self, user: int) -> None:
        """Any user may, not its maker alone. What uses another one goes first."""
        jobs = [(f"job-{verb}", "id") for verb in ("resume", "cancel", "dismiss")]
        others = (("chardev-remove", "id"), ("netdev_del", "id"), ("object-del", "id"))
        for _ in range(6):
            for number in range(4):
                for command, key in (*jobs, ("device_del", "id"), *others):
                    self.ask((command, {key: f"x{number}"}), user)
                    self.finish()
                self.ask(human(f"drive_del v{number}"), user)
                self.finish()
            for number in range(8):
                self.ask(("blockdev-del", {"node-name": f"x{number}"}), user)
                self.finish()

    def any_of(self) -> Ask:
        """A command: ids are few, so that many are taken and others are found."""
        chance = self.chance
        id, other = (f"x{chance.randrange(4)}" for _ in range(2))
        below = f"x{chance.randrange(8)}"
        path = str(self.directory / chance.choice(("there", "other", "none", "none/at-all")))
        file = {"driver": "file", "filename": path}
        backend = chance.choice(
            (
                {"type": "null", "data": {}},
                {"type": "ringbuf", "data": {"size": 4096}},
                {"type": "file", "data": {"out": path}},
                {"type": "mux", "data": {"chardev": other}},
                {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "none"}}}},
            )
        )
        kinds: list[tuple[Ask, ...]] = [
            tuple(
                (f"chardev-{verb}", {"id": id, "backend": backend}) for verb in ("add", "change")
            ),
            tuple(
                ("netdev_add", {"id": id, **more})
                for more in ({"type": "user"}, {"type": "tap", "fd": "none"})
            ),
            tuple(
                ("blockdev-add", {"node-name": id, **more})
                for more in (
                    {"driver": "null-co", "size": 1 << 20},
                    file,
                    {"driver": "raw", "file": {**file, "node-name": below}},
                    {"driver": "raw", "file": other},
                    {"driver": "throttle", "throttle-group": other, "file": below},
                )
            ),
            (
                ("blockdev-create", {"job-id": id, "options": {**file, "size": 1 << 20}}),
                *(
                    (f"blockdev-{what}", {"job-id": id, "device": other, "target": below, **more})
                    for what, more in (("mirror", {"sync": "full"}), ("backup", {"sync": "none"}))
                ),
            ),
            tuple(
                human(f"drive_add 0 if=none,id={'v' + id[1:]}{more}")
                for more in ("", f",file={path},format=raw", f",file={path},snapshot=on")
            ),
            tuple(
                ("object-add", {"id": id, **more})
                for more in (
                    {"qom-type": "secret", "data": "x" * chance.randrange(99)},
                    {"qom-type": "secret", "file": path},
                    {"qom-type": "authz-simple", "identity": "x" * chance.randrange(99)},
                    {"qom-type": "throttle-group"},
                    {"qom-type": "memory-backend-ram", "size": 1 << 20},
                )
            ),
            (("qom-set", {"path": f"/objects/{id}", "property": "iv", "value": "x" * 99}),),
            tuple(
                ("device_add", {"id": id, **more})
                for more in (
                    {"driver": "virtio-serial-pci"},
                    {"driver": "virtserialport", "chardev": other},
                    {"driver": "virtserialport", "bus": "none"},
                    {"driver": "virtio-blk-pci", "drive": chance.choice((below, "v1"))},
                    {"driver": "virtio-net-pci", "netdev": other},
                    {"driver": "virtio-mem-pci", "memdev": other},
                )
            ),
            tuple((each, {"id": id}) for each in ("device_del", "object-del", "chardev-remove")),
            (("netdev_del", {"id": id}), ("blockdev-del", {"node-name": below})),
            tuple((f"job-{verb}", {"id": id}) for verb in ("cancel", "complete", "dismiss")),
            (human(f"drive_del v{id[1:]}"),),
        ]
        return chance.choice(chance.choice(kinds))


def is_able(running: Running) -> bool:
    """Whether a command waits for no other one."""
    happened: list[bool] = []
    if isinstance(running.wait, Completion):
        running.wait.then(lambda: happened.append(True))
        return bool(happened)
    return True


def human(line: str) -> Ask:
    return "human-monitor-command", {"command-line": line}


@pytest.mark.parametrize("is_reset", [False, True])
def test_everything_goes(tmp_path: Path, is_reset: bool) -> None:
    before = open_descriptors()
    for seed in range(20):
        chance = random.Random(seed)
        many = Many(tmp_path, chance)
        for _ in range(60):
            many.ask(many.any_of(), chance.choice(USERS))
            while many.pending and chance.random() < 0.5:
                many.step(fails=chance.random() < 0.2)
        if is_reset:
            many.reset()
        else:
            many.finish()
            with as_user(STRANGER + 2):
                many.delete_everything(1002)
        account, quota = many.tree.objects.account, many.tree.objects.quota
        wait_for_closing()
        left = (account.places.taken, account.descriptors.taken, quota.descriptors.taken)
        assert (*left, quota.memory, quota.objects) == (0,) * 5, seed
        many.reset()
    assert open_descriptors() == before


def test_no_more_is_opened_for_a_device_than_is_counted(tmp_path: Path) -> None:
    many = Many(tmp_path, random.Random(0))
    places, path, log = many.tree.objects.account.descriptors, str(tmp_path / "s"), tmp_path / "log"
    unix = {"type": "unix", "data": {"path": path}}
    # Two addresses, whatever names this machine knows, and one.
    both, inet = (
        {"type": "inet", "data": {"host": host, "port": "0"}} for host in ("", "127.0.0.1")
    )
    for end in (".in", ".out"):
        os.mkfifo(f"{tmp_path}/pipe{end}")
    for kind, data in (
        ("pty", {"path": str(tmp_path / "link")}),
        ("file", {"in": str(tmp_path / "there"), "out": str(tmp_path / "other")}),
        ("pipe", {"device": str(tmp_path / "pipe")}),
        ("socket", {"addr": unix}),
        ("socket", {"addr": both}),
        ("udp", {"remote": inet, "local": inet}),
    ):
        before = len(open_descriptors())
        backend = {"type": kind, "data": {**data, "logfile": str(log)}}
        many.ask(("chardev-add", {"id": "x", "backend": backend}), STRANGER)
        many.finish()
        assert 2 <= len(open_descriptors()) - before <= places.of(STRANGER), kind
        many.ask(("chardev-remove", {"id": "x"}), 0)
        many.finish()
        assert places.taken == 0
    many.reset()
