"""The same commands to a real QEMU and to memd, and a comparison of what comes of it.

A `Side` is one of the two with a scratch directory of its own; a `Pair` is
both. Commands name the scratch directory as `@DIR@`, and answers come back
with it so named. All that a comparison has to allow for stands in `normalise`
and in `kernel.place`, each with its reason.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from memd.json_types import JSON
from tests.differential.kernel import (
    PLACE,
    File,
    Mapping,
    descriptors,
    files,
    mapped,
    place,
    regions,
)
from tests.differential.server import PATIENCE, Died, Message, Monitor, Server

SETTLING = PATIENCE
"""Seconds within which QEMU has unmapped what was deleted (it does so after a
grace period), and a process has closed what its client left."""

OWN_TYPES = ("memory-backend-guest-memfd",)
"""Backends that memd has and the reference lacks, in the schema's order."""

_END = "__end-of-input__"

T = TypeVar("T")

_numbers = itertools.count()


def fresh_id() -> str:
    """An id that no test of this process has used.

    QEMU 10.0.2 keeps the descriptor of a memfd or shm backend that it refused
    after making it, and gives it to the next of the same id, with its old size
    (it is kept by name for a live update). What is compared must not depend on
    what was refused before.
    """
    return f"fresh{next(_numbers)}"


def normalise(value: JSON, directory: Path) -> JSON:
    """A JSON value in the form in which two servers' answers are compared."""
    if isinstance(value, str):
        # Each side works in a scratch directory of its own.
        return place(value, directory)
    if isinstance(value, list):
        items = [normalise(item, directory) for item in value]
        if items and all(isinstance(item, dict) for item in items):
            # Objects, properties, types and commands are listed in the order
            # of a hash table.
            items.sort(key=lambda item: json.dumps(item, sort_keys=True))
        return items
    if isinstance(value, dict):
        return {
            name: normalise(member, directory)
            for name, member in value.items()
            # When an event happened, who packaged the server, and the count of
            # corrections to the release.
            if name not in ("timestamp", "package", "micro")
        }
    return value


def exact(value: JSON) -> str:
    """A text that tells values apart that Python calls equal, such as 1, 1.0 and true."""
    return json.dumps(value, sort_keys=True)


