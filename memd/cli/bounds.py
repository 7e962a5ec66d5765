"""Options that bound what clients may take: `--max-clients` and its like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.errors import QMPError

if TYPE_CHECKING:
    from memd.config import Config

NAMES = (
    *("max-clients", "max-clients-per-user", "max-descriptors", "max-descriptors-per-user"),
    *("max-held", "max-held-output", "max-memory", "max-memory-per-user", "max-message"),
    *("max-objects", "max-tokens", "negotiation-timeout"),
)
"""The options, each of which takes a number or a size."""


def set_bound(config: Config, name: str, value: str) -> None:
    """Take an option.

    Args:
        name: one of `NAMES`.
        value: as it was written.

    Raises:
        QMPError: it is not a value that the option takes.
    """
    from memd.server.limits import MIN_HELD, MIN_MESSAGE, MIN_TOKENS
    from memd.wire.limits import MAX_OPEN_TOKEN_BYTES, MAX_TOKEN_COUNT

    sizes: dict[str, tuple[int, ...]] = {
        "max-held": (MIN_HELD,),
        "max-held-output": (MIN_HELD,),
        "max-memory": (),
        "max-memory-per-user": (),
        "max-message": (MIN_MESSAGE, MAX_OPEN_TOKEN_BYTES),
    }
    number = size_of(name, value, *sizes[name]) if name in sizes else _number(name, value)
    if name == "max-tokens" and not MIN_TOKENS <= number <= MAX_TOKEN_COUNT:
        raise QMPError(
            f"Parameter '{name}' expects a number from {MIN_TOKENS} to {MAX_TOKEN_COUNT}"
        )
    member = name.replace("-", "_")
    if name.startswith(("max-memory", "max-objects")):
        config.quota[member] = number
    else:
        config.limits[member.removeprefix("max_").removesuffix("_timeout")] = number


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 9:
        raise QMPError(f"Parameter '{name}' expects a number")
    return int(value)


def size_of(name: str, value: str, least: int = 0, most: int | None = None) -> int:
    """A size that an option is given, in bytes.

    Args:
        name: the option's.
        value: as it was written.
        least: bytes that it has to be at least.
        most: bytes that it may be at most.

    Raises:
        QMPError: it is none, or another one.
    """
    from memd.qapi.numbers import SIZE_HINT, parse_size

    size = parse_size(value)
    if size is None:
        raise QMPError(f"Parameter '{name}' expects a size", hint=SIZE_HINT)
    if size < least:
        raise QMPError(f"Parameter '{name}' expects at least {least} bytes")
    if most is not None and size > most:
        raise QMPError(f"Parameter '{name}' expects at most {most} bytes")
    return size
