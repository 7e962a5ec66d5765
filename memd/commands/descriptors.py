"""Descriptors that clients leave with the daemon, by name or in a set, and inherited ones."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from memd.errors import NO_DESCRIPTOR, NoDescriptorError, QMPError
from memd.json_types import JSON
from memd.places import current_user
from memd.session import Session
from memd.session.descriptor import Descriptor

if TYPE_CHECKING:
    from memd.standin.chardevs import Held, TakeFd

_LONGEST = 4352
"""Characters of the name of a descriptor, or of what one in a set is told to be: a path, and what
it is for."""

_COMPARED = os.O_ACCMODE | os.O_DIRECT


class FdSets:
    """Sets of descriptors, by number; they outlive the client that sent them."""

    def __init__(self) -> None:
        # By the set's number and the descriptor's.
        self._sets: dict[int, dict[int, tuple[Held, str | None]]] = {}
        # A set is there while a copy of one of its descriptors is open.
        self._copies: dict[int, list[_Copy]] = {}

    def add(self, descriptor: Held, set_id: int | None, opaque: str | None) -> dict[str, int]:
        """Put a descriptor into a set, by default into a new one of the lowest free number.

        Returns:
            a QAPI `AddfdInfo`; its `fd` is the daemon's number for it.

        Raises:
            QMPError: where the set's number is negative; the descriptor is then closed.
        """
        if set_id is not None and set_id < 0:
            descriptor.close()
            raise QMPError("Parameter 'fdset-id' expects a non-negative value")
        self._forget_unused()
        if set_id is None:
            set_id = next(
                number for number in range(len(self._sets) + 1) if number not in self._sets
            )
        self._sets.setdefault(set_id, {})[descriptor.fd] = descriptor, opaque
        return {"fdset-id": set_id, "fd": descriptor.fd}

    def add_inherited(self, added: list[tuple[int, int, str | None]]) -> None:
        """Put descriptors into sets that the process was started with, and keep no other of them.

        Args:
            added: of each the number, the set's number and what it is told to be.
        """
        for fd, set_id, opaque in added:
            self.add(_Own(os.dup(fd)), set_id, opaque)
        for fd in {each[0] for each in added}:
            os.close(fd)

    def remove(self, set_id: int, fd: int | None) -> None:
        """Close one descriptor of a set, or all of them.

        Raises:
            QMPError: where there is no such set or descriptor.
        """
        self._forget_unused()
        fds = self._sets.get(set_id)
        if fds is None or (fd is not None and fd not in fds):
            which = f"fdset-id:{set_id}" + (f", fd:{fd}" if fd is not None else "")
            raise QMPError(f"File descriptor named '{which}' not found")
        for closing in [fd] if fd is not None else list(fds):
            descriptor, _opaque = fds.pop(closing)
            descriptor.close()

    def open(self, path: str, flags: int) -> _Copy:
        """A copy of a descriptor of a set that is open for the same access; it is not cut.

        Args:
            path: `/dev/fdset/N`, N being the set's number.
            flags: of open(2).

        Raises:
            NoDescriptorError: there is none.
        """
        from memd.hostmem.paths import FDSETS

        number = _descriptor_number(path.removeprefix(FDSETS))
        if number is None:
            raise NoDescriptorError(f"Could not parse fdset {path}", errno.EINVAL)
        self._forget_unused()
        if number not in self._sets:
            raise NoDescriptorError(f"Failed to find fdset {FDSETS}{number}", errno.ENOENT)
        for fd in self._sets[number]:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & _COMPARED == flags & _COMPARED:
                copy = _Copy(fd, flags)
                self._copies.setdefault(number, []).append(copy)
                return copy
        raise NoDescriptorError(
            f"Failed to find file descriptor with matching flags=0x{flags:x}", errno.EACCES
        )

    def _forget_unused(self) -> None:
        """Forget copies that are closed, and sets that nothing is left of."""
        for set_id, copies in [*self._copies.items()]:
            copies[:] = [each for each in copies if each.fd >= 0]
            if not copies:
                del self._copies[set_id]
        for set_id in [each for each, fds in self._sets.items() if not fds]:
            if set_id not in self._copies:
                del self._sets[set_id]

    def query(self) -> list[JSON]:
        """A QAPI `FdsetInfo` a set, the highest number first (observed on QEMU 10.0.2)."""
        self._forget_unused()
        return [
            {
                "fdset-id": set_id,
                "fds": [
                    {"fd": fd} if opaque is None else {"fd": fd, "opaque": opaque}
                    for fd, (_descriptor, opaque) in self._sets[set_id].items()
                ],
            }
            for set_id in sorted(self._sets, reverse=True)
        ]

    def close(self) -> None:
        """Close every descriptor."""
        for fds in self._sets.values():
            for descriptor, _opaque in fds.values():
                descriptor.close()
        self._sets.clear()


def take_descriptor(session: Session, called: str = "") -> Descriptor:
    """The descriptor that came along with a command.

    Args:
        called: what is kept of it: its name, or what it is told to be.

    Raises:
        QMPError: none came along, or too much would be kept of it, and it is closed.
    """
    descriptor = session.take_fd()
    if descriptor is None:
        raise QMPError(NO_DESCRIPTOR)
    if len(called) > _LONGEST:
        descriptor.close()
        raise QMPError(f"what a descriptor is called has {_LONGEST} characters at most")
    return descriptor


def take_fd(session: Session) -> TakeFd:
    """Takes what was named by getfd; it stays on its client's account until it is closed."""

    def take(name: str) -> Held:
        return session.monitor.fds.pop(name, None) or no_fd(name)

    return take


