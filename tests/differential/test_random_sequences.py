"""Random sequences of commands, good and bad, with memd's answers held against QEMU's.

The seed is in every failure. `MEMD_SEED` repeats a sequence, `MEMD_RANDOM_COMMANDS`
makes it longer. What is known to end or hang the reference is never generated
(`Words.object_add`): tests/test_survives.py has that for memd alone.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side, fresh_id
from tests.differential.server import Message

COMMANDS = int(os.environ.get("MEMD_RANDOM_COMMANDS", "1500"))
STREAMS = 2
"""Independent sequences, one a worker; together they have `COMMANDS` commands."""

KIB = 1 << 10
MIB = 1 << 20

IDS = ["m0", "m1", "m2", "m3", "tc0", "objects", "a.b"]
TYPES = [
    *["memory-backend-ram", "memory-backend-file", "memory-backend-memfd", "memory-backend-shm"],
    "thread-context",
]
# Anything up to here QEMU survives; beyond, some sizes abort it.
IMPOSSIBLE_SIZES = [1 << 50, 1 << 62, 1 << 63]
SMALL_SIZES = [1, 100, 4095, 4 * KIB, 8 * KIB, 64 * KIB, 4097, MIB, MIB + 4 * KIB, 2 * MIB]
JUNK: list[Any] = [
    *[None, True, False, 0, 1, -1, 1.0, 2.5],
    *["", "x", "on", "1M", [], [0], {}, {"a": 1}],
]
PROPERTIES = [
    *["size", "share", "merge", "dump", "prealloc", "prealloc-threads", "prealloc-context"],
    *["reserve", "policy", "host-nodes", "x-use-canonical-path-for-ramblock-id", "type"],
    *["mem-path", "align", "offset", "pmem", "readonly", "rom", "discard-data"],
    *["hugetlb", "hugetlbsize", "seal", "cpu-affinity", "node-affinity", "nope", ""],
]
KEEPING = ("backing store", "failed to", "must be multiple")
"""In the refusals after which the reference may keep a descriptor for the id; see `fresh_id`."""
EXISTING = ["full", "small", "odd", "empty", "link"]


def stock(side: Side) -> None:
    """The files that a mem-path may name."""
    (side.scratch / "full").write_bytes(b"content!" * (2 * MIB // 8))
    (side.scratch / "small").write_bytes(b"x" * 4096)
    (side.scratch / "odd").write_bytes(b"y" * (MIB + 100))
    (side.scratch / "empty").touch()
    (side.scratch / "dir").mkdir()
    (side.scratch / "link").symlink_to("full")


class Words:
    """Makes commands up.

    Args:
        random_: where every choice comes from.
    """

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.ids = [*IDS]
        self.roms: set[Any] = set()

    def learn(self, command: str, arguments: dict[str, Any], answer: Message) -> None:
        """Take note of what an object-add came to."""
        if command != "object-add" or "id" not in arguments:
            return
        id_ = arguments["id"]
        if "return" in answer and arguments.get("readonly"):
            self.roms.add(id_)
        desc = answer.get("error", {}).get("desc", "")
        if id_ in self.ids and any(words in desc for words in KEEPING):
            self.ids[self.ids.index(id_)] = fresh_id()

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def path(self) -> str:
        return self.random.choice(
            [f"@DIR@/{name}" for name in EXISTING]
            + [f"@DIR@/{name}" for name in ("new0", "new1", "dir", "dir/new", "", "no/new")]
            + ["/dev/zero", "/dev/null", "@DIR@/full/below", "@DIR@/dir/../full", ""]
        )

    def size(self) -> Any:
        if self.often(0.05):
            return self.random.choice(IMPOSSIBLE_SIZES)
        if self.often(0.08):
            # A size of -1 is 2^64 - 1, which aborts the reference.
            return self.random.choice([junk for junk in JUNK if junk != -1])
        return self.random.choice(SMALL_SIZES)

    def value(self, name: str) -> Any:
        """A value for a property, mostly of the right type."""
        choose = self.random.choice
        if name == "size":
            return self.size()
        if self.often(0.08):
            return choose(JUNK)
        match name:
            case "policy":
                return choose(["default", "bind", "preferred", "interleave", "Bind"])
            case "host-nodes" | "node-affinity":
                return choose([[0], [0], [], [0, 0], [1], [127], [128], [99, 0], [-1], ["0"], 0])
            case "cpu-affinity":
                return choose([[0], [1], [0, 1], [], [70000], [-1]])
            case "prealloc-threads":
                return choose([1, 2, 3, 4, 0, -1, 1 << 32])
            case "prealloc-context":
                return choose(["tc0", self.ids[0], "nope", "", "/objects/tc0", "objects"])
            case "mem-path":
                return self.path()
            case "align":
                return choose([0, 4 * KIB, 8 * KIB, 2 * MIB, 3, 4095, 12 * KIB, 1])
            case "offset":
                return choose([0, 4 * KIB, MIB, 64 * KIB, 100, 1 << 40, 1 << 63])
            case "rom":
                return choose(["on", "off", "auto", "On"])
            case "hugetlbsize":
                return choose([0, 4 * KIB, 2 * MIB, 3])
            case _:
                return self.often(0.5)

    def options(self, type_: str) -> list[str]:
        common = [
            *["share", "merge", "dump", "prealloc", "prealloc-threads", "prealloc-context"],
            *["reserve", "policy", "host-nodes", "x-use-canonical-path-for-ramblock-id"],
        ]
        own = {
            "memory-backend-file": [
                *["align", "offset", "pmem", "readonly", "rom", "discard-data", "readonly", "rom"],
            ],
            "memory-backend-memfd": ["hugetlbsize", "seal"],
            "thread-context": ["cpu-affinity", "node-affinity"],
        }.get(type_, [])
        names = own if type_ == "thread-context" else common + own
        count = self.random.choice([0, 0, 1, 1, 2, 3, 5])
        chosen = [self.random.choice(names) for _ in range(count)]
        if self.often(0.03):
            chosen.append(self.random.choice(PROPERTIES))
        return chosen

    def object_add(self) -> dict[str, Any]:
        type_ = self.random.choice(TYPES)
        arguments: dict[str, Any] = {"qom-type": type_, "id": self.random.choice(self.ids)}
        if type_ != "thread-context":
            arguments["size"] = self.size()
        if type_ == "memory-backend-file":
            arguments["mem-path"] = self.path()
        for name in self.options(type_):
            arguments[name] = self.value(name)
        if self.often(0.05):
            del arguments[self.random.choice(list(arguments))]
        if self.often(0.02):
            arguments["id"] = self.random.choice(["", "9", "a/b", "a b", 5, None, fresh_id() * 9])
        if self.often(0.02):
            arguments["qom-type"] = self.random.choice(["foo", "container", 1, "memory-backend"])
        # Preallocating a ROM, now or by a later qom-set, ends the reference.
        if arguments.get("prealloc") is not False and arguments.get("readonly"):
            arguments["prealloc"] = False
        # A refusal after mapping discards the reference's file, memd's is left alone.
        if arguments.get("discard-data") and ("policy" in arguments or "host-nodes" in arguments):
            del arguments["discard-data"]
        if arguments.get("discard-data"):
            arguments["size"] = self.random.choice([4 * KIB, 64 * KIB, MIB])
        # A pool of huge pages is the machine's: another test may have filled it.
        arguments.pop("hugetlb", None)
        return arguments

    def name(self) -> str:
        name = self.random.choice(self.ids)
        return self.random.choice(
            [name] * 5
            + [f"/objects/{name}", f"objects/{name}", f"//objects//{name}/", f"{name}/{name}[0]"]
            + ["/objects", "/", "", "nope", f"/{name}"]
        )

    def command(self) -> tuple[str, dict[str, Any] | None]:
        """A command and its arguments."""
        kind = self.random.choices(
            ["object-add", "object-del", "qom-get", "qom-set", "qom-list", "query-memdev"],
            [30, 18, 20, 14, 5, 5],
        )[0]
        match kind:
            case "object-add":
                return kind, self.object_add()
            case "object-del":
                return kind, {"id": self.random.choice([*self.ids * 3, "nope", "", 5])}
            case "qom-list":
                return kind, {"path": self.name()}
            case "qom-get":
                return kind, {"path": self.name(), "property": self.random.choice(PROPERTIES)}
            case "qom-set":
                property_ = self.random.choice(PROPERTIES)
                value = self.value(property_)
                path = self.name()
                if property_ == "prealloc" and any(f"/{id_}" in f"/{path}" for id_ in self.roms):
                    value = False
                return kind, {"path": path, "property": property_, "value": value}
        return kind, None


def mend(side: Side, other: Side) -> None:
    """Remove what the reference leaves behind where it refuses and memd cleans up."""
    ours, theirs = side.files(), other.files()
    for name in set(ours) - set(theirs):
        (side.scratch / name).unlink()


@pytest.mark.parametrize("stream", range(STREAMS))
def test_random_sequence(new_pair: Pair, stream: int) -> None:
    seed = os.environ.get("MEMD_SEED") or f"{random.SystemRandom().getrandbits(32)}"
    words = Words(random.Random(f"{seed}/{stream}"))
    count = COMMANDS // STREAMS
    pair = new_pair
    pair.note = f"MEMD_SEED={seed} MEMD_RANDOM_COMMANDS={COMMANDS}, sequence {stream}"
    print(pair.note)
    pair.each(stock)
    for number in range(count):
        command, arguments = words.command()
        answer = pair.ask(command, arguments, id=number)
        words.learn(command, arguments or {}, answer)
        if command == "object-add" and "error" in answer:
            mend(pair.reference, pair.subject)
        if number % 25 == 24:
            pair.expect_same_kernel()
        if number % 100 == 99:
            for side in (pair.reference, pair.subject):
                for name in ("new0", "new1", "dir/new"):
                    Path(side.scratch / name).unlink(missing_ok=True)
    for name in pair.subject.objects():
        pair.ask("object-del", {"id": name})
    pair.expect_nothing_mapped()
