"""A dirty bitmap, and what is done with bits.

Bits are a number whose lowest bit is that of the first bytes. Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.places import Share

MOST_BYTES = 64 << 20
"""Bytes of a bitmap's bits at most."""

_EVEN = bytes(sum((each >> 2 * at & 3 and 1) << at for at in range(4)) for each in range(256))
"""Half as many bits: each is set where one of two is."""
_ODD = bytes(each << 4 for each in _EVEN)
_LOW = bytes(sum((each >> at & 1) * 3 << 2 * at for at in range(4)) for each in range(256))
"""Twice as many bits, of the lower half of a byte."""
_HIGH = bytes(_LOW[each >> 4] for each in range(256))


class Bitmap:
    """A dirty bitmap of a node.

    Attributes:
        name: unique among those of its node.
        granularity: the bytes of which each bit tells.
        recording: whether writes would be told in it.
        persistent: whether it is to be in the image.
        readonly: whether it is there, and may not be changed as the image may not be.
        inconsistent: whether nobody knows its bits.
        raw: its name in the image.
        changed: whether the image has other bits.
        busy: whether a job, an export or a transaction keeps others from it.
        counted: what it counts as.
    """

    def __init__(
        self,
        name: str,
        granularity: int,
        recording: bool,
        counted: Share,
        *,
        persistent: bool,
        raw: bytes | None = None,
    ) -> None:
        self.name = name
        self.granularity = granularity
        self.recording = recording
        self.persistent = persistent
        self.raw = name.encode(errors="surrogatepass") if raw is None else raw
        self.readonly = self.inconsistent = self.busy = False
        self.changed = persistent
        self.counted = counted
        self._bits = self._dirty = 0

    @property
    def bits(self) -> int:
        """Those that are set."""
        return self._bits

    def set_bits(self, bits: int) -> None:
        """Have other bits; raises `QMPError` where its user has too much."""
        if bits == self._bits:
            return
        length, before = -(-bits.bit_length() // 8), -(-self._bits.bit_length() // 8)
        if length > MOST_BYTES:
            raise QMPError(f"memd keeps no more than {MOST_BYTES} bytes of a bitmap's bits")
        self.counted.add(length - before)
        self._bits, self._dirty = bits, bits.bit_count()
        self.changed = True

    def check_free(self, *, changes: bool = False, lost: bool = False) -> None:
        """Raise `QMPError` where it can't be used.

        Args:
            changes: whether it would be changed.
            lost: whether that is possible though nobody knows its bits.
        """
        if self.busy:
            raise QMPError(
                f"Bitmap '{self.name}' is currently in use by another operation and cannot be used"
            )
        if changes and self.readonly:
            raise QMPError(f"Bitmap '{self.name}' is readonly and cannot be modified")
        if self.inconsistent and not lost:
            raise QMPError(
                f"Bitmap '{self.name}' is inconsistent and cannot be used",
                hint="Try block-dirty-bitmap-remove to delete this bitmap from disk",
            )

    def told(self) -> JSONObject:
        """QAPI's `BlockDirtyInfo`."""
        told: JSONObject = {
            "name": self.name,
            "count": self._dirty * self.granularity,
            "granularity": self.granularity,
            "recording": self.recording and not self.inconsistent,
            "busy": self.busy,
            "persistent": self.persistent,
        }
        if self.inconsistent:
            told["inconsistent"] = True
        return told


def regrained(bits: int, granularity: int, wanted: int) -> int:
    """Bits for another granularity; may take long for many.

    Raises:
        QMPError: they are too many.
    """
    data = bits.to_bytes(-(-bits.bit_length() // 16) * 2, "little")
    while granularity < wanted:
        low, high = data[::2].translate(_EVEN), data[1::2].translate(_ODD)
        both = int.from_bytes(low, "little") | int.from_bytes(high, "little")
        data = both.to_bytes(-(-len(low) // 2) * 2, "little")
        granularity *= 2
    while granularity > wanted:
        if 2 * len(data) > 2 * MOST_BYTES:
            raise QMPError(f"memd keeps no more than {MOST_BYTES} bytes of a bitmap's bits")
        twice = bytearray(2 * len(data))
        twice[::2], twice[1::2] = data.translate(_LOW), data.translate(_HIGH)
        data = bytes(twice)
        granularity //= 2
    return int.from_bytes(data, "little")


def cut(bits: int, size: int, granularity: int) -> int:
    """The bits that tell of so many bytes."""
    most = -(-size // granularity)
    return bits & (1 << most) - 1 if bits.bit_length() > most else bits
