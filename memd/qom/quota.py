"""How much clients may make: objects, and bytes of memory, all together and each user."""

from __future__ import annotations

import threading

from memd.errors import QMPError
from memd.places import Places, check_descriptors, whom

NOBODY = None
"""The owner of what the command line makes: counted, but for no user."""


class Charge:
    """The share of one object in a quota, from the moment its id is taken.

    Its memory may be there for longer than the object: while a thread works on it
    yet. Both ends may come in any order, more than once, and from any thread.
    """

    __slots__ = ("_descriptors", "_held", "_object", "_quota", "owner", "size")

    def __init__(self, quota: Quota, owner: int | None, size: int, descriptors: int) -> None:
        self._quota = quota
        self._object = True
        self._held = False
        self._descriptors = descriptors
        self.owner = owner
        self.size = size

    def hold(self) -> None:
        """The object has its memory; `memory_freed` will tell of its end."""
        self._held = True

    def memory_freed(self) -> None:
        """The memory is no more."""
        with self._quota.lock:
            self._held = False
            if not self._object:
                self._give_back()

    def end(self) -> None:
        """The object is no more, or could not be made."""
        with self._quota.lock:
            if not self._object:
                return
            self._object = False
            self._quota.objects -= 1
            if not self._held:
                self._give_back()

    def _give_back(self) -> None:
        size, self.size = self.size, 0
        self._quota.count(-size, self.owner)
        while self._descriptors:
            self._descriptors -= 1
            self._quota.descriptors.give_back_soon(self.owner)


class Quota:
    """Counts what there is, and refuses what would be too much.

    Args:
        max_objects: how many there may be; 0 for any number.
        max_memory: bytes of all memory backends together; 0 for any number.
        max_memory_per_user: of those that one user's clients have made.

    Attributes:
        objects: how many there are, those that are being made included.
        memory: bytes of all memory backends.
        users: bytes by user id, of users that have any.
        descriptors: places of those that memory keeps open.
        lock: held to change these.
    """

    def __init__(
        self, *, max_objects: int = 0, max_memory: int = 0, max_memory_per_user: int = 0
    ) -> None:
        self.max_objects = max_objects
        self.max_memory = max_memory
        self.max_memory_per_user = max_memory_per_user
        self.objects = 0
        self.memory = 0
        self.users: dict[int, int] = {}
        self.descriptors = Places()
        # The end of memory may come in a worker thread.
        self.lock = threading.Lock()

    def check(
        self, id: str, size: int, owner: int | None, pooled: int = 0, descriptors: int = 0
    ) -> None:
        """Check that an object is within the limits.

        Args:
            id: for messages.
            size: bytes of its memory, 0 for none.
            owner: the user whose client makes it, `ANYBODY` or `NOBODY`.
            pooled: how many of these bytes a pool has, which are counted already.
            descriptors: that its memory keeps open.

        Raises:
            QMPError: it is not.
        """
        if 0 < self.max_objects <= self.objects:
            raise QMPError(
                f"cannot make object '{id}': there are {self.objects} objects,"
                f" --max-objects allows {self.max_objects}"
            )
        if descriptors:
            check_descriptors(self.descriptors, descriptors, owner)
        if size <= 0:
            return
        if 0 < self.max_memory < self.memory + size - pooled:
            raise QMPError(
                f"cannot make object '{id}' of {size} bytes: {self.memory} bytes are in use,"
                f" --max-memory allows {self.max_memory}"
            )
        if owner is None:
            return
        mine = self.users.get(owner, 0)
        if 0 < self.max_memory_per_user < mine + size:
            raise QMPError(
                f"cannot make object '{id}' of {size} bytes: {mine} bytes are in use by"
                f" {whom(owner)}, --max-memory-per-user allows {self.max_memory_per_user}"
            )

    def set_aside(self, size: int, descriptors: int) -> None:
        """Count memory that no object has, its bytes and descriptors; below 0 for no longer."""
        with self.lock:
            self.memory += size
        self.descriptors.take(NOBODY, descriptors)

    def charge(self, size: int, owner: int | None, descriptors: int = 0) -> Charge:
        """Count an object, also beyond the limits; see `check`."""
        with self.lock:
            self.objects += 1
            self.count(size, owner)
        if descriptors:
            self.descriptors.take(owner, descriptors)
        return Charge(self, owner, size, descriptors)

    def count(self, size: int, owner: int | None) -> None:
        """Count bytes more, or less; with the lock held."""
        self.memory += size
        if owner is None or not size:
            return
        left = self.users.get(owner, 0) + size
        if left:
            self.users[owner] = left
        else:
            del self.users[owner]
