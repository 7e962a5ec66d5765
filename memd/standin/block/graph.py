"""The register of block nodes: real files, opened and sized by the driver that is named.

Nobody reads or writes a guest's data in them; of qcow2 images there is the
metadata. What is known of drivers, rules and texts was observed on QEMU
10.0.2 and 11.1.3.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from memd.compat import Compat
from memd.errors import QMPError, is_identifier, prefixed, printable, refusing, reset_meanwhile
from memd.hostmem.file_systems import number, of_paths
from memd.hostmem.libc import PAGE_SIZE, direct_alignment, known
from memd.hostmem.paths import FDSETS, encode_path, open_path
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qapi.hash_order import object_order
from memd.standin.block.image_locks import (
    NAMES,
    NO_READ,
    NO_RESIZE,
    NO_WRITE,
    READ,
    RESIZE,
    REWRITE,
    UNSHARED,
    WRITE,
    Locks,
    change_locks,
)
from memd.wire.rows import encode_rows
from memd.work import ELSEWHERE, MEMORY, Encoded, Job, in_turns

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots
    from memd.places import Share
    from memd.qom.tree import Tree
    from memd.standin.block.dirty_bitmap import Bitmap
    from memd.standin.block.qcow2 import Header
    from memd.standin.block.qcow2_bitmaps import Entry
    from memd.standin.chardevs import Held, Sets
    from memd.standin.tunable import ThrottleGroup

_DEEPEST = 256
"""Nodes from one down to the last below it. libvirt makes no chain of more than 200 images, and
QEMU takes seconds to add the 150th layer."""

_LONGEST_NAME = 31
"""Characters of a node's name."""

_LONGEST_FILENAME = 4095
"""Characters of what a node is told to be, which is cut there."""

_PATIENCE = 30.0
"""Seconds that the end of the process waits for file systems to take bitmaps."""

_SECTOR = 512
_LONGEST = (1 << 63) - (1 << 30)
"""Bytes of a node at most."""

_NULL_SIZE = 1 << 30
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

_OF_JOBS = {"mirror_top": "backing", "commit_top": "backing", "copy-before-write": "file"}
"""The filters that block jobs put above nodes, and what such a node is to each."""

_FILTERS = ("throttle", "copy-on-read", *_OF_JOBS)

_OF_ANY_NODE = (
    *("driver", "node-name", "discard", "cache", "read-only", "auto-read-only", "force-share"),
    *("detect-zeroes", "active"),
)
"""The options that a node of any driver has."""

DRIVERS = (*FILES, *REMOTE, *_FILTERS, "raw", "qcow2", "null-co", "null-aio")
"""Those that memd has."""

PROBED = ""
"""The driver of a node whose file says whether it is raw or qcow2."""

_ACCESS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
LIMITS = {
    f"{kind}{short}": f"{kind}-{part}"
    for kind in ("bps", "iops")
    for short, part in (("", "total"), ("_rd", "read"), ("_wr", "write"))
}
"""The limits of throughput as `block_set_io_throttle` has them, and as a throttle group does."""


def check_name(name: str) -> None:
    """Raise `QMPError` where no node can have that name."""
    if not is_identifier(name):
        raise QMPError(f"Invalid node-name: '{name}'")
    if len(name) > _LONGEST_NAME:
        raise QMPError("Node name too long")


_BACKEND, _JOB, _DRIVER = "block-backend", "block-job", "block-driver"
_TOLD = {
    READ: "consistent-read",
    WRITE: "write",
    REWRITE: "write-unchanged",
    RESIZE: "resize",
}
"""What is done to a node, as QAPI's `BlockPermission`."""

_stamps = itertools.count()
"""Tells in which order uses of nodes have come."""


class Drive:
    """A place for a medium: a device's, or one that waits for a device.

    Attributes:
        name: its name; "" for that of a device which names a node.
        node: what is in it, None for nothing.
        user: what uses it, as errors call that: a device's id or path; None for nobody.
        qdev: the same as clients are told of it.
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
    qdev = ""
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
        at_image: held by who changes what is behind the image's header.
        wanted: the locks that its file is to have.
        locked: those that it has.
        counted: what it counts as, once it is being opened.
    """

    child = _Link()
    backing = _Link()
    target = _Link()
    filename = keeps = ""
    fd = -1
    size = offset = threshold = frozen = 0
    length: int | None = None
    alignments = (_SECTOR, 1)
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
        self.stamps: dict[str, int] = {}
        self.nameless: list[tuple[int, int, bool]] = []
        self.claims: list[Claim] = []
        self.locking: str | None = options.get("locking")
        self.unmaps: bool = options.get("discard") == "unmap" and "null" not in self.driver
        self.shared: bool = options.get("force-share", False)
        # Its file is not closed while it is being locked.
        self._at_file = threading.Lock()
        self.name = name
        self.alone: bool = options.get("backing", self) is None
        self.read_only: bool = options.get("read-only", False)
        self.auto: bool = options.get("auto-read-only", False)
        self.options: JSONObject = {each: options[each] for each in _OWN if each in options}
        self.is_part = bool(options.get("offset")) or "size" in options
        self.above: list[Node] = []
        self.holds: list[str] = []
        self.drives: list[Drive] = []
        self.bitmaps: dict[str, Bitmap] = {}
        self.stored: list[Entry] = []
        self.at_image = threading.Lock()
        self.cache: dict[str, bool] = {"direct": False, "no-flush": False, **options["cache"]}
        self.zeroes: str = options.get("detect-zeroes", "off")
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
    def roles(self) -> list[tuple[str, Node]]:
        """The same, with what each is to it."""
        first = _OF_JOBS.get(self.driver, "file")
        some = ((first, self.child), ("backing", self.backing), ("target", self.target))
        return [(role, each) for role, each in some if each is not None]

    def join(self) -> None:
        """It is one of the nodes that there are: those below it are told."""
        self.joined = True
        for each in self.below:
            each.above.append(self)

    def leave(self) -> None:
        """It is there no more, and stands on nothing."""
        self.child = self.backing = self.target = None

    def link(self, role: str) -> str:
        """The name of the link by which it stands on what has that role."""
        return "child" if role == _OF_JOBS.get(self.driver, "file") else role

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

    def chain(self) -> Iterator[Node]:
        """The node, its backing node, that one's and so on."""
        return self._down("backing")

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
        below = self.child if self.driver in _FILTERS else self.backing
        return None if below is None else below.told

    @property
    def told(self) -> Node:
        """The node itself; of one that is not told where it is used, what it is above."""
        return next(each for each in self.layers() if not each.implicit)

    @property
    def image(self) -> Node:
        """The node itself; of a filter, what it filters."""
        return next(each for each in self.layers() if each.driver not in _FILTERS)

    @property
    def filtering(self) -> list[Node]:
        """The node and what it filters, down to the image."""
        below = self.image.child
        return [*itertools.takewhile(lambda each: each is not below, self.layers())]

    @property
    def has_lost_bitmaps(self) -> bool:
        """Whether bitmaps should be in its image, which is not written to."""
        return self.keeps == "read" and any(
            each.persistent and not (each.readonly or each.inconsistent)
            for each in self.bitmaps.values()
        )

    def align(self) -> None:
        """Take the alignment of memory from the nodes that it stands on."""
        memory = max(each.alignments[0] for each in self.below)
        # The first sector of an image that says nothing of its format is written as a whole.
        self.alignments = memory, _SECTOR if self.probed else 1

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

    def close(self) -> None:
        """Close its file. May wait."""
        with self._at_file:
            if self.given is not None:
                self.given.close()
            elif self.fd >= 0:
                os.close(self.fd)
            self.fd = -1


