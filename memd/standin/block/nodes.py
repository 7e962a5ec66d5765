"""Block nodes, and what uses them: drives, other nodes, and claims of jobs and exports.

A node stands on others: on the one that has its bytes (its child), on the one that has what
it has not (its backing node), and a filter that copies on its target. Each knows the nodes
above it, so that the graph is followed either way. What uses a node says by locks what it does
to it and what it denies to others; `permissions.py` adds that up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from memd.errors import QMPError, is_identifier, refusing
from memd.hostmem.file_systems import of_paths
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple
from memd.standin.block.image_locks import READ, WRITE, Locks, change_locks
from memd.work import MEMORY

if TYPE_CHECKING:
    from memd.places import Share
    from memd.standin.block.dirty_bitmap import Bitmap
    from memd.standin.block.qcow2 import Header
    from memd.standin.block.qcow2_bitmaps import Entry
    from memd.standin.chardevs import Held
    from memd.standin.tunable import ThrottleGroup

_DEEPEST = 256
"""Nodes from one down to the last below it. libvirt makes no chain of more than 200 images, and
QEMU takes seconds to add the 150th layer."""

_LONGEST_NAME = 31
"""Characters of a node's name."""

SECTOR = 512

_OWN = ("filename", "offset", "size", "read-zeroes", "throttle-group")

FILES = {
    "file": "a regular file",
    **dict.fromkeys(("host_device", "host_cdrom"), "either a character or block device"),
}
"""The drivers of files, and what each wants there."""

REMOTE = (
    *("ftp", "ftps", "gluster", "http", "https", "iscsi", "nbd", "nfs", "nvme", "rbd", "ssh"),
)
"""The drivers of images that are elsewhere: nobody is connected to, and they are empty."""

JOB_FILTERS = {"mirror_top": "backing", "commit_top": "backing", "copy-before-write": "file"}
"""The filters that block jobs put above nodes, and what such a node is to each."""

FILTERS = ("throttle", "copy-on-read", *JOB_FILTERS)

DRIVERS = (*FILES, *REMOTE, *FILTERS, "raw", "qcow2", "null-co", "null-aio")
"""Those that memd has."""

PROBED = ""
"""The driver of a node whose file says whether it is raw or qcow2."""


def check_name(name: str) -> None:
    """Raise `QMPError` where no node can have that name."""
    if not is_identifier(name):
        raise QMPError(f"Invalid node-name: '{name}'")
    if len(name) > _LONGEST_NAME:
        raise QMPError("Node name too long")


_stamps = itertools.count()
"""Tells in which order uses of nodes have come."""


class Drive:
    """A place for a medium: a device's, or one that waits for a device.

    Attributes:
        name: its name; "" for that of a device which names a node.
        node: what is in it, None for nothing.
        user: the id or path of the device that uses it; None for nobody.
        removable: whether its medium can be taken out.
        opened: whether its tray is, None where there is no tray.
        writeback: whether its device has a cache for what is written.
        read_only: whether what is put into it is not written to, unless a client says so.
        kept: options of the last node that was in it, which a file has that comes instead.
        status: whether its device would tell of errors.
        bound: whether the machine has made a device for it.
        denies: the locks by which its device keeps other processes from the image.
        writes: whether its device writes.
        follows: whether that depends on its medium.
        limits: what is told of the limits of throughput that were set.
        histograms: what is told of how long requests take, where that is asked for.
        counted: what it counts as; None for a device's, which counts itself.
        stamp, role, job: as of a `Claim`, which has locks and a label, too.
    """

    counted: Share | None = None
    node: Node | None = None
    user: str | None = None
    removable = writeback = True
    opened: bool | None = None
    read_only = status = bound = writes = follows = False
    denies: Locks = frozenset()
    stamp = 0
    role = "root"
    job = None

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.limits: JSONObject = {}
        self.histograms: JSONObject = {}
        self.kept: JSONObject = {}

    @property
    def locks(self) -> Locks:
        """What its device does to its node and denies to others."""
        return {READ, *self.denies, *[WRITE] * self.writes}

    @property
    def label(self) -> str:
        """How errors call it."""
        return self.name or self.user or ""

    def insert(self, node: Node | None) -> Node | None:
        """Put a node into it, or nothing; gives the one that was in it."""
        before = self.move(node)
        if node is not None:
            self.read_only = node.read_only
            # Whether blocks are given up for zeroes is forgotten.
            zeroes = "off" if node.zeroes == "off" else "on"
            self.kept = {"cache": node.cache, "detect-zeroes": zeroes}
        if self.follows:
            self.writes = node is not None and not node.read_only
        return before

    def move(self, node: Node | None) -> Node | None:
        """Another node takes the place of its own, whose medium it is still; gives its own."""
        before, self.node = self.node, node
        self.stamp = next(_stamps)
        if before is not None:
            before.drives.remove(self)
        if node is not None:
            node.drives.append(self)
        return before


