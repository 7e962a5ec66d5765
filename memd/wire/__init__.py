"""Framing, QEMU's JSON dialect, encoding: bytes in, values out. No sockets."""

from __future__ import annotations

from memd.wire.decoder import Decoder
from memd.wire.encoder import encode

__all__ = ["Decoder", "encode"]
