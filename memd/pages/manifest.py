"""The description of a template: everything that its digest stands for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from memd.pages.blobs import DIGEST, Blob, Damaged
from memd.pages.chunks import CHUNK_PAGES
from memd.pages.recording import PAGE

MOST_MANIFEST = 1 << 20
"""Bytes of a manifest at most: some thousand blocks of memory."""

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class TemplateBlock:
    """A block of a machine's memory.

    Attributes:
        id: its name in a migration stream.
        length: in bytes.
        page_size: in bytes.
        offset: where it begins in the template's memory, in bytes; None where its
            content is in the device stream.
    """

    id: str
    length: int
    page_size: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A template.

    Attributes:
        size: of its memory, in bytes.
        data: bytes of it that are not zeroes.
        layout: the pages, and the digests of their chunks.
        page_size: of the machine's memory, in bytes; of its first block.
        chunk_size: bytes that a chunk has as a rule.
        machine: the machine type; "" where there are no devices.
        qemu_version: of the QEMU that was saved; "" where it is not known.
        blocks: all blocks of the stream, the memory's included.
        devices: the device stream; None for memory alone.
        working_set: page numbers in order, 32 bits each, little-endian.
    """

    size: int
    data: int
    layout: Blob
    page_size: int = PAGE
    chunk_size: int = CHUNK_PAGES * PAGE
    machine: str = ""
    qemu_version: str = ""
    blocks: tuple[TemplateBlock, ...] = ()
    devices: Blob | None = None
    working_set: Blob | None = None

    def encode(self) -> bytes:
        """As bytes; the same template gives the same."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True).encode() + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of everything that it is, in hexadecimal digits."""
        return sha256(self.encode()).hexdigest()

    @property
    def starts(self) -> list[int]:
        """The first page of each block of the memory, ascending."""
        found = [each.offset // PAGE for each in self.blocks if each.offset is not None]
        return found or [0]

    @property
    def unpacked(self) -> str:
        """The name of its unpacked copy, in which each page has its address in its block."""
        return sha256(f"{self.layout.digest} {self.starts}".encode()).hexdigest()

    @property
    def blobs(self) -> dict[str, Blob]:
        """The blobs that it names, by what they are."""
        named = {"layout": self.layout, "devices": self.devices, "working-set": self.working_set}
        return {kind: blob for kind, blob in named.items() if blob}

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """From bytes.

        Raises:
            Damaged: they are not a manifest, or of a later memd.
        """
        try:
            told = json.loads(data)
            if told.pop("format") != _FORMAT:
                raise Damaged("a template's manifest is of another format than this memd reads")
            blocks = tuple(TemplateBlock(**each) for each in told.pop("blocks"))
            blobs = {name: _blob(told.pop(name)) for name in ("layout", "devices", "working_set")}
            manifest = cls(blocks=blocks, **blobs, **told)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Damaged("a template's manifest is damaged") from None
        if not manifest._sound():
            raise Damaged("a template's manifest is damaged")
        return manifest

    def _sound(self) -> bool:
        numbers = [self.size, self.data, self.page_size, self.chunk_size]
        numbers += [number for block in self.blocks for number in (block.length, block.page_size)]
        numbers += [block.offset for block in self.blocks if block.offset is not None]
        numbers += [blob.size for blob in self.blobs.values()]
        texts = [self.machine, self.qemu_version, *(each.id for each in self.blocks)]
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and all(type(text) is str for text in texts)
            and self.size % PAGE == 0
            and bool(self.layout)
        )


def _blob(told: Any) -> Any:
    if told is None:
        return None
    blob = Blob(**told)
    if type(blob.digest) is not str or not DIGEST.fullmatch(blob.digest):
        raise ValueError
    return blob