class JobName(NamedTuple):
    """A block job: QAPI's `JobType`, and its id."""

    kind: str
    id: str


class Claim:
    """A use of a node by neither a drive nor another node; the node stays meanwhile.

    Attributes:
        node: what is used; another one once that takes its place, unless a job has it.
        locks: what the user does to it and denies to others.
        role: what the node is to the user.
        job: the job that it is a part of, which keeps commands from the node; None for others.
        stamp: is larger than those of older uses of its node.
        label: how errors call the user: not at all.
    """

    label = ""

    def __init__(
        self, node: Node, locks: Locks, role: str = "root", job: JobName | None = None
    ) -> None:
        self.locks = locks
        self.role = role
        self.job = job
        self._use(node)

    def _use(self, node: Node) -> None:
        self.node = node
        self.stamp = next(_stamps)
        node.claims.append(self)
        if self.job is None:
            node.holds.append("Node")

    def move(self, node: Node) -> None:
        """Another node takes the place of the one that is used."""
        self.end()
        self._use(node)

    def end(self) -> None:
        """It is used no more."""
        self.node.claims.remove(self)
        if self.job is None:
            self.node.holds.remove("Node")


class _Link:
    """The node below another one, or None; it knows those that stand on it."""

    def __set_name__(self, owner: type[Node], name: str) -> None:
        self._name = name

    def __get__(self, node: Node, owner: type[Node]) -> Node | None:
        found: Node | None = vars(node).get(self._name)
        return found

    def __set__(self, node: Node, below: Node | None) -> None:
        before = vars(node).get(self._name)
        vars(node)[self._name] = below
        node.stamps[self._name] = next(_stamps)
        if node.joined:
            if before is not None:
                before.above.remove(node)
            if below is not None:
                below.above.append(node)