_STALE = (
    "warning: a program lacking bitmap support modified this file, so all bitmaps are now"
    " considered inconsistent\n"
    "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
)

_GUESSED = (
    "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations on"
    " block 0 will be restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions."
)


class Blocks:
    """The block nodes of a stand-in, and the drives that they are in.

    Args:
        compat: whose nodes it has.
        tree: says what their files have to be below, and has groups of limits.
        sets: the sets of descriptors that paths may name.

    Attributes:
        account: counts them, and what is made of them.
        making: the names of nodes and drives whose files are being opened.
        drives: in the order in which they came.
        say: takes lines for standard error.
        inactive: whether images are another machine's: this one has gone, or not yet come.
    """

    inactive = False

    def __init__(self, compat: Compat, tree: Tree, sets: Sets) -> None:
        self.compat = compat
        self._tree = tree
        self.account = tree.objects.account
        self._sets = sets
        self.say: Callable[[str], None] = lambda text: None
        self._nodes: dict[str, Node] = {}
        self.making: set[str] = set()
        self._closed = False
        # The nodes whose users could not be refused.
        self._tolerated: set[Node] = set()
        self._numbers = 0
        self.drives: list[Drive] = []
        self._drives: dict[str, Drive] = {}

    async def close(self) -> None:
        """Close every node; those that are being opened are closed then."""
        self._closed = True
        nodes = self.all()
        for node in nodes:
            if node.group is not None:
                node.group.users.discard(node)
        await self._put([_Storing(node) for node in nodes], nodes)
        _end([*nodes, *self.drives])

    async def store(self) -> None:
        """Put bitmaps into all images, as the process ends."""
        await self._put([_Storing(node) for node in self.all()], [], _PATIENCE)

    async def _put(
        self, storing: list[_Storing], closed: list[Node], patience: float | None = None
    ) -> None:
        """Put bitmaps into their images, and close nodes then."""
        todo = [each for each in storing if each.todo]
        nodes = [*closed, *(each.node for each in todo)]

        def work() -> None:
            for each in todo:
                each.run()
            _close(closed)

        if nodes:
            await Job(work, on=waits_for(nodes), patience=patience, release=True)
        for each in storing:
            self._say_lost(each)

    def _say_lost(self, storing: _Storing) -> None:
        """Tell of bitmaps that could not be put into their image."""
        if storing.error is not None:
            self.say(
                "Lost persistent bitmaps during inactivation of node"
                f" '{printable(storing.node.name)}': {printable(storing.error)}"
            )

    def find(self, name: str) -> Node | None:
        """The node of that name, or what is in the drive of that name."""
        drive = self.drive(name)
        return self._nodes.get(name) if drive is None else drive.node

    def drive(self, name: str) -> Drive | None:
        """The drive of that name."""
        return self._drives.get(name)

    def add_drive(self, drive: Drive) -> None:
        """A drive is there."""
        self.drives.append(drive)
        if drive.name:
            self._drives[drive.name] = drive

    def take_name(self, drive: Drive) -> None:
        """A drive has a name no more."""
        self._drives.pop(drive.name, None)
        drive.name = ""

    def remove_drive(self, drive: Drive) -> None:
        """A drive is there no more."""
        _end([drive])
        self.drives.remove(drive)
        self._drives.pop(drive.name, None)

    def all(self) -> list[Node]:
        """Every node, the oldest first."""
        return [*self._nodes.values()]

    def named(self, name: str, device: str | None = None) -> Node:
        """The node of that name; raises `QMPError` where there is none.

        Args:
            device: another name for it, where a client may give one of two.
        """
        drive = self.drive(name if device is None else device)
        if drive is not None and drive.node is None:
            raise QMPError(f"Device '{drive.name}' has no medium")
        node = self._nodes.get(name) if drive is None else drive.node
        if node is None:
            raise QMPError(
                f"Cannot find device='{name if device is None else device}' nor node-name='{name}'"
            )
        return node

    async def add(self, args: JSONObject, *, owned: bool = True) -> Node:
        """`blockdev-add`; gives the node.

        Args:
            args: of the command; where no driver is named, the image's format is looked for.
            owned: whether it stays until it is deleted by name.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        planned: dict[str, Node] = {}
        top = self._plan(args, planned)
        check_depth(top)
        named, made = [*planned], [*planned.values()]
        self.making.update(named)
        try:
            for node in made:
                node.counted = self.account.charge(
                    {"name": node.name, **node.options}, descriptors=int(node.driver in FILES)
                )
            self._take_given(made)
            await Job(lambda: _open(made, self._tree.host.roots), on=waits_for(made))
            for each in made:
                if each.wrong is not None:
                    raise each.wrong
        except Exception as error:
            refusal = await self._foreseen(made) if isinstance(error, QMPError) else None
            if any(node.fd >= 0 for node in made):
                await Job(lambda: _close(made), on=waits_for(made), release=True)
            _end(made)
            raise refusal or error from None
        finally:
            self.making.difference_update(named)
        for node in made:
            self._nodes[node.name] = node
            node.join()
            if node.group is not None:
                node.group.users.add(node)
        try:
            await self.relock()
            self.check_open()
            for node in made:
                await self._keep(node)
        except QMPError:
            await self.collect(top)
            raise
        top.owned = owned
        top.tells_share = "force-share" in args
        if top.probed and not top.read_only:
            name = "" if top.child is None else top.child.filename
            # No name of a client's makes a line of its own.
            self.say(_GUESSED.format(printable(name)))
        return top

    async def _foreseen(self, made: list[Node]) -> QMPError | None:
        """Why nodes that are not there could not be used so; None where their files are missing.

        Who uses them is looked at, and they are locked, before what is in their files is.
        """
        if any(each.fd < 0 for each in made if each.driver in FILES):
            return None
        for node in made:
            self._nodes[node.name] = node
            node.join()
        try:
            await self.relock()
        except QMPError as error:
            return error
        finally:
            for node in made:
                del self._nodes[node.name]
                node.leave()
        return None

    def _take_given(self, nodes: list[Node]) -> None:
        """Take the descriptors that nodes name instead of files; raises `QMPError`."""
        for node in nodes:
            path = node.options["filename"] if node.driver in FILES else ""
            if path.startswith(FDSETS):
                flags = _access(node) | (os.O_DIRECT if node.cache["direct"] else 0)
                if node.auto:
                    # A QEMU opens it for reading, and anew once somebody writes.
                    self._sets.open(path, flags & ~os.O_RDWR).close()
                node.given = self._sets.open(path, flags)
                node.fd = node.given.fd
                found = known(node.fd)
                node.on = ELSEWHERE if found is None else frozenset((number(*found[:3]),))

    def check_open(self) -> None:
        """Raise `QMPError` where all is closed: the machine was made anew meanwhile."""
        if self._closed:
            raise reset_meanwhile()

    async def set_active(self, active: bool) -> None:
        """Lock the images, since the machine has come, or leave them to where it goes.

        Raises:
            QMPError: another process has one locked; none is locked then.
        """
        if self.inactive != active:
            return
        self.inactive = not active
        try:
            if not active:
                await self.sync()
            await self.relock(refuse=active)
            for node in self.all() if active else ():
                await self._keep(node, again=True)
        except QMPError:
            self.inactive = True
            await self.sync()
            await self.relock(refuse=False)
            raise

    async def sync(self, *, marks: bool = True) -> None:
        """Put bitmaps into images that are not written to any more, and mark those that are.

        Args:
            marks: whether to do the latter, too.
        """
        for node in self.all():
            wanted = self._kept(node)
            # What was opened just now is read by who does so.
            if node.keeps in ("", wanted) or (wanted == "in use" and not marks):
                continue
            try:
                await self._keep(node)
            except QMPError as error:
                self.say(f"{printable(node.name)}: {printable(error.desc)}")
            if not (node.owned or node.holds or node.users or node.parents):
                # Another command could not close it meanwhile.
                await self.collect(node)

    def _kept(self, node: Node) -> str:
        """What is to be done about the bitmaps of an image; see `Node.keeps`."""
        if node.header is None or node.header.version < 3 or self.inactive:
            return ""
        return "read" if node.read_only else "in use"

    async def _keep(self, node: Node, *, again: bool = False) -> None:
        """Do what is to be done about the bitmaps of an image.

        Args:
            again: whether another process may have changed the image meanwhile.

        Raises:
            QMPError: it can't be done.
        """
        before, wanted = node.keeps, self._kept(node)
        storing = _Storing(node) if before == "in use" != wanted else None
        node.keeps = wanted
        try:
            with held([node]):
                if storing is not None:
                    for bitmap in node.bitmaps.values():
                        bitmap.readonly = bitmap.persistent
                    await self._store(storing)
                if not wanted:
                    for bitmap in [*node.bitmaps.values()]:
                        if bitmap.persistent:
                            bitmap.counted.end()
                            del node.bitmaps[bitmap.name]
                elif not before:
                    await self._load(node, again=again)
                if wanted == "in use" != before and node.stored:
                    fd = node.file_fd
                    with refusing("Can't update bitmap directory"):
                        await Job(lambda: mark(node, fd), on=waits_for([node]))
                    for bitmap in node.bitmaps.values():
                        bitmap.readonly = False
        except QMPError:
            node.keeps = before
            raise

    async def _store(self, storing: _Storing) -> None:
        if storing.todo:
            await Job(storing.run, on=waits_for([storing.node]), release=True)
            for bitmap in storing.bitmaps:
                bitmap.readonly = storing.error is None
                bitmap.changed = storing.error is not None
        self._say_lost(storing)

    async def _load(self, node: Node, *, again: bool) -> None:
        """Read the bitmaps of an image; raises `QMPError`, and there are none of them then."""
        from memd.standin.block.qcow2_bitmaps import AUTO, IN_USE, read

        fd, header = node.file_fd, node.header
        assert header is not None
        if header.stale:
            self.say(_STALE)
        node.stored = []
        if not (header.directory.bitmaps or again):
            return

        def work() -> list[tuple[Entry, int]]:
            if again:
                read_header(node)
            return read(fd)

        from memd.standin.block.dirty_bitmap import Bitmap

        made: list[Bitmap] = []
        found = await Job(work, on=waits_for([node]), heavy=True)
        try:
            for entry, bits in found:
                if entry.text in node.bitmaps:
                    raise QMPError(f"Bitmap already exists: {entry.text}")
                share = self.account.charge(entry.text)
                bitmap = Bitmap(
                    *(entry.text, entry.granularity, bool(entry.flags & AUTO), share),
                    persistent=True,
                    raw=entry.name,
                )
                made.append(bitmap)
                node.bitmaps[bitmap.name] = bitmap
                bitmap.set_bits(bits)
                bitmap.readonly, bitmap.changed = True, False
                bitmap.inconsistent = bool(entry.flags & IN_USE)
        except QMPError:
            for bitmap in made:
                bitmap.counted.end()
                del node.bitmaps[bitmap.name]
            raise
        node.stored = [entry for entry, _bits in found]

    async def relock(self, *, refuse: bool = True) -> None:
        """Lock the files of all nodes as those that use them need it.

        Args:
            refuse: whether it is an error that another process is in the way; what has
                happened can't be refused any more.

        Raises:
            QMPError: another process is, or another user of a node. A caller that has just had a
                node used undoes that, and calls this again.
        """
        wanted = self._wanted()
        self._tolerated = self._refuse(wanted) if refuse else {*self._refusals(wanted)}
        # What another command has not locked yet is checked for this one, too.
        changed: dict[Node, Locks] = {}
        for node in self._nodes.values():
            now = wanted[node]
            if node.fd >= 0 and node.locking != "off" and not (node.wanted == now == node.locked):
                node.wanted = now
                changed[node] = now - node.locked if refuse else frozenset()
        if changed:
            await Job(lambda: _lock(changed), on=waits_for([*changed]), release=not refuse)

    def is_read(self, node: Node) -> bool:
        """Whether something reads a node."""
        return READ in self._wanted()[node]

    def protect(self, node: Node) -> None:
        """Have a node, and the nodes of its file that follow it, read-only, if nobody writes."""
        layers = node.following()
        if any(each.driver in (*REMOTE, *_OF_JOBS, "copy-on-read") for each in layers):
            # They can't be opened anew.
            return
        before = [each.read_only for each in layers]
        for each in layers:
            each.read_only = True
        wanted = self._wanted()
        if any(wanted[each] & {WRITE, REWRITE} for each in layers):
            for each, was in zip(layers, before, strict=True):
                each.read_only = was

    def _refusals(self, wanted: dict[Node, Locks]) -> dict[Node, QMPError]:
        """The nodes that are used as they can't be."""
        return {node: error for node in wanted if (error := self._refusal(node, wanted))}

    def _refuse(self, wanted: dict[Node, Locks]) -> set[Node]:
        """Raise `QMPError` for the highest node that is newly used so; gives the others."""
        found = self._refusals(wanted)
        new = found.keys() - self._tolerated
        for node in found:
            if node in new and not (new & {*node.higher()}):
                raise found[node]
        return {*found}

    def _wanted(self) -> dict[Node, Locks]:
        """What is done to each node and denied to others, as locks of a file say it."""
        wanted: dict[Node, Locks] = {
            node: frozenset[int]().union(*(each.locks for each in node.users if not self.inactive))
            for node in self._nodes.values()
        }
        # The youngest first: most are above those below them.
        todo = [*wanted]
        while todo:
            at = todo.pop()
            for role, below in at.roles:
                needs = self._needs(at, role, below, wanted[at])
                if not needs <= wanted[below]:
                    wanted[below] |= needs
                    todo.append(below)
        return wanted

    def _needs(self, node: Node, role: str, below: Node, claim: Locks) -> Locks:
        """What a node does to one below it, and denies to others.

        Args:
            role: what that is to it.
            below: that one.
            claim: what those that use the node do and deny.
        """
        needs: Locks
        if node.driver in _OF_JOBS:
            needs = _needs_of_job(node, role, claim)
        elif role == "backing":
            needs = claim & {READ} | ({NO_WRITE, NO_RESIZE} if NO_WRITE in claim else set())
        elif node.driver != "qcow2":
            needs = claim
            if node.is_part:
                needs |= {NO_RESIZE}
            if node.driver == "copy-on-read" and not self.inactive:
                needs |= {REWRITE}
        elif self.inactive:
            needs = {READ}
        else:
            does = set() if node.read_only else {WRITE, RESIZE, *(claim & {REWRITE})}
            needs = {READ, NO_WRITE, NO_RESIZE, *does, *(claim & {NO_READ})}
        return needs - {NO_WRITE, NO_RESIZE} if below.shared else needs

    def graph(self, args: object = None) -> JSONObject:
        """The value of `x-debug-query-block-graph`: who does what to each node, and shares what."""
        numbers: dict[object, int] = {}
        nodes: list[JSON] = []
        edges: list[JSON] = []

        def number(user: object, kind: str, name: str) -> int:
            if user not in numbers:
                numbers[user] = len(numbers) + 1
                nodes.append({"id": numbers[user], "type": kind, "name": name})
            return numbers[user]

        wanted = self._wanted()
        for drive in self.drives:
            number(drive, _BACKEND, drive.label)
        for node in self.all():
            below = number(node, _DRIVER, node.name)
            for use in self._uses(node, wanted):
                edges.append(
                    {
                        "parent": number(use.user, use.kind, use.name),
                        "child": below,
                        "name": use.role,
                        "perm": [told for does, told in _TOLD.items() if does in use.claim],
                        "shared-perm": [
                            told for does, told in _TOLD.items() if does + UNSHARED not in use.claim
                        ],
                    }
                )
        return {"nodes": nodes, "edges": edges}

    def _refusal(self, node: Node, wanted: dict[Node, Locks]) -> QMPError | None:
        """Why those that use a node can't do so together, or None."""
        locks = wanted[node]
        if any(each in locks and each + UNSHARED in locks for each in NAMES):
            error = _conflict(self._uses(node, wanted), node)
            if error is not None:
                return error
        if node.read_only and locks & {WRITE, REWRITE}:
            return QMPError("Block node is read-only")
        return None

    def _uses(self, node: Node, wanted: dict[Node, Locks]) -> list[Use]:
        """Those that use a node, the youngest first.

        Args:
            wanted: what is done to each node, see `_wanted`.
        """
        uses = [
            Use(each.stamp, each, _BACKEND, each.label, each.role, each.locks)
            if each.job is None
            else Use(each.stamp, each.job, _JOB, each.job.id, each.role, each.locks)
            for each in node.users
        ]
        for above in node.parents:
            for role, below in above.roles:
                if below is node:
                    needs = self._needs(above, role, node, wanted[above])
                    stamp = above.stamps[above.link(role)]
                    uses.append(Use(stamp, above, _DRIVER, above.name, role, needs))
        return sorted(uses, key=attrgetter("stamp"), reverse=True)

    def _plan(self, options: JSONObject, made: dict[str, Node]) -> Node:
        """A node that is to be; it is added to `made`, after those below that come with it."""
        driver = options["driver"]
        if driver not in (*DRIVERS, PROBED):
            raise QMPError(f"memd has no block driver '{driver}'")
        node = Node("", {"cache": {}, **options})
        # What it has its bytes from is opened before it has a name.
        if driver not in (*FILES, *REMOTE) and not driver.startswith("null"):
            node.child = self._plan_below(options["file"], "file", node, node.read_only, made)
        if options.get("force-share") and not options.get("read-only"):
            raise QMPError("force-share=on can only be used with read-only images")
        check_options(options)
        name = node.name = self._take_name(options.get("node-name"))
        if name in made:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        if driver == "throttle":
            node.group = self.group(options["throttle-group"])
        if driver.startswith("null"):
            node.size = _sectors(options.get("size", _NULL_SIZE))
        elif driver in REMOTE:
            node.options = {k: v for k, v in options.items() if k not in _OF_ANY_NODE}
        elif node.child is not None:
            if driver == "copy-on-read" and node.child.read_only:
                raise QMPError("Block node is read-only")
            node.offset, node.length = options.get("offset", 0), options.get("size")
            told = options.get("backing")
            if told is not None:
                # What is wrong with a node that is named is told as it is.
                where = "Could not open backing file: " if told != name else ""
                try:
                    with prefixed(where):
                        node.backing = self._plan_below(told, "backing", node, True, made)
                except QMPError as error:
                    node.wrong = error
        if name in made:
            # One below has taken it.
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        made[name] = node
        return node

    def group(self, name: str) -> ThrottleGroup:
        """The group of limits of that name; raises `QMPError` where there is none."""
        from memd.standin.tunable import ThrottleGroup

        found = self._tree.objects.get(name)
        if not isinstance(found, ThrottleGroup):
            raise QMPError(f"Throttle group '{name}' does not exist")
        return found

    def _plan_below(
        self, told: Any, role: str, above: Node, read_only: bool, made: dict[str, Node]
    ) -> Node:
        if type(told) is dict:
            cache = {**above.cache, **told.get("cache", {})}
            inherited = {
                "force-share": above.shared,
                "auto-read-only": above.auto,
                "discard": "unmap",
            }
            given = {"read-only": read_only, **inherited, **told, "cache": cache}
            below = self._plan(given, made)
            below.came_with = above
            below.follows = "read-only" not in told
            below.tells_share = "force-share" in told
            return below
        if told in made:
            return made[told]
        if role == "backing" and told == above.name and self.find(told) is None:
            raise QMPError(f"Making '{told}' a {role} child of '{told}' would create a cycle")
        return self.named(told)

    def _take_name(self, name: str | None) -> str:
        """The name of a node that is to be; raises `QMPError` where it can't be."""
        if name is None:
            self._numbers += 1
            name = f"#block{self._numbers:03}"
        else:
            check_name(name)
        self.check_new(name)
        return name

    def check_new(self, name: str) -> None:
        """Raise `QMPError` where something has that name."""
        if self.drive(name) is not None:
            raise QMPError(f"node-name={name} is conflicting with a device id")
        if name in self._nodes or name in self.making:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")

    def check_free(self, node: Node) -> None:
        """Raise `QMPError` where a node above or a block job keeps others from it."""
        reasons = [
            (each.stamp, f"block device is in use by block job: {each.job.kind}")
            for each in node.claims
            if each.job is not None
        ]
        reasons += (
            (each.stamps["backing"], f"node is used as backing hd of '{each.name}'")
            for each in node.parents
            if each.backing is node
        )
        if reasons:
            # The youngest one is told.
            raise QMPError(f"Node '{node.name}' is busy: {max(reasons)[1]}")

    def check_root(self, node: Node) -> None:
        """Raise `QMPError` where a node above or a block job uses a node."""
        if node.job is not None or node.above:
            raise QMPError("Need a root block node")

    def root(self, name: str) -> Node:
        """The node of that name; raises `QMPError` where there is none, or another one uses it."""
        node = self.named(name)
        self.check_root(node)
        return node

    def set_threshold(self, args: JSONObject) -> None:
        """`block-set-write-threshold`; raises `QMPError`."""
        node = self.find(args["node-name"])
        if node is None:
            raise QMPError(f"Device '{args['node-name']}' not found")
        node.threshold = args["write-threshold"]

    async def delete(self, args: JSONObject) -> None:
        """`blockdev-del`.

        Raises:
            QMPError: there is none, or it is in use.
        """
        name = args["node-name"]
        node = self._nodes.get(name)
        if node is None:
            raise QMPError(f"Failed to find node with node-name='{name}'")
        if node.drives or node.holds:
            raise QMPError(f"{(*node.holds, 'Node')[0]} {name} is in use")
        self.check_free(node)
        if not node.owned:
            raise QMPError(f"Node {name} is not owned by the monitor")
        if node.parents:
            raise QMPError(f"Block device {name} is in use")
        node.owned = False
        await self.collect(node)

    async def collect(self, *nodes: Node | None) -> None:
        """Close nodes that have neither a user nor a name of a client's, and those below them."""
        await self.sync()
        gone: list[Node] = []
        storing: list[_Storing] = []
        todo = [*nodes]
        while todo:
            at = todo.pop()
            if at is None or at.owned or at.holds or at.users:
                continue
            if at.parents or self._nodes.get(at.name) is not at:
                continue
            del self._nodes[at.name]
            if at.group is not None:
                at.group.users.discard(at)
            gone.append(at)
            storing.append(_Storing(at))
            todo += at.below
            at.leave()
        if gone:
            await self._put(storing, gone)
            _end(gone)
        await self.relock(refuse=False)

    def replace(self, old: Node, new: Node, *, same: bool = False) -> None:
        """Have what uses a node use another one.

        Args:
            same: whether drives still have the same medium.
        """
        for drive in [*old.drives]:
            if same:
                drive.move(new)
            else:
                drive.insert(new)
        for claim in [*old.claims]:
            if claim.job is None:
                claim.move(new)
        # What the new one stands on stays below it.
        kept = {new, *new.lower()}
        for each in old.parents:
            for role, below in each.roles if each not in kept else ():
                if below is old:
                    setattr(each, each.link(role), new)
        self.rename(old, new)

    def put_above(self, node: Node, driver: str, name: str | None, target: Node | None) -> Node:
        """Make a filter of a job above a node; gives the filter, which nothing uses yet.

        Args:
            name: its name; None for one that it gets by itself.
            target: what it copies to, None for nothing.

        Raises:
            QMPError: no node can have that name.
        """
        made = Node(self._take_name(name), {"driver": driver, "cache": {}})
        made.read_only = driver == "commit_top"
        made.implicit = name is None and driver != "copy-before-write"
        made.size, made.alignments = node.size, node.alignments
        self._nodes[made.name] = made
        made.child, made.target = node, target
        made.join()
        self.rename(made)
        return made

    def take_out(self, made: Node) -> None:
        """Have those that use a filter of a job use what is below it; the filter has no part."""
        if made.child is not None:
            self.replace(made, made.child, same=True)
            made.leave()

    def forget(self, made: Node) -> None:
        """A filter that was taken out is there no more."""
        del self._nodes[made.name]

    def change_child(self, args: JSONObject) -> None:
        """`x-blockdev-change`: raise `QMPError`, as no node of these drivers takes further ones."""
        parent = self.named(args["parent"])
        child, node = args.get("child"), args.get("node")
        if child is not None and node is not None:
            raise QMPError("The parameters child and node are in conflict")
        if child is None and node is None:
            raise QMPError("Either child or node must be specified")
        if child is not None and child not in dict(parent.roles):
            raise QMPError(f"Node '{parent.name}' does not have child '{child}'")
        if node is not None and self.find(node) is None:
            raise QMPError(f"Node '{node}' not found")
        what = "removing" if node is None else "adding"
        raise QMPError(f"The node {parent.name} does not support {what} a child")

    def rename(self, *nodes: Node) -> None:
        """Have nodes and those above them be told to be what they are made of now."""
        todo = [*nodes]
        while todo:
            at = todo.pop()
            at.filename = _filename(at)
            todo += at.parents

    async def resize(self, args: JSONObject) -> None:
        """`block_resize`: the file behind a raw node has another size, or a qcow2 image is longer.

        Raises:
            QMPError: it can't have.
        """
        node, size = self.named(args.get("node-name", ""), args.get("device", "")), args["size"]
        if size < 0:
            raise QMPError("Parameter 'size' expects a >0 size")
        self.check_free(node)
        claim = Claim(node, {RESIZE})
        try:
            await self.relock()
            sizes = await self._resize(node, size)
        finally:
            claim.end()
            await self.relock(refuse=False)
        from memd.standin.block.dirty_bitmap import cut

        for each, its in sizes.items():
            each.size = _sectors(its)
            for bitmap in each.bitmaps.values():
                bitmap.set_bits(cut(bitmap.bits, each.size, bitmap.granularity))
                bitmap.changed = True
        todo = [] if self.compat is Compat.V10_0 else [*sizes]
        while todo:
            at = todo.pop()
            for each in at.parents:
                follows = each.header is None and each.length is None and not each.offset
                if follows and each not in sizes:
                    each.size = at.size
                    todo.append(each)

    async def _resize(self, node: Node, size: int) -> dict[Node, int]:
        """The same, of a node that nobody keeps from it; gives the sizes of those below it."""
        file = node.file
        sizes: dict[Node, int] = {}
        for each in node.layers():
            if each.read_only:
                raise QMPError("Image is read-only")
            if each.driver.startswith("null"):
                raise QMPError("Image format driver does not support resize")
            if each.driver in REMOTE:
                raise QMPError(f"memd does not resize images of the format '{each.driver}'")
            if size > _LONGEST:
                raise QMPError(f"offset({size}) exceeds maximum({_LONGEST})")
            if each.length is not None:
                raise QMPError("Cannot resize fixed-size raw disks")
            sizes[each] = size
            size += each.offset
            if each.header is not None:
                break
        stored = {entry.text for entry in each.stored}
        for bitmap in each.bitmaps.values():
            if bitmap.name in stored:
                bitmap.check_free(changes=True)
        assert file is not None
        if file.read_only:
            raise QMPError("Image is read-only")

        def work() -> None:
            if each.header is not None:
                from memd.standin.block.qcow2_clusters import resize

                with changing(each, file.fd) as header:
                    resize(file.fd, header, size)
                return
            if file.driver == "file":
                os.ftruncate(file.fd, size)
            measure(file)
            if size > file.size:
                raise QMPError("Cannot grow device files")

        with refusing("Could not resize file"):
            await Job(work, on=waits_for([file]))
        return sizes

    async def nodes(self, args: JSONObject) -> Encoded:
        """The value of `query-named-block-nodes`, the youngest first.

        Raises:
            QMPError: it has too many bytes.
        """
        flat = args.get("flat", False)
        # Of each its whole chain is told, so that it grows with their square.
        return await encode_rows(in_turns(self.info(node, flat=flat) for node in self.all()[::-1]))

    def info(self, node: Node, *, flat: bool = False) -> JSONObject:
        """QAPI's `BlockDeviceInfo`.

        Args:
            flat: whether nothing is told there of backing nodes.
        """
        info: JSONObject = {
            "node-name": node.name,
            "drv": node.driver,
            "ro": node.read_only,
            "file": node.filename,
            "image": _image(node, None if flat else node.shown_below, self.compat),
            "encrypted": False,
            "detect_zeroes": node.zeroes,
            "active": True,
            "backing_file_depth": 0 if flat else len([*node.shown()]) - 1,
            "write_threshold": node.threshold,
            "cache": {**node.cache, "writeback": True},
            **dict.fromkeys(LIMITS, 0),
        }
        if node.backing is not None:
            info["backing_file"] = node.backing.filename
        bitmaps = [each.told() for each in reversed(node.bitmaps.values())]
        bitmaps += (
            {
                "count": count,
                "granularity": granularity,
                "recording": recording,
                **dict.fromkeys(("busy", "persistent"), False),
            }
            for granularity, count, recording in node.nameless
        )
        if bitmaps:
            info["dirty-bitmaps"] = bitmaps
        if self.compat is not Compat.V10_0:
            below = {"file": node.child, "backing": node.backing}
            info["children"] = [
                {"child": role, "node-name": each.name} for role, each in below.items() if each
            ]
        return info


