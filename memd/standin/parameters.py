"""The parameters of migration, and what values they take, as in QEMU."""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSONObject

_VALUE = "expects a value between {} and {}"
_INTEGER = "expects an integer in the range of {} to {}"
_RANGES = {
    "throttle-trigger-threshold": (1, 100, _INTEGER),
    "cpu-throttle-initial": (1, 99, _INTEGER),
    "cpu-throttle-increment": (1, 99, _INTEGER),
    "downtime-limit": (0, 2000000, "expects an integer in the range of 0 to (2000 * 1000) ms"),
    "multifd-channels": (1, 255, _VALUE),
    "multifd-zlib-level": (0, 9, _VALUE),
    "multifd-qatzip-level": (1, 9, _VALUE),
    "multifd-zstd-level": (0, 20, _VALUE),
    "announce-initial": (0, 100000, _VALUE),
    "announce-max": (0, 100000, _VALUE),
    "announce-rounds": (0, 1000, _VALUE),
    "announce-step": (1, 10000, _VALUE),
    "x-vcpu-dirty-limit-period": (1, 1000, _VALUE),
    "vcpu-dirty-limit": (1, 1 << 64, "must be greater than 1 MB/s"),
}
_PAGE = 4096
_MIB = 1 << 20


def check_parameters(given: JSONObject, known: JSONObject, compat: Compat) -> None:
    """See whether parameters can be set.

    Args:
        given: what is to be set.
        known: all of them, as they would be then.
        compat: whose texts.

    Raises:
        QMPError: one has a value that it can't have.
    """
    for name, (low, high, text) in _RANGES.items():
        if name in given and not low <= given[name] <= high:
            # It is 0 that is said to begin the range of what has to be more.
            told = text.format(0 if name == "announce-step" else low, high)
            raise _wrong(name, told, compat)
    size = given.get("xbzrle-cache-size", _PAGE)
    if size < _PAGE or size & (size - 1):
        told = "expects a power of two no less than the target page size"
        raise _wrong("xbzrle-cache-size", told, compat)
    size = given.get("x-rdma-chunk-size", _MIB)
    if not _MIB <= size <= 1024 * _MIB or size & (size - 1):
        raise QMPError("Option x_rdma_chunk_size expects a power of 2 in the range 1MiB to 1024MiB")
    most = given.get("max-cpu-throttle", 99)
    if not known["cpu-throttle-initial"] <= most <= 99:
        lowest = _spelled("cpu-throttle-initial", compat)
        told = f"expects an integer in the range of {lowest} to 99"
        raise _wrong("max-cpu-throttle", told, compat)


def _spelled(name: str, compat: Compat) -> str:
    kept = name.startswith("x-") or compat is not Compat.V10_0
    return name if kept else name.replace("-", "_")


def _wrong(name: str, text: str, compat: Compat) -> QMPError:
    spelled = _spelled(name, compat)
    if compat is Compat.V10_0 or name == "vcpu-dirty-limit":
        return QMPError(f"Parameter '{spelled}' {text}")
    return QMPError(f"Option {spelled} {text}")
