"""Images: making their files, and naming what they stand on.

Data of a guest's is neither written nor copied: a new image has none. Rules and texts were
observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from memd.errors import QMPError, refusing
from memd.hostmem.file_systems import of_paths
from memd.hostmem.libc import write_at
from memd.hostmem.paths import Roots, encode_path, target
from memd.json_types import JSONObject
from memd.standin.block.blocks import Blocks
from memd.standin.block.image_locks import NO_RESIZE, RESIZE, WRITE, change_locks
from memd.standin.block.jobs import Jobs, Task
from memd.standin.block.nodes import DRIVERS, Node, held, waits_for
from memd.standin.block.opening import measure
from memd.standin.block.qcow2 import empty_image
from memd.work import Events, Job

Content = dict[int, bytes]
"""Bytes by their offsets."""

_FORMATS = ("raw", "qcow2")

_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

_MODE = 0o644

_MOST_READ = 128 << 10
"""How many bytes QEMU reads to see whether an image begins with zeroes."""


class Images:
    """Commands about images.

    Args:
        blocks: the nodes.
        jobs: those that `blockdev-create` starts.
        roots: what files have to be below.
    """

    def __init__(self, blocks: Blocks, jobs: Jobs, roots: Roots | None) -> None:
        self._blocks = blocks
        self._jobs = jobs
        self._roots = roots

    async def create(self, args: JSONObject) -> Events:
        """`blockdev-create`; raises `QMPError` where no job is made of it."""
        self._jobs.check(args["job-id"], {})
        options = args["options"]
        error = None
        try:
            await self._create(options)
        except QMPError as failed:
            error = failed.desc
        return await self._jobs.start(Task("create", args["job-id"], {}, error=error))

    async def _create(self, options: JSONObject) -> None:
        if options["driver"] == "file":
            if options.get("preallocation", "off") != "off":
                raise QMPError("memd allocates no blocks of images")
            await self._make(options["filename"], options["size"], {})
            return
        below = options.get("file")
        if options["driver"] not in _FORMATS or type(below) is not str:
            raise QMPError(f"memd makes no images of the format '{options['driver']}' like this")
        node = self._blocks.named(below)
        if node.fd < 0:
            raise QMPError(f"Block node '{node.name}' is read-only")
        content = empty_image(options) if options["driver"] == "qcow2" else {}
        async with self._blocks.using(node, {WRITE, RESIZE}):
            await Job(lambda: _fill(node, content), on=waits_for([node]))

    async def _make(self, path: str, size: int, content: Content) -> None:
        """Make the file of an image, or empty it."""
        await Job(lambda: make_file(path, size, content, self._roots), on=of_paths([path]))

    async def target(
        self,
        path: str,
        kind: str,
        size: int,
        args: JSONObject,
        *,
        backing: Node | None,
        options: JSONObject,
        moved: Sequence[Node] = (),
    ) -> Node:
        """An image that is made, where it is not there already, and opened.

        Args:
            args: of the command; they say whether it is there.
            options: of its node, further ones.
            moved: nodes whose data a job would copy into it.

        Raises:
            QMPError: it can't be; where there is data to copy, the file is as it was.
        """
        if kind not in DRIVERS:
            raise QMPError(f"Unknown file format '{kind}'")
        if args.get("mode", "absolute-paths") != "existing":
            if kind not in (*_FORMATS, "file"):
                raise QMPError(f"Format driver '{kind}' does not support image creation")
            image: JSONObject = {"size": size}
            if backing is not None:
                if kind != "qcow2":
                    raise QMPError(f"Backing file not supported for file format '{kind}'")
                if backing.filename == path:
                    raise QMPError(
                        "Error: Trying to create an image with the same filename as the backing"
                        " file"
                    )
                image |= {"backing-file": backing.filename, "backing-fmt": backing.driver}
            await self.check_no_data(moved)
            content = empty_image(image) if kind == "qcow2" else {}
            await self._make(path, 0 if content else size, content)
        below = {"driver": "file", "filename": path}
        own = below if kind == "file" else {"driver": kind, "file": below}
        return await self._blocks.add({**own, **options}, owned=False)

    async def check_no_data(self, moved: Sequence[Node]) -> None:
        """Raise `QMPError` where a node holds data, which would have to be copied."""
        files = [node.image for node in moved if not node.image.driver.startswith("null")]
        if not files:
            return
        with held(moved):
            on = waits_for(files)
            full = await Job(lambda: next(filter(_has_data, files), None), on=on, heavy=True)
        if full is not None:
            raise QMPError(f"memd copies no data of images, and node '{full.name}' holds some")

    async def change_backing(self, args: JSONObject) -> None:
        """`change-backing-file`; raises `QMPError`."""
        node = self._blocks.root(args["device"])
        image, to = self._blocks.named(args["image-node-name"], ""), args["backing-file"]
        if image.shown_below is None:
            raise QMPError("not allowing backing file change on an image without a backing file")
        self._blocks.check_free(node)
        if image not in node.shown():
            raise QMPError(f"'{args['device']}' and image file are not in the same chain")
        complaint = f"Could not change backing file to '{to}'"
        if image.header is None:
            raise QMPError(f"{complaint}: Operation not supported")
        with held([image]), refusing(complaint):
            await self._name_backing(image, to, image.driver)
        self._blocks.rename(image)

    async def _name_backing(self, image: Node, name: str | None, kind: str | None) -> None:
        """Write into an image, if that has a header, what it stands on.

        Raises:
            QMPError: it may not be written to, or another process has it locked.
            OSError: it can't be written.
        """

        def write() -> None:
            file = image.file
            if image.header is not None and file is not None:
                with image.changing(file.fd) as header:
                    header.set_backing(file.fd, name, kind)

        was_read_only = image.read_only
        if was_read_only and image.file is not None and image.file.read_only:
            raise QMPError("Block node is read-only")
        image.read_only = False
        try:
            await self._blocks.relock()
            await Job(write, on=waits_for([image]))
        finally:
            image.read_only = was_read_only
            await self._blocks.relock(refuse=False)

    async def set_backing(self, node: Node, base: Node | None, told: str | None) -> None:
        """Have an image and its node stand on another one, or on none."""
        name, kind = (None, None) if base is None else (base.filename, base.driver)
        try:
            await self._name_backing(node, name if told is None else told, kind)
        except OSError as error:
            raise QMPError(os.strerror(error.errno or 0)) from None
        old, node.backing = node.backing, base
        self._blocks.rename(node)
        await self._blocks.collect(old)


def is_zero(node: Node) -> bool:
    """Whether QEMU finds an image to read as zeroes before it writes any; in a thread."""
    file = node.file
    if file is None:
        return bool(node.options.get("read-zeroes"))
    try:
        if node.header is not None:
            return not _has_data(node)
        # The first block of a raw file that QEMU makes is not sparse.
        start = os.lseek(file.fd, 0, os.SEEK_HOLE)
        if start > _MOST_READ or os.pread(file.fd, start, 0).strip(b"\0"):
            return False
        return not _has_data(node, start)
    except OSError:
        return False


def _has_data(node: Node, start: int = 0) -> bool:
    """Whether an image may hold data, a raw one from there on; in a thread."""
    file = node.file
    if file is None:
        return False
    if node.header is not None:
        return node.header.has_data(file.fd)
    try:
        os.lseek(file.fd, start, os.SEEK_DATA)
    except OSError:
        return False
    return True


def make_file(path: str, size: int, content: Content, roots: Roots | None) -> None:
    """Make the file of an image, or empty it; in a thread. Where that fails no new file is left."""
    with ExitStack() as opened:
        with refusing(f"Could not create '{path}'"):
            entry = target(encode_path(path), roots)
            opened.callback(entry.close)
            new = True
            try:
                fd = entry.open(_CREATE | os.O_EXCL, _MODE)
            except FileExistsError:
                new = False
                fd = entry.open(_CREATE, _MODE)
        opened.callback(os.close, fd)
        needed = {WRITE, RESIZE, NO_RESIZE}
        change_locks(fd, frozenset(), needed, needed, path)
        try:
            os.ftruncate(fd, 0)
            # A size of 64 bits, which the file system takes for a signed one.
            os.ftruncate(fd, size if size < 1 << 63 else -1)
            _write(fd, content)
        except OSError as error:
            if new:
                with suppress(OSError):
                    entry.unlink()
            raise QMPError(f"Could not resize file: {error.strerror}") from None


def _fill(node: Node, content: Content) -> None:
    """Write an image into an open file; in a thread."""
    with refusing(f"Could not write to '{node.filename}'"):
        _write(node.fd, content)
        measure(node)


def _write(fd: int, content: Content) -> None:
    for offset, data in content.items():
        write_at(fd, data, offset)