class _Storing:
    """The bitmaps of a node that are put into its image.

    Attributes:
        node: the node.
        bitmaps: those, the youngest first.
        kept: what the image is told of them.
        error: why they can't be there, or None.
    """

    def __init__(self, node: Node) -> None:
        from memd.standin.block.qcow2_bitmaps import Kept

        self.node = node
        self._fd = node.file_fd
        self.bitmaps = [
            each
            for each in reversed(node.bitmaps.values())
            if each.persistent and not (each.readonly or each.inconsistent)
        ]
        self.kept = [
            Kept(each.raw, each.granularity, each.recording, each.bits if each.changed else None)
            for each in self.bitmaps
        ]
        self.error: str | None = None
        if node.has_lost_bitmaps:
            self.error = "No write access"

    @property
    def todo(self) -> bool:
        """Whether there is something to be done."""
        return bool(self.kept) and self.error is None

    def run(self) -> None:
        """Do it; in a thread."""
        from memd.standin.block.qcow2_bitmaps import store

        try:
            with changing(self.node, self._fd), refusing("Failed to write bitmap directory"):
                self.node.stored = store(self._fd, self.kept)
        except QMPError as error:
            self.error = error.desc


class Use(NamedTuple):
    """A use of a node.

    Attributes:
        stamp: is larger than those of older ones.
        user: what uses the node.
        kind: QAPI's `XDbgBlockGraphNodeType` of that.
        name: of that.
        role: what the node is to that.
        claim: what that does to it, and denies to others.
    """

    stamp: int
    user: object
    kind: str
    name: str
    role: str
    claim: Locks

    @property
    def by(self) -> str:
        """Who uses the node, as errors call that."""
        match self.kind:
            case "block-driver":
                return f"node '{self.name}'"
            case "block-job":
                return "{} job '{}'".format(*cast(JobName, self.user))
        return f"block device '{self.name}'" if self.name else "an unnamed block device"


