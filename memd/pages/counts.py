"""Where chunks were read from, counted together by all processes of a store."""

from __future__ import annotations

import fcntl
import os
import threading

from memd.hostmem.window import Window

_NAMES = ("stored", "kept", "fetched", "fetched-bytes", "damaged")


class Counts:
    """Sums since the memd that writes the store was started.

    `stored` chunks were read from the store, `kept` ones were fetched before,
    `fetched` ones came from a source, all requests together as `fetched-bytes`;
    `damaged` ones were not what they should be, wherever they came from.

    Args:
        path: of the file with the sums.
        reset: whether to begin anew.

    Raises:
        OSError: there can be no such file.
    """

    def __init__(self, path: str, *, reset: bool) -> None:
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if reset:
                os.pwrite(self._fd, bytes(8 * len(_NAMES)), 0)
            self._window = Window(self._fd, 8 * len(_NAMES), writable=True)
        except BaseException:
            os.close(self._fd)
            raise
        self._sums = self._window.view.cast("Q")

    def add(self, name: str, more: int = 1) -> None:
        """So many more."""
        with self._lock:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._sums[_NAMES.index(name)] += more
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self) -> dict[str, int]:
        """All sums."""
        return dict(zip(_NAMES, self._sums, strict=True))

    def close(self) -> None:
        """Count no more."""
        self._sums.release()
        self._window.close()
        os.close(self._fd)
