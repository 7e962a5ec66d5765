"""The register of directories for guests (`-fsdev`): nothing is ever read or written there.

Rules and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError, prefixed, refusing
from memd.hostmem.file_systems import of_paths
from memd.hostmem.paths import encode_path, open_path
from memd.json_types import JSONObject
from memd.standin.block.throttling import NO_LIMITS, check_limits
from memd.work import Job

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

_MODELS = ("passthrough", "mapped-xattr", "mapped-file", "none")
_MULTIDEVS = ("remap", "forbid", "warn")
_TAG_MAX = 31


class Fsdevs:
    """The directories by id.

    Args:
        roots: what their paths have to be below; None for anywhere.
        compat: whose texts are told.
    """

    def __init__(self, roots: Roots | None, compat: Compat) -> None:
        self._roots = roots
        self._complaint = "failed to open" if compat is Compat.V10_0 else "Could not open"
        self._paths: dict[str, str | None] = {}

    def add(self, options: JSONObject) -> None:
        """`-fsdev`; raises `QMPError`."""
        id = options.pop("id")
        driver = options.pop("fsdriver", "")
        if driver not in ("local", "synth"):
            raise QMPError(f"fsdev: fsdriver {driver} not found")
        for name in options:
            if name in ("socket", "sock_fd") or (driver == "synth" and name != "readonly"):
                raise QMPError(f"'{name}' is invalid for fsdriver '{driver}'")
        if driver == "local":
            _check_local(options)
        self._paths[id] = options.get("path")

    async def check(self, id: str | None, tag: str | None) -> None:
        """Raise `QMPError` where a device can't have a directory.

        Args:
            id: of the directory; None where none was named.
            tag: the guest's name for it; None where there is none.
        """
        if id not in self._paths:
            raise QMPError(
                f"9pfs device couldn't find fsdev with the id = {'NULL' if id is None else id}"
            )
        if tag is None:
            raise QMPError(f"fsdev with id {id} needs mount_tag arguments")
        length = len(tag.encode("utf-8", "surrogateescape"))
        if length > _TAG_MAX:
            raise QMPError(
                f"mount tag '{tag}' ({length} bytes) is longer than maximum ({_TAG_MAX} bytes)"
            )
        path = self._paths[id]
        if path is not None:
            with refusing(f"cannot initialize fsdev '{id}': {self._complaint} '{path}'"):
                await Job(lambda: self._look(path), on=of_paths([path]))

    def _look(self, path: str) -> None:
        os.close(open_path(encode_path(path), os.O_DIRECTORY | os.O_CLOEXEC, self._roots))


def _check_local(options: JSONObject) -> None:
    model = options.get("security_model")
    if model not in (*_MODELS, "mapped"):
        hint = f"Valid options are: security_model=[{'|'.join(_MODELS)}]"
        said = "property not set" if model is None else f"property '{model}'"
        raise QMPError(f"{'' if model is None else 'invalid '}security_model {said}", hint=hint)
    multidevs = options.get("multidevs", "remap")
    if multidevs not in _MULTIDEVS:
        hint = f"Valid options are: multidevs=[{'|'.join(_MULTIDEVS)}]"
        raise QMPError(f"invalid multidevs property '{multidevs}'", hint=hint)
    if "path" not in options:
        raise QMPError("path property not set")
    if not model.startswith("mapped"):
        for name in ("fmode", "dmode"):
            if name in options:
                raise QMPError(f"{name} is only valid for mapped security modes")
    limits = {
        name.removeprefix("throttling."): value
        for name, value in options.items()
        if name.startswith("throttling.")
    }
    with prefixed("invalid throttle configuration: "):
        check_limits(NO_LIMITS | limits)