def _conflict(uses: list[Use], node: Node) -> QMPError | None:
    """The refusal where one user of a node does what another one denies, or None.

    Args:
        uses: the youngest first; of those that can't be together they are named.
    """
    # Two of each, since nobody is kept from what it denies others.
    doers = {does: [use for use in uses if does in use.claim][:2] for does in NAMES}
    for denier in uses:
        found = [
            doer
            for does, some in doers.items()
            if does + UNSHARED in denier.claim
            for doer in some
            if doer is not denier
        ]
        if found:
            return _refused(node, max(found, key=attrgetter("stamp")), denier)
    return None


def _refused(node: Node, doer: Use, denier: Use) -> QMPError:
    what = ", ".join(
        name
        for does, name in NAMES.items()
        if does in doer.claim and does + UNSHARED in denier.claim
    )
    one, other = (
        f"{use.by} (uses node '{node.name}' as '{use.role}' child)" for use in (doer, denier)
    )
    return QMPError(
        f"Permission conflict on node '{node.name}': permissions '{what}' are both required by"
        f" {one} and unshared by {other}."
    )


def _needs_of_job(node: Node, role: str, claim: Locks) -> Locks:
    """What a filter of a job does to a node below it, and denies to others."""
    if node.driver == "commit_top":
        return frozenset()
    if role == "target":
        return {WRITE, NO_RESIZE}
    if node.driver == "copy-before-write" and node.used:
        return {*claim, READ, NO_WRITE, NO_RESIZE}
    return {*claim - {READ, NO_WRITE}, NO_RESIZE} if node.commits else claim


