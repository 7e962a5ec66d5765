"""How a chunk is compressed, and how it is verified when it is unpacked.

A record is one byte that names the coding, and the coded bytes. The digest of a
chunk is that of its pages, so that hosts with other libraries store the same
chunk under the same name.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from memd.pages.blobs import Damaged
from memd.pages.recording import PAGE

CHUNK_PAGES = 16
"""Pages of a chunk: 64 KiB. One is unpacked in 63 us; of 256 KiB, what is stored is
15 % smaller, and who touches one page waits 200 us; of 16 KiB, it is 10 % larger (measured)."""

SET_PAGES = 64
"""Pages of a chunk of a working set, which is fetched in its order."""

MAX_PAGES = 256
"""Pages that a chunk may have, whatever wrote it."""

PACK = 64 << 20
"""Bytes after which a pack is closed: what is uploaded at once, and rewritten
when some of its chunks are deleted."""

MOST_PACK = PACK + MAX_PAGES * PAGE + 1
"""Bytes of a pack at most: its last record begins before it is closed."""

_RAW, _ZLIB, _ZSTD = b"0", b"d", b"z"

_LEVEL = 1
"""For both: zstd's level 6 takes five times longer and saves an eighth (measured)."""

_threads = threading.local()


def pack(data: bytes) -> bytes:
    """The record of a chunk."""
    tools = _zstd()
    coded = _ZSTD + tools[0](data) if tools else _ZLIB + zlib.compress(data, _LEVEL)
    return coded if len(coded) <= len(data) else _RAW + data


def unpack(record: bytes, length: int, digest: bytes) -> bytes:
    """The pages of a record, verified.

    Args:
        record: as `pack` made it, or anything else.
        length: bytes that it has to have.
        digest: SHA-256 of them.

    Raises:
        Damaged: it is not that chunk.
    """
    data = _decode(record[:1], record[1:], length)
    if len(data) != length or sha256(data).digest() != digest:
        raise Damaged(f"chunk {digest.hex()} is damaged")
    return data


def _decode(coding: bytes, coded: bytes, length: int) -> bytes:
    if coding == _RAW:
        return coded
    if coding == _ZLIB:
        try:
            return zlib.decompressobj().decompress(coded, length)
        except zlib.error:
            return b""
    if coding == _ZSTD:
        tools = _zstd()
        if tools is None:
            raise Damaged(
                "a chunk is compressed with zstd, for which there is no library here",
                hint="the extra templates brings it: in memd's source tree, pip install"
                " '.[templates]'",
            )
        return tools[1](coded, length)
    return b""


def _zstd() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]] | None:
    """This thread's compressor and decompressor, None where there is no library."""
    try:
        tools = _threads.zstd
    except AttributeError:
        tools = _threads.zstd = _standard_library() or _zstandard()
    return tools  # type: ignore[no-any-return]


def _library(name: str) -> Any:
    """A module; None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _standard_library() -> Any:
    zstd = _library("compression.zstd")
    if zstd is None:
        return None

    def decompress(coded: bytes, length: int) -> bytes:
        try:
            return zstd.ZstdDecompressor().decompress(coded, length)  # type: ignore[no-any-return]
        except zstd.ZstdError:
            return b""

    return lambda data: zstd.compress(data, _LEVEL), decompress


def _zstandard() -> Any:
    zstd = _library("zstandard")
    if zstd is None:
        return None
    decompressor = zstd.ZstdDecompressor()

    def decompress(coded: bytes, length: int) -> bytes:
        try:
            # A frame that says that it unpacks to gigabytes is not asked to.
            if zstd.frame_content_size(coded) != length:
                return b""
            return decompressor.decompress(coded)  # type: ignore[no-any-return]
        except zstd.ZstdError:
            return b""

    return zstd.ZstdCompressor(level=_LEVEL).compress, decompress
