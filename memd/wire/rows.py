"""Arrays that are long, as answers: encoded row by row."""

from __future__ import annotations

from collections.abc import AsyncIterator

from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire.encoder import encode
from memd.work import Encoded

_LARGEST = 16 << 20
"""Bytes of such an array."""


async def encode_rows(rows: AsyncIterator[JSON]) -> Encoded:
    """Encode each row as it comes: all of them in one go would block the loop.

    Raises:
        QMPError: they have too many bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for row in rows:
        parts.append(encode(row).rstrip())
        size += len(parts[-1])
        if size > _LARGEST:
            raise QMPError(f"the answer has more than {_LARGEST} bytes")
    return Encoded(b"[" + b", ".join(parts) + b"]")
