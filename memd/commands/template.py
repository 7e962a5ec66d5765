"""Commands about templates: what the store has, and where else templates are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from memd.errors import QMPError, refusing
from memd.json_types import JSON, JSONObject
from memd.work import Job

if TYPE_CHECKING:
    from memd.commands.daemon import Daemon
    from memd.pages.store import Store, Usage


T = TypeVar("T")


def store_of(daemon: Daemon) -> Store:
    """The template store.

    Raises:
        QMPError: there is none.
    """
    if daemon.templates is None:
        raise QMPError("there is no template store: memd needs --templates DIR")
    return daemon.templates.store


async def x_template_status(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-status`: the store, its file system, and whether its sources can be reached."""
    from memd.pages.capture import shares_blocks

    if daemon.templates is None:
        return []
    store = daemon.templates.store

    def work() -> JSON:
        held = store.holdings()
        with refusing(f"cannot look at '{store.directory}'"):
            room = os.statvfs(store.directory)
        told: JSONObject = {
            "directory": store.directory,
            "templates": held.templates,
            "stored": held.stored,
            "cached": held.cached,
            "room": room.f_bavail * room.f_frsize,
            "shares-blocks": shares_blocks(store.directory),
            "sources": [
                {"url": url, **({"error": error} if error else {})}
                for url, error in store.reach_sources()
            ],
        }
        if store.cache.limit is not None:
            told["cache-limit"] = store.cache.limit
        return [told]

    return await Job(work)


async def x_template_list(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-list`: the templates of the store; none where there is none."""
    if daemon.templates is None:
        return []
    store = daemon.templates.store
    return await Job(lambda: [_summary(each) for each in store.all_usage()], on=store.on)


async def x_template_query(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-query`: all about one template."""
    store, name = store_of(daemon), args["name"]

    def work() -> JSON:
        usage = store.usage(name)
        manifest = usage.manifest
        blocks = [
            {
                "id": each.id,
                "length": each.length,
                "page-size": each.page_size,
                **({} if each.offset is None else {"offset": each.offset}),
            }
            for each in manifest.blocks
        ]
        return {**_summary(usage), "shared": usage.shared, "blocks": blocks}

    told = await Job(work, on=store.on)
    clones = [] if daemon.templates is None else daemon.templates.clones_of(name)
    return {**told, "clones": clones}


def _summary(usage: Usage) -> JSONObject:
    manifest = usage.manifest
    working_set = manifest.working_set
    told: JSONObject = {
        "name": usage.name,
        "digest": manifest.digest,
        "size": manifest.size,
        "data": manifest.data,
        "page-size": manifest.page_size,
        "chunks": usage.chunks,
        "stored": usage.stored,
        "present": usage.present,
        "working-set": 0 if working_set is None else working_set.size // 4 * 4096,
        "devices": 0 if manifest.devices is None else manifest.devices.size,
    }
    optional = {
        "machine": manifest.machine,
        "qemu-version": manifest.qemu_version,
        "source": usage.source,
    }
    return told | {key: text for key, text in optional.items() if text}


async def x_template_verify(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-verify`: read all of a template as it is stored."""
    name, store = args["name"], store_of(daemon)
    found = await _with_progress(name, lambda at: store.verify(name, at))
    return {"chunks": found.chunks, "damaged": found.damaged, "repaired": found.repaired}


async def x_template_delete(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-delete`: remove a template, and what no other needs of it."""
    store = store_of(daemon)
    await Job(lambda: store.delete(args["name"]), on=store.on)
    return {}


async def x_template_push(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-push`: give a template to a source."""
    return await _move(args, store_of(daemon).push)


async def x_template_pull(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-pull`: have a template here in full."""
    return await _move(args, store_of(daemon).pull)


async def _move(args: JSONObject, move: Callable[..., str]) -> JSON:
    name, url = args["name"], args.get("url")
    return {"source": await _with_progress(name, lambda at: move(name, url, at))}


async def _with_progress(name: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
    """Have a thread work on a template; it tells clients how far it is."""
    from memd.pages.progress import Progress

    progress = Progress(name)
    return await Job(lambda: work(progress.at), progress=progress.event)


async def x_template_export(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-template-export`: a template's memory as a file."""
    from memd.hostmem.paths import encode_path
    from memd.hostmem.save import NewFile, save_new

    store, name, host = store_of(daemon), args["name"], daemon.tree.host

    def work(at: Callable[[int, int], None]) -> None:
        paths = [encode_path(args[key]) for key in ("filename", "devices") if key in args]
        if len(set(map(os.path.realpath, paths))) < len(paths):
            raise QMPError("the memory and the devices can't be one file")
        with store.reading(name) as template:
            devices = template.devices()
            if "devices" in args and not devices:
                raise QMPError(f"template '{name}' has no devices")

            def fill(put: Callable[[int, bytes], None]) -> None:
                for offset, data in template.pieces(at):
                    put(offset, data)

            new = [NewFile(args["filename"], template.size, fill)]
            if "devices" in args:
                # The memory's appears last: who finds it finds both.
                first = NewFile(args["devices"], len(devices), lambda put: put(0, devices))
                new.insert(0, first)
            save_new(host, name, *new)

    await _with_progress(name, work)
    return {}