def check_options(options: JSONObject) -> None:
    """Raise `QMPError` where options of a node are wrong whatever it is made of."""
    for each in ("offset", "size"):
        if options.get(each, 0) < 0:
            raise QMPError(f"Value '{options[each]}' is out of range for parameter '{each}'")
    if options.get("detect-zeroes") == "unmap" and options.get("discard") != "unmap":
        raise QMPError(
            "setting detect-zeroes to unmap is not allowed without setting discard operation"
            " to unmap"
        )


@contextlib.contextmanager
def held(nodes: list[Node], called: str = "Node") -> Iterator[None]:
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


def _lock(changed: dict[Node, Locks]) -> None:
    """Lock the files of nodes as is wanted, all that can be. Runs in a thread."""
    refusals = []
    for node, checked in changed.items():
        try:
            node.lock(checked)
        except QMPError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def _filename(node: Node) -> str:
    """A file's path, or as JSON all that the node is made of."""
    if node.implicit or node.driver in _OF_JOBS:
        return "" if node.child is None else node.child.filename
    below = node.child or node
    if (
        node.driver in _FILTERS
        or below.child
        or _is_overridden(node)
        or (node.options.keys() | below.options.keys()) - {"filename"}
    ):
        told = f"json:{json.dumps(_made_of(node))}"
        return told if len(told) <= _LONGEST_FILENAME else f"{told[: _LONGEST_FILENAME - 3]}..."
    return str(below.options.get("filename", f"{below.driver}://"))


