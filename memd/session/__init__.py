"""One client's state: negotiation, capabilities, the order of answers. No sockets."""

from memd.session.peer import Peer
from memd.session.session import Dispatch, Monitor, Session, Transport

__all__ = ["Dispatch", "Monitor", "Peer", "Session", "Transport"]
