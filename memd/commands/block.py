"""`blockdev-add`: the one command of storage, since it can be made to block.

Tests of out-of-band execution give it a configuration file that is a FIFO: it
then waits for a writer. QEMU 10.0.2 waits with all that it does, memd beside
it. Texts as observed there, up to the point where a node would be made.
"""

from __future__ import annotations

import os

from memd.commands.daemon import Daemon
from memd.compat import Compat
from memd.errors import QMPError, refusing
from memd.json_types import JSON, JSONObject
from memd.work import Job

_CONFIG_LIMIT = 1 << 20
"""Bytes read of a configuration file, which may be a device without an end."""


async def blockdev_add(daemon: Daemon, args: JSONObject) -> JSON:
    """Read what the node is configured by, if anything; then refuse it."""
    name = args.get("node-name")
    if name is None:
        raise QMPError("'node-name' must be specified for the root node")
    if daemon.standin is not None and args["driver"] != "blkdebug":
        await daemon.standin.blocks.add(args)
        return {}
    from memd.standin.block.nodes import check_name

    check_name(name)
    config = args.get("config")
    if config is None:
        raise _nothing_to_add_to()
    from memd.hostmem.paths import encode_path

    path = encode_path(config)
    if daemon.reading_config:
        # A thread waits for each; QEMU's one thread never waits for two.
        raise QMPError("another blockdev-add still reads its configuration file")
    daemon.reading_config = True
    try:
        on = daemon.tree.host.waits_on(config)
        await Job(lambda: _read(config, path, daemon), on=on)
    finally:
        daemon.reading_config = False
    raise _nothing_to_add_to()


def _read(name: str, path: bytes, daemon: Daemon) -> None:
    """Read a file to its end; of a FIFO that is when its last writer is gone."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    old = daemon.compat is Compat.V10_0
    with refusing("Could not read blkdebug config file" if old else f"Could not open '{name}'"):
        fd = daemon.tree.host.open(path, flags)
    try:
        left = _CONFIG_LIMIT
        with refusing("Cannot read config file"):
            while left > 0 and (data := os.read(fd, min(left, 1 << 16))):
                left -= len(data)
    finally:
        os.close(fd)


def _nothing_to_add_to() -> QMPError:
    return QMPError("memd has no block devices")
