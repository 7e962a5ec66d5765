"""Limits of throughput: what they are called, and which contradict each other.

Nothing is held back. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.errors import QMPError

LIMITS = {
    f"{kind}{short}": f"{kind}-{part}"
    for kind in ("bps", "iops")
    for short, part in (("", "total"), ("_rd", "read"), ("_wr", "write"))
}
"""The limits of throughput as `block_set_io_throttle` has them, and as a throttle group does."""

_BUCKETS = tuple(LIMITS.values())

NO_LIMITS: dict[str, int] = {
    **dict.fromkeys(_BUCKETS, 0),
    **{f"{bucket}-max": 0 for bucket in _BUCKETS},
    **{f"{bucket}-max-length": 1 for bucket in _BUCKETS},
    "iops-size": 0,
}
"""QAPI `ThrottleLimits`, as they are where none is set."""

_HIGHEST = 10**15

_LONGEST = (1 << 32) - 1


def check_limits(limits: dict[str, int]) -> None:
    """Raise `QMPError` where limits of throughput contradict each other.

    Args:
        limits: all of `NO_LIMITS`.
    """
    for name, value in limits.items():
        if name.endswith("-length") and value > _LONGEST:
            raise QMPError(f"{name} value must be in the range [0, {_LONGEST}]")
    for kind in ("bps", "iops"):
        for end in ("", "-max"):
            parts = limits[f"{kind}-read{end}"] or limits[f"{kind}-write{end}"]
            if limits[f"{kind}-total{end}"] and parts:
                raise QMPError(
                    "bps/iops/max total values and read/write values cannot be used at the same"
                    " time"
                )
    if limits["iops-size"] and not any(limits[name] for name in _BUCKETS[3:]):
        raise QMPError("iops size requires an iops value to be set")
    for bucket in _BUCKETS:
        _check_bucket(limits[bucket], limits[f"{bucket}-max"], limits[f"{bucket}-max-length"])


def _check_bucket(average: int, most: int, length: int) -> None:
    if not (0 <= average <= _HIGHEST and 0 <= most <= _HIGHEST):
        raise QMPError(f"bps/iops/max values must be within [0, {_HIGHEST}]")
    if not length:
        raise QMPError("the burst length cannot be 0")
    if length != 1 and not most:
        raise QMPError("burst length set without burst rate")
    if most and not average:
        raise QMPError("bps_max/iops_max require corresponding bps/iops values")
    if most and most < average:
        raise QMPError("bps_max/iops_max cannot be lower than bps/iops")
    if most * (length % (1 << 32)) > _HIGHEST:
        raise QMPError("burst length too high for this burst rate")
