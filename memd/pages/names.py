"""The small file below names/, in a store or at a source: the versions of a template."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from memd.pages.blobs import DIGEST


@dataclass(frozen=True, slots=True)
class Version:
    """A template, as a store or a source has it.

    Attributes:
        manifest: its digest.
        places: the digest of where its chunks are.
    """

    manifest: str
    places: str

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.manifest) or not DIGEST.fullmatch(self.places):
            raise ValueError("no digests")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a template is as well.

    Attributes:
        url: the source.
        version: what its name leads to there.
    """

    url: str
    version: Version


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of such a file.

    Attributes:
        versions: the present one, then former ones that are in use still.
        origin: where it is as well, None for nowhere.
    """

    versions: list[Version]
    origin: Origin | None = None

    @property
    def version(self) -> Version:
        """The present one."""
        return self.versions[0]

    def encode(self) -> bytes:
        """As bytes."""
        origin = self.origin
        source = {"url": origin.url, **asdict(origin.version)} if origin else None
        told = {"versions": [asdict(each) for each in self.versions], "source": source}
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """From bytes.

        Raises:
            ValueError: they are none.
        """
        try:
            told = json.loads(data)
            versions = [_version(each) for each in told["versions"]]
            source = told["source"]
            origin = Origin(str(source["url"]), _version(source)) if source else None
            return cls([versions[0], *versions[1:]], origin)
        except (TypeError, KeyError, IndexError):
            raise ValueError("no versions") from None


def _version(told: dict[str, Any]) -> Version:
    return Version(told["manifest"], told["places"])
