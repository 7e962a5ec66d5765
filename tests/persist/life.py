"""A daemon's life without a process: its tree and what keeps it, in this one.

Several can follow each other on one `ServiceManager`; each takes what the last
one left there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from memd import backends
from memd.backends.thread_context import ThreadContext
from memd.config import Config, Report
from memd.errors import StartError
from memd.hostmem.host import Host, Mapping
from memd.hostmem.paths import Roots
from memd.hostmem.spec import MapSpec
from memd.json_types import JSON
from memd.persist.recorder import Storage
from memd.persist.service_manager import ServiceManager as Service
from memd.qom import Tree
from memd.work import Command, run_here
from tests.manager import ServiceManager
from tests.stepping import close_all

Options = dict[str, JSON]

Begin = Callable[..., Any]
"""Begins a life: begin(*objects, **config), to be awaited; gives a `Life`."""


class Killed(BaseException):
    """Nothing more is done by whom this is raised in."""


class MortalHost(Host):
    """The kernel, which lets go of what is mapped when the process ends."""

    def __init__(self) -> None:
        super().__init__()
        # How many bytes are mapped from an address on.
        self._mapped: dict[int, int] = {}
        self._ended = False

    def map(self, spec: MapSpec, fd: int) -> Mapping:
        made = super().map(spec, fd)
        self._mapped[made.area] = made.area_length
        return made

    def unmap(self, address: int, length: int) -> None:
        if not self._ended:
            super().unmap(address, length)
            self._mapped.pop(address, None)

    def close(self, fd: int) -> None:
        if not self._ended:
            super().close(fd)

    def end(self) -> None:
        """The process has ended."""
        self._ended = True
        for address, length in self._mapped.items():
            super().unmap(address, length)


class Life:
    """One daemon.

    Args:
        manager: what it runs under.
        patch: for the environment.
        objects: those of its command line.
        roots: what `--mem-root` says.
        config: attributes of its `Config`.
    """

    def __init__(
        self,
        manager: ServiceManager,
        patch: pytest.MonkeyPatch,
        objects: Iterable[Options] = (),
        roots: Roots | None = None,
        **config: Any,
    ) -> None:
        manager.main = os.getpid()
        manager.catch_up()
        self.manager = manager
        self._before = _open_files()
        self._roots = roots
        patch.setenv("NOTIFY_SOCKET", manager.address)
        patch.setenv("FDSTORE", str(manager.capacity))
        self.tree = Tree()
        self._host = self.tree.host = MortalHost()
        backends.register(self.tree)
        self.config = Config(Report("memd"))
        self.config.stored = {each.name: os.dup(each.fd) for each in manager.store}
        self.config.objects = list(objects)
        for name, value in config.items():
            setattr(self.config, name, value)
        loop = asyncio.get_running_loop()
        self.service = Service(
            loop,
            self.tree,
            self._run,
            self.config.stored,
            accept_loss=self.config.accept_loss,
        )

    async def _run(self, command: Command[Any]) -> Any:
        return run_here(command)

    async def begin(self) -> Life:
        """Start: what was left is there, and what the command line asks for.

        Raises:
            StartError: it can't; it has ended again, in order.
        """
        try:
            await self._begin()
        except StartError:
            self.end()
            raise
        return self

    async def _begin(self) -> None:
        self.service.open()
        await self.service.restore(credentials=True, roots=self._roots)
        await self.service.restore(credentials=False)
        for options in self.config.objects:
            if not self.service.has(options):
                run_here(self.tree.objects.create(options))
        await self.service.commit()
        self.manager.catch_up()

    @property
    def storage(self) -> Storage:
        """The store and the log, of a life that has them."""
        recorder = cast("Any", self.tree.objects.listener)
        assert recorder.storage is not None
        return cast("Storage", recorder.storage)

    def set(self, id: str, name: str, value: JSON) -> None:
        """`qom-set`"""
        obj = self.tree.resolve(f"/objects/{id}")
        run_here(self.tree.objects.change(obj, name, value))

    def kill(self) -> None:
        """Let go of everything as the kernel does: nobody is told, nothing is undone."""
        for obj in self.tree.objects.children.values():
            if isinstance(obj, ThreadContext):
                run_here(obj.finalize())
        # Those of objects that are not whole yet included.
        self._host.end()
        self.tree.host.creations = None
        cast("Any", self.service)._status.close()
        cast("Any", self.service)._notifier.close()
        recorder = cast("Any", self.tree.objects.listener)
        if recorder is not None and recorder.storage is not None:
            if (timer := recorder.storage.fdstore._timer) is not None:
                timer.cancel()
        self._gone()

    def _gone(self) -> None:
        self.manager.catch_up()
        for fd in _open_files() - self._before - {each.fd for each in self.manager.store}:
            os.close(fd)

    def end(self) -> None:
        """End in order."""
        self.service.stopping()
        self.service.end()
        close_all(self.tree)
        self._gone()

    def ids(self) -> list[str]:
        """What there is, in its order."""
        return list(self.tree.objects.children)


def add(life: Life, kind: str, id: str = "m0", **options: JSON) -> None:
    """`object-add`; kinds of memory without their prefix."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    if kind not in ("thread-context", "secret"):
        kind = f"memory-backend-{kind}"
    run_here(life.tree.objects.create({"qom-type": kind, "id": id, **named}))


def _open_files() -> set[int]:
    # The one that the directory itself was read by is closed again.
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/dev/fd/{name}")}
