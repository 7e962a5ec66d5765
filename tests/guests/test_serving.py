"""Clones in QEMU run from a template's pages, and find every byte of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.store import Store
from tests.guests.conftest import Serving
from tests.guests.guest import Guest, memory
from tests.guests.image import digest

Start = Callable[..., Guest]


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(memory("memfd", share="on"), id="shared"),
        pytest.param(memory("ram"), id="private"),
    ],
)
async def test_clone(serving: Serving, start_guest: Start, backend: str) -> None:
    guest = start_guest(backend)
    uri = guest.listen()
    await serving.serve(uri=uri)
    # It is used while its pages come.
    await asyncio.to_thread(guest.check)
    told = await serving.ended()
    assert (told["name"], told["uri"], told["outcome"]) == ("guest", uri, "complete")
    assert told["pages"]["asked"] > 0
    assert sum(told["pages"].values()) - told["pages"]["zeroes"] > 4096
    await asyncio.to_thread(guest.wait_migration, "completed")
    totals = serving.servers.totals()
    assert (totals.clones, totals.outcomes) == (0, {"complete": 1})
    assert totals.pages == told["pages"]
    # A request is for one page here.
    assert sum(totals.waits) == told["pages"]["asked"]
    assert totals.waited > 0
    # Afterwards it is a machine as any other.
    await asyncio.to_thread(guest.run, "cp /pattern /copy && rm /pattern && cp /copy /pattern")
    await asyncio.to_thread(guest.check)


async def test_clone_in_huge_pages(
    serving: Serving, start_guest: Start, hugepages: Callable[[int], None]
) -> None:
    """The size of the pages is asked of the clone's monitor."""
    hugepages(64)
    guest = start_guest(memory("memfd", hugetlb="on", hugetlbsize="2M"))
    await serving.serve(qmp=str(guest.pages))
    await asyncio.to_thread(guest.check)
    assert (await serving.ended())["outcome"] == "complete"


async def test_many_clones_and_one_that_ends(serving: Serving, start_guest: Start) -> None:
    """What happens to one is its own."""
    guests = [start_guest(memory("memfd")) for _ in range(4)]
    uris = [guest.listen() for guest in guests]
    await asyncio.gather(*(serving.serve(uri=uri) for uri in uris))
    guests[1].process.kill()
    for guest in (guests[0], guests[2], guests[3]):
        await asyncio.to_thread(guest.check)
    outcomes = {(told := await serving.ended())["uri"]: told["outcome"] for _ in guests}
    assert outcomes == {**dict.fromkeys(uris, "complete"), uris[1]: outcomes[uris[1]]}
    assert outcomes[uris[1]] in ("lost", "complete", "failed")


async def test_working_set(serving: Serving, store: Path, start_guest: Start) -> None:
    """What a run asks for is learnt, and is sent first the next time."""
    guest = start_guest(memory("memfd"))
    await serving.serve(uri=guest.listen(), record=True)
    await asyncio.to_thread(guest.run, "head -c 4000000 /pattern | md5sum")
    await asyncio.to_thread(guest.execute, "quit")
    told = await serving.ended()
    learnt = serving.learnt["guest"]
    assert told["pages"]["rest"] == 0
    assert len(learnt) == len(set(learnt)) > 1000
    templates = Store(str(store))
    templates.set_working_set("guest", learnt)
    templates.close()
    guest = start_guest(memory("memfd"))
    await serving.serve(uri=guest.listen())
    await asyncio.to_thread(guest.check)
    pages = (await serving.ended())["pages"]
    # How many of them the guest has asked for before they came is a matter of time; that
    # they go before the rest is shown in tests/pages/test_postcopy.py.
    assert pages["working-set"] > 0


async def test_the_process_that_serves_dies(serving: Serving, start_guest: Start) -> None:
    """Another takes its place: the clone is recovered, and nothing of it is wrong.

    Its own memory holds a thread of QEMU up meanwhile, and so QEMU greets nobody.
    """
    guest = start_guest(memory("memfd"))
    # Nothing is sent that is not asked for: the clone is not whole when the process dies.
    await serving.serve(qmp=str(guest.pages), record=True)
    guest.type("md5sum /pattern")
    (process,) = serving.servers._processes
    os.kill(process.popen.pid, signal.SIGKILL)
    assert await asyncio.to_thread(guest.hear) == f"{digest()}  /pattern"
    await asyncio.to_thread(guest.check)
    await asyncio.to_thread(guest.execute, "quit")
    assert (await serving.ended())["outcome"] == "left"


def notes(store: Path) -> list[Path]:
    """What is noted of clones that are being served."""
    return list((store / "serving").glob("*.json"))


async def test_the_daemon_ends(store: Path, start_guest: Start) -> None:
    """The process that serves goes on, and the next daemon tells what came of it."""
    first = Serving(store)
    guest = start_guest(memory("memfd"))
    await first.serve(qmp=str(guest.pages), record=True)
    await asyncio.to_thread(guest.run, "head -c 4000000 /pattern | md5sum")
    assert len(notes(store)) == 1
    await first.servers.close()
    await asyncio.to_thread(guest.check)
    await asyncio.to_thread(guest.wait_migration, "completed")
    second = Serving(store)
    await second.servers.resume()
    told = await second.ended()
    assert told["outcome"] == "complete"
    assert told["pages"]["asked"] > 1000
    assert len(second.learnt["guest"]) > 1000
    await second.servers.close()
    assert notes(store) == []


