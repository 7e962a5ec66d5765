"""An OCI registry as a source: a template is an image whose layers are its blobs."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from typing import IO, Any, cast
from urllib.parse import urlencode, urljoin, urlsplit

from memd.errors import refusing
from memd.pages.http import PATIENCE, HttpClient, WebSource
from memd.pages.names import Version
from memd.pages.sources import SourceError, Target, is_loopback

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TYPE = "application/vnd.memd.template.v1"
_PART = "application/vnd.memd.template.{}.v1"

_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")

_PIECE = 128 << 10
"""Bytes that are sent between two reports; each has to go within the 3 s of a connection."""


class Oci(WebSource, Target):
    """The source `oci://HOST[:PORT]/REPOSITORY`; a template's name is a tag.

    Args:
        url: as it was given.
        host: the registry's; in clear if it is this one, else with TLS.
        port: None for the ordinary one.
        repository: in the registry.
        patience: see `PATIENCE`.

    Raises:
        SourceError: that is not a repository's name.
    """

    def __init__(
        self, url: str, host: str, port: int | None, repository: str, patience: float = PATIENCE
    ) -> None:
        if not _REPOSITORY.fullmatch(repository):
            raise SourceError(f"'{url}' is not a template source: it names no repository")
        name = f"[{host}]" if ":" in host else host
        registry = name if port is None else f"{name}:{port}"
        scheme = "http" if is_loopback(host) else "https"
        self._base = f"{scheme}://{registry}/v2/{repository}"
        super().__init__(HttpClient(url, registry, patience), f"{self._base}/blobs/sha256:")

    def find(self, name: str) -> Version | None:
        url = f"{self._base}/manifests/{name}"
        data = self._client.find(url, name, {"Accept": _MANIFEST})
        if data is None:
            return None
        try:
            told = json.loads(data)
            kinds = {each["mediaType"]: each["digest"] for each in told["layers"]}
            digests = told["config"]["digest"], kinds[_PART.format("places")]
            return Version(*(str(each).removeprefix("sha256:") for each in digests))
        except (ValueError, TypeError, KeyError):
            raise SourceError(f"template source '{self.url}': '{name}' is not a template") from None

    def check(self) -> None:
        # A repository that nothing was pushed to is not there yet.
        tags = f"{self._base}/tags/list?n=1"
        self._client.request("GET", tags, what="its tags", expected=(200, 404))

    def has(self, digest: str) -> bool:
        answer = self._client.request(
            "HEAD", f"{self._blobs}{digest}", what=f"blob {digest}", expected=(200, 404)
        )
        return answer.status == 200

    def upload(self, digest: str, path: str, progress: Callable[[int], None]) -> None:
        begun = self._client.request("POST", f"{self._base}/blobs/uploads/")
        where = begun.headers.get("Location")
        if begun.status != 202 or where is None:
            raise self._client.refused(begun, "an upload")
        url = urljoin(self._base, where)
        url += ("&" if urlsplit(url).query else "?") + urlencode({"digest": f"sha256:{digest}"})
        with (
            refusing(f"template source '{self.url}'", SourceError),
            open(path, "rb", buffering=0) as file,
        ):
            size = os.fstat(file.fileno()).st_size
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            body = cast("IO[bytes]", _Sent(file, progress))
            what = f"blob {digest}"
            self._client.request("PUT", url, headers=headers, body=body, what=what, expected=(201,))

    def name(self, name: str, version: Version, blobs: list[tuple[str, str, int]]) -> None:
        described: list[dict[str, Any]] = [
            {"mediaType": _PART.format(kind), "digest": f"sha256:{digest}", "size": size}
            for kind, digest, size in blobs
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _TYPE,
            "config": next(each for each in described if version.manifest in each["digest"]),
            "layers": [each for each in described if version.manifest not in each["digest"]],
        }
        self._client.request(
            "PUT",
            f"{self._base}/manifests/{name}",
            headers={"Content-Type": _MANIFEST},
            body=json.dumps(manifest).encode(),
            what=f"template '{name}'",
            expected=(201,),
        )


class _Sent:
    """A file that tells how much of it was read."""

    def __init__(self, file: io.FileIO, progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress

    def read(self, _length: int = -1) -> bytes:
        data = self._file.read(_PIECE)
        self._progress(len(data))
        return data

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)
