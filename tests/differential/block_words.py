"""Draws commands about block nodes: good ones and bad ones, of what there is and what is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

SIZE = 4 << 20
RAW = ("r0", "r1", "r2")
IMAGES = ("q0", "q1", "q2", "q3")
"""The files that there are before: holes, and empty qcow2 images."""

NODES = tuple(f"n{number}" for number in range(8))
DEVICES, JOBS, EXPORTS, BITMAPS = ("d0", "d1", "d2"), ("j0", "j1"), ("e0", "e1"), ("b0", "b1")

Args = dict[str, Any]
Command = tuple[str, Args]


class Words:
    """Makes commands up.

    Args:
        random_: where every choice comes from.

    Attributes:
        nodes: the names of the nodes that there are; the others alike.
        bitmaps: nodes, and the names of their bitmaps.
    """

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self.nodes: Sequence[str] = ()
        self.devices: Sequence[str] = ()
        self.jobs: Sequence[str] = ()
        self.exports: Sequence[str] = ()
        self.bitmaps: Sequence[tuple[str, str]] = ()

    def _often(self, share: float) -> bool:
        return self._random.random() < share

    def _one(self, there: Sequence[str], of: Sequence[str]) -> str:
        """Mostly one that there is."""
        return self._random.choice(of if not there or self._often(0.08) else there)

    def _new(self, there: Sequence[str], of: Sequence[str]) -> str:
        """Mostly one that there is not."""
        return self._one([name for name in of if name not in there], of)

    def _node(self) -> str:
        return self._one(self.nodes, NODES)

    def _some(self, **options: tuple[float, Sequence[Any]]) -> Args:
        """Some of the options, each as often as told."""
        return {
            name.replace("_", "-"): self._random.choice(values)
            for name, (share, values) in options.items()
            if self._often(share)
        }

    def _common(self) -> Args:
        return self._some(
            read_only=(0.2, (True, True, False)),
            auto_read_only=(0.08, (True, False)),
            discard=(0.15, ("unmap", "ignore")),
            detect_zeroes=(0.06, ("on", "off", "unmap")),
            cache=(0.06, ({"direct": False}, {"no-flush": True})),
            force_share=(0.04, (True, False)),
        )

    def _file(self, names: Sequence[str]) -> Args:
        path = f"@DIR@/{self._random.choice(names)}"
        return {"driver": "file", "filename": path, **self._common()}

    def _below(self, names: Sequence[str]) -> Any:
        if self.nodes and self._often(0.45):
            return self._node()
        named = {"node-name": self._new(self.nodes, NODES)} if self._often(0.3) else {}
        return {**self._file(names), **named}

    def _options(self) -> Args:
        kind = self._random.choice(
            ("file", "raw", "raw", "qcow2", "qcow2", "null-co", "throttle", "copy-on-read")
        )
        made: Args = {"driver": kind, **self._common()}
        match kind:
            case "file":
                made = self._file(RAW)
            case "raw":
                made |= {"file": self._below(RAW), **self._some(size=(0.1, (512, SIZE)))}
            case "qcow2":
                made |= {"file": self._below(IMAGES)}
                if self._often(0.5):
                    made["backing"] = self._random.choice((None, self._node(), self._node()))
            case "null-co":
                made |= {"size": self._random.choice((SIZE, SIZE, 1 << 20))}
            case _:
                group = {"throttle-group": "g"} if kind == "throttle" else {}
                made |= {"file": self._node(), **group}
        return {**made, "node-name": self._new(self.nodes, NODES)}

    def _job(self) -> Args:
        return {
            "job-id": self._new(self.jobs, JOBS),
            "device": self._node(),
            **self._some(auto_finalize=(0.3, (False, False, True))),
        }

    def _target(self) -> Args:
        sync = self._random.choice(("full", "top", "none", "none"))
        return {**self._job(), "sync": sync, "target": self._node()}

    def _stream(self) -> Args:
        return {**self._job(), **self._some(base_node=(0.3, (self._node(),)))}

    def _commit(self) -> Args:
        some = self._some(top_node=(0.4, (self._node(),)), base_node=(0.4, (self._node(),)))
        return {**self._job(), **some}

    def _snapshot(self) -> Command:
        return "blockdev-snapshot", {"node": self._node(), "overlay": self._node()}

    def _bitmap(self) -> Command:
        if not self.bitmaps or self._often(0.4):
            name = self._random.choice(BITMAPS)
            return "block-dirty-bitmap-add", {"node": self._node(), "name": name}
        node, name = self._random.choice(self.bitmaps)
        verb = self._random.choice(("remove", "clear", "enable", "disable"))
        return f"block-dirty-bitmap-{verb}", {"node": node, "name": name}

    def _export(self) -> Args:
        return {
            "type": "nbd",
            "id": self._new(self.exports, EXPORTS),
            "node-name": self._node(),
            **self._some(writable=(0.5, (True, True, False))),
        }

    def _device(self) -> Args:
        return {
            "driver": self._random.choice(("scsi-hd", "scsi-hd", "scsi-cd")),
            "id": self._new(self.devices, DEVICES),
            "drive": self._node(),
            **self._some(share_rw=(0.15, (True,))),
        }

    def command(self) -> Command:
        """A command, and its arguments."""
        if len(self.nodes) < 2 or self._often(0.2):
            return "blockdev-add", self._options()
        verb = self._random.choice(("cancel", "complete", "finalize", "dismiss", "pause", "resume"))
        size = self._random.choice((SIZE, SIZE * 2))
        return self._random.choice(
            [
                ("blockdev-del", {"node-name": self._node()}),
                ("device_add", self._device()),
                ("device_del", {"id": self._one(self.devices, DEVICES)}),
                ("blockdev-mirror", self._target()),
                ("blockdev-backup", self._target()),
                ("block-commit", self._commit()),
                ("block-stream", self._stream()),
                *[(f"job-{verb}", {"id": self._one(self.jobs, JOBS)})] * 3,
                ("block-export-add", self._export()),
                ("block-export-del", {"id": self._one(self.exports, EXPORTS)}),
                ("block_resize", {"node-name": self._node(), "size": size}),
                self._bitmap(),
                self._snapshot(),
            ]
        )
