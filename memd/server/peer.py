"""Who has connected: the kernel's word for it, which no client can forge."""

from __future__ import annotations

import array
import socket

from memd.hostmem.sockets import peer_credentials
from memd.places import ANYBODY
from memd.session.peer import Peer

_SO_PEERGROUPS = 59
_NO_USER = 0xFFFFFFFF

_GROUPS_SIZE = 1024
"""Bytes of group ids that are asked for, 256 ids; Python's getsockopt takes no more."""


def peer_of(sock: socket.socket) -> Peer | None:
    """The process that connected, or listens, at the other end of a socket.

    The credentials are those of the moment of connect(2), listen(2) or
    socketpair(2) (unix(7), SO_PEERCRED): a process that has dropped its
    privileges since, or has passed the socket on, does not show.

    Returns:
        None for what is not a UNIX socket, or is not connected.
    """
    if sock.family != socket.AF_UNIX:
        return None
    try:
        pid, uid, gid = peer_credentials(sock)
    except OSError:
        return None
    if uid == _NO_USER:
        return None
    return Peer(pid, uid, gid, _groups_of(sock))


def user_of(sock: socket.socket) -> int:
    """Whom a connection counts for: the user at its other end, or `ANYBODY`."""
    peer = peer_of(sock)
    return ANYBODY if peer is None else peer.uid


def _groups_of(sock: socket.socket) -> frozenset[int]:
    # Of a process in more groups than fit, none but its own is known: who may
    # connect by a group is then refused, never let in.
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:
        return frozenset()
    return frozenset(array.array("I", raw))