def _is_overridden(node: Node) -> bool:
    """Whether its backing node is another than its image names."""
    if node.header is None:
        return False
    if node.backing is None:
        return node.alone and node.header.backing is not None
    return node.header.backing != node.backing.filename


def _made_of(node: Node) -> JSONObject:
    """All that decides a node's content."""
    if node.implicit and node.child is not None:
        return _made_of(node.child)
    told = {"driver": node.driver, **node.options}
    if node.target is not None:
        told["target"] = _made_of(node.target)
    if node.child is not None:
        told[_OF_JOBS.get(node.driver, "file")] = _made_of(node.child)
    if _is_overridden(node):
        told["backing"] = None if node.backing is None else _made_of(node.backing)
    return {name: told[name] for name in object_order(told)}


def _image(node: Node, backing: Node | None, compat: Compat) -> JSONObject:
    """QAPI's `ImageInfo`."""
    image: JSONObject = {
        "filename": node.filename,
        "format": node.driver,
        "virtual-size": node.size,
        "actual-size": 0,
    }
    file = node.file
    if file is not None:
        image["actual-size"] = file.facts.get("actual-size", 0)
        if file.driver != "host_cdrom":
            image["dirty-flag"] = False
    image |= node.facts
    header = next((each.header for each in node.layers() if each.header is not None), None)
    if header is not None and header.snapshots:
        image["snapshots"] = [each.told() for each in header.snapshots]
    if node.stored:
        # Of the directory of bitmaps.
        data = node.facts["format-specific"]["data"]
        told = {**data, "bitmaps": [each.told() for each in node.stored]}
        image["format-specific"] = {"type": node.driver, "data": told}
    # What stands on an image tells of its clusters.
    for each in node.layers():
        if "cluster-size" in each.facts:
            image["cluster-size"] = each.facts["cluster-size"]
            break
    if node.header is not None and node.header.backing is not None:
        image["backing-filename"] = node.header.backing
        image["full-backing-filename"] = _beside(
            node.filename if file is None else file.filename, node.header.backing
        )
        if node.header.backing_format is not None:
            image["backing-filename-format"] = node.header.backing_format
    if compat is not Compat.V10_0:
        zeroes: Any = node.facts.get("cluster-size")
        if node.header is not None and node.header.has_parts:
            zeroes //= 32
        units = {
            "discard-alignment": image.get("cluster-size"),
            "write-zeroes-alignment": zeroes,
        }
        memory, requests = node.alignments
        image["limits"] = {
            "request-alignment": requests,
            "min-mem-alignment": memory,
            "opt-mem-alignment": PAGE_SIZE,
            "max-iov": 1024,
            **{name: unit for name, unit in units.items() if unit},
        }
    if backing is not None:
        image["backing-image"] = _image(backing, backing.shown_below, compat)
    return image


