"""The options of `-drive`: what of them is the drive's, and what its block node's.

Options are texts by their dotted names. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.standin.block.nodes import DRIVERS, PROBED, Drive
from memd.standin.block.throttling import LIMITS

Typed = Callable[[JSONObject], JSONObject]
"""Gives the arguments of `blockdev-add`, which are texts, their types; raises `QMPError`."""

_CACHES = {
    "none": {"direct": True},
    "directsync": {"direct": True, "writeback": False},
    "writeback": {},
    "writethrough": {"writeback": False},
    "unsafe": {"no-flush": True},
}

_WORDS = {
    "werror": (("ignore", "report", "stop", "enospc"), "'{}' invalid write error action"),
    "rerror": (("ignore", "report", "stop"), "'{}' invalid read error action"),
    "aio": (("threads", "native", "io_uring"), "invalid aio option"),
    "copy-on-read": (("on", "off"), "Parameter 'copy-on-read' expects 'on' or 'off'"),
    "snapshot": (("off", "on"), "Parameter 'snapshot' expects 'on' or 'off'"),
    "discard": (("ignore", "off", "unmap", "on"), "Invalid discard option"),
    "cache": (tuple(_CACHES), "invalid cache option"),
    "detect-zeroes": (("on", "off", "unmap"), "invalid parameter value: {}"),
}
"""Options with what they may be, and what is said of anything else."""

_DISCARD = {"on": "unmap", "off": "ignore"}
"""What drives say for what block nodes say."""

LIMIT_OPTIONS = {
    **{
        f"{name}{end}": f"throttling.{other}{end.replace('_', '-')}"
        for name, other in LIMITS.items()
        for end in ("", "_max", "_max_length")
    },
    "iops_size": "throttling.iops-size",
    "group": "throttling.group",
}
"""Limits of throughput as `block_set_io_throttle` has them, and as options: both are."""

_UNEXPECTED = r"Parameter '([^']+)' is unexpected"

_UNKNOWN = r"Parameter '(?:.*\.)?driver' does not accept value '(.*)'"

_MISSING = {
    "Parameter 'file' is missing": 'A block device must be specified for "file"',
    "Parameter 'filename' is missing": "The 'file' block driver requires a file name",
}

_PROTOCOL = r"[a-z][a-z0-9+.-]*(?=:)"


def node_options(options: dict[str, str], drive: Drive, *, read_only: bool) -> JSONObject:
    """The arguments of `blockdev-add` in a drive's options; none where it is empty."""
    for name, (words, complaint) in _WORDS.items():
        if options.get(name, words[0]) not in words:
            raise QMPError(complaint.format(options[name]))
    for name in ("werror", "rerror", "aio", "copy-on-read", "snapshot"):
        options.pop(name, None)
    if "discard" in options:
        options["discard"] = _DISCARD.get(options["discard"], options["discard"])
    cache = {**_CACHES[options.pop("cache", "writeback")]}
    drive.writeback = cache.pop("writeback", True)
    alias = options.pop("readonly", "off")
    told = options.setdefault("read-only", "on" if read_only else alias)
    if told not in ("on", "off"):
        raise QMPError("Parameter 'read-only' expects 'on' or 'off'")
    drive.read_only = told == "on"
    kind = options.pop("format", None)
    if kind is not None and "driver" in options:
        raise QMPError("Cannot specify both 'driver' and 'format'")
    kind = kind or options.pop("driver", PROBED)
    path = options.pop("file", "")
    if not (path or kind or names_something(options)):
        if options.keys() - {"read-only", "discard", "detect-zeroes", "node-name"}:
            raise QMPError("Must specify either driver or file")
        return {}
    protocol = None if "file.driver" in options else re.match(_PROTOCOL, path)
    if protocol is not None and protocol[0].startswith("null-") and protocol[0] in DRIVERS:
        if path != f"{protocol[0]}://":
            raise QMPError(f"The only allowed filename for this driver is '{protocol[0]}://'")
        options["file.driver"] = protocol[0]
    elif protocol is not None and protocol[0] != "file":
        raise QMPError(f"memd has no block driver '{protocol[0]}'")
    elif path:
        options |= {"file.driver": "file", "file.filename": path.removeprefix("file:")}
    cached = {f"cache.{each}": "on" for each in cache}
    return {"driver": kind, "discard": "unmap", "auto-read-only": "on", **cached, **options}


def take_limits(options: dict[str, str]) -> dict[str, str]:
    """Take the limits of throughput out of a drive's options; raises `QMPError`."""
    limits: dict[str, str] = {}
    for each, option in LIMIT_OPTIONS.items():
        if each in options and option in options:
            raise QMPError(f"'{option}' and its alias '{each}' can't be used at the same time")
        for given in (each, option):
            if given in options:
                limits[each] = options.pop(given)
    return limits


def names_something(options: dict[str, str]) -> bool:
    """Whether options have a driver or a file."""
    return any(each == "driver" or each.partition(".")[0] == "file" for each in options)


def checked(wanted: JSONObject, typed: Typed) -> JSONObject:
    """The arguments with their types; complaints are about options of a driver.

    Args:
        wanted: of `blockdev-add`, by their dotted names, as texts.
        typed: gives them.
    """
    kind = wanted["driver"]
    try:
        return {**typed({**wanted, "driver": kind or "raw"}), "driver": kind}
    except QMPError as error:
        if match := re.fullmatch(_UNKNOWN, error.desc):
            raise QMPError(f"Unknown driver '{match[1]}'") from None
        if error.desc in _MISSING:
            raise QMPError(_MISSING[error.desc]) from None
        if match := re.fullmatch(_UNEXPECTED, error.desc):
            of_file = any(each.partition(".")[0] == "file" for each in wanted)
            what, does = ("format", "does not") if of_file else ("protocol", "doesn't")
            raise QMPError(
                f"Block {what} '{kind or 'raw'}' {does} support the option '{match[1]}'"
            ) from None
        raise
