"""What comes back, what does not and is named, and what is refused with all of it kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.backends.secret import find_secret
from memd.errors import StartError
from memd.hostmem import access
from memd.hostmem.paths import Roots
from memd.persist.object_log import LogFile, line_of
from memd.work import run_here
from tests.backends.doing import MIB, delete, get, region_of
from tests.manager import Stored
from tests.persist.life import Begin, Life, add
from tests.stepping import as_user
from tests.tls import Certificates


def memfd(id: str = "m0", **options: Any) -> dict[str, Any]:
    return {"qom-type": "memory-backend-memfd", "id": id, "size": MIB, **options}


def reasons(life: Life) -> dict[str, str]:
    return {id: each["reason"] for id, each in life.service.lost.items()}


async def refused(begin: Begin, *objects: dict[str, Any], **config: Any) -> StartError:
    """Why a daemon can't start; the store is as it was."""
    life = begin(*objects, **config)
    with pytest.raises(StartError) as caught:
        await life
    return caught.value


async def test_what_is_lost_is_named(
    begin: Begin, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = directory / "file"
    path.write_bytes(b"x" * MIB)
    life = await begin()
    add(life, "ram", size=MIB)
    add(life, "file", "clone", size=MIB, mem_path=str(path), readonly=True, rom="off")
    add(life, "memfd", "private", size=MIB, share=False)
    add(life, "file", "zero", size=MIB, mem_path="/dev/zero", share=True)
    add(life, "file", "rom", size=MIB, mem_path=str(path), readonly=True)
    life.kill()
    life = await begin()
    assert life.ids() == ["rom"]
    assert reasons(life) == {
        "m0": "anonymous",
        "clone": "copied",
        "private": "copied",
        "zero": "anonymous",
    }
    assert life.service.lost["m0"]["size"] == MIB
    assert life.service.lost["m0"]["qom-type"] == "memory-backend-ram"
    assert "'m0': it was private memory" in caplog.text
    assert len(life.manager.names()) == 2


async def test_a_loss_is_told_until_it_is_made_good(begin: Begin) -> None:
    life = await begin()
    add(life, "ram", size=MIB)
    add(life, "ram", "m1", size=MIB)
    for _ in range(2):
        life.kill()
        life = await begin()
        assert reasons(life) == {"m0": "anonymous", "m1": "anonymous"}
    add(life, "memfd", size=MIB)
    assert reasons(life) == {"m1": "anonymous"}
    life.kill()
    life = await begin()
    assert reasons(life) == {"m1": "anonymous"}


async def test_what_the_command_line_makes_anew_is_lost_all_the_same(begin: Begin) -> None:
    private = {"qom-type": "memory-backend-ram", "id": "m0", "size": MIB}
    life = await begin(private)
    assert reasons(life) == {}
    for _ in range(2):
        life.kill()
        life = await begin(private)
        assert life.ids() == ["m0"]
        assert reasons(life) == {"m0": "anonymous"}


async def test_private_mappings_that_nobody_wrote_to(begin: Begin, directory: Path) -> None:
    """At an orderly end it can be seen that nothing would be lost."""
    path = directory / "file"
    path.write_bytes(b"x" * MIB)
    clone: dict[str, Any] = {"size": MIB, "mem_path": str(path), "readonly": True, "rom": "off"}
    life = await begin()
    add(life, "file", **clone)
    add(life, "file", "m1", **clone)
    add(life, "memfd", "m2", size=MIB, share=False)
    add(life, "ram", "m3", size=MIB)
    access.read(region_of(life.tree), "m0", 0, MIB)
    access.write(region_of(life.tree, "m1"), "m1", 0, b"copy")
    life.end()
    life = await begin()
    assert life.ids() == ["m0", "m2"]
    assert reasons(life) == {"m1": "copied", "m3": "anonymous"}
    region = region_of(life.tree)
    assert (region.shared, region.writable) == (False, True)
    assert access.read(region, "m0", 0, 4) == b"xxxx"
    # What was seen at one end says nothing about the next.
    life.kill()
    life = await begin()
    assert life.ids() == []


async def test_the_command_line_again(begin: Begin) -> None:
    """The same unit starts the same command line: its objects are there already."""
    objects = [
        {"qom-type": "thread-context", "id": "t0", "cpu-affinity": [0]},
        {**memfd(prealloc=True), "prealloc-context": "t0"},
    ]
    life = await begin(*objects)
    access.write(region_of(life.tree), "m0", 0, b"precious")
    life.set("m0", "merge", False)
    for again in (objects, [objects[0], {**objects[1], "share": True, "dump": True}]):
        life.kill()
        life = await begin(*again)
        assert life.ids() == ["t0", "m0"]
        assert access.read(region_of(life.tree), "m0", 0, 8) == b"precious"
        assert get(life.tree, "merge") is False


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (memfd(size=2 * MIB), "memory-backend-memfd,id=m0,size=2097152 now"),
        (memfd(dump=False), "memory-backend-memfd,id=m0,size=1048576,dump=false now"),
        (
            {**memfd(), "qom-type": "memory-backend-shm"},
            "memory-backend-shm,id=m0,size=1048576 now",
        ),
        ({"qom-type": "thread-context", "id": "m0"}, "thread-context,id=m0 now"),
        (memfd(policy="bind"), "memory-backend-memfd,id=m0,size=1048576,policy=bind now"),
    ],
)
async def test_another_command_line(begin: Begin, other: dict[str, Any], text: str) -> None:
    life = await begin(memfd())
    life.kill()
    error = await refused(begin, other)
    assert error.text == (
        "object 'm0' is there from before the restart, and was made otherwise:"
        f" memory-backend-memfd,id=m0,size=1048576 then, {text}"
    )
    assert error.hint is not None
    life = await begin(memfd())
    assert life.ids() == ["m0"]