def _beside(path: str, name: str) -> str:
    """What an image names as its backing file, from where that image is."""
    if ":" in name.partition("/")[0]:
        return name
    return os.path.join(os.path.dirname(path), name)


def waits_for(nodes: Iterable[Node]) -> frozenset[int]:
    """The file systems that using the files of nodes, or those below them, may wait for.

    See `Job.on`.
    """
    files = {each if each.driver in FILES else each.file for each in nodes} - {None}
    unopened = [each.options["filename"] for each in files if each is not None and not each.on]
    on = of_paths(unopened) if unopened else MEMORY
    return on.union(*(each.on for each in files if each is not None))


def _open(nodes: list[Node], roots: Roots | None) -> None:
    """Open the files of nodes, the lowest first. Runs in a thread."""
    for node in nodes:
        if node.driver in FILES:
            _open_file(node, roots)
        elif node.child is not None:
            if node.driver == PROBED:
                node.driver = _probe(node.file)
                node.probed = node.driver == "raw"
            node.size = node.child.size
            if node.driver == "qcow2":
                read_header(node)
            else:
                node.size = part_of(node.size, node.offset, node.length)
            node.align()
        node.filename = _filename(node)


def _probe(file: Node | None) -> str:
    from memd.standin.block.qcow2 import MAGIC

    with refusing("Could not read image for determining its format"):
        is_qcow2 = file is not None and os.pread(file.fd, len(MAGIC), 0) == MAGIC
    return "qcow2" if is_qcow2 else "raw"


