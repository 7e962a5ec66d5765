"""The garbage of a store: blobs, records of packs and versions that no name leads to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from memd.pages import unpacked
from memd.pages.blobs import Blobs
from memd.pages.cache import Cache
from memd.pages.contents import Contents
from memd.pages.layout import ChunkPlaces, Place
from memd.pages.names import Version

_GARBAGE = 4
"""A pack of which one part in so many is garbage is written anew."""


def collect(contents: Contents, copies: str, cache: Cache) -> None:
    """Remove it; nobody changes the store meanwhile.

    Args:
        contents: of the store.
        copies: the directory of unpacked copies: a former version goes once nobody uses its own.
        cache: fetched chunks, of which those of no template go.

    Raises:
        Damaged: a template is, so that what belongs to it can't be told from garbage.
        OSError: the file system fails; what is not garbage is there.
    """
    found = dict(contents.entries())
    used = {
        name: [
            entry.version,
            *(
                version
                for version in entry.versions[1:]
                if not unpacked.drop(copies, contents.manifest_of(version).unpacked)
            ),
        ]
        for name, entry in found.items()
    }
    versions = [version for each in used.values() for version in each]
    records: set[Place] = set()
    for version in versions:
        places = contents.places_of(version)
        if any(map(contents.blobs.has, places.packs)):
            records.update(places)
    moved = _rewrite(contents.blobs, records)
    live: set[str] = set()
    for name, entry in found.items():
        changed = replace(
            entry, versions=[_moved(contents, version, moved) for version in used[name]]
        )
        if changed != entry:
            contents.write(name, changed)
        for version in (*changed.versions, *([entry.origin.version] if entry.origin else [])):
            manifest = contents.manifest_of(version)
            live |= {version.manifest, version.places, *contents.places_of(version).packs}
            live |= {blob.digest for blob in manifest.blobs.values()}
    for digest in contents.blobs.digests():
        if digest not in live:
            contents.blobs.remove(digest)
    if cache.taken():
        layouts = [contents.layout_of(contents.manifest_of(version)) for version in versions]
        cache.keep_only(
            {layout.digest(number) for layout in layouts for number in range(len(layout))}
        )


def _rewrite(blobs: Blobs, records: Iterable[Place]) -> dict[Place, Place]:
    """Write packs with much garbage anew; gives where their records went."""
    packs: dict[str, list[Place]] = {}
    for place in sorted(records):
        packs.setdefault(place.pack, []).append(place)
    moved: dict[Place, Place] = {}
    for pack, there in packs.items():
        left = sum(place.length for place in there)
        if not blobs.has(pack) or left > blobs.size(pack) * (_GARBAGE - 1) // _GARBAGE:
            continue
        with blobs.create() as new:
            offsets = [new.write(blobs.read_at(*place)) for place in there]
            digest = new.finish()
        for place, offset in zip(there, offsets, strict=True):
            moved[place] = Place(digest, offset, place.length)
    return moved


def _moved(contents: Contents, version: Version, moved: dict[Place, Place]) -> Version:
    places = contents.places_of(version) if moved else ChunkPlaces()
    if moved.keys().isdisjoint(places):
        return version
    changed = ChunkPlaces(moved.get(place, place) for place in places)
    return replace(version, places=contents.blobs.put(changed.encode()).digest)