async def test_thread_contexts_are_told_apart(begin: Begin) -> None:
    context = {"qom-type": "thread-context", "id": "t0"}
    life = await begin({**context, "node-affinity": [0]})
    life.kill()
    error = await refused(begin, {**context, "cpu-affinity": [0]})
    assert "thread-context,id=t0,node-affinity=[0] then" in error.text


async def test_new_in_the_command_line(begin: Begin) -> None:
    life = await begin(memfd())
    life.kill()
    life = await begin(memfd("m1"), memfd())
    assert life.ids() == ["m0", "m1"]
    assert life.manager.names() == ["memd-list", "memd-1", "memd-2"]


async def test_a_start_that_fails_changes_nothing(begin: Begin, directory: Path) -> None:
    """What it had made is gone, what the last one left is not."""
    path = directory / "new"
    data = directory / "data"
    data.write_bytes(b"x" * MIB)
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "file", "f0", size=MIB, mem_path=str(data), share=True, discard_data=True)
    life.kill()
    before = life.manager.names()
    new = {
        "qom-type": "memory-backend-file",
        "id": "m1",
        "size": MIB,
        "mem-path": str(path),
        "share": True,
    }
    started = Life(life.manager, pytest.MonkeyPatch(), [new, memfd(size=4096)])
    with pytest.raises(StartError):
        await started.begin()
    assert life.manager.names() == before
    assert data.read_bytes() == b"x" * MIB
    # It was whole: a later start takes nothing away that may be somebody's by now.
    path.write_bytes(b"somebody's")
    life = await begin()
    assert life.ids() == ["m0", "f0"]
    assert path.read_bytes() == b"somebody's"


def drop(life: Life) -> None:
    """The manager has lost the memory's descriptor."""
    (stored,) = [each for each in life.manager.store if each.name == "memd-1"]
    life.manager.store.remove(stored)
    os.close(stored.fd)


def drop_list(life: Life) -> None:
    (stored,) = [each for each in life.manager.store if each.name == "memd-list"]
    life.manager.store.remove(stored)
    os.close(stored.fd)


def swap(life: Life) -> None:
    """Another memfd goes by that name."""
    other = os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    (stored,) = [each for each in life.manager.store if each.name == "memd-1"]
    os.dup2(other, stored.fd, inheritable=False)
    os.close(other)


def device(life: Life) -> None:
    """A character device goes by that name."""
    other = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    (stored,) = [each for each in life.manager.store if each.name == "memd-1"]
    os.dup2(other, stored.fd, inheritable=False)
    os.close(other)


def write(life: Life, entry: dict[str, Any]) -> None:
    (stored,) = [each for each in life.manager.store if each.name == "memd-list"]
    journal = LogFile(os.dup(stored.fd))
    journal.read()
    journal.append(line_of(entry))
    journal.close()


def unknown_kind(life: Life) -> None:
    write(life, {"moved": 1})


def no_kind(life: Life) -> None:
    write(life, {})


def wrong_number(life: Life) -> None:
    write(life, {"is": "one", "id": "x"})


def no_members(life: Life) -> None:
    write(life, {"is": 9, "id": "x"})