def _end(gone: Iterable[Node | Drive]) -> None:
    """Count them no more."""
    for each in gone:
        if each.counted is not None:
            each.counted.end()
        for bitmap in each.bitmaps.values() if isinstance(each, Node) else ():
            bitmap.counted.end()


def _close(nodes: list[Node]) -> None:
    for node in nodes:
        node.close()


def _access(node: Node) -> int:
    return os.O_RDONLY if node.read_only else os.O_RDWR


def open_image(path: str, read_only: bool, roots: Roots | None) -> int:
    """Open an image's file; may wait. Raises `OSError`, or `QMPError` where it may not be."""
    return open_path(encode_path(path), (os.O_RDONLY if read_only else os.O_RDWR) | _ACCESS, roots)


def _open_file(node: Node, roots: Roots | None) -> None:
    path = node.options["filename"]
    if not path:
        raise QMPError(f"The '{node.driver}' block driver requires a file name")
    try:
        if node.given is None:
            node.fd = open_image(path, node.read_only, roots)
        found = os.fstat(node.fd)
        node.on = frozenset((number(found.st_mode, found.st_dev, found.st_rdev),))
    except OSError as error:
        if error.errno == errno.EISDIR and node.auto:
            raise _wrong_file(node) from None
        raise QMPError(f"Could not open '{path}': {error.strerror}") from None
    is_device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    if not (stat.S_ISREG(found.st_mode) if node.driver == "file" else is_device):
        raise _wrong_file(node)
    measure(node)
    node.alignments = direct_alignment(node.fd) if node.cache["direct"] else (1, 1)
    if node.driver != "host_cdrom":
        node.facts["format-specific"] = {"type": "file", "data": {}}


def _wrong_file(node: Node) -> QMPError:
    path = node.options["filename"]
    return QMPError(f"'{node.driver}' driver requires '{path}' to be {FILES[node.driver]}")


def _sectors(size: int) -> int:
    """A size in whole sectors."""
    return -(-size // _SECTOR) * _SECTOR


def measure(file: Node) -> None:
    """See how large the file of a node is; in a thread."""
    found = os.fstat(file.fd)
    size = found.st_size
    if file.driver != "file":
        with contextlib.suppress(OSError):
            size = os.lseek(file.fd, 0, os.SEEK_END)
    file.size = _sectors(size)
    file.facts["actual-size"] = found.st_blocks * 512


def part_of(whole: int, offset: int, told: int | None) -> int:
    """The size of a raw node, which may be a part of what is below it; raises `QMPError`.

    Args:
        whole: the size of what is below.
        told: the size that it is told to have, None for all that there is.
    """
    if offset > whole:
        raise QMPError(
            f"Offset ({offset}) cannot be greater than size of the containing file ({whole})"
        )
    length = whole - offset if told is None else told
    if length > whole - offset:
        raise QMPError(
            f"The sum of offset ({offset}) and size ({length}) has to be smaller or equal to"
            f" the  actual size of the containing file ({whole})"
        )
    if told is not None and length % _SECTOR:
        raise QMPError(f"Specified size is not multiple of {_SECTOR}")
    return _sectors(length)


@contextlib.contextmanager
def changing(node: Node, fd: int) -> Iterator[Header]:
    """Have nobody else change what is behind the header of an image; gives the header.

    In a thread. The node has the changed one afterwards.

    Args:
        fd: of its file.
    """
    with node.at_image:
        header = _take_header(node, fd)
        try:
            yield header
        finally:
            _take_header(node, fd)


def mark(node: Node, fd: int) -> None:
    """Have an image say that its bitmaps may be others now; in a thread."""
    from memd.standin.block.qcow2_bitmaps import mark_in_use

    with changing(node, fd):
        node.stored = mark_in_use(fd)


def read_header(node: Node) -> None:
    """Take over what an image's header tells; in a thread."""
    file = node.file
    # What memd does not read holds zeroes, or another format.
    layers = [*node.layers()][1:]
    if file is None or any(each.header is not None or each.offset for each in layers):
        raise QMPError("Image is not in qcow2 format")
    header = _take_header(node, file.fd)
    if header.is_corrupt and not node.read_only:
        raise QMPError("qcow2: Image is corrupt; cannot be opened read/write")


def _take_header(node: Node, fd: int) -> Header:
    from memd.standin.block.qcow2 import Header

    with refusing("Could not read qcow2 header"):
        header = node.header = Header(fd)
    node.size = header.size
    node.facts |= header.facts
    return header
