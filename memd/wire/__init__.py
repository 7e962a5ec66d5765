"""Framing, QEMU's JSON dialect, encoding: bytes in, values out. No sockets."""

from __future__ import annotations

from memd.wire.decoder import MORE, NEED_DATA, Decoder
from memd.wire.encoder import encode
from memd.wire.large import Large

__all__ = ["MORE", "NEED_DATA", "Decoder", "Large", "encode"]
