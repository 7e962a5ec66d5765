"""Channels that listen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from memd.commands.daemon import Daemon
from memd.commands.descriptors import FdSets, no_fd
from memd.config import Config, Report
from memd.errors import QMPError
from memd.hostmem.sockets import listen_unix
from memd.places import USER, Account, Places
from memd.qom import Tree
from memd.session.descriptor import Descriptor
from memd.standin.channels import Channel, Opener
from memd.standin.listeners import Listeners
from memd.standin.standin import StandIn
from memd.work import Command, Completion, Job
from tests.conftest import NOT_HERE
from tests.descriptors import open_descriptors
from tests.differential.kernel import descriptors
from tests.stepping import Running, as_user
from tests.users import STRANGER

if TYPE_CHECKING:
    from memd.devices.machine import Machine

FD = {"transport": "socket", "type": "fd", "str": "given"}
FDSET = {"transport": "file", "filename": "/dev/fdset/7"}


def test_a_socket_is_not_made_where_a_link_leads_to(tmp_path: Path) -> None:
    """The link may be of another user, to whose directory clients were told to go."""
    empty, link, beside = (tmp_path / name for name in ("empty", "link", "dangling"))
    empty.touch()
    link.symlink_to(empty)
    beside.symlink_to(tmp_path / "nothing")
    for path in (link, beside):
        with pytest.raises(QMPError, match=f"Failed to bind socket to {path}: Address already"):
            listen_unix(str(path), None)
    assert empty.is_file()
    assert sorted(os.listdir(tmp_path)) == ["dangling", "empty", "link"]
    # Directories may be reached by links.
    (tmp_path / "way").symlink_to(tmp_path)
    listener, made = listen_unix(str(tmp_path / "way" / "empty"), None)
    assert empty.is_socket()
    listener.close()
    made.remove()
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "way"]


@pytest.mark.parametrize(("family", "polled"), [(socket.AF_UNIX, True), (socket.AF_VSOCK, False)])
async def test_which_sockets_that_were_given_are_polled(
    monkeypatch: pytest.MonkeyPatch, family: int, polled: bool
) -> None:
    """To poll one for machines and their host may wait for another process that has it."""
    try:
        given = socket.socket(family)
    except OSError as lack:
        pytest.skip(f"{NOT_HERE}vsock(7): {lack}")
    channel = Channel("socket", [given.fileno()], given.close)
    added: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", lambda *each: added.append(each))
    waiting = channel.ready()
    assert isinstance(waiting.send(None), Completion)
    assert bool(added) is polled
    waiting.close()
    channel.close()


def test_the_socket_of_another_one_in_its_place_stays(tmp_path: Path) -> None:
    """The process that has put it there listens on it, and its clients would find nobody."""
    path = tmp_path / "socket"
    listener, made = listen_unix(str(path), None)
    with listener, socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        # Not removed: the number of its inode could be the other's.
        path.rename(tmp_path / "moved")
        other.bind(str(path))
        other.listen()
        made.remove()
        client.connect(str(path))


async def test_a_listener_goes_on_where_there_is_no_descriptor_for_a_client() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    channel = Channel("socket", [listener.detach()], listening=[{}])
    client = socket.create_connection(address)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        stack.callback(channel.close)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert channel.accept() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # Not at once, though the client is still there.
        waiting = channel.ready()
        wait = waiting.send(None)
        assert isinstance(wait, Completion)
        with contextlib.closing(waiting):
            come = channel.accept()
        assert come is not None
        come.close()


async def test_a_channel_is_on_the_account_of_its_client_until_it_is_closed(tmp_path: Path) -> None:
    account, other = Account(), tmp_path / "other"
    account.descriptors = Places(4, each=4, apart=())
    USER.set(STRANGER)
    opener = Opener(account, None, no_fd, FdSets().open, may_run=False, fd_files=True)
    where = {"transport": "socket", "type": "unix", "path": str(tmp_path / "socket")}
    channel = Running(opener.open(where, write=False)).finish()
    assert account.descriptors.of(STRANGER) == 3
    with pytest.raises(QMPError, match=r"^Too many open files: 3 descriptors are open for user"):
        Running(opener.open({**where, "path": str(other)}, write=False))
    assert not other.exists()
    channel.close()
    assert account.descriptors.taken == 0
    USER.set(None)


def test_copies_of_sets_are_on_the_account_of_who_has_them_made(tmp_path: Path) -> None:
    """However many others may have been left in the set."""
    account, sets = Account(), FdSets()
    account.descriptors = Places(4, each=4, apart=())
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    sets.add(Descriptor(file, Places(), 0), 7, None)
    before = open_descriptors()
    with as_user(STRANGER):
        opener = Opener(account, None, no_fd, sets.open, may_run=False, fd_files=True)
        channel = Running(opener.open(FDSET, write=True)).finish()
        assert account.descriptors.of(STRANGER) > 0
        with pytest.raises(QMPError, match=r"^Too many open files: "):
            Running(opener.open(FDSET, write=True))
        assert len(open_descriptors()) == len(before) + 1
        channel.close()
    assert account.descriptors.taken == 0
    assert open_descriptors() == before
    sets.close()


class Host:
    """What a stand-in's listeners need of a machine."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.spawned: list[Running] = []

    def spawn(self, command: Command[None], _what: str) -> None:
        self.spawned.append(Running(command))


