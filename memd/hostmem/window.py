"""A file's bytes as memory, without a copy of them."""

from __future__ import annotations

import mmap


class Window:
    """A file that is mapped shared, from its beginning.

    The file has to keep its length as long as this is used.

    Args:
        fd: the file; it may be closed afterwards.
        length: bytes to map, more than none.
        writable: whether they can be written, for which the file has to be open
            for writing.

    Attributes:
        memory: the mapping.
        view: the same; slices of it stay valid until they are released.

    Raises:
        OSError: the kernel refused.
    """

    def __init__(self, fd: int, length: int, *, writable: bool = False) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.memory = mmap.mmap(fd, length, mmap.MAP_SHARED, protection)
        self.view = memoryview(self.memory)

    def close(self) -> None:
        """Unmap it; where slices of the view are in use still, with the last of them."""
        self.view.release()
        try:
            self.memory.close()
        except BufferError:
            pass
