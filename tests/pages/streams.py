"""A small migration stream, as QEMU writes one with x-ignore-shared."""

from __future__ import annotations

import struct

PAGE = 4096
MEMORY = 16 * PAGE
DEVICES = b"\x04" + b"state of devices" * 3
ROM = bytes(range(256)) * 16


def name(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def stream(
    *,
    version: int = 3,
    capability: str = "x-ignore-shared",
    blocks: tuple[tuple[str, int], ...] = (("ram", MEMORY), ("rom", PAGE + 100)),
    pages: tuple[bytes, ...] | None = None,
    devices: bytes = DEVICES,
) -> bytes:
    """A stream; its parts can be given otherwise."""
    total = sum(-(-size // PAGE) * PAGE for _name, size in blocks)
    if pages is None:
        pages = (
            struct.pack(">Q", 0 | 8) + name("rom") + ROM,
            struct.pack(">QB", PAGE | 2 | 0x20, 0),
        )
    footer = struct.pack(">QBI", 0x10, 0x7E, 2)
    description = b'{"devices": []}'
    return b"".join(
        (
            b"QEVM",
            struct.pack(">IBI", version, 7, 4),
            b"q35x",
            b"\x05" + name("configuration/capabilities"),
            struct.pack(">II", 1, 1) + name(capability),
            struct.pack(">BI", 1, 2) + name("ram"),
            struct.pack(">IIQ", 0, 4, total | 4),
            *(name(each) + struct.pack(">QQ", size, 0) for each, size in blocks),
            footer,
            struct.pack(">BI", 2, 2),
            *pages,
            footer,
            struct.pack(">BHH", 8, 11, 0),
            struct.pack(">BI", 3, 2),
            footer,
            devices,
            struct.pack(">BBI", 0, 6, len(description)),
            description,
        )
    )