UNREADABLE = "what the service manager's store holds can't be read: "


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (drop, UNREADABLE + "object 'm0': its descriptor is missing"),
        (drop_list, UNREADABLE + "there is no list (memd-list) with the descriptors in it"),
        (swap, UNREADABLE + "object 'm0': its descriptor is another file"),
        (device, UNREADABLE + "object 'm0': its descriptor is of another type"),
        (unknown_kind, UNREADABLE + "an entry is of the unknown kind 'moved'"),
        (no_kind, UNREADABLE + "an entry is of the unknown kind ''"),
        (wrong_number, UNREADABLE + "'is' of an entry is not what it should be"),
        (no_members, UNREADABLE + "'qom-type' of an object is not what it should be"),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
async def test_what_cannot_be_read_is_kept(
    begin: Begin, change: Callable[[Life], None], text: str
) -> None:
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "memfd", "m1", size=MIB)
    life.kill()
    change(life)
    before = life.manager.names()
    for _ in range(2):
        error = await refused(begin)
        assert error.text.startswith(text)
        life.manager.catch_up()
        assert life.manager.names() == before
    life.manager.clean()
    assert (await begin()).ids() == []


async def test_a_loss_that_is_accepted(begin: Begin) -> None:
    """What can't be restored is named; the rest is back."""
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "memfd", "m1", size=MIB)
    life.kill()
    swap(life)
    life = await begin(accept_loss=True)
    assert life.ids() == ["m1"]
    assert reasons(life) == {"m0": "missing"}
    assert len(life.manager.names()) == 2


async def describe_otherwise(begin: Begin, **members: Any) -> None:
    """Leave an object `m0` with a description that has these members."""
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "memfd", "m1", size=MIB)
    import json

    described = json.loads(life.storage.log.state.objects[1][9:])
    for name, value in members.items():
        described[name.replace("_", "-")] = value
    life.storage.log.write(described)
    life.kill()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"qom_type": "memory-backend-new"}, "invalid object type: memory-backend-new"),
        ({"properties": {"new": 1}}, "Property 'memory-backend-memfd.new' not found"),
        ({"map": {"new": 1}}, "its description is not understood: "),
        ({"bound": ["bind", [99]]}, "cannot bind memory to host NUMA nodes: "),
    ],
    ids=str,
)
async def test_what_cannot_be_made_again(begin: Begin, members: dict[str, Any], text: str) -> None:
    await describe_otherwise(begin, **members)
    error = await refused(begin)
    assert error.text.startswith(f"cannot restore 'm0': {text}")
    assert error.hint is not None
    life = await begin(accept_loss=True)
    assert life.ids() == ["m1"]
    assert reasons(life) == {"m0": "failed"}
    assert len(life.manager.names()) == 2


async def test_a_link_to_what_is_lost(begin: Begin) -> None:
    await describe_otherwise(begin, properties={"size": MIB, "prealloc-context": "/objects/t0"})
    error = await refused(begin)
    assert error.text == "cannot restore 'm0': Device '/objects/t0' not found"
    assert (await begin(accept_loss=True)).ids() == ["m0", "m1"]


