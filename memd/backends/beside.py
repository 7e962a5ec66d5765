"""Work on memory in a worker thread, which keeps it mapped meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from memd.outcome import JSON, Blocking, Event

if TYPE_CHECKING:
    from memd.hostmem.region import Region


def beside(
    regions: Iterable[Region],
    work: Callable[[], Any],
    finish: Callable[[Any], JSON] = lambda value: value,
    failed: Callable[[BaseException], None] = lambda _error: None,
    *,
    progress: Callable[[], Event | None] | None = None,
    cancel: Callable[[], None] | None = None,
    copies: int = 0,
) -> Blocking:
    """Work beside the event loop; the regions are pinned from now until its end.

    Args:
        regions: that `work` touches.
        work, finish, failed, progress, cancel, copies: see `Blocking`.
    """
    held = tuple(regions)
    for region in held:
        region.pin()

    def pinned() -> Any:
        try:
            return work()
        finally:
            for region in held:
                region.unpin()

    return Blocking(pinned, finish, failed, progress=progress, cancel=cancel, copies=copies)