def no_fd(name: str) -> NoReturn:
    """Raise `QMPError`, as no descriptor has that name."""
    raise QMPError(f"File descriptor named '{name}' has not been found")


class _Own:
    """A descriptor that was there at the start, or is a copy, which counts with what it is for."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._user = current_user()

    def close(self) -> None:
        """Close it, at once or soon."""
        if self.fd >= 0:
            from memd.hostmem.closing import close

            fd, self.fd = self.fd, -1
            close(fd, user=self._user)


class _Copy(_Own):
    """A copy of a descriptor of a set, open with flags of open(2) as far as these can be changed.

    Without O_APPEND, with which Linux writes at the end wherever it was told to.

    Raises:
        NoDescriptorError: it can't be.
    """

    def __init__(self, source: int, flags: int) -> None:
        super().__init__(-1)
        self._source = source
        with self._made():
            self.fd = os.dup(source)
            there = fcntl.fcntl(self.fd, fcntl.F_GETFL)
            if (there ^ flags) & os.O_SYNC:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            # Not for one that only stands for a file (O_PATH). O_ASYNC stays as it is: to
            # change it takes a lock of a pipe's, or a socket's, which another process may have.
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | there & os.O_ASYNC)

    def truncate(self) -> None:
        """Cut its file, as opening it would; may wait. Raises `NoDescriptorError`."""
        with self._made():
            os.ftruncate(self.fd, 0)

    @contextmanager
    def _made(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            what = f"Failed to dup() given file descriptor fd={self._source}"
            raise NoDescriptorError(what, error.errno or errno.EINVAL) from None


def _descriptor_number(text: str) -> int | None:
    """The number of a descriptor, or of a set of them, in a text; None where it is none."""
    found = re.fullmatch(r"[ \t-\r]*\+?0*([0-9]{1,10})", text)
    return None if found is None or int(found[1]) >= 1 << 31 else int(found[1])


def inherited(name: str) -> Held:
    """The descriptor that a number names, once: memd's own can't be taken this way.

    Raises:
        QMPError: it is not a number, or not that of such a descriptor.
    """
    number = _descriptor_number(name)
    if number is None:
        raise QMPError(f"Invalid file descriptor number '{name}'")
    with suppress(OSError):
        # Whatever memd itself opens, or receives, is not inheritable.
        if number > 2 and os.get_inheritable(number):
            os.set_inheritable(number, False)
            return _Own(number)
    no_fd(name)