def settle(observe: Callable[[], T], wanted: Callable[[T], bool], patience: float = SETTLING) -> T:
    """Observe until it is as wanted, or for `patience` seconds; the last observation."""
    deadline = time.monotonic() + patience
    pause = 0.002
    while True:
        seen = observe()
        if wanted(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(pause)
        # What a process has mapped takes milliseconds to look at.
        pause = min(2 * pause, 0.02)


@dataclass(frozen=True)
class Holdings:
    """What a process holds and has left behind, for a comparison before and after."""

    regions: list[Mapping]
    descriptors: Counter[str]
    files: dict[str, File]
    objects: list[str]


class Side:
    """One server under comparison, a scratch directory and a connection.

    Args:
        server: the running process, which has `scratch` as its working directory.
        scratch: its directory for files.
    """

    __slots__ = ("monitor", "scratch", "server")

    def __init__(self, server: Server, scratch: Path) -> None:
        self.server = server
        self.scratch = scratch
        self.monitor = server.monitor()

    @property
    def name(self) -> str:
        """How failures call it."""
        return self.server.name

    def fill(self, value: JSON) -> JSON:
        """A command's value with the scratch directory's path in its place."""
        if isinstance(value, str):
            return value.replace(PLACE, str(self.scratch))
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {name: self.fill(item) for name, item in value.items()}
        return value

    def ask(self, command: str, arguments: JSON = None, **members: JSON) -> Message:
        """Execute a command; its normalised answer."""
        answer = self.monitor.execute(command, self.fill(arguments), **members)
        return self.normal(answer)

    def normal(self, message: Message) -> Message:
        """A message in comparable form."""
        normal = normalise(message, self.scratch)
        assert isinstance(normal, dict)
        return normal

    def raw(self, data: bytes, monitor: Monitor | None = None) -> list[Message]:
        """Send bytes as they are; every message up to the answer of a last command.

        What was sent has to leave the parser between two values.
        """
        monitor = monitor or self.monitor
        monitor.send(data.replace(PLACE.encode(), str(self.scratch).encode()))
        monitor.send(json.dumps({"execute": "query-name", "id": _END}).encode() + b"\n")
        messages: list[Message] = []
        while True:
            message = monitor.read()
            if message.get("id") == _END:
                return messages
            messages.append(self.normal(message))

    def take_events(self) -> list[Message]:
        """The events that have come with the answers so far, and forget them."""
        events = [self.normal(event) for event in self.monitor.events]
        self.monitor.events.clear()
        return events

    def regions(self) -> list[Mapping]:
        """The mappings of its backends."""
        return regions(self.server.pid, self.scratch)

    def has_regions(self) -> bool:
        """Whether there are any, as far as can be told soon."""
        return bool(mapped(self.server.pid))

    def files(self) -> dict[str, File]:
        """What lies in its scratch directory."""
        return files(self.scratch)

    def objects(self) -> list[str]:
        """The ids of what object-add has made."""
        answer = self.monitor.execute("qom-list", {"path": "/objects"})
        made = ("child<memory-backend-", "child<thread-context>")
        return sorted(item["name"] for item in answer["return"] if item["type"].startswith(made))

    def holdings(self) -> Holdings:
        """Everything that a failed command may not change."""
        return Holdings(self.regions(), descriptors(self.server.pid), self.files(), self.objects())

    def expect_unchanged(self, before: Holdings) -> None:
        """Fail unless it holds again what it held before."""
        after = settle(self.holdings, lambda now: now == before)
        assert after == before, f"{self.name} holds other things than before"

    def clear(self) -> None:
        """Delete every object and file, so that the next test finds nothing."""
        with contextlib.suppress(Died):
            for name in self.objects():
                self.monitor.execute("object-del", {"id": name})
            # What others refer to (a thread-context) goes in a second round.
            for name in self.objects():
                self.monitor.execute("object-del", {"id": name})
        self.monitor.close()
        for path in self.scratch.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


class Storage:
    """A server that is started when first wanted, and again when it has died.

    Args:
        name: how failures call it.
        argv: gives its command.
    """

    def __init__(self, name: str, argv: Callable[[], list[str]]) -> None:
        self._name = name
        self._argv = argv
        # Short and of one length for all: a socket's path has 107 bytes, and
        # texts that are cut must be cut at the same place.
        self._directory = Path(tempfile.mkdtemp(prefix="memd-test-"))
        self.scratch = self._directory / "scratch"
        self._server: Server | None = None
        self._failure: Died | None = None

    def server(self) -> Server:
        """The running server; one that would not start is not tried again."""
        if self._failure is not None:
            raise self._failure
        if self._server is None or not self._server.alive():
            self.stop()
            self._directory.mkdir(exist_ok=True)
            self.scratch.mkdir()
            try:
                self._server = Server(self._name, self._argv(), self._directory, self.scratch)
            except Died as failure:
                self._failure = failure
                raise
        return self._server

    @contextlib.contextmanager
    def side(self) -> Iterator[Side]:
        """A connection and a clean scratch directory; cleared afterwards."""
        side = Side(self.server(), self.scratch)
        # Another test may have stopped it; that is no matter of this one's.
        side.monitor.execute("cont")
        side.monitor.events.clear()
        try:
            yield side
        finally:
            if side.server.alive():
                side.clear()

    def stop(self) -> None:
        """End the server and remove its directory."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        shutil.rmtree(self._directory, ignore_errors=True)


class Pair:
    """A reference and a subject that get the same commands.

    Args:
        reference: the QEMU that is right.
        subject: the server under test.

    Attributes:
        log: what was said so far, shown with a failure.
        note: how to repeat it, shown with a failure.
    """

    __slots__ = ("log", "note", "reference", "subject")

    def __init__(self, reference: Side, subject: Side) -> None:
        self.reference = reference
        self.subject = subject
        self.log: list[str] = []
        self.note = ""

    def each(self, work: Callable[[Side], T]) -> tuple[T, T]:
        """Do the same with both; the reference's outcome, then the subject's."""
        return work(self.reference), work(self.subject)

    def same(self, what: str, work: Callable[[Side], JSON]) -> JSON:
        """Do the same with both and fail unless the JSON outcomes agree; the subject's."""
        reference, subject = self.each(work)
        if exact(reference) != exact(subject):
            raise AssertionError(
                f"{what}\n  {self.reference.name}: {exact(reference)}\n"
                f"  {self.subject.name}: {exact(subject)}{self._history()}"
            )
        return subject

    def ask(self, command: str, arguments: JSON = None, **members: JSON) -> Message:
        """Execute a command on both; the answer that they agree on."""
        what = exact({"execute": command, "arguments": arguments, **members})
        answer = self.same(what, lambda side: side.ask(command, arguments, **members))
        self.log.append(f"{what} -> {exact(answer)}")
        assert isinstance(answer, dict)
        return answer

    def refuse(self, command: str, arguments: JSON = None, **members: JSON) -> str:
        """As `ask`, for what both refuse: the error's text, and nothing has changed in memd."""
        before = self.subject.holdings()
        answer = self.ask(command, arguments, **members)
        assert "error" in answer, answer
        self.subject.expect_unchanged(before)
        return str(answer["error"]["desc"])

    def raw(self, data: bytes) -> list[Message]:
        """Send bytes to both; the messages that they agree on."""
        messages = self.same(repr(data), lambda side: side.raw(data))
        self.log.append(f"{data!r} -> {exact(messages)}")
        assert isinstance(messages, list)
        return messages

    def raw_request(self, request: JSON) -> list[Message]:
        """Send a JSON value to both; the messages that they agree on."""
        return self.raw(json.dumps(request).encode())

    def add(self, kind: str, name: str = "m", **options: JSON) -> Message:
        """object-add of a memory-backend-KIND; underscores in options stand for dashes."""
        arguments = {"qom-type": f"memory-backend-{kind}", "id": name}
        arguments.update((option.replace("_", "-"), value) for option, value in options.items())
        return self.ask("object-add", arguments)

    def expect_same_regions(self, count: int | None = None) -> list[Mapping]:
        """Fail unless both have the same regions mapped, `count` of them; the regions."""
        if count == 0:
            # QEMU frees a deleted backend's memory after a grace period. What flags mappings
            # have takes ten times as long to tell as that there are none.
            settle(lambda: self.each(Side.has_regions), lambda both: both == (False, False), 1)
        seen = self._expect_same("region", Side.regions, count)
        assert count is None or len(seen) == count, [*map(str, seen)]
        return seen

    def expect_same_files(self) -> None:
        """Fail unless the same files lie in both scratch directories."""
        self._expect_same("file", lambda side: [f"{n}: {f}" for n, f in side.files().items()])

    def expect_same_kernel(self) -> list[Mapping]:
        """Fail unless both have the same regions and files; the regions."""
        self.expect_same_files()
        return self.expect_same_regions()

    def _expect_same(
        self, what: str, observe: Callable[[Side], list[T]], count: int | None = None
    ) -> list[T]:
        # QEMU frees a deleted backend's memory after a grace period.
        seen = settle(
            lambda: self.each(observe),
            lambda both: both[0] == both[1] and count in (None, len(both[0])),
        )
        reference, subject = ([str(row) for row in rows] for rows in seen)
        report: list[str] = []
        for side, ours, theirs in (
            (self.reference, reference, subject),
            (self.subject, subject, reference),
        ):
            alone = Counter(ours) - Counter(theirs)
            report.extend(f"{what} of {side.name} alone: {row}" for row in alone.elements())
        if report:
            raise AssertionError("\n  ".join(report) + self._history())
        return seen[1]

    def expect_nothing_mapped(self) -> None:
        """Fail unless both free every region, and left the same files."""
        self.expect_same_regions(count=0)
        self.expect_same_files()

    def _history(self) -> str:
        lines = [self.note, *self.log[-12:]]
        return "\n  after " + "\n    ".join(lines)
