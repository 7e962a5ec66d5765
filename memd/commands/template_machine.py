"""Commands that make templates of machines, and machines of templates."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from memd.commands.memdev import find_backend
from memd.commands.template import store_of
from memd.errors import QMPError, refusing
from memd.json_types import JSON, JSONObject
from memd.places import USER
from memd.work import Job

if TYPE_CHECKING:
    from memd.commands.daemon import Daemon
    from memd.hostmem.host import Host
    from memd.pages.capture import RamFile

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""How files are opened; a FIFO would wait for who writes to it."""

_MOST_OPEN = 4
"""Descriptors that a template takes beside its memory's while it is made: of the only memory, of
the store's file, where the stream is waited for, and of the stream."""


async def x_template_save(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-save`: make a template of a machine that stands, or will."""
    # What saves is imported by the first that does: a daemon's start need not wait for it.
    from memd.pages.save import MachineSave

    store, name, host = store_of(daemon), args["name"], daemon.tree.host
    opens = len(args.get("memory", ())) + _MOST_OPEN
    with daemon.tree.objects.account.charge_bytes(0, USER.get(), opens) as share:
        memories = await _memories(daemon, args)
    version = args.get("qemu-version", "")
    saving = MachineSave(store, name, share, args.get("base"), memories, version)
    emit, goes_on = daemon.machine.emit, False
    try:
        await Job(saving.begin)
        if "devices" in args:
            on = host.waits_on(args["devices"])
            data = await Job(lambda: _read_stream(host, args["devices"]), on=on)
            await saving.run(emit, data)
            return {}
        uri = await Job(saving.listen)
        daemon.machine.spawn(saving.run(emit), f"saving template '{name}'")
        goes_on = True
        return {"uri": uri}
    finally:
        if not goes_on:
            await Job(saving.close)


async def _memories(daemon: Daemon, args: JSONObject) -> dict[str, RamFile]:
    """The memory of a template to be, by the names of the blocks: "" where there is one."""

    alone = {key: args[key] for key in ("id", "filename") if key in args}
    if len(alone) + ("memory" in args) != 1 or args.get("memory") == []:
        raise QMPError("the memory is named by either 'id', 'filename' or 'memory'")
    host = daemon.tree.host
    found: dict[str, RamFile] = {}
    try:
        for each in args.get("memory", [alone]):
            name = each.get("block", "")
            if name in found:
                raise QMPError(f"the block '{name}' is named twice")
            if ("id" in each) == ("filename" in each):
                raise QMPError(f"the block '{name}' is named by either 'id' or 'filename'")
            if "id" in each:
                found[name] = _memory_of(daemon, each["id"])
            else:
                filename = each["filename"]
                on = host.waits_on(filename)
                found[name] = await Job(partial(_open_memory, host, filename), on=on)
    except BaseException:
        for memory in found.values():
            await Job(memory.close, release=True)
        raise
    return found


def _memory_of(daemon: Daemon, id: str) -> RamFile:
    from memd.pages.capture import RamFile

    backend, region = find_backend(daemon, id)
    if not region.shared or not region.reads_as_file:
        raise QMPError(f"the memory of '{id}' is memd's alone: no machine can have run in it")
    return RamFile(os.dup(region.fd), region.offset, backend.size, region.page_size)


def _open_memory(host: Host, filename: str) -> RamFile:
    from memd.hostmem.libc import HUGETLBFS_MAGIC, PAGE_SIZE, file_system_type
    from memd.hostmem.paths import encode_path
    from memd.pages.capture import RamFile

    with refusing(f"cannot open '{filename}'"):
        fd = host.open(encode_path(filename), _READ)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            huge = file_system_type(fd) == HUGETLBFS_MAGIC
            page_size = os.fstatvfs(fd).f_bsize if huge else PAGE_SIZE
        except BaseException:
            os.close(fd)
            raise
    memory = RamFile(fd, 0, size, page_size)
    if size % page_size or not size:
        memory.close()
        raise QMPError(f"'{filename}' has {size} bytes, which are not whole pages")
    return memory


def _read_stream(host: Host, filename: str) -> bytes:
    from memd.hostmem.paths import encode_path
    from memd.pages.recording import LARGEST

    with refusing(f"cannot read '{filename}'"):
        fd = host.open(encode_path(filename), _READ)
        with open(fd, "rb", buffering=0) as file:
            data = file.read(LARGEST + 1)
    return data or b""


async def x_template_serve(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-serve`: send a template's pages to a machine that waits for them."""
    store, name = store_of(daemon), args["name"]
    if "uri" not in args and "qmp" not in args:
        raise QMPError("the machine is named by 'uri', 'qmp' or both")
    for path in (args.get("qmp", "/"), args.get("uri", "unix:/").removeprefix("unix:")):
        if not path.startswith(("/", "tcp:")):
            raise QMPError(f"'{path}' is not an absolute path")
    assert daemon.templates is not None
    servers = daemon.templates.servers
    servers.prepare()
    await Job(lambda: store.locate(name))
    request = {key: value for key, value in args.items() if key != "name"}
    await servers.serve({"template": name, **request})
    return {}