@pytest.mark.parametrize("first_ends_first", [False, True])
async def test_a_server_that_is_stopped_while_it_begins_and_started_again(
    tmp_path: Path, first_ends_first: bool
) -> None:
    """The first one listens nowhere then, and nothing is counted for it."""
    host = Host()
    places, before = host.tree.objects.account.descriptors, open_descriptors()
    listeners = Listeners(cast("Machine", host))
    old, new = ({"type": "unix", "path": str(tmp_path / each)} for each in ("old", "new"))
    with as_user(STRANGER):
        first = Running(listeners.open("nbd", old))
        Running(listeners.end("nbd")).finish()
        second = Running(listeners.open("nbd", new))
        if not first_ends_first:
            second.finish()
        with pytest.raises(QMPError, match="closed while it was being opened"):
            first.finish()
        second.finish()
    assert os.listdir(tmp_path) == ["new"]
    assert listeners.addresses("nbd") == [new]
    ending = Running(listeners.end("nbd"))
    for each in (*host.spawned, ending):
        each.finish()
    assert os.listdir(tmp_path) == []
    assert places.taken == 0
    assert open_descriptors() == before


async def test_a_machine_that_is_not_awaited_any_more_before_its_channel_is_open(
    tmp_path: Path,
) -> None:
    spawned: list[Running] = []
    config = Config(Report("memd"))
    config.unmodelled = "refuse"
    daemon = Daemon(Tree(), config)
    standin = daemon.standin = StandIn(daemon)
    daemon.run_state = "inmigrate"
    daemon.machine.spawn = lambda command, _what: spawned.append(Running(command))
    account, before = daemon.tree.objects.account, open_descriptors()
    with as_user(STRANGER):
        opener = Opener(account, None, no_fd, FdSets().open, may_run=False, fd_files=True)
        uri = f"unix:{tmp_path / 'socket'}"
        receiving = Running(standin.migration.receive({"uri": uri}, opener))
    Running(standin.close()).finish()
    receiving.finish()
    for each in spawned:
        assert isinstance(each.wait, Job)
        each.finish()
    assert os.listdir(tmp_path) == []
    assert account.descriptors.taken == 0
    assert open_descriptors() == before


@pytest.mark.parametrize("where", [FD, FDSET])
def test_a_descriptor_is_given_back_where_its_job_is_not_begun(where: dict[str, Any]) -> None:
    places, sets = Places(), FdSets()
    number = os.memfd_create("given")
    given = Descriptor(number, places, 1000)
    kept = Descriptor(os.open("/dev/null", os.O_WRONLY), places, 1000)
    places.take(1000, 2)
    sets.add(kept, 7, None)
    opener = Opener(
        Account(), None, {"given": given}.__getitem__, sets.open, may_run=False, fd_files=True
    )
    before = descriptors(os.getpid())
    opening = Running(opener.open(where, write=True))
    with pytest.raises(QMPError, match="too many"):
        opening.fail(QMPError("too many"))
    assert descriptors(os.getpid()) <= before
    assert os.path.exists(f"/proc/self/fd/{number}") == (where is FDSET)
    assert places.of(1000) == 1 + (where is FDSET)
    given.close()
    kept.close()