class Node:
    """A block node.

    Attributes:
        name: its name; one of memd's making where it was given none.
        driver: which kind it is.
        filename: what it is told to be, once it is open.
        options: what decides its content, besides its driver and what is below it.
        size: its bytes as a guest would see them.
        offset: where they begin in what is below it.
        length: how many a raw node was told to have, None for all that there are.
        is_part: whether it was opened as a part of what is below it.
        read_only: whether nothing may be written to it.
        auto: whether it is opened for reading first, as long as nobody writes.
        child: the node that has its bytes, or None.
        backing: the node that has what this one has not, or None.
        target: the node that what is overwritten is copied to, or None.
        stamps: for each of these, a number that is larger than those of older uses.
        implicit: whether it is a job's filter that is not told where it is used.
        commits: whether it is above an image that is committed.
        nameless: of bitmaps without a name, the granularity and the count of each, and whether
            writes would be told in it.
        wrong: why what is below it can't be had, once its file was looked at; None where it can.
        frozen: how many jobs need it to stand on what it stands on.
        alone: whether it is told to have none, whatever its image names.
        joined: whether it is one of the nodes that there are.
        above: the nodes that are told to stand on it, the first to do so first.
        owned: whether it stays until it is deleted by name.
        came_with: the node with which it was opened, None for one that was opened by itself.
        follows: whether it came with the one above it, and is written to as that is.
        holds: what else uses it, each as an error calls the node then.
        header: a qcow2 image's.
        drives: those that have it as their medium, the oldest first.
        group: whose limits it has, for a filter; None for a node of any other kind.
        cache: whether the host's cache is passed by, and whether flushes are ignored.
        zeroes: whether zeroes are detected that are written (QAPI's `BlockdevDetectZeroesOptions`).
        facts: what else is told of the image.
        probed: whether it is a raw node whose format was looked for.
        on: what its file is on; see `Job.on`.
        alignments: of memory and of requests, in bytes; those below it count as it is opened.
        claims: of its exports and jobs, and of commands while they write to it.
        locking: whether its file is locked (QAPI's `OnOffAuto`), None where it is not told.
        unmaps: whether zeroes are written to it by giving up blocks.
        shared: whether other processes may do anything with its file.
        tells_share: whether it was told to share it or not, and can't be opened anew.
        threshold: the offset beyond which a write would be told, 0 for none.
        bitmaps: its dirty bitmaps by their names, the oldest first.
        stored: the directory of those in its image, once they are read.
        keeps: what was done about these: nothing, "read", or "in use" where the image says that
            they may be others now.
        wanted: the locks that its file is to have.
        locked: those that it has.
        counted: what it counts as, once it is being opened.
    """

    child = _Link()
    backing = _Link()
    target = _Link()
    filename = keeps = ""
    read_only: bool
    auto: bool
    cache: dict[str, bool]
    zeroes: str
    unmaps: bool
    fd = -1
    size = offset = threshold = frozen = 0
    length: int | None = None
    alignments = (SECTOR, 1)
    on = MEMORY
    implicit = commits = tells_share = joined = owned = follows = probed = False
    wanted: Locks = frozenset()
    locked: Locks = frozenset()
    given: Held | None = None
    came_with: Node | None = None
    header: Header | None = None
    group: ThrottleGroup | None = None
    counted: Share | None = None
    wrong: QMPError | None = None

    def __init__(self, name: str, options: JSONObject) -> None:
        self.driver: str = options["driver"]
        vars(self).update(changeable(options, self.driver))
        self.stamps: dict[str, int] = {}
        self.nameless: list[tuple[int, int, bool]] = []
        self.claims: list[Claim] = []
        self.locking: str | None = options.get("locking")
        self.shared: bool = options.get("force-share", False)
        # Its file is not closed while it is being locked.
        self._at_file = threading.Lock()
        # What is behind the header of its image is changed by one thread at a time.
        self._at_image = threading.Lock()
        self.name = name
        self.alone: bool = options.get("backing", self) is None
        self.options: JSONObject = {each: options[each] for each in _OWN if each in options}
        self.is_part = bool(options.get("offset")) or "size" in options
        self.above: list[Node] = []
        self.holds: list[str] = []
        self.drives: list[Drive] = []
        self.bitmaps: dict[str, Bitmap] = {}
        self.stored: list[Entry] = []
        self.facts: JSONObject = {}

    @property
    def below(self) -> list[Node]:
        """The nodes that it stands on."""
        return [each for _role, each in self.roles]

    @property
    def users(self) -> list[Claim | Drive]:
        """What uses it, other nodes excepted."""
        return [*self.claims, *self.drives]

    @property
    def parents(self) -> list[Node]:
        """The nodes that stand on it, each once."""
        return [*dict.fromkeys(self.above)]

    @property
    def used(self) -> bool:
        """Whether anything uses it."""
        return bool(self.users or self.above)

    @property
    def drive_name(self) -> str:
        """The name of its youngest drive that has one, or ""."""
        return next((each.name for each in reversed(self.drives) if each.name), "")

    @property
    def job(self) -> str | None:
        """The kind of the block job that keeps others from it, or None."""
        return next((each.job.kind for each in reversed(self.claims) if each.job), None)

    @property
    def first_role(self) -> str:
        """What its child is to it."""
        return JOB_FILTERS.get(self.driver, "file")

    @property
    def roles(self) -> list[tuple[str, Node]]:
        """The same, with what each is to it."""
        some = ((self.first_role, self.child), ("backing", self.backing), ("target", self.target))
        return [(role, each) for role, each in some if each is not None]

    def join(self) -> None:
        """It is one of the nodes that there are: those below it are told."""
        self.joined = True
        for each in self.below:
            each.above.append(self)
        if self.group is not None:
            self.group.users.add(self)

    def leave(self) -> None:
        """It is there no more, and stands on nothing."""
        self.child = self.backing = self.target = None
        if self.group is not None:
            self.group.users.discard(self)

    def link(self, role: str) -> str:
        """The name of the link by which it stands on what has that role."""
        return "child" if role == self.first_role else role

    @property
    def file(self) -> Node | None:
        """The node that has the file open."""
        return next((each for each in self.layers() if each.fd >= 0), None)

    @property
    def file_fd(self) -> int:
        """The descriptor of its file, -1 for none."""
        return -1 if self.file is None else self.file.fd

    def higher(self) -> Iterator[Node]:
        """The nodes that stand on it, and those that stand on them."""
        return self._all("above")

    def lower(self) -> Iterator[Node]:
        """The nodes that it stands on, and those that they stand on."""
        return self._all("below")

    def _all(self, which: str) -> Iterator[Node]:
        seen: set[Node] = set()
        todo: list[Node] = [*getattr(self, which)]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += getattr(at, which)
                yield at

    def layers(self) -> Iterator[Node]:
        """The node, the one that has its bytes, that one's and so on."""
        return self._down("child")

    def shown(self) -> Iterator[Node]:
        """The node, the one that is told as its backing node, that one's and so on."""
        return self._down("shown_below")

    def _down(self, link: str) -> Iterator[Node]:
        at: Node | None = self
        while at is not None:
            yield at
            at = getattr(at, link)

    @property
    def shown_below(self) -> Node | None:
        """The node that is told as its backing node: that of a filter is what it filters."""
        below = self.child if self.driver in FILTERS else self.backing
        return None if below is None else below.told

    @property
    def told(self) -> Node:
        """The node itself; of one that is not told where it is used, what it is above."""
        return next(each for each in self.layers() if not each.implicit)

    @property
    def image(self) -> Node:
        """The node itself; of a filter, what it filters."""
        return next(each for each in self.layers() if each.driver not in FILTERS)

    @property
    def with_header(self) -> Node:
        """The node that has the header of its image; itself where none has one."""
        return next((each for each in self.layers() if each.header is not None), self)

    @property
    def filtering(self) -> list[Node]:
        """The node and what it filters, down to the image."""
        below = self.image.child
        return [*itertools.takewhile(lambda each: each is not below, self.layers())]

    @property
    def unstored(self) -> list[Bitmap]:
        """Its bitmaps that are to be put into its image, the youngest first."""
        return [
            each
            for each in reversed(self.bitmaps.values())
            if each.persistent and not (each.readonly or each.inconsistent)
        ]

    @property
    def has_lost_bitmaps(self) -> bool:
        """Whether bitmaps should be in its image, which is not written to."""
        return self.keeps == "read" and bool(self.unstored)

    def drop(self, bitmap: Bitmap) -> None:
        """It has a bitmap no more."""
        del self.bitmaps[bitmap.name]
        bitmap.counted.end()

    def align(self) -> None:
        """Take the alignment of memory from the nodes that it stands on."""
        memory = max(each.alignments[0] for each in self.below)
        # The first sector of an image that says nothing of its format is written as a whole.
        self.alignments = memory, SECTOR if self.probed else 1

    def set_read_only(self, read_only: bool) -> None:
        """Have it, and the nodes of its file that follow it, written to or not."""
        for each in self.following():
            each.read_only = read_only

    def following(self) -> list[Node]:
        """It, and the nodes of its file that are written to as it is."""
        below = self.layers()
        return [next(below), *itertools.takewhile(lambda each: each.follows, below)]

    def lock(self, checked: Locks) -> None:
        """Have its file locked as is wanted. May wait; raises as `change_locks`.

        Args:
            checked: the locks that others' may be in the way of; they are given up then.
        """
        with self._at_file:
            if self.fd >= 0:
                wanted = self.wanted
                try:
                    change_locks(self.fd, self.locked, wanted, checked, self.filename)
                except QMPError:
                    self.locked -= checked
                    raise
                self.locked = wanted

    def take(self, fd: int) -> None:
        """Have another descriptor of its file in the place of its own. May wait."""
        with self._at_file:
            if self.fd >= 0:
                change_locks(fd, frozenset(), self.locked, frozenset(), self.filename)
                os.dup2(fd, self.fd, inheritable=False)

    def take_header(self, fd: int) -> Header:
        """Take over what the header of its image tells; in a thread. Raises `QMPError`.

        Args:
            fd: of the image's file.
        """
        from memd.standin.block.qcow2 import Header

        with refusing("Could not read qcow2 header"):
            header = self.header = Header(fd)
        self.size = header.size
        self.facts |= header.facts
        return header

    @contextlib.contextmanager
    def changing(self, fd: int) -> Iterator[Header]:
        """Have nobody else change what is behind the header of its image; gives the header.

        In a thread. The node has the changed one afterwards.

        Args:
            fd: of the image's file.
        """
        with self._at_image:
            header = self.take_header(fd)
            try:
                yield header
            finally:
                self.take_header(fd)

    def close(self) -> None:
        """Close its file. May wait."""
        with self._at_file:
            if self.given is not None:
                self.given.close()
            elif self.fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(self.fd)
            self.fd = -1