async def test_the_daemon_and_the_process_die(store: Path, start_guest: Start) -> None:
    """The next daemon finds what was being served, and recovers it.

    Its own memory holds QEMU's main thread up meanwhile, and so QEMU negotiates with nobody.
    """
    first = Serving(store)
    guest = start_guest(memory("memfd"))
    await first.serve(qmp=str(guest.pages), record=True)
    guest.type("md5sum /pattern")
    (process,) = first.servers._processes
    await first.servers.close()
    os.kill(process.popen.pid, signal.SIGKILL)
    second = Serving(store)
    await second.servers.resume()
    assert await asyncio.to_thread(guest.hear) == f"{digest()}  /pattern"
    await asyncio.to_thread(guest.check)
    await asyncio.to_thread(guest.execute, "quit")
    assert (await second.ended())["outcome"] == "left"
    await second.servers.close()
    assert notes(store) == []


def serving_processes(store: Path) -> set[int]:
    """The processes that serve from a store, and the one that holds monitors for them."""
    found = set()
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = each.read_bytes().split(b"\0")
            if b"memd.pages.serving" in words and str(store) in words[-2].decode():
                found.add(int(each.parent.name))
    return found


@pytest.mark.parametrize("waits", [False, True])
async def test_everything_dies(store: Path, start_guest: Start, waits: bool) -> None:
    """What holds the monitor's connection as well: the clone pauses, and is recovered by a new one.

    If QEMU's main thread itself waits for a page, it answers nobody: then that is told.
    """
    first = Serving(store)
    guest = start_guest(memory("memfd"))
    await first.serve(qmp=str(guest.pages), record=True)
    if waits:
        guest.type("md5sum /pattern")
    else:
        await asyncio.to_thread(guest.run, "head -c 4000 /pattern | md5sum")
    (process,) = first.servers._processes
    await first.servers.close()
    processes = serving_processes(store)
    assert {process.popen.pid} < processes
    for each in processes:
        os.kill(each, signal.SIGKILL)
    if not waits:
        # It comes to pages that nobody sends.
        guest.type("md5sum /pattern")
    second = Serving(store)
    await second.servers.resume()
    ended = asyncio.ensure_future(second.ended())
    heard = asyncio.ensure_future(asyncio.to_thread(guest.hear))
    await asyncio.wait((ended, heard), return_when=asyncio.FIRST_COMPLETED)
    if waits and ended.done():
        assert ended.result()["outcome"] == "failed"
        assert "the machine can't be recovered" in ended.result()["error"]
        assert "Migration paused" in guest.stderr()
        guest.process.kill()
        with pytest.raises((AssertionError, ConnectionError)):
            await heard
    else:
        assert await heard == f"{digest()}  /pattern"
        await asyncio.to_thread(guest.check)
        await asyncio.to_thread(guest.execute, "quit")
        assert (await ended)["outcome"] == "left"
    await second.servers.close()
    assert notes(store) == []


async def test_refusals(serving: Serving, directory: Path, start_guest: Start) -> None:
    with pytest.raises(QMPError, match="other"):
        await serving.serve(template="other", uri=f"unix:{directory}/none")
    with pytest.raises(QMPError, match="No such file or directory"):
        await serving.serve(uri=f"unix:{directory}/none")
    with pytest.raises(QMPError, match="No such file or directory"):
        await serving.serve(qmp=f"{directory}/none")
    with pytest.raises(QMPError, match="'exec:x' is not an address"):
        await serving.serve(uri="exec:x")


async def test_another_machine(serving: Serving, start_guest: Start) -> None:
    """It is not told to wait for a migration that it would end of."""
    machine = "-nodefaults -display none -accel tcg -m 128M -machine pc,memory-backend=ram"
    guest = start_guest(memory("memfd"), machine=machine)
    with pytest.raises(
        QMPError, match=r"the machine is a pc-i440fx-.*, and the template's a pc-q35"
    ):
        await serving.serve(qmp=str(guest.pages))
    assert guest.process.poll() is None


async def test_a_machine_of_other_pages(serving: Serving, start_guest: Start) -> None:
    """QEMU ends, and says why, where it could not be asked and was said to have others."""
    guest = start_guest(memory("memfd"))
    await serving.serve(uri=guest.listen(), page_size=2 << 20)
    told = await serving.ended()
    assert told["outcome"] == "failed"
    assert guest.process.wait(60) == 1
    assert "page size" in guest.stderr().lower()
    with pytest.raises(QMPError, match="not of whole pages of 3000 bytes"):
        await serving.serve(uri=f"unix:{guest.incoming}", page_size=3000)


async def test_a_machine_of_another_size(serving: Serving, start_guest: Start) -> None:
    """QEMU ends, and says why; the client that asked for it is told where to look."""
    guest = start_guest("memory-backend-memfd,id=ram,size=64M", "-m", "64M")
    await serving.serve(uri=guest.listen())
    told = await serving.ended()
    assert told["outcome"] == "failed"
    assert "it says why on its standard error" in told["error"]
    assert guest.process.wait(60) == 1
    assert "Size mismatch" in guest.stderr()