async def test_credentials(
    begin: Begin, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """They are read anew; where that fails, they are lost, and nothing else is."""
    directory = certificates.folder(ca_cert="ca", server_cert="server", server_key="server.key")
    options = {
        "qom-type": "tls-creds-x509",
        "id": "tls0",
        "dir": str(directory),
        "endpoint": "server",
        "verify-peer": False,
    }
    life = await begin(options)
    add(life, "memfd", size=MIB)
    life.kill()
    life = await begin(options)
    assert sorted(life.ids()) == ["m0", "tls0"]
    assert get(life.tree, "verify-peer", "tls0") is False
    life.kill()
    for each in directory.iterdir():
        each.unlink()
    life = await begin()
    assert life.ids() == ["m0"]
    assert reasons(life) == {"tls0": "failed"}
    assert "cannot restore 'tls0': " in caplog.text


async def test_secrets(begin: Begin) -> None:
    """They are kept, and told to nobody."""
    secret = {"qom-type": "secret", "id": "s0", "data": "sesame"}
    life = await begin(secret)
    life.kill()
    life = await begin(secret)
    assert life.ids() == ["s0"]
    assert get(life.tree, "data", "s0") == "sesame"
    life.kill()
    error = await refused(begin, {**secret, "data": "other"})
    assert error.text.endswith(": secret,id=s0,data=... then, secret,id=s0,data=... now")


async def test_secrets_that_were_set_later(begin: Begin, directory: Path) -> None:
    """That counts for nothing while they live, and afterwards neither."""
    (directory / "file").write_text("sesame")
    (directory / "other").write_text("other")
    life = await begin()
    for options in (
        {"qom-type": "secret", "id": "s0", "file": str(directory / "file")},
        {"qom-type": "secret", "id": "s1", "data": "sesame"},
    ):
        with as_user(1234):
            run_here(life.tree.objects.create(options))
    life.set("s0", "file", str(directory / "other"))
    life.set("s0", "data", "other")
    life.set("s1", "data", "other")
    for _ in range(2):
        life.kill()
        life = await begin()
        assert life.ids() == ["s0", "s1"]
        assert [find_secret(life.tree, id).content for id in life.ids()] == [b"sesame"] * 2
        assert get(life.tree, "file", "s0") == str(directory / "other")
        assert get(life.tree, "data", "s1") == "other"


async def test_secrets_are_kept_beyond_what_there_may_be_by_now(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was set later counts as well."""
    life = await begin()
    with as_user(1234):
        add(life, "secret", "s0", data="x" * 1000)
    life.set("s0", "iv", "x" * 1000)
    there = life.tree.objects.account.places.of(1234)
    monkeypatch.setattr("memd.places.KEPT_PER_USER", 100)
    life.kill()
    life = await begin()
    assert life.ids() == ["s0"]
    places = life.tree.objects.account.places
    assert places.of(1234) == there
    run_here(life.tree.objects.delete("s0"))
    assert places.taken == 0


async def test_credentials_that_were_set_later(
    begin: Begin, certificates: Certificates, directory: Path
) -> None:
    """Those of the command line are what it says: clients change whom to trust until a restart."""
    folder = certificates.folder(ca_cert="ca", server_cert="server", server_key="server.key")
    options = {
        "qom-type": "tls-creds-x509",
        "id": "tls0",
        "dir": str(folder),
        "endpoint": "server",
    }
    life = await begin(options)
    life.set("tls0", "dir", str(directory))
    life.set("tls0", "verify-peer", False)
    life.kill()
    life = await begin(options)
    assert life.ids() == ["tls0"]
    assert get(life.tree, "dir", "tls0") == str(folder)
    assert get(life.tree, "verify-peer", "tls0") is True


async def test_secrets_of_clients_are_confined(begin: Begin, directory: Path) -> None:
    """A file that --mem-root forbids now is not read; the command line may."""
    (directory / "file").write_text("sesame")
    (directory / "inside").mkdir()
    life = await begin({"qom-type": "secret", "id": "mine", "file": str(directory / "file")})
    theirs = {"qom-type": "secret", "id": "theirs", "file": str(directory / "file")}
    with as_user(1234):
        run_here(life.tree.objects.create(theirs))
    life.kill()
    roots = Roots()
    roots.add(str(directory / "inside"))
    life = await begin(roots=roots)
    roots.close()
    assert life.ids() == ["mine"]
    assert reasons(life) == {"theirs": "failed"}
    assert life.tree.host.roots is None


async def test_memory_that_was_truncated(begin: Begin, directory: Path) -> None:
    """It is there as before: what is gone can't be read, and is not made up."""
    path = directory / "file"
    path.write_bytes(b"x" * MIB)
    life = await begin()
    add(life, "file", size=MIB, mem_path=str(path), share=True)
    life.kill()
    os.truncate(path, 4096)
    life = await begin()
    assert life.ids() == ["m0"]
    assert path.stat().st_size == 4096
    assert access.read(region_of(life.tree), "m0", 0, 4096) == b"x" * 4096


async def test_many(begin: Begin) -> None:
    """A list that was written anew more than once, and what was deleted of it."""
    life = await begin()
    life.manager.capacity = 600
    life.kill()
    life = await begin()
    for number in range(400):
        add(life, "memfd", f"m{number}", size=4096)
        life.set(f"m{number}", "dump", False)
        if number % 3:
            delete(life.tree, f"m{number}")
        if number % 50 == 0:
            life.manager.catch_up()
    life.kill()
    life = await begin()
    assert life.ids() == [f"m{number}" for number in range(0, 400, 3)]


async def test_a_list_of_format_1(begin: Begin) -> None:
    """As the first release wrote it; every later one has to read it."""
    memory = os.memfd_create("memory", os.MFD_CLOEXEC)
    os.truncate(memory, MIB)
    os.pwrite(memory, b"precious", 5)
    there = os.fstat(memory)
    file = {"dev": there.st_dev, "ino": there.st_ino, "type": 0o100000, "access": 2, "seals": 1}
    entries: list[dict[str, Any]] = [
        {"next": 1},
        {
            "is": 1,
            "id": "m0",
            "qom-type": "memory-backend-memfd",
            "properties": {"size": MIB, "dump": False, "prealloc-context": "/objects/t0"},
            "owner": 1000,
            "map": {
                "size": MIB,
                "length": MIB,
                "page_size": 4096,
                "align": 4096,
                "offset": 0,
                "protection": 3,
                "shared": True,
                "reserve": True,
                "sync": False,
            },
            "exports": 2,
            "bound": ["default", []],
            "file": file,
            "options": {"qom-type": "memory-backend-memfd", "id": "m0", "size": MIB},
            "lost": None,
            "parked": True,
        },
        {
            "is": 2,
            "id": "t0",
            "qom-type": "thread-context",
            "properties": {"cpu-affinity": [0]},
            "owner": None,
            "options": {"qom-type": "thread-context", "id": "t0", "cpu-affinity": [0]},
            "lost": None,
            "parked": False,
        },
        {"is": 3, "id": "gone"},
        {"gone": 3, "discard": [0, 4096]},
        {"making": 4, "path": "/nowhere/file", "time": 1760000000.5},
        {"made": 4, "dev": 1, "ino": 1},
        {
            "lost": {"id": "p0", "qom-type": "x", "reason": "anonymous", "time": 1760000000},
            "was": 9,
        },
        {"clean": 8},
    ]
    listed = LogFile.create()
    for entry in entries:
        listed.append(line_of(entry))
    header = json.loads(os.pread(listed.fd, 256, 256).strip(b"\0")[9:])
    os.pwrite(listed.fd, line_of({**header, "format": 1}), 256)
    life = await begin()
    life.kill()
    life.manager.clean()
    life.manager.store += [Stored("memd-list", listed.fd), Stored("memd-1", memory)]
    life = await begin()
    assert life.ids() == ["m0", "t0"]
    assert get(life.tree, "prealloc-context") == "/objects/t0"
    assert get(life.tree, "dump") is False
    region = region_of(life.tree)
    assert region.exports == 2
    assert access.read(region, "m0", 5, 8) == b"precious"
    assert reasons(life) == {"p0": "anonymous"}
    assert life.tree.objects.quota.users == {1000: MIB}


async def test_a_damaged_header(begin: Begin) -> None:
    """It is not taken for an empty list."""
    life = await begin()
    add(life, "memfd", size=MIB)
    life.kill()
    (listed,) = [each.fd for each in life.manager.store if each.name == "memd-list"]
    before = life.manager.names()
    newest = 256 * (b'"generation":3' in os.pread(listed, 256, 256))
    assert b'"generation":' in os.pread(listed, 256, newest)
    for slot in (0, 256):
        [byte] = os.pread(listed, 1, slot + 12)
        os.pwrite(listed, bytes([byte ^ 1]), slot + 12)
        error = await refused(begin) if slot == newest else None
        if error is not None:
            assert error.text == UNREADABLE + "a header is damaged"
            assert error.hint is not None
            assert life.manager.names() == before
        os.pwrite(listed, bytes([byte]), slot + 12)
    life = await begin()
    assert life.ids() == ["m0"]


ODD: list[Any] = [None, True, -1, 1 << 70, 0.5, "", "x", [], [1, "x"], {}, {"x": 1}]


def odd_ones(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The description with one of its members, at any depth, missing or odd."""
    for name, value in described.items():
        if name == "is":
            continue
        yield {key: each for key, each in described.items() if key != name}
        for odd in ODD:
            yield {**described, name: odd}
        if isinstance(value, dict):
            for within in odd_ones(value):
                yield {**described, name: within}


async def test_odd_descriptions(begin: Begin) -> None:
    """What is not a description ends the start with all of it kept, or is another object."""
    life = await begin()
    add(life, "memfd", size=MIB)
    add(life, "secret", "s0", data="x")
    add(life, "thread-context", "t0")
    whole = [life.storage.log.state.described(number) for number in (1, 2, 3)]
    life.kill()
    manager = life.manager
    (memory,) = [os.dup(each.fd) for each in manager.store if each.name == "memd-1"]

    def put(*entries: dict[str, Any]) -> None:
        """Have that in the store, and the memory."""
        for each in manager.store:
            os.close(each.fd)
        listed = LogFile.create()
        for entry in entries:
            listed.append(line_of(entry))
        stored = os.dup(memory)
        manager.store[:] = [Stored("memd-list", listed.fd), Stored("memd-1", stored)]

    outcomes = {"refused": 0, "started": 0}
    for number, described in enumerate(whole):
        for odd in odd_ones(described):
            put(*whole[:number], odd, *whole[number + 1 :])
            refused = None
            try:
                life = await begin()
                life.kill()
            except StartError as error:
                refused = error
            if refused is None:
                outcomes["started"] += 1
            else:
                assert refused.hint is not None, (odd, refused.text)
                assert manager.names() == ["memd-list", "memd-1"]
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
    os.close(memory)