def changeable(options: JSONObject, driver: str) -> JSONObject:
    """The attributes of a node that options of any driver set, and may set anew."""
    return {
        "read_only": options.get("read-only", False),
        "auto": options.get("auto-read-only", False),
        "cache": {"direct": False, "no-flush": False, **options.get("cache", {})},
        "zeroes": options.get("detect-zeroes", "off"),
        "unmaps": options.get("discard") == "unmap" and "null" not in driver,
    }


def check_cycle(above: Node, below: Node, role: str) -> None:
    """Raise `QMPError` where a node would stand on itself.

    Args:
        role: what the lower one would be to it.
    """
    if above in (below, *below.lower()):
        raise QMPError(
            f"Making '{below.name}' a {role} child of '{above.name}' would create a cycle"
        )


@contextlib.contextmanager
def held(nodes: Iterable[Node], called: str = "Node") -> Iterator[None]:
    """Have nodes stay, as they are in use.

    Args:
        called: the word of errors for them.
    """
    for node in nodes:
        node.holds.append(called)
    try:
        yield
    finally:
        for node in nodes:
            node.holds.remove(called)


def check_depth(node: Node, overlays: int = 0) -> None:
    """Raise `QMPError` where too many nodes would be one below another.

    Args:
        overlays: how many more will be between a node and those above it.
    """
    depth = overlays
    for level, following in (({node}, "below"), ({*node.above}, "above")):
        while level and depth <= _DEEPEST:
            depth += 1
            level = {each for at in level for each in getattr(at, following)}
    if depth > _DEEPEST:
        raise QMPError(f"memd has no more than {_DEEPEST} block nodes one below another")


def waits_for(nodes: Iterable[Node]) -> frozenset[int]:
    """The file systems that using the files of nodes, or those below them, may wait for.

    See `Job.on`.
    """
    files = {each if each.driver in FILES else each.file for each in nodes} - {None}
    unopened = [each.options["filename"] for each in files if each is not None and not each.on]
    on = of_paths(unopened) if unopened else MEMORY
    return on.union(*(each.on for each in files if each is not None))
