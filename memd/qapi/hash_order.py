"""Which of several unexpected members an error names.

QEMU names one, the first that its hash tables happen to yield. Which one that
is depends on nothing but the names, so a client that compares texts sees the
same one each time, and gets it from memd too. Both orders were checked against
QEMU 10.0.2 and 11.1.3 with thousands of random sets of names:

- a JSON object's members come in the order of 512 buckets, by the hash that
  the tdb database made known, the youngest first within a bucket;
- the names that no visit has taken wait in a table of GLib's (`g_str_hash`,
  open addressing), filled in that order.

This is on the way to an error answer only, so it is written to be read. Of more names
than any command has, the first that was sent is named: what the tables do with thousands
of names, or with such as were chosen to meet in them, would keep other clients waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMES = 256
MOST_CHARACTERS = 16_384
"""Of all names together."""

_BUCKETS = 512
_MASK32 = 0xFFFFFFFF

_UNUSED = 0
_TOMBSTONE = 1
_SMALLEST_SHIFT = 3
# The largest prime below each power of two: GLib's moduli, by shift.
_PRIMES = (
    *(1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521),
    *(131071, 262139, 524287, 1048573, 2097143, 4194301, 8388593, 16777213),
)


def _are_too_many(names: list[str]) -> bool:
    return len(names) > MOST_NAMES or sum(map(len, names)) > MOST_CHARACTERS


def object_order(names: Iterable[str]) -> list[str]:
    """The members of a JSON object in the order in which QEMU walks them.

    Args:
        names: the members' names in the order in which they were sent, in which they
            stay where there are too many.
    """
    members = [*names]
    if _are_too_many(members):
        return members
    buckets: dict[int, list[str]] = {}
    for name in members:
        buckets.setdefault(_object_hash(name) % _BUCKETS, []).insert(0, name)
    return [name for _, bucket in sorted(buckets.items()) for name in bucket]


def first_unexpected(inserted: Iterable[str], taken: Iterable[str]) -> str | None:
    """The name that an error gives when `taken` are not all of `inserted`.

    Args:
        inserted: all names, in the order in which QEMU's table gets them:
            `object_order` for a JSON object.
        taken: the names that were visited, in that order.

    Returns:
        None if nothing is left over.
    """
    names = [*inserted]
    if _are_too_many(names):
        known = {*taken}
        return next((name for name in names if name not in known), None)
    table = _StringSet()
    for name in names:
        table.insert(name)
    for name in taken:
        table.remove(name)
    return table.first()


def _utf8(name: str) -> bytes:
    # QEMU keeps a NUL in two bytes, so that it does not end a name in C. A lone
    # surrogate cannot come from the wire; another caller's must not crash.
    return name.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def _object_hash(name: str) -> int:
    data = _utf8(name)
    value = 0x238F13AF * len(data)
    for index, byte in enumerate(data):
        value += byte << (index * 5 % 24)
    return (1103515243 * value + 12345) & _MASK32


def _string_hash(name: str) -> int:
    value = 5381
    for byte in _utf8(name):
        value = (value * 33 + (byte - 256 if byte > 127 else byte)) & _MASK32
    # 0 and 1 are marks in the table.
    return max(value, 2)


class _StringSet:
    """GLib's hash table, as far as the order of its walk depends on it."""

    def __init__(self) -> None:
        size = 1 << _SMALLEST_SHIFT
        self._hashes = [_UNUSED] * size
        self._names = [""] * size
        self._prime = _PRIMES[_SMALLEST_SHIFT]
        self._in_use = 0
        self._occupied = 0

    def first(self) -> str | None:
        for hashed, name in zip(self._hashes, self._names, strict=True):
            if hashed > _TOMBSTONE:
                return name
        return None

    def insert(self, name: str) -> None:
        hashed = _string_hash(name)
        index = self._find(name, hashed)
        before = self._hashes[index]
        if before > _TOMBSTONE:
            return
        self._hashes[index] = hashed
        self._names[index] = name
        self._in_use += 1
        if before == _UNUSED:
            self._occupied += 1
            self._fit()

    def remove(self, name: str) -> None:
        index = self._find(name, _string_hash(name))
        if self._hashes[index] <= _TOMBSTONE:
            return
        self._hashes[index] = _TOMBSTONE
        self._in_use -= 1
        self._fit()

    def _home(self, hashed: int) -> int:
        return ((hashed * 11) & _MASK32) % self._prime

    def _find(self, name: str, hashed: int) -> int:
        mask = len(self._hashes) - 1
        index = self._home(hashed)
        tombstone = None
        step = 0
        while self._hashes[index] != _UNUSED:
            if self._hashes[index] == hashed and self._names[index] == name:
                return index
            if self._hashes[index] == _TOMBSTONE and tombstone is None:
                tombstone = index
            step += 1
            index = (index + step) & mask
        return index if tombstone is None else tombstone

    def _fit(self) -> None:
        size = len(self._hashes)
        too_large = size > 1 << _SMALLEST_SHIFT and (size - 1) // 4 >= self._in_use
        if too_large or size <= self._occupied + self._occupied // 16:
            self._resize(size)

    def _resize(self, old_size: int) -> None:
        """Moves every entry to its place in a table of the right size.

        GLib does it within one array: an entry that lands on one that has not
        moved yet drives that one out, which is then placed next.
        """
        shift = max(int(self._in_use * 1.333).bit_length(), _SMALLEST_SHIFT)
        size = 1 << shift
        self._prime = _PRIMES[shift]
        grown = max(size - old_size, 0)
        hashes = self._hashes + [_UNUSED] * grown
        names = self._names + [""] * grown
        placed = [False] * len(hashes)
        for start in range(old_size):
            if placed[start]:
                continue
            hashed, name = hashes[start], names[start]
            hashes[start] = _UNUSED
            while hashed > _TOMBSTONE:
                index = self._home(hashed)
                step = 0
                while placed[index]:
                    step += 1
                    index = (index + step) & (size - 1)
                placed[index] = True
                hashed, hashes[index] = hashes[index], hashed
                name, names[index] = names[index], name
        self._hashes = hashes[:size]
        self._names = names[:size]
        self._occupied = self._in_use
