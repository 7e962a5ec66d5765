"""A daemon with a template store."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.servers import Servers, Settings
from memd.pages.store import Store
from tests.differential.kernel import children, command_of
from tests.differential.server import PATIENCE, TREE, Server, memd_argv
from tests.pages.memory import save
from tests.stepping import Running


def refused(*options: str, **environment: str) -> str:
    """What a memd says that can't start."""
    done = subprocess.run(
        [*memd_argv(), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=TREE,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1
    return done.stderr


def test_two_daemons_on_one_store(directory: Path, start_memd: Callable[..., Server]) -> None:
    store = directory / "store"
    first = start_memd("--templates", str(store))
    said = refused("--qmp", "stdio", "--templates", str(store))
    assert said == (
        f"memd: --templates {store}: cannot use '{store}' as a template store: another memd uses"
        f" it (process {first.pid})\n"
    )
    first.stop()
    start_memd("--templates", str(store))


@pytest.mark.parametrize("source", ["gopher://h/x", "oci://host"])
def test_a_source_that_is_none(directory: Path, source: str) -> None:
    store = str(directory / "store")
    said = refused("--qmp", "stdio", "--templates", store, "--template-source", source)
    assert f"'{source}' is not a template source" in said
    assert not Path(store).exists()


def test_a_library_that_is_not_there(directory: Path) -> None:
    """What is missing, and what brings it, once."""
    (directory / "urllib3.py").write_text("raise ModuleNotFoundError('none', name='urllib3')\n")
    store = str(directory / "store")
    said = refused(
        *("--qmp", "stdio", "--templates", store, "--template-source", "oci://host/x"),
        PYTHONPATH=str(directory),
    )
    first, second = said.splitlines()
    assert first == f"memd: --templates {store}: template source 'oci://host/x' needs urllib3"
    assert second.startswith("the extra templates brings it")


def serving(server: Server) -> list[int]:
    """The processes that serve pages and that a daemon has started."""
    return [each for each in children(server.pid) if b"memd.pages.serving" in command_of(each)]


def test_a_process_that_serves_is_there_before_the_first_clone(
    directory: Path, start_memd: Callable[..., Server]
) -> None:
    """Where there is something to serve; else nothing is started."""
    full, empty = str(directory / "full"), str(directory / "empty")
    store = Store(full)
    save(store, "a", bytes(range(256)) * 16)
    store.close()
    without = start_memd("--templates", empty)
    with_one = start_memd("--templates", full)
    deadline = time.monotonic() + PATIENCE
    while not serving(with_one):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not serving(without)


def test_a_process_that_serves_may_have_all_descriptors(
    directory: Path, start_memd: Callable[..., Server]
) -> None:
    """And with it the process that it starts: each machine takes several."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    store = Store(str(directory / "store"))
    save(store, "a", bytes(range(256)) * 16)
    store.close()
    server = start_memd("--templates", str(directory / "store"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (256, most))
    deadline = time.monotonic() + PATIENCE
    while not any(
        resource.prlimit(each, resource.RLIMIT_NOFILE) == (most, most) for each in serving(server)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_daemon_without_a_store_loads_nothing_of_it() -> None:
    """Every start would wait for it."""
    script = (
        "import sys; import memd.app.app, memd.commands.table;"
        " print([each for each in sys.modules if each.startswith('memd.pages.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TREE
    )
    assert done.stdout == "[]\n"


async def test_notes_of_clones_that_say_nothing(directory: Path) -> None:
    """They are gone after one start, and hold nothing up."""
    serving = directory / "serving"
    serving.mkdir()
    for number, text in enumerate(("", "[]", "{}", '{"template": ', "7", "\x00" * 50)):
        (serving / f"{number}.json").write_text(text)
    (serving / "x.json").write_text('{"template": "a"}')
    servers = Servers(Settings(str(directory)), lambda _events: None, lambda _name, _pages: None)
    await servers.resume()
    assert servers.clones == {}
    assert list(serving.iterdir()) == []
    await servers.close()


async def test_a_store_that_stalls_holds_one_thread_for_the_files_of_clones(
    directory: Path,
) -> None:
    goes_on = asyncio.Event()
    under_way: list[object] = []

    async def in_thread(work: Callable[[], object]) -> None:
        under_way.append(work)
        await goes_on.wait()
        assert under_way == [work]
        under_way.clear()
        raise OSError(errno.EIO, "")

    settings = Settings(str(directory))
    servers = Servers(settings, lambda _events: None, lambda _name, _pages: None, in_thread)
    request = {"template": "t", "qmp": "/monitor"}
    serving = [Running(servers.serve({**request})) for _ in range(5)]
    while not under_way:
        await asyncio.sleep(0)
    goes_on.set()
    while servers.clones:
        await asyncio.sleep(0)
    for each in serving:
        with pytest.raises(QMPError, match=r"cannot write .*\.json: Input/output error"):
            each.finish()
    await servers.close()
