"""Who is at the other end of a connection, as the kernel says."""

from __future__ import annotations

from memd.named_tuple import NamedTuple


class Peer(NamedTuple):
    """A process on this machine, as it was when it connected.

    Attributes:
        pid: its process id in our PID namespace; 0 where it is in another one.
        uid: its effective user id.
        gid: its effective group id.
        groups: its supplementary group ids; empty where the kernel does not
            tell them.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]

    def __repr__(self) -> str:
        return f"pid {self.pid}, uid {self.uid}, gid {self.gid}"
